//! The whole server: the order in which its parts start and stop.
//!
//! Start: data → engine → replication and housekeeping → listeners. Nobody is served before the
//! data are there. Stop: no new writes → replicas catch up → save → leave.

use std::{
    io,
    net::{SocketAddr, ToSocketAddrs},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use crate::{
    command::{
        effects::{FailedSave, LaggingReplicas, ShutdownMode, ShutdownRequest},
        host::PauseKind,
    },
    config::{Config, Loaded},
    engine::{
        Core, Engine, Shared, clock, cron,
        dropper::Dropper,
        encoding_limits, evict,
        facts::{About, EngineSource},
        huge_pages,
        pause::{Pauses, Purpose, UNTIL_ENDED},
        saving::Saving,
        stats::Stats,
        users::Users,
    },
    keyspace::{
        Keyspace,
        types::hashing::{self, Seeding},
    },
    managed::{self, DatasetOrigin, Managed, ManagedError},
    metrics,
    net::{io_threads, listener},
    persistence::{
        loader::{self, DatasetSink, ExpiredKeys, LoadError},
        snapshot::{self, SnapshotError},
    },
    replication::{
        Replication,
        replica::link,
        state::{Replica, ReplicaState},
    },
};

/// Why the server could not start. Each text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A port is taken, or an address is not ours.
    #[error(
        "cannot listen on {address}: {source}; choose another 'port' or 'bind', or stop the program that holds it"
    )]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// `bind` names something that is not an address.
    #[error("'bind' has '{0}', which is neither an address nor a name of this machine")]
    BindAddress(String),
    /// The log file cannot be written.
    #[error("cannot open the log file '{}': {source}; mend 'logfile' or the folder's rights", path.display())]
    LogFile {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A thread could not be made.
    #[error("cannot start a thread: {0}")]
    Thread(#[source] io::Error),
    /// The snapshot cannot be read.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The data could not be saved at the end.
    #[error("the dataset could not be saved on shutdown: {0}")]
    Save(#[source] SnapshotError),
    /// The membership of a replica set.
    #[error(transparent)]
    Managed(#[from] ManagedError),
    /// The work folder.
    #[error("cannot change to the folder '{}' (dir): {source}", path.display())]
    Dir {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// A running server.
pub struct Server {
    /// Its engine.
    pub engine: Arc<Engine>,
    /// Its membership of a replica set, where the operator runs it.
    managed: Option<Managed>,
}

impl Server {
    /// Starts everything.
    pub fn start(loaded: Loaded) -> Result<Self, StartError> {
        let Loaded {
            config,
            file,
            notes,
        } = loaded;
        for note in notes {
            tracing::warn!("{note}");
        }
        let dir = &config.persistence.dir;
        std::env::set_current_dir(dir).map_err(|source| StartError::Dir {
            path: dir.clone(),
            source,
        })?;
        if hashing::install_seed(rand::random()) == Seeding::TooLate {
            // Only where one process starts a second server: the first one's seed holds for both.
            tracing::debug!("the hash of collections has a seed already");
        }
        let listeners = bind_all(&config, config.net.port)?;
        let metrics = bind_all(&config, config.net.metrics_port)?;
        let threads = config.net.io_threads as usize;
        let mut users = Users::default();
        users.set_requirepass(config.security.requirepass.as_bytes());
        managed::admit_replication_user(&mut users, &config);
        let mut core = Core {
            users,
            replication: Replication::new(rand::random(), &config),
            stats: Stats::default(),
            about: About::new(rand::random(), 0),
            saving: Saving::new(clock::unix_ms() / 1000),
            dropper: Dropper::start().map_err(StartError::Thread)?,
            pauses: Pauses::default(),
            waiters: Vec::new(),
            shared: Arc::new(Shared::default()),
            encoding_limits: encoding_limits(&config.encoding),
            config_file: file,
            config,
        };
        let keyspace = Keyspace::new(core.config.memory.databases, rand::random());
        let mut keyspace = keyspace;
        prepare(&mut keyspace, &mut core);
        let engine = Engine::new(keyspace, core, rand::random());
        let dataset = load(&engine)?;
        let managed = start_managed(&engine, dataset)?;
        let walker = snapshot::start(engine.clone()).map_err(StartError::Thread)?;
        link::start(engine.clone()).map_err(StartError::Thread)?;
        io_threads::spawn("cron".to_owned(), cron::run(engine.clone()))
            .map_err(StartError::Thread)?;
        if !metrics.is_empty() {
            let source = Arc::new(EngineSource(engine.clone()));
            metrics::http::start(metrics, source).map_err(StartError::Thread)?;
        }
        io_threads::start(&engine, listeners, threads, walker.run()).map_err(StartError::Thread)?;
        Ok(Self { engine, managed })
    }

    /// Serves until SIGTERM, SIGINT or SHUTDOWN, then ends in good order.
    pub fn run_until_shutdown(self) -> Result<(), StartError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(StartError::Thread)?;
        runtime.block_on(async {
            use tokio::signal::unix::{SignalKind, signal};
            let mut terminate = signal(SignalKind::terminate()).map_err(StartError::Thread)?;
            let mut interrupt = signal(SignalKind::interrupt()).map_err(StartError::Thread)?;
            loop {
                tokio::select! {
                    _ = terminate.recv() => tracing::info!("SIGTERM received, shutting down"),
                    _ = interrupt.recv() => tracing::info!("SIGINT received, shutting down"),
                    () = self.engine.shared.shutdown.notified() => tracing::info!("SHUTDOWN asked for"),
                }
                if let Some(managed) = &self.managed {
                    managed.leave().await;
                }
                match self.end().await? {
                    Ended::Yes => break,
                    Ended::CalledOff => self.stay().await,
                }
            }
            if let Some(managed) = &self.managed {
                managed.exited_cleanly().await;
            }
            Ok(())
        })
    }

    /// The end in good order: no more writes, replicas catch up, the data are saved.
    async fn end(&self) -> Result<Ended, StartError> {
        let shared = &self.engine.shared;
        let request = *shared
            .shutdown_request
            .lock()
            .get_or_insert_with(ShutdownRequest::default);
        let (save, patience) = {
            let mut state = self.engine.lock();
            let config = &state.core.config;
            let patience = match request.replicas {
                LaggingReplicas::Await => config.net.shutdown_timeout,
                LaggingReplicas::Leave => Duration::ZERO,
            };
            let has_save_points = !config.persistence.save_points.is_empty();
            // Ended when the shutdown is called off.
            state
                .core
                .hold_clients(Purpose::Shutdown, PauseKind::Writes, UNTIL_ENDED);
            state.core.replication.request_acks();
            state.finish_batch();
            let save = match request.mode {
                ShutdownMode::Default => has_save_points,
                ShutdownMode::Save => true,
                ShutdownMode::NoSave => false,
            };
            (save, patience)
        };
        tokio::select! {
            () = self.wait_for_replicas(patience) => {}
            () = shared.shutdown_aborted.notified() => {
                tracing::info!("the shutdown is called off (SHUTDOWN ABORT)");
                return Ok(Ended::CalledOff);
            }
        }
        if save && let Err(error) = snapshot::save(&self.engine).await {
            match request.failed_save {
                FailedSave::Leave => {
                    tracing::warn!(%error, "leaving without the data on disk (FORCE)")
                }
                // Its operator has other members with the data, and waits for this one.
                FailedSave::Stay if self.managed.is_some() => return Err(StartError::Save(error)),
                FailedSave::Stay => {
                    tracing::error!(%error, "the dataset could not be saved: the server stays");
                    return Ok(Ended::CalledOff);
                }
            }
        } else if save {
            tracing::info!("the dataset is saved");
        }
        tracing::info!("bye");
        Ok(Ended::Yes)
    }

    /// Serves on after a shutdown that was called off or failed.
    async fn stay(&self) {
        let shared = &self.engine.shared;
        // A SHUTDOWN ABORT that came too late must not end the next shutdown.
        tokio::select! {
            biased;
            () = shared.shutdown_aborted.notified() => {}
            () = std::future::ready(()) => {}
        }
        *shared.shutdown_request.lock() = None;
        self.engine.lock().core.release_clients(Purpose::Shutdown);
        shared.shutdown_called_off.notify_waiters();
    }

    /// Waits until every online replica has acknowledged everything, but not for ever.
    async fn wait_for_replicas(&self, patience: Duration) {
        const LOOK_EVERY: Duration = Duration::from_millis(10);
        let behind = || {
            let state = self.engine.lock();
            let replication = &state.core.replication;
            let offset = replication.offset();
            let online = |replica: &&Replica| replica.state == ReplicaState::Online;
            replication
                .replicas()
                .iter()
                .filter(online)
                .filter(|r| r.acked < offset)
                .count()
        };
        let caught_up = async {
            while behind() > 0 {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        if tokio::time::timeout(patience, caught_up).await.is_err() {
            tracing::warn!(
                replicas = behind(),
                "not every replica has caught up, leaving anyway"
            );
        }
    }
}

/// Whether a shutdown came to its end.
enum Ended {
    /// The process may leave.
    Yes,
    /// It was called off, or the data could not be saved.
    CalledOff,
}

/// Loads the snapshot in `dir`, if there is one. What it says of the replication history is taken
/// over, so that a restart costs a partial synchronization only.
fn load(engine: &Engine) -> Result<DatasetOrigin, StartError> {
    let mut state = engine.lock();
    if state.core.config.fleet.managed {
        // Before the data are there, so that their history is not taken for a master's.
        state.core.replication.await_master(clock::monotonic_ms());
    }
    if let Some(master) = state.core.config.replication.replica_of.clone() {
        state
            .core
            .replication
            .follow(master.host, master.port, clock::monotonic_ms());
    }
    let path = PathBuf::from(&state.core.config.persistence.db_file_name);
    // The data will be larger than the file: those need not wait until they have grown.
    huge_pages::permit_for(std::fs::metadata(&path).map_or(0, |file| file.len()));
    let sink = DatasetSink::new(
        state.keyspace.empty_like(),
        clock::unix_ms(),
        ExpiredKeys::Keep,
    );
    let limits = state.core.encoding_limits;
    let Some(dataset) = loader::load_file(&path, &limits, sink)? else {
        return Ok(DatasetOrigin::Nowhere);
    };
    let keys = dataset.keyspace.len();
    state.keyspace.replace_data(dataset.keyspace);
    if let (Some(id), Some(offset)) = (dataset.facts.id, dataset.facts.offset) {
        state
            .core
            .replication
            .restore(id, offset, dataset.facts.stream_db);
    }
    tracing::info!(keys, path = %path.display(), "the dataset is loaded");
    Ok(DatasetOrigin::Disk)
}

/// Makes the server a member of its replica set, if the operator runs it.
fn start_managed(
    engine: &Arc<Engine>,
    dataset: DatasetOrigin,
) -> Result<Option<Managed>, StartError> {
    let config = engine.lock().core.config.clone();
    if !config.fleet.managed {
        return Ok(None);
    }
    Ok(Some(Managed::start(engine, &config, dataset)?))
}

/// What must hold before the first command: limits from the configuration, and what an empty
/// server needs.
fn prepare(keyspace: &mut Keyspace, core: &mut Core) {
    evict::apply(&core.config.memory, keyspace);
    core.about.startup_bytes = keyspace.memory_mut().refresh(clock::unix_ms()).allocated;
    core.shared.input_limits.set(&core.config.net);
}

/// Listeners for `port` on the addresses of `bind`.
fn bind_all(config: &Config, port: u16) -> Result<Vec<std::net::TcpListener>, StartError> {
    if port == 0 {
        return Ok(Vec::new());
    }
    let mut listeners = Vec::new();
    for word in &config.net.bind {
        let optional = word.optional;
        let host = match word.host.as_str() {
            "*" => "0.0.0.0",
            "::*" => "::",
            other => other,
        };
        let mut resolved = (host, port)
            .to_socket_addrs()
            .map_err(|_| StartError::BindAddress(word.host.clone()))?;
        let address = resolved
            .next()
            .ok_or_else(|| StartError::BindAddress(word.host.clone()))?;
        match listener::bind(address, config.net.tcp_backlog as i32) {
            Ok(listener) => listeners.push(listener),
            Err(error) if optional => {
                tracing::warn!(%address, %error, "an optional address is not there");
            }
            Err(source) => return Err(StartError::Listen { address, source }),
        }
    }
    Ok(listeners)
}
