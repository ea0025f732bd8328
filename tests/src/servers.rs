//! Server processes for tests: ours and the peers' (Redis, Valkey), on free ports of loopback, in
//! folders of their own, killed when dropped.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;

use crate::{client::Client, ports::free_port};

/// Longest start of a server.
const START_DEADLINE: Duration = Duration::from_secs(60);
/// Longest good-natured end of a server.
const STOP_DEADLINE: Duration = Duration::from_secs(120);
/// How the folders of servers begin.
const PREFIX: &str = "redfleet-test-";
/// Pause between two looks at a condition.
const POLL: Duration = Duration::from_millis(10);

/// Which program serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Program {
    /// Ours.
    Redfleet,
    /// The machine's `redis-server`.
    Redis,
    /// The machine's `valkey-server`, version 8 where `tests/peers.sh` got it.
    Valkey,
    /// Valkey 9, whose snapshots have a format of their own.
    Valkey9,
}

impl Program {
    /// The program's file. Each can be named by an environment variable; a missing one is an error
    /// that says how to get it, never a skipped test.
    pub fn path(self) -> anyhow::Result<PathBuf> {
        let (variable, cure) = match self {
            Program::Redfleet => (
                "REDFLEET_SERVER",
                "build it: cargo build -p redfleet-server",
            ),
            Program::Redis => ("REDIS_SERVER", "install it: apt-get install redis-server"),
            Program::Valkey => ("VALKEY_SERVER", "get it: tests/peers.sh"),
            Program::Valkey9 => ("VALKEY9_SERVER", "get it: tests/peers.sh"),
        };
        if let Some(path) = std::env::var_os(variable) {
            return Ok(path.into());
        }
        let candidates = match self {
            Program::Redfleet => vec![beside_the_tests("redfleet-server")?],
            Program::Redis => vec![PathBuf::from("/usr/bin/redis-server")],
            Program::Valkey => vec![
                PathBuf::from("/usr/bin/valkey-server"),
                beside_the_tests("peers/valkey-server")?,
            ],
            Program::Valkey9 => vec![beside_the_tests("peers/valkey9/valkey-server")?],
        };
        let found = candidates.iter().find(|path| path.exists()).cloned();
        found.with_context(|| format!("{candidates:?} is not there ({variable}); {cure}"))
    }
}

/// A file in the folder of cargo's build that the running test belongs to.
pub fn beside_the_tests(name: &str) -> anyhow::Result<PathBuf> {
    let test = std::env::current_exe()?;
    let profile = test
        .parent()
        .and_then(Path::parent)
        .context("the test has no target folder")?;
    Ok(profile.join(name))
}

/// A running server.
pub struct Server {
    /// Its port.
    pub port: u16,
    program: Program,
    child: Child,
    folder: TempDir,
    file: Option<PathBuf>,
    /// Limits of open files, `soft:hard`, where they are not those of the test.
    open_files: Option<String>,
    options: Vec<String>,
}

impl Server {
    /// Starts `program` without persistence and waits until it answers; `options` come last and so
    /// win: `["--save", "900 1"]`.
    pub fn start(program: Program, options: &[&str]) -> anyhow::Result<Self> {
        Self::start_from(program, None, options)
    }

    /// The same with a configuration file, which comes before all options.
    pub fn start_with_file(
        program: Program,
        file: &Path,
        options: &[&str],
    ) -> anyhow::Result<Self> {
        Self::start_from(program, Some(file), options)
    }

    /// As [`Server::start`], with limits of open files, `soft:hard`.
    pub fn start_within(
        open_files: &str,
        program: Program,
        options: &[&str],
    ) -> anyhow::Result<Self> {
        let folder = TempDir::with_prefix(PREFIX)?;
        let mut server = Self::spawn_at(folder, program, None, Some(open_files), options)?;
        server.wait_ready()?;
        Ok(server)
    }

    fn start_from(program: Program, file: Option<&Path>, options: &[&str]) -> anyhow::Result<Self> {
        let mut server = Self::spawn_from(program, file, options)?;
        server.wait_ready()?;
        Ok(server)
    }

    /// As [`Server::start`], without waiting for an answer.
    pub fn spawn(program: Program, options: &[&str]) -> anyhow::Result<Self> {
        Self::spawn_from(program, None, options)
    }

    /// As [`Server::spawn`], with the folder in memory where that can be: no disk of a busy machine comes between
    /// a member's lease and its end.
    pub fn spawn_in_memory(program: Program, options: &[&str]) -> anyhow::Result<Self> {
        let folder = TempDir::with_prefix_in(PREFIX, "/dev/shm")
            .or_else(|_| TempDir::with_prefix(PREFIX))?;
        Self::spawn_at(folder, program, None, None, options)
    }

    fn spawn_from(program: Program, file: Option<&Path>, options: &[&str]) -> anyhow::Result<Self> {
        let folder = TempDir::with_prefix(PREFIX)?;
        Self::spawn_at(folder, program, file, None, options)
    }

    fn spawn_at(
        folder: TempDir,
        program: Program,
        file: Option<&Path>,
        open_files: Option<&str>,
        options: &[&str],
    ) -> anyhow::Result<Self> {
        let options = options
            .iter()
            .map(|word| (*word).to_owned())
            .collect::<Vec<_>>();
        let port = free_port()?;
        let child = spawn(program, file, port, folder.path(), open_files, &options)?;
        Ok(Self {
            port,
            program,
            child,
            folder,
            file: file.map(Path::to_owned),
            open_files: open_files.map(str::to_owned),
            options,
        })
    }

    /// Starts a replica of `master`.
    pub fn replica_of(program: Program, master: &Server, more: &[&str]) -> anyhow::Result<Self> {
        let address = format!("127.0.0.1 {}", master.port);
        let options: Vec<&str> = ["--replicaof", &address]
            .iter()
            .chain(more)
            .copied()
            .collect();
        Self::start(program, &options)
    }

    /// A new connection.
    pub fn client(&self) -> anyhow::Result<Client> {
        Client::connect(self.port)
    }

    /// Its folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("server.log")).unwrap_or_default()
    }

    /// Its process id.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id() as i32)
    }

    /// The most memory that was resident since the start or the last [`Server::forget_peak_memory`].
    pub fn peak_memory_bytes(&self) -> anyhow::Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.trim().strip_suffix("kB"));
        let kib: u64 = kib.context("no VmHWM in /proc")?.trim().parse()?;
        Ok(kib * 1024)
    }

    /// Lets [`Server::peak_memory_bytes`] begin anew with what is resident now.
    pub fn forget_peak_memory(&self) -> anyhow::Result<()> {
        let path = format!("/proc/{}/clear_refs", self.pid());
        fs::write(&path, "5").with_context(|| path)
    }

    /// Whether the process still runs.
    pub fn is_running(&mut self) -> anyhow::Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// Waits until the process ends by itself; answers whether it left with status 0.
    pub fn wait_for_end(&mut self) -> anyhow::Result<bool> {
        eventually("the end of the process", STOP_DEADLINE, || {
            Ok(self.child.try_wait()?.map(|status| status.success()))
        })
    }

    /// Sends a signal. When SIGSTOP was sent, every thread stands still on return: until then one of them might
    /// still answer a client.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        kill(self.pid(), signal).with_context(|| format!("{signal} to {:?}", self.program))?;
        if signal != Signal::SIGSTOP {
            return Ok(());
        }
        eventually("every thread to stand still", STOP_DEADLINE, || {
            Ok(self.stands_still()?.then_some(()))
        })
    }

    fn stands_still(&self) -> anyhow::Result<bool> {
        for thread in std::fs::read_dir(format!("/proc/{}/task", self.pid()))? {
            let stat = std::fs::read_to_string(thread?.path().join("stat"))?;
            // The state follows the name, which is in parentheses and may hold anything.
            let state = stat
                .rsplit_once(") ")
                .and_then(|(_, rest)| rest.chars().next());
            if state != Some('T') {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Kills it at once, as a crash would.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Ends it by SIGTERM and waits for its end; answers whether it left with status 0.
    pub fn terminate(&mut self) -> anyhow::Result<bool> {
        self.signal(Signal::SIGTERM)?;
        let deadline = Instant::now() + STOP_DEADLINE;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status.success());
            }
            if Instant::now() > deadline {
                bail!("it did not end by SIGTERM; its log:\n{}", self.log());
            }
            std::thread::sleep(POLL);
        }
    }

    /// Starts it again on the same port and folder.
    pub fn restart(&mut self) -> anyhow::Result<()> {
        self.respawn()?;
        self.wait_ready()
    }

    /// As [`Server::restart`], without waiting for an answer.
    pub fn respawn(&mut self) -> anyhow::Result<()> {
        let file = self.file.as_deref();
        self.child = spawn(
            self.program,
            file,
            self.port,
            self.folder.path(),
            self.open_files.as_deref(),
            &self.options,
        )?;
        Ok(())
    }

    fn wait_ready(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + START_DEADLINE;
        loop {
            if let Some(status) = self.child.try_wait()? {
                bail!(
                    "{:?} ended at once ({status}); its log:\n{}",
                    self.program,
                    self.log()
                );
            }
            let reply = self.client().and_then(|mut client| client.text("PING"));
            // Asking for a password or for a master is an answer of a running server, too.
            let ready = reply.as_ref().is_ok_and(|text| {
                text == "PONG" || text.contains("NOAUTH") || text.contains("MASTERDOWN")
            });
            if ready {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("not ready: {reply:?}; its log:\n{}", self.log());
            }
            std::thread::sleep(POLL);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // A stopped process must be continued to be reaped; it may be gone already.
        let _continued = self.signal(Signal::SIGCONT);
        let _killed = self.child.kill();
        let _reaped = self.child.wait();
    }
}

fn spawn(
    program: Program,
    file: Option<&Path>,
    port: u16,
    folder: &Path,
    open_files: Option<&str>,
    options: &[String],
) -> anyhow::Result<Child> {
    let path = program.path()?;
    let log = fs::File::options()
        .create(true)
        .append(true)
        .open(folder.join("server.log"))?;
    let mut command = match open_files {
        None => Command::new(&path),
        Some(limits) => {
            // Becomes the server, with the same process id.
            let mut command = Command::new("prlimit");
            command.arg(format!("--nofile={limits}")).arg(&path);
            command
        }
    };
    command
        .args(file)
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1"]);
    command.arg("--dir").arg(folder).args(["--save", ""]);
    command
        .args(["--repl-diskless-sync-delay", "0"])
        .args(options);
    command
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log);
    command
        .spawn()
        .with_context(|| format!("starting {}", path.display()))
}

/// Looks until `probe` yields a value; fails with `what` after `deadline`.
pub fn eventually<T>(
    what: &str,
    deadline: Duration,
    mut probe: impl FnMut() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<T> {
    let started = Instant::now();
    loop {
        let last = match probe() {
            Ok(Some(value)) => return Ok(value),
            Ok(None) => None,
            Err(error) => Some(error),
        };
        if started.elapsed() > deadline {
            bail!("gave up waiting for {what} after {deadline:?}: {last:?}");
        }
        std::thread::sleep(POLL);
    }
}
