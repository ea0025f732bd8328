//! For tests of what speaks to Kubernetes: an API server that answers as the test says and keeps what it was asked, and
//! a [`Context`] over it with empty caches.

pub mod member;

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::Bytes,
    http::{Method, StatusCode, Uri, header::CONTENT_TYPE},
};
use kube::{Client, Config, runtime::events::Recorder};
use serde_json::{Value, json};
use tokio::{
    net::TcpListener,
    time::{sleep, timeout},
};

use crate::{
    context::{Context, Settings},
    controller::{Writers, caches},
    leader::gate::Gate,
    reconcile::validate::Defaults,
    telemetry::metrics::Metrics,
};

/// What the API server was asked.
#[derive(Clone, Debug)]
pub struct Request {
    /// `GET`, `PATCH` …
    pub method: String,
    /// Path without the query.
    pub path: String,
    /// The query, as it came.
    pub query: String,
    /// JSON, or null.
    pub body: Value,
}

/// An API server.
pub struct Api {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Api {
    /// Starts it; `answer` says status code and body.
    pub async fn start(answer: impl Fn(&Request) -> (u16, Value) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let requests: Arc<Mutex<Vec<Request>>> = Arc::default();
        let (kept, answer) = (Arc::clone(&requests), Arc::new(answer));
        let handler = move |method: Method, uri: Uri, body: Bytes| {
            let request = Request {
                method: method.to_string(),
                path: uri.path().to_owned(),
                query: uri.query().unwrap_or_default().to_owned(),
                body: serde_json::from_slice(&body).unwrap_or_default(),
            };
            let (code, body) = answer(&request);
            kept.lock().unwrap().push(request);
            let code = StatusCode::from_u16(code).unwrap();
            async move { (code, [(CONTENT_TYPE, "application/json")], body.to_string()) }
        };
        let router = Router::new().fallback(handler);
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { address, requests }
    }

    /// A client of it.
    pub fn client(&self) -> Client {
        client(self.address)
    }

    /// What it was asked so far.
    pub fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }

    /// The methods of what it was asked so far.
    pub fn methods(&self) -> Vec<String> {
        self.requests().into_iter().map(|r| r.method).collect()
    }
}

/// A refusal with this code.
pub fn refused(code: u16) -> (u16, Value) {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": "as the test says",
        "reason": "Test", "code": code,
    });
    (code, status)
}

fn client(address: SocketAddr) -> Client {
    Client::try_from(Config::new(format!("http://{address}").parse().unwrap())).unwrap()
}

/// A client of an API server that does not answer.
pub fn nowhere() -> Client {
    client(SocketAddr::from(([127, 0, 0, 1], 1)))
}

/// What an operator over `client` shares, and the writers of its empty caches.
pub fn context(client: Client) -> (Arc<Context>, Writers) {
    let (stores, writers) = caches();
    let context = Context {
        client: client.clone(),
        stores,
        gate: Gate::closed(),
        metrics: Arc::new(Metrics::new()),
        recorder: Recorder::new(client, "test".into()),
        settings: Settings {
            identity: "test".to_owned(),
            defaults: Defaults {
                server_image: "redfleet/server:1".to_owned(),
            },
        },
        started: Instant::now(),
    };
    (Arc::new(context), writers)
}

/// Waits until this holds.
pub async fn eventually(holds: impl Fn() -> bool) {
    let waited = async {
        while !holds() {
            sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(Duration::from_secs(10), waited).await.unwrap();
}
