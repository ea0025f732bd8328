//! A master that says what a test wants it to say: rubbish at any stage of the conversation with a replica.
//!
//! Owns a listener and one thread that serves one replica after the other by the test's own function; the
//! replica's requests are read by the `redis` crate's parser. Everything ends when the [`FakeMaster`] is dropped.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{Arc, Mutex, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use redis::{Parser, Value};

use crate::client::as_text;

/// Longest wait of the fake master for its replica.
const PEER_DEADLINE: Duration = Duration::from_secs(30);
/// A history that nobody else has.
pub const ID: &str = "0123456789abcdef0123456789abcdef01234567";

/// See the module's text.
pub struct FakeMaster {
    /// Where it listens.
    pub port: u16,
    shared: Arc<Mutex<Shared>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    attempts: Vec<Instant>,
    current: Option<TcpStream>,
    ended: bool,
}

/// The replica as the fake master sees it.
pub struct Peer {
    stream: TcpStream,
    parser: Parser,
}

impl FakeMaster {
    /// Serves every replica that connects by `play`, whose errors (the replica went away) are expected.
    pub fn start(
        play: impl Fn(&mut Peer) -> io::Result<()> + Send + 'static,
    ) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let port = listener.local_addr()?.port();
        let shared = Arc::new(Mutex::new(Shared::default()));
        let seen = shared.clone();
        let thread = thread::spawn(move || serve(&listener, &seen, play));
        Ok(Self {
            port,
            shared,
            thread: Some(thread),
        })
    }

    /// When a replica has connected, each time.
    pub fn attempts(&self) -> Vec<Instant> {
        lock(&self.shared).attempts.clone()
    }
}

fn lock(shared: &Mutex<Shared>) -> std::sync::MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

fn serve(
    listener: &TcpListener,
    shared: &Mutex<Shared>,
    play: impl Fn(&mut Peer) -> io::Result<()>,
) {
    for stream in listener.incoming() {
        let mut state = lock(shared);
        let Ok(stream) = stream else { continue };
        if state.ended {
            return;
        }
        state.attempts.push(Instant::now());
        state.current = stream.try_clone().ok();
        drop(state);
        if let Ok(mut peer) = Peer::new(stream) {
            // What the replica makes of it is what the test looks at.
            let _ended = play(&mut peer);
        }
        lock(shared).current = None;
    }
}

impl Drop for FakeMaster {
    fn drop(&mut self) {
        let mut state = lock(&self.shared);
        state.ended = true;
        if let Some(stream) = state.current.take() {
            // It may be closed already.
            let _closed = stream.shutdown(Shutdown::Both);
        }
        drop(state);
        // Wakes the thread out of waiting for a connection.
        let _woken = TcpStream::connect(("127.0.0.1", self.port));
        if let Some(thread) = self.thread.take() {
            let _joined = thread.join();
        }
    }
}

impl Peer {
    fn new(stream: TcpStream) -> io::Result<Self> {
        stream.set_read_timeout(Some(PEER_DEADLINE))?;
        stream.set_write_timeout(Some(PEER_DEADLINE))?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            parser: Parser::new(),
        })
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.stream.write_all(bytes.as_ref())
    }

    /// The replica's next request, in words.
    pub fn request(&mut self) -> io::Result<Vec<String>> {
        match self.parser.parse_value(&mut self.stream) {
            Ok(Value::Array(words)) => Ok(words.iter().map(as_text).collect()),
            Ok(other) => Err(io::Error::other(format!("no request: {other:?}"))),
            Err(error) => Err(io::Error::other(error)),
        }
    }

    /// Answers everything as a master would until the request `name` has come, which is left unanswered and returned.
    pub fn until(&mut self, name: &str) -> io::Result<Vec<String>> {
        loop {
            let request = self.request()?;
            match request.first().map(String::as_str) {
                Some(first) if first == name => return Ok(request),
                Some("PING") => self.send("+PONG\r\n")?,
                Some(_) | None => self.send("+OK\r\n")?,
            }
        }
    }

    /// As a good master up to the answer that a full copy follows.
    pub fn announce_full_sync(&mut self) -> io::Result<()> {
        self.until("PSYNC")?;
        self.send(format!("+FULLRESYNC {ID} 1000\r\n"))
    }

    /// As a good master up to a continuation of whatever the replica holds.
    pub fn let_continue(&mut self) -> io::Result<()> {
        self.until("PSYNC")?;
        self.send("+CONTINUE\r\n")
    }

    /// Reads and forgets until the replica closes the connection.
    pub fn hold(&mut self) -> io::Result<()> {
        let mut sink = [0; 4096];
        while self.stream.read(&mut sink)? > 0 {}
        Ok(())
    }

    /// Sends `piece` again and again, at most `bytes` in all, until the replica closes the connection.
    pub fn flood(&mut self, piece: &[u8], bytes: usize) -> io::Result<()> {
        let block = piece.repeat((64 * 1024 / piece.len()).max(1));
        for _ in 0..bytes / block.len() + 1 {
            self.send(&block)?;
        }
        Ok(())
    }
}

/// A snapshot of version 10 with these sections, without a checksum.
pub fn snapshot(sections: &[u8]) -> Vec<u8> {
    [b"REDIS0010", sections, b"\xff\0\0\0\0\0\0\0\0"].concat()
}
