//! The I/O threads: each a runtime of its own that keeps the connections it was given.

use std::{io, sync::Arc, thread};

use tokio::{net::TcpStream, runtime, sync::mpsc};

use super::{connection::Connection, listener};
use crate::{
    engine::{Engine, clients::ClientHandle},
    replication, scheduling,
};

/// Accepted connections waiting for their thread, at most; beyond it the acceptor waits.
const MAX_PENDING_PER_THREAD: usize = 4096;

type Accepted = (std::net::TcpStream, Arc<ClientHandle>);

/// Starts `count` I/O threads (at least one) and a thread that accepts on `listeners` for them. The first one also does
/// `beside`, which must not take long between two places where it awaits.
pub fn start(
    engine: &Arc<Engine>,
    listeners: Vec<std::net::TcpListener>,
    count: usize,
    beside: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let mut senders = Vec::new();
    let mut beside = Some(beside);
    for index in 0..count.max(1) {
        let (sender, receiver) = mpsc::channel(MAX_PENDING_PER_THREAD);
        senders.push(sender);
        let (engine, beside) = (engine.clone(), beside.take());
        spawn(format!("io-{index}"), async move {
            scheduling::answer_soon();
            if let Some(beside) = beside {
                tokio::spawn(beside);
            }
            serve_accepted(engine, receiver).await;
        })?;
    }
    let engine = engine.clone();
    spawn("accept".to_owned(), accept_all(engine, listeners, senders))
}

/// Runs `work` on a thread and a single-threaded runtime of its own.
pub fn spawn(name: String, work: impl Future<Output = ()> + Send + 'static) -> io::Result<()> {
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    thread::Builder::new()
        .name(name)
        .spawn(move || runtime.block_on(work))?;
    Ok(())
}

async fn accept_all(
    engine: Arc<Engine>,
    listeners: Vec<std::net::TcpListener>,
    senders: Vec<mpsc::Sender<Accepted>>,
) {
    let senders = Arc::new(senders);
    let mut tasks = Vec::new();
    for listener in listeners {
        let (engine, senders) = (engine.clone(), senders.clone());
        tasks.push(tokio::spawn(async move {
            let shared = engine.shared.clone();
            let give = move |stream, handle: Arc<ClientHandle>| {
                let sender = &senders[handle.id as usize % senders.len()];
                let id = handle.id;
                if sender.try_send((stream, handle)).is_err() {
                    shared.clients.unregister(id);
                }
            };
            if let Err(error) = listener::accept(listener, engine, give).await {
                tracing::error!(%error, "a listener ended");
            }
        }));
    }
    for task in tasks {
        let _ended = task.await;
    }
}

async fn serve_accepted(engine: Arc<Engine>, mut accepted: mpsc::Receiver<Accepted>) {
    while let Some((stream, handle)) = accepted.recv().await {
        let id = handle.id;
        match TcpStream::from_std(stream) {
            Ok(stream) => {
                tokio::spawn(serve_one(engine.clone(), stream, handle));
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be registered");
                engine.shared.clients.unregister(id);
            }
        }
    }
}

async fn serve_one(engine: Arc<Engine>, stream: TcpStream, handle: Arc<ClientHandle>) {
    let id = handle.id;
    if let Some(handover) = Connection::new(stream, engine.clone(), handle)
        .serve()
        .await
    {
        replication::serve_replica(&engine, handover).await;
        engine.shared.clients.unregister(id);
    }
}
