//! The whole server: the order in which its parts start and stop.
//!
//! Start: engine → housekeeping, probes, listeners → data → links to other servers. Until the data are there, which are
//! loaded beside the engine and put in place at once, clients get `-LOADING` and the probes are answered. Stop: no new
//! writes → replicas catch up → save → leave; while the data are being loaded: leave.

use std::{
    io,
    net::{SocketAddr, ToSocketAddrs},
    path::PathBuf,
    sync::Arc,
    thread,
    time::Duration,
};

use tokio::{
    runtime::Runtime,
    signal::unix::{Signal, SignalKind, signal},
    sync::oneshot,
};

use crate::{
    REDIS_VERSION,
    command::{
        effects::{FailedSave, LaggingReplicas, ShutdownMode, ShutdownRequest},
        host::PauseKind,
    },
    config::{self, Config},
    descriptors::{self, Shortage},
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
        loader::{DatasetSink, DumpFile, ExpiredKeys, LoadError},
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
    /// The limit of open files leaves nothing for clients.
    #[error(
        "the hard limit of {limit} open files is too low to start; raise it to {needed} (ulimit -Hn, LimitNOFILE of the \
         service), or lower 'maxclients' and 'io-threads' and raise it to more than is left of that"
    )]
    Descriptors {
        /// The hard limit.
        limit: u64,
        /// What `maxclients` needs.
        needed: u64,
    },
    /// A thread could not be made.
    #[error("cannot start a thread: {0}")]
    Thread(#[source] io::Error),
    /// The snapshot cannot be read.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The thread that loads ended without a result: a bug.
    #[error("the thread that loads the dataset has died; its file stays as it is")]
    LoaderEnded,
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

/// The end of the load at the start.
type Loaded = oneshot::Receiver<Result<DatasetOrigin, LoadError>>;

/// A server that answers; its data may not be there yet.
pub struct Server {
    engine: Arc<Engine>,
    loaded: Loaded,
    runtime: Runtime,
    order: EndOrder,
}

/// A server with its data.
struct Running {
    engine: Arc<Engine>,
    /// Its membership of a replica set, where the operator runs it.
    managed: Option<Managed>,
}

impl Server {
    /// Starts to answer, and to load the dataset.
    pub fn start(startup: config::Loaded) -> Result<Self, StartError> {
        let config::Loaded {
            mut config,
            file,
            notes,
        } = startup;
        tracing::info!(
            version = env!("CARGO_PKG_VERSION"),
            redis_version = REDIS_VERSION,
            pid = std::process::id(),
            port = config.net.port,
            metrics_port = config.net.metrics_port,
            "redfleet-server starts"
        );
        for note in notes {
            tracing::warn!("{note}");
        }
        provide_descriptors(&mut config)?;
        if hashing::install_seed(rand::random()) == Seeding::TooLate {
            // Only where one process starts a second server: the first one's seed holds for both.
            tracing::debug!("the hash of collections has a seed already");
        }
        let listeners = bind_all(&config, config.net.port)?;
        let metrics = bind_all(&config, config.net.metrics_port)?;
        let mut users = Users::default();
        managed::admit_configured(&mut users, &config);
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
        let mut keyspace = Keyspace::new(core.config.memory.databases, rand::random());
        prepare(&mut keyspace, &mut core);
        let engine = Engine::new(keyspace, core, rand::random());
        take_first_role(&engine);
        // Before anybody is served, so that a command never sees the empty dataset before the loaded one.
        let loaded = begin_load(&engine)?;
        remove_own_leftovers(&engine);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(StartError::Thread)?;
        // Before anybody is answered: whoever was may send a signal, and expects the data to be saved.
        let order = EndOrder::new(&runtime, engine.clone()).map_err(StartError::Thread)?;
        serve(&engine, listeners, metrics).map_err(StartError::Thread)?;
        Ok(Self {
            engine,
            loaded,
            runtime,
            order,
        })
    }

    /// Serves until SIGTERM, SIGINT or SHUTDOWN, then ends in good order.
    pub fn run_until_shutdown(self) -> Result<(), StartError> {
        let mut order = self.order;
        let engine = self.engine.clone();
        let ended = self.runtime.block_on(async {
            let dataset = tokio::select! {
                dataset = self.loaded => dataset.map_err(|_| StartError::LoaderEnded)??,
                () = order.given() => {
                    tracing::info!("leaving while the dataset is being loaded: its file stays as it is");
                    return Ok(());
                }
            };
            let running = Running::start(self.engine, dataset)?;
            running.until_ordered_to_end(order).await
        });
        // A snapshot may be on its way; as in Redis, half of one is not left behind.
        snapshot::remove_unfinished(&engine.lock().core.config.rdb_path());
        ended
    }
}

/// Who may end the server: signals, and SHUTDOWN.
struct EndOrder {
    engine: Arc<Engine>,
    /// Kept and never looked at: the end of a terminal is not the server's, as in Redis. (SIGPIPE is ignored by Rust's
    /// runtime.)
    _hangup: Signal,
    terminate: Signal,
    interrupt: Signal,
}

impl EndOrder {
    /// Signals are kept from now on.
    fn new(runtime: &Runtime, engine: Arc<Engine>) -> io::Result<Self> {
        let _entered = runtime.enter();
        Ok(Self {
            engine,
            _hangup: signal(SignalKind::hangup())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Waits for the next one.
    async fn given(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => tracing::info!("SIGTERM received, shutting down"),
            _ = self.interrupt.recv() => tracing::info!("SIGINT received, shutting down"),
            () = self.engine.shared.shutdown.notified() => tracing::info!("SHUTDOWN asked for"),
        }
    }
}

impl Running {
    /// The data are there: other servers may be talked to.
    fn start(engine: Arc<Engine>, dataset: DatasetOrigin) -> Result<Self, StartError> {
        let managed = start_managed(&engine, dataset)?;
        link::start(engine.clone()).map_err(StartError::Thread)?;
        tracing::info!("ready to accept connections");
        Ok(Self { engine, managed })
    }

    async fn until_ordered_to_end(self, mut order: EndOrder) -> Result<(), StartError> {
        loop {
            order.given().await;
            if let Some(managed) = &self.managed {
                managed.leave().await;
            }
            match self.end().await? {
                Ended::Saved => {
                    if let Some(managed) = &self.managed {
                        managed.exited_cleanly().await;
                    }
                    return Ok(());
                }
                Ended::Unsaved => return Ok(()),
                Ended::CalledOff => self.stay().await,
            }
        }
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
        let ended = if save {
            self.save_at_the_end(request).await?
        } else {
            Ended::Unsaved
        };
        if !matches!(ended, Ended::CalledOff) {
            tracing::info!("bye");
        }
        Ok(ended)
    }

    /// Saves what there is when nothing comes any more.
    async fn save_at_the_end(&self, request: ShutdownRequest) -> Result<Ended, StartError> {
        match &self.managed {
            Some(managed) => managed.freeze().await,
            // What replicas get beyond the snapshot would cost them a full copy.
            None => self.engine.lock().core.replication.hold_stream(),
        }
        if let Err(error) = snapshot::save(&self.engine).await {
            match request.failed_save {
                FailedSave::Leave => {
                    tracing::warn!(%error, "leaving without the data on disk (FORCE)");
                    Ok(Ended::Unsaved)
                }
                // Its operator has other members with the data, and waits for this one.
                FailedSave::Stay if self.managed.is_some() => Err(StartError::Save(error)),
                FailedSave::Stay => {
                    tracing::error!(%error, "the dataset could not be saved: the server stays");
                    Ok(Ended::CalledOff)
                }
            }
        } else {
            tracing::info!("the dataset is saved");
            Ok(Ended::Saved)
        }
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
        let mut state = self.engine.lock();
        if self.managed.is_none() {
            state.core.replication.release_stream();
        }
        state.core.release_clients(Purpose::Shutdown);
        drop(state);
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
    /// The process may leave; its data are on disk.
    Saved,
    /// The process may leave; what is on disk was saved before.
    Unsaved,
    /// It was called off, or the data could not be saved.
    CalledOff,
}

/// Changes to the folder of all files. Comes before the log: a relative `logfile` is in it, as in Redis.
pub fn enter_dir(config: &Config) -> Result<(), StartError> {
    let dir = &config.persistence.dir;
    std::env::set_current_dir(dir).map_err(|source| StartError::Dir {
        path: dir.clone(),
        source,
    })
}

/// Raises the limit of open files to what `maxclients` needs, or lowers `maxclients` to what the limit allows.
fn provide_descriptors(config: &mut Config) -> Result<(), StartError> {
    let net = &mut config.net;
    let Err(shortage) = descriptors::provide(net.max_clients, net.io_threads) else {
        return Ok(());
    };
    let Shortage {
        clients,
        needed,
        limit,
    } = shortage;
    if clients == 0 {
        return Err(StartError::Descriptors { limit, needed });
    }
    tracing::warn!(
        wanted = net.max_clients,
        possible = clients,
        limit,
        "maxclients is lowered to what the hard limit of open files allows; for more, raise that limit to {needed} \
         (ulimit -Hn, LimitNOFILE of the service) and start anew"
    );
    net.max_clients = clients;
    Ok(())
}

/// The role before anything is known of other servers. Taken before the data are there, so that their history is not
/// taken for a master's, and before clients are, so that no write is accepted that a master would not know.
fn take_first_role(engine: &Engine) {
    let mut state = engine.lock();
    let core = &mut state.core;
    if core.config.fleet.managed {
        managed::shut_gate(&core.shared);
        core.replication.await_master(clock::monotonic_ms());
    }
    if let Some(master) = core.config.replication.replica_of.clone() {
        let now_ms = clock::monotonic_ms();
        core.replication.follow(master.host, master.port, now_ms);
    }
}

/// Starts what answers: commands, probes and the periodic work.
fn serve(
    engine: &Arc<Engine>,
    listeners: Vec<std::net::TcpListener>,
    metrics: Vec<std::net::TcpListener>,
) -> io::Result<()> {
    let threads = engine.lock().core.config.net.io_threads as usize;
    let walker = snapshot::start(engine.clone())?;
    io_threads::spawn("cron".to_owned(), cron::run(engine.clone()))?;
    if !metrics.is_empty() {
        metrics::http::start(metrics, Arc::new(EngineSource(engine.clone())))?;
    }
    io_threads::start(engine, listeners, threads, walker.run())
}

/// A member of a replica set has its folder for itself, and in a container always the same process id: what is there of a
/// snapshot under that id was left by a process before it. Others may share theirs with containers.
fn remove_own_leftovers(engine: &Engine) {
    let config = engine.lock().core.config.clone();
    if config.fleet.managed {
        snapshot::remove_unfinished(&config.rdb_path());
    }
}

/// Begins to load the snapshot in `dir`, if there is one, on a thread of its own.
fn begin_load(engine: &Arc<Engine>) -> Result<Loaded, StartError> {
    let (done, loaded) = oneshot::channel();
    let path = PathBuf::from(&engine.lock().core.config.persistence.db_file_name);
    let Some(file) = DumpFile::open(&path)? else {
        let _receiver_is_there = done.send(Ok(DatasetOrigin::Nowhere));
        return Ok(loaded);
    };
    let loading = &engine.shared.loading;
    loading.begin(clock::unix_ms() / 1000, file.bytes());
    let engine = engine.clone();
    thread::Builder::new()
        .name("load".to_owned())
        .spawn(move || {
            let result = load(&engine, file).map(|()| DatasetOrigin::Disk);
            // Without a receiver the server is leaving.
            let _receiver_may_be_gone = done.send(result);
        })
        .map_err(StartError::Thread)?;
    Ok(loaded)
}

/// Loads the snapshot aside and puts it in place. What it says of the replication history is taken over, so that a
/// restart costs a partial synchronization only.
fn load(engine: &Engine, file: DumpFile) -> Result<(), LoadError> {
    // The data will be larger than the file: those need not wait until they have grown.
    huge_pages::permit_for(file.bytes());
    let (empty, limits, checksums) = {
        let state = engine.lock();
        let checksums = state.core.checksums();
        let limits = state.core.encoding_limits;
        (state.keyspace.empty_like(), limits, checksums)
    };
    let sink = DatasetSink::new(empty, clock::unix_ms(), ExpiredKeys::Keep);
    let loading = &engine.shared.loading;
    let dataset = file.load(&limits, checksums, sink, |bytes| loading.advance(bytes))?;
    let keys = dataset.keyspace.len();
    let stream_db = dataset.stream_db().unwrap_or_else(|error| {
        tracing::warn!(%error, "the stream cannot go on behind the dataset: a replica asks for a full copy");
        None
    });
    let mut state = engine.lock();
    state.keyspace.replace_data(dataset.keyspace);
    if let (Some(id), Some(offset)) = (dataset.facts.id, dataset.facts.offset) {
        state.core.replication.restore(id, offset, stream_db);
    }
    loading.end();
    state.finish_batch();
    tracing::info!(keys, "the dataset is loaded");
    Ok(())
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
    let managed = Managed::start(engine, &config, dataset)?;
    // It keeps other processes out of the folder: whoever left files there has ended.
    snapshot::remove_leftovers(&config.rdb_path());
    Ok(Some(managed))
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
