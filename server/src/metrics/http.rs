//! The HTTP port: `/metrics`, `/livez`, `/readyz`.
//!
//! It has a thread and a runtime of its own, so that a scrape never takes time from clients and a busy I/O thread
//! never looks like a dead server. Liveness asks only whether this process still works; readiness asks whether it
//! should get traffic.

use std::io;
use std::sync::Arc;
use std::thread;

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};

use super::{Facts, prometheus};

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
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let serve = async move {
        let mut tasks = tokio::task::JoinSet::new();
        for listener in listeners {
            let app = router(source.clone());
            tasks.spawn(async move {
                let listener = tokio::net::TcpListener::from_std(listener)?;
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
