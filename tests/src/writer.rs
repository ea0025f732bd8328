//! A client that writes all the time and remembers what was acknowledged: what a fault costs its users.
//!
//! Used by the `e2e` tests. It knows nothing of Kubernetes: it writes to one address, the Service of the master, with a
//! time limit of its own on everything, connects anew after every error and never repeats a write whose answer is unknown.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// Writers side by side.
const WORKERS: usize = 4;
/// Longest wait of a worker for a connection or an answer.
const PATIENCE: Duration = Duration::from_millis(300);
/// Longest wait of whoever wants to know whether, not how fast: the machine may be busy.
const ANSWER_DEADLINE: Duration = Duration::from_secs(20);
/// The oldest copy of a password that has to be accepted: half of the shortest overlap that a test asks for.
const FRESH: Duration = Duration::from_secs(1);
/// Pause of a worker between an answer and its next write, and after an error.
const PACE: Duration = Duration::from_millis(5);
const AFTER_ERROR: Duration = Duration::from_millis(50);
/// The set that the numbers go into.
pub const KEY: &str = "acked";

/// A bare connection: one command, one answer.
pub struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
    patience: Duration,
}

impl Connection {
    /// Connects and logs in.
    pub async fn open(address: SocketAddr, password: &str) -> anyhow::Result<Self> {
        Self::open_within(address, password, ANSWER_DEADLINE).await
    }

    /// [`Self::open`] with a limit of its own for the connection and every answer, for those that ask again.
    pub async fn open_within(
        address: SocketAddr,
        password: &str,
        patience: Duration,
    ) -> anyhow::Result<Self> {
        let stream = timeout(patience, TcpStream::connect(address))
            .await
            .context("connecting")??;
        stream.set_nodelay(true)?;
        let mut connection = Self {
            stream,
            buffer: Vec::new(),
            patience,
        };
        connection.call(&["AUTH", password]).await?;
        Ok(connection)
    }

    /// Sends a command and returns its answer as lines of text, without their type marks. An error reply is an error.
    pub async fn call(&mut self, words: &[&str]) -> anyhow::Result<Vec<String>> {
        let mut request = format!("*{}\r\n", words.len());
        for word in words {
            request.push_str(&format!("${}\r\n{word}\r\n", word.len()));
        }
        let patience = self.patience;
        timeout(patience, async {
            self.stream.write_all(request.as_bytes()).await?;
            self.reply().await
        })
        .await
        .context("no answer in time")?
    }

    async fn line(&mut self) -> anyhow::Result<String> {
        loop {
            if let Some(end) = self.buffer.windows(2).position(|pair| pair == b"\r\n") {
                let line = String::from_utf8_lossy(&self.buffer[..end]).into_owned();
                self.buffer.drain(..end + 2);
                return Ok(line);
            }
            self.fill().await?;
        }
    }

    /// A text of this many bytes, which may hold ends of lines.
    async fn bulk(&mut self, length: usize) -> anyhow::Result<String> {
        while self.buffer.len() < length + 2 {
            self.fill().await?;
        }
        let text = String::from_utf8_lossy(&self.buffer[..length]).into_owned();
        self.buffer.drain(..length + 2);
        Ok(text)
    }

    async fn fill(&mut self) -> anyhow::Result<()> {
        let mut chunk = vec![0; 16 * 1024];
        let count = self.stream.read(&mut chunk).await?;
        ensure!(count > 0, "the connection was closed");
        self.buffer.extend_from_slice(&chunk[..count]);
        Ok(())
    }

    async fn reply(&mut self) -> anyhow::Result<Vec<String>> {
        let mut pending = 1_usize;
        let mut found = Vec::new();
        while pending > 0 {
            pending -= 1;
            let line = self.line().await?;
            let (kind, rest) = line.split_at_checked(1).context("an empty line")?;
            match kind {
                "*" => pending += rest.parse::<usize>().unwrap_or(0),
                "$" if rest == "-1" => found.push(String::new()),
                "$" => {
                    let length = rest.parse().context("the length of a text")?;
                    found.push(self.bulk(length).await?);
                }
                "-" => bail!("{rest}"),
                _ => found.push(rest.to_owned()),
            }
        }
        Ok(found)
    }
}

/// A client's copy of the published password.
#[derive(Clone, Debug)]
pub struct Copied {
    /// The password.
    pub password: String,
    /// When the Secret was asked for it.
    pub at: Instant,
}

/// Where the password comes from: read anew for every connection.
pub type PasswordSource = Arc<dyn Fn() -> Copied + Send + Sync>;

#[derive(Default)]
struct Log {
    acknowledged: Mutex<Vec<(u64, Instant)>>,
    errors: Mutex<Vec<(Instant, String)>>,
    refused_logins: AtomicU64,
    next: AtomicU64,
    stop: AtomicBool,
}

impl Log {
    fn acknowledge(&self, number: u64) {
        let mut all = self
            .acknowledged
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        all.push((number, Instant::now()));
    }

    fn fail(&self, text: String) {
        let mut all = self.errors.lock().unwrap_or_else(PoisonError::into_inner);
        all.push((Instant::now(), text));
    }
}

/// A running writer.
pub struct Writer {
    log: Arc<Log>,
    workers: JoinSet<()>,
}

/// How a writer uses its connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connections {
    /// One for as long as it lasts.
    Kept,
    /// A new login for every command.
    EveryCommand,
}

impl Writer {
    /// Starts writing numbers to the set [`KEY`] of the server at `address`.
    #[must_use]
    pub fn start(address: SocketAddr, password: PasswordSource, how: Connections) -> Self {
        let log = Arc::new(Log::default());
        let mut workers = JoinSet::new();
        for _ in 0..WORKERS {
            let (log, password) = (Arc::clone(&log), Arc::clone(&password));
            workers.spawn(async move { work(&log, address, &password, how).await });
        }
        Self { log, workers }
    }

    /// How many writes were acknowledged by now.
    #[must_use]
    pub fn count(&self) -> usize {
        self.log
            .acknowledged
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .len()
    }

    /// Stops writing and returns what happened.
    pub async fn stop(mut self) -> Account {
        self.log.stop.store(true, Ordering::Release);
        while self.workers.join_next().await.is_some() {}
        let take = |m: &Mutex<Vec<(u64, Instant)>>| {
            std::mem::take(&mut *m.lock().unwrap_or_else(PoisonError::into_inner))
        };
        let mut acknowledged = take(&self.log.acknowledged);
        acknowledged.sort_by_key(|(_, at)| *at);
        let errors = std::mem::take(
            &mut *self
                .log
                .errors
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
        );
        let refused_logins = self.log.refused_logins.load(Ordering::Acquire);
        Account {
            acknowledged,
            errors,
            refused_logins,
        }
    }
}

async fn work(log: &Log, address: SocketAddr, password: &PasswordSource, how: Connections) {
    let mut connection = None;
    while !log.stop.load(Ordering::Acquire) {
        let number = log.next.fetch_add(1, Ordering::AcqRel);
        let copied = password();
        match write(&mut connection, address, &copied, number).await {
            Ok(()) => {
                log.acknowledge(number);
                if how == Connections::EveryCommand {
                    connection = None;
                }
                sleep(PACE).await;
            }
            Err(error) => {
                connection = None;
                let text = format!("{error:#}");
                let refused = text.contains("WRONGPASS") || text.contains("NOAUTH");
                if refused && copied.at.elapsed() < FRESH {
                    log.refused_logins.fetch_add(1, Ordering::AcqRel);
                }
                log.fail(text);
                sleep(AFTER_ERROR).await;
            }
        }
    }
}

async fn write(
    connection: &mut Option<Connection>,
    address: SocketAddr,
    copied: &Copied,
    number: u64,
) -> anyhow::Result<()> {
    if connection.is_none() {
        *connection = Some(Connection::open_within(address, &copied.password, PATIENCE).await?);
    }
    let open = connection.as_mut().context("just opened")?;
    open.call(&["SADD", KEY, &number.to_string()])
        .await
        .map(drop)
}

/// What a writer met.
pub struct Account {
    acknowledged: Vec<(u64, Instant)>,
    errors: Vec<(Instant, String)>,
    /// Logins that were refused.
    pub refused_logins: u64,
}

impl Account {
    /// How many writes were acknowledged.
    #[must_use]
    pub fn count(&self) -> usize {
        self.acknowledged.len()
    }

    /// The longest time between two acknowledgements that began not before the last one before `fault`.
    #[must_use]
    pub fn outage(&self, fault: Instant) -> Duration {
        let first = self
            .acknowledged
            .partition_point(|(_, at)| *at < fault)
            .saturating_sub(1);
        let times: Vec<Instant> = self.acknowledged[first..]
            .iter()
            .map(|(_, at)| *at)
            .collect();
        times
            .windows(2)
            .map(|pair| pair[1] - pair[0])
            .max()
            .unwrap_or(Duration::MAX)
    }

    /// Numbers acknowledged before `limit` that `found` does not hold.
    #[must_use]
    pub fn missing(&self, found: &BTreeSet<u64>, limit: Option<Instant>) -> Vec<u64> {
        self.acknowledged
            .iter()
            .filter(|(_, at)| limit.is_none_or(|limit| *at < limit))
            .map(|(number, _)| *number)
            .filter(|number| !found.contains(number))
            .collect()
    }

    /// The different errors met after `fault`, with how often each.
    #[must_use]
    pub fn error_kinds(&self, fault: Instant) -> Vec<(String, usize)> {
        let mut kinds: Vec<(String, usize)> = Vec::new();
        for (_, text) in self.errors.iter().filter(|(at, _)| *at >= fault) {
            match kinds.iter_mut().find(|(kind, _)| kind == text) {
                Some((_, count)) => *count += 1,
                None => kinds.push((text.clone(), 1)),
            }
        }
        kinds
    }
}

/// The numbers that the server at `address` holds.
pub async fn numbers(address: SocketAddr, password: &str) -> anyhow::Result<BTreeSet<u64>> {
    let mut connection = Connection::open(address, password).await?;
    let members = connection.call(&["SMEMBERS", KEY]).await?;
    members
        .iter()
        .map(|text| text.parse().context("a number"))
        .collect()
}

/// Removes the numbers of an earlier writer from the master at `address`: those of the next one begin anew.
pub async fn forget_numbers(address: SocketAddr, password: &str) -> anyhow::Result<()> {
    let mut connection = Connection::open(address, password).await?;
    connection.call(&["DEL", KEY]).await.map(drop)
}
