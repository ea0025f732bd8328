//! The HTTP port: `/metrics`, `/livez`, `/readyz`.
//!
//! It has a thread and a runtime of its own, so that a scrape never takes time from clients and a busy I/O thread
//! never looks like a dead server. Liveness asks only whether this process still works; readiness asks whether it
//! should get traffic.
//!
//! Whoever reaches the port may hold a few connections for a few seconds and no more: see [`Places`].

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::thread;
use std::time::Duration;

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
    serve::Listener,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep};

use super::{Facts, prometheus};

/// What the connections of one listener may take.
#[derive(Debug, Clone, Copy)]
struct Places {
    /// Connections served at once; more wait in the system's queue.
    connections: usize,
    /// How long a connection may go on without a byte of an answer: one that asks nothing, or does not read, is closed.
    silence: Duration,
}

const PLACES: Places = Places {
    connections: 64,
    silence: Duration::from_secs(5),
};

/// Where the answers come from. Called on a thread that may block for the engine's lock.
pub trait Source: Send + Sync + 'static {
    /// All figures of this moment.
    fn facts(&self) -> Facts;

    /// Whether the process still works; never depends on another server.
    fn alive(&self) -> Health;

    /// Whether clients should be sent here.
    fn ready(&self) -> Health;
}

/// The answer of a probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// All is well.
    Good,
    /// It is not; the text says why.
    Bad(String),
}

/// Serves `source` on each of `listeners` until the process ends.
pub fn start(listeners: Vec<std::net::TcpListener>, source: Arc<dyn Source>) -> io::Result<()> {
    start_with(listeners, source, PLACES)
}

fn start_with(
    listeners: Vec<std::net::TcpListener>,
    source: Arc<dyn Source>,
    places: Places,
) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let serve = async move {
        let mut tasks = tokio::task::JoinSet::new();
        for listener in listeners {
            let app = router(source.clone());
            tasks.spawn(async move {
                let listener = Bounded {
                    listener: TcpListener::from_std(listener)?,
                    places: Arc::new(Semaphore::new(places.connections)),
                    silence: places.silence,
                };
                axum::serve(listener, app).await
            });
        }
        while let Some(ended) = tasks.join_next().await {
            tracing::error!(?ended, "the metrics port ended");
        }
    };
    thread::Builder::new()
        .name("metrics".to_owned())
        .spawn(move || runtime.block_on(serve))?;
    Ok(())
}

/// A listener that gives out a place with each connection.
struct Bounded {
    listener: TcpListener,
    places: Arc<Semaphore>,
    silence: Duration,
}

impl Listener for Bounded {
    type Io = BoundedStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (BoundedStream, SocketAddr) {
        // The semaphore is never closed; without a place the connection would only not be counted.
        let place = self.places.clone().acquire_owned().await.ok();
        let (stream, address) = Listener::accept(&mut self.listener).await;
        let stream = BoundedStream {
            stream,
            silence: self.silence,
            deadline: Box::pin(tokio::time::sleep(self.silence)),
            _place: place,
        };
        (stream, address)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection that ends when no byte of an answer went out for too long.
struct BoundedStream {
    stream: TcpStream,
    silence: Duration,
    deadline: Pin<Box<Sleep>>,
    _place: Option<OwnedSemaphorePermit>,
}

impl BoundedStream {
    fn poll_deadline(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        ready!(self.deadline.as_mut().poll(cx));
        Poll::Ready(io::ErrorKind::TimedOut.into())
    }

    fn wrote(
        &mut self,
        written: Poll<io::Result<usize>>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        match written {
            Poll::Ready(result) => {
                let later = Instant::now() + self.silence;
                self.deadline.as_mut().reset(later);
                Poll::Ready(result)
            }
            Poll::Pending => self.poll_deadline(cx).map(Err),
        }
    }
}

impl AsyncRead for BoundedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // Also for one that sends a byte now and then and never a whole request.
        if let Poll::Ready(error) = self.poll_deadline(cx) {
            return Poll::Ready(Err(error));
        }
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for BoundedStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.wrote(written, cx)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

fn router(source: Arc<dyn Source>) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .with_state(source)
}

/// Asks the source on a thread where it may block.
async fn ask<T: Send + 'static>(
    source: Arc<dyn Source>,
    question: impl FnOnce(&dyn Source) -> T + Send + 'static,
) -> Result<T, Response> {
    let answer = tokio::task::spawn_blocking(move || question(&*source)).await;
    answer
        .map_err(|error| (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response())
}

async fn metrics(State(source): State<Arc<dyn Source>>) -> Response {
    const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    match ask(source, |source| prometheus::render(source.facts())).await {
        Ok(Ok(text)) => ([(header::CONTENT_TYPE, OPEN_METRICS)], text).into_response(),
        Ok(Err(error)) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
        Err(response) => response,
    }
}

async fn livez(State(source): State<Arc<dyn Source>>) -> Response {
    probe(ask(source, |source| source.alive()).await)
}

async fn readyz(State(source): State<Arc<dyn Source>>) -> Response {
    probe(ask(source, |source| source.ready()).await)
}

fn probe(health: Result<Health, Response>) -> Response {
    match health {
        Ok(Health::Good) => (StatusCode::OK, "ok\n").into_response(),
        Ok(Health::Bad(why)) => {
            (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")).into_response()
        }
        Err(response) => response,
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{SocketAddr, TcpListener, TcpStream};

    use proptest::strategy::Strategy as _;

    use super::*;

    struct Loading;

    impl Source for Loading {
        fn facts(&self) -> Facts {
            Facts::default()
        }

        fn alive(&self) -> Health {
            Health::Good
        }

        fn ready(&self) -> Health {
            Health::Bad("loading the dataset".to_owned())
        }
    }

    fn fetch(address: SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).unwrap();
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    fn served(places: Places) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        start_with(vec![listener], Arc::new(Loading), places).unwrap();
        address
    }

    /// Those who hold all places without asking anything, or who ask slowly for ever, lose them.
    #[test]
    fn silent_connections_do_not_keep_the_probes_away() {
        let places = Places {
            connections: 4,
            silence: Duration::from_millis(300),
        };
        let address = served(places);
        let mut silent: Vec<TcpStream> = (0..12)
            .map(|_| TcpStream::connect(address).unwrap())
            .collect();
        for stream in &mut silent[..8] {
            stream.write_all(b"GET /livez HTTP/1.1\r\nHo").unwrap();
        }
        assert!(fetch(address, "/livez").starts_with("HTTP/1.1 200"));
        let mut rest = Vec::new();
        // Closed with or without a word about it.
        let _end = silent[0].read_to_end(&mut rest);
    }

    /// A connection that is used stays.
    #[test]
    fn a_scraper_may_keep_its_connection() {
        let places = Places {
            connections: 1,
            silence: Duration::from_secs(30),
        };
        let mut stream = TcpStream::connect(served(places)).unwrap();
        for _ in 0..20 {
            stream
                .write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
                .unwrap();
            let mut answer = [0; 12];
            stream.read_exact(&mut answer).unwrap();
            assert_eq!(&answer, b"HTTP/1.1 200");
            let mut byte = [0];
            let mut tail = Vec::new();
            while !tail.ends_with(b"\r\n\r\nok\n") {
                stream.read_exact(&mut byte).unwrap();
                tail.push(byte[0]);
            }
        }
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]

        /// Whatever is sent, the next one is answered.
        #[test]
        fn any_bytes_leave_the_port_alive(
            mut request in proptest::prop_oneof![
                proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300),
                "(GET|POST|PRI|X) (/metrics|/livez|[*]|/%2e%2e/x|http://a/b) HTTP/[0-9]\\.[0-9]\r\n(a: b\r\n|Content-Length: -1\r\n|Transfer-Encoding: chunked\r\n|: \r\n){0,4}\r\n"
                    .prop_map(String::into_bytes),
            ],
            close: bool,
        ) {
            static ADDRESS: std::sync::OnceLock<SocketAddr> = std::sync::OnceLock::new();
            let address = *ADDRESS.get_or_init(|| served(PLACES));
            if close {
                request.extend_from_slice(b"\r\n\r\n");
            }
            let mut stream = TcpStream::connect(address).unwrap();
            // The server may have closed the connection before it was all sent.
            let _sent = stream.write_all(&request);
            drop(stream);
            proptest::prop_assert!(fetch(address, "/livez").starts_with("HTTP/1.1 200"));
        }
    }

    #[test]
    fn probes_and_metrics_are_answered() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        start(vec![listener], Arc::new(Loading)).unwrap();
        assert!(fetch(address, "/livez").starts_with("HTTP/1.1 200"));
        let ready = fetch(address, "/readyz");
        assert!(
            ready.starts_with("HTTP/1.1 503") && ready.contains("loading the dataset"),
            "{ready}"
        );
        let metrics = fetch(address, "/metrics");
        assert!(
            metrics.contains("openmetrics-text") && metrics.contains("redis_up 1.0"),
            "{metrics}"
        );
        assert!(fetch(address, "/nothing").starts_with("HTTP/1.1 404"));
    }
}
