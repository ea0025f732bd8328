//! `redfleet-operator run`: puts the parts together and takes them apart in order.
//!
//! Start: logger, client, caches, HTTP port, watches; the Lease is asked for once the caches are full.
//! Stop, at SIGTERM or SIGINT: the queue and the guards first, then the Lease is given back so that
//! the next operator acts at once.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Instant,
};

use anyhow::Context as _;
use k8s_openapi::api::coordination::v1::Lease;
use kube::{
    Api, Client,
    runtime::events::{Recorder, Reporter},
};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::{oneshot, watch},
};
use tracing::info;

use redfleet_operator::{
    api::FIELD_MANAGER,
    context::{Context, Settings},
    controller::{self, Operator},
    leader::{elector::Elector, gate::Gate},
    options::RunOptions,
    reconcile::validate::Defaults,
    telemetry::{
        http::{self, Health},
        logging,
        metrics::Metrics,
    },
};

/// Runs the operator until it is told to stop.
///
/// # Errors
/// When it cannot start, or its HTTP port fails.
pub fn run(options: RunOptions) -> anyhow::Result<()> {
    logging::install(options.log_format, &options.log).context("installing the logger")?;
    // kube and tonic bring rustls; the process has one provider of cryptography, chosen here.
    rustls::crypto::ring::default_provider()
        .install_default()
        .map_err(|_| anyhow::anyhow!("a provider of cryptography is installed already"))?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(serve(options))
}

async fn serve(options: RunOptions) -> anyhow::Result<()> {
    let client = Client::try_default()
        .await
        .context("finding the API server")?;
    let metrics = Arc::new(Metrics::new());
    let (stores, writers) = controller::caches();
    let gate = Gate::closed();
    let reporter = Reporter {
        controller: FIELD_MANAGER.to_owned(),
        instance: Some(options.identity.clone()),
    };
    let context = Arc::new(Context {
        stores,
        gate: gate.clone(),
        metrics: Arc::clone(&metrics),
        recorder: Recorder::new(client.clone(), reporter),
        settings: Settings {
            identity: options.identity.clone(),
            defaults: Defaults {
                server_image: options.server_image.clone(),
            },
        },
        started: Instant::now(),
        client: client.clone(),
    });
    let (operator, news) = Operator::new(context);
    let (stop, stopped) = watch::channel(false);
    let listener = listen(options.http_address)
        .await
        .with_context(|| format!("listening on {}", options.http_address))?;
    let health = Health::new(metrics);
    let probes = tokio::spawn(http::serve(listener, health.clone(), stopped.clone()));
    let leases: Api<Lease> = Api::namespaced(client, &options.namespace);
    let elector = Elector::new(leases, options.lease_name.clone(), options.identity, gate);
    let (release, released) = watch::channel(false);
    let (compete, may_compete) = oneshot::channel();
    let held = tokio::spawn(elector.run(may_compete, released));
    info!(version = env!("CARGO_PKG_VERSION"), "operator started");
    let ready = move || {
        info!("caches are filled");
        health.set_ready();
        // An elector that has ended already needs no telling.
        let _ = compete.send(());
    };
    let work = tokio::spawn(controller::run(operator, writers, news, stopped, ready));
    wait_for_signal().await?;
    info!("stopping");
    stop.send_replace(true);
    work.await.context("stopping the watches")?;
    release.send_replace(true);
    held.await.context("giving the lease back")?;
    probes
        .await
        .context("stopping the HTTP port")?
        .context("the HTTP port failed")
}

/// Where the machine has no IPv6, the address that means all addresses is the one of IPv4.
async fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let any = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), address.port());
    match TcpListener::bind(address).await {
        Err(_) if address == SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), address.port()) => {
            TcpListener::bind(any).await
        }
        bound => bound,
    }
}

async fn wait_for_signal() -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("waiting for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("waiting for SIGINT")?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}
