//! What a replica says to a master until data flow, as a machine without I/O.
//!
//! Owns the order of the exchange and the meaning of each answer. Driven by `link.rs`, which sends
//! what [`Handshake::start`] and [`Handshake::on_line`] return and feeds each line of the master.
//!
//! ```text
//! PING → [AUTH] → REPLCONF listening-port, [ip-address], capa (pipelined) → PSYNC
//!   +CONTINUE [id]          the stream goes on after our offset
//!   +FULLRESYNC id offset   a snapshot follows, then the stream
//!   -NOMASTERLINK, -LOADING try again later, nothing lost
//!   -anything else          the master knows no PSYNC: SYNC, a snapshot at once
//! ```

use thiserror::Error;

use super::super::identity::ReplId;

/// Longest line that a master may send during the handshake.
pub const MAX_LINE_BYTES: usize = 4096;

/// What the replica says about itself and what it holds.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// `masteruser`, empty for none.
    pub user: Vec<u8>,
    /// `masterauth`, empty for none.
    pub password: Vec<u8>,
    /// Port that the master shows for this replica.
    pub listening_port: u16,
    /// `replica-announce-ip`, empty for none.
    pub announce_ip: Vec<u8>,
    /// The history held, or `None` for a replica without usable data.
    pub position: Option<Position>,
    /// Ask the other side to become master first (the end of a `FAILOVER`).
    pub failover: Takeover,
}

/// A place in a history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// The history.
    pub id: ReplId,
    /// Everything up to here is held.
    pub offset: u64,
}

/// Whether the peer is asked to take the master's role over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Takeover {
    /// It is the master already.
    #[default]
    No,
    /// It shall promote itself: `PSYNC … FAILOVER`.
    Requested,
}

/// What to do after a line.
#[derive(Debug, PartialEq, Eq)]
pub enum Action {
    /// Send these bytes and read on.
    Send(Vec<u8>),
    /// Read on.
    Wait,
    /// The stream continues after our offset; the master may have a new id.
    Continue(Option<ReplId>),
    /// A snapshot follows, then the stream after this position.
    FullSync(Position),
    /// A snapshot follows; the master has no offsets (answer to `SYNC`).
    FullSyncWithoutOffset,
}

/// Why the link cannot be made now.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum HandshakeError {
    /// The master asks to come back later; nothing is lost.
    #[error("the master is not ready: {0}")]
    TryLater(String),
    /// Authentication failed or is missing.
    #[error("the master refused our authentication: {0}")]
    Authentication(String),
    /// The master answered what no master answers.
    #[error("unexpected answer to {request}: {answer}")]
    Unexpected {
        /// What was asked.
        request: &'static str,
        /// What came back.
        answer: String,
    },
    /// The master refused to take the role over.
    #[error("failover target rejected psync request: {0}")]
    TakeoverRejected(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Ping,
    Auth,
    /// This many answers to REPLCONF are outstanding.
    Replconf(u8),
    Psync,
}

/// The machine.
#[derive(Debug)]
pub struct Handshake {
    settings: Settings,
    step: Step,
}

impl Handshake {
    /// The machine and the bytes that open the conversation.
    pub fn start(settings: Settings) -> (Self, Vec<u8>) {
        let mut out = Vec::new();
        resp::encode_command(&mut out, [b"PING".as_slice()]);
        (
            Self {
                settings,
                step: Step::Ping,
            },
            out,
        )
    }

    /// Takes one line of the master, without its end.
    pub fn on_line(&mut self, line: &[u8]) -> Result<Action, HandshakeError> {
        match self.step {
            Step::Ping => self.after_ping(line),
            Step::Auth if line.starts_with(b"+") => Ok(self.announce()),
            Step::Auth => Err(HandshakeError::Authentication(text(line))),
            // Errors to any of these are tolerated: the master may not know the option.
            Step::Replconf(_) if !line.starts_with(b"+") && !line.starts_with(b"-") => {
                Err(unexpected("REPLCONF", line))
            }
            Step::Replconf(0 | 1) => Ok(self.psync()),
            Step::Replconf(left) => {
                if line.starts_with(b"-NOAUTH") || line.starts_with(b"-NOPERM") {
                    return Err(HandshakeError::Authentication(text(line)));
                }
                self.step = Step::Replconf(left - 1);
                Ok(Action::Wait)
            }
            Step::Psync => self.after_psync(line),
        }
    }

    fn after_ping(&mut self, line: &[u8]) -> Result<Action, HandshakeError> {
        let alive = [
            &b"+"[..],
            b"-NOAUTH",
            b"-NOPERM",
            b"-ERR operation not permitted",
            // A master that cannot save: its replicas are all the more needed.
            b"-MISCONF",
            // A master of a replica set that waits for its replicas: it serves once we are there.
            b"-NOREPLICAS",
        ];
        if !alive.iter().any(|start| line.starts_with(start)) {
            return Err(match line.first() {
                Some(b'-') => HandshakeError::TryLater(text(line)),
                _ => unexpected("PING", line),
            });
        }
        if self.settings.password.is_empty() {
            return Ok(self.announce());
        }
        let mut words: Vec<&[u8]> = vec![b"AUTH"];
        if !self.settings.user.is_empty() {
            words.push(&self.settings.user);
        }
        words.push(&self.settings.password);
        let mut out = Vec::new();
        resp::encode_command(&mut out, words);
        self.step = Step::Auth;
        Ok(Action::Send(out))
    }

    fn announce(&mut self) -> Action {
        let mut out = Vec::new();
        let mut count = 2;
        let port = resp::format_i64(i64::from(self.settings.listening_port));
        resp::encode_command(&mut out, [b"REPLCONF".as_slice(), b"listening-port", &port]);
        if !self.settings.announce_ip.is_empty() {
            let ip = &self.settings.announce_ip;
            resp::encode_command(&mut out, [b"REPLCONF".as_slice(), b"ip-address", ip]);
            count += 1;
        }
        let capabilities = [b"REPLCONF".as_slice(), b"capa", b"eof", b"capa", b"psync2"];
        resp::encode_command(&mut out, capabilities);
        self.step = Step::Replconf(count);
        Action::Send(out)
    }

    fn psync(&mut self) -> Action {
        let mut out = Vec::new();
        match self.settings.position {
            None => resp::encode_command(&mut out, [b"PSYNC".as_slice(), b"?", b"-1"]),
            Some(Position { id, offset }) => {
                let next =
                    resp::format_i64(i64::try_from(offset.saturating_add(1)).unwrap_or(i64::MAX));
                let mut words = vec![b"PSYNC".as_slice(), id.as_str().as_bytes(), &next];
                if self.settings.failover == Takeover::Requested {
                    words.push(b"FAILOVER");
                }
                resp::encode_command(&mut out, words);
            }
        }
        self.step = Step::Psync;
        Action::Send(out)
    }

    fn after_psync(&mut self, line: &[u8]) -> Result<Action, HandshakeError> {
        // Empty lines keep the link alive while the master prepares its answer.
        if line.is_empty() {
            return Ok(Action::Wait);
        }
        let mut words = line
            .split(|&byte| byte == b' ')
            .filter(|word| !word.is_empty());
        match words.next() {
            Some(b"+CONTINUE") if self.settings.position.is_some() => match words.next() {
                None => Ok(Action::Continue(None)),
                Some(id) => ReplId::parse(id)
                    .map(|id| Action::Continue(Some(id)))
                    .ok_or_else(|| unexpected("PSYNC", line)),
            },
            Some(b"+FULLRESYNC") => {
                let id = words.next().and_then(ReplId::parse);
                let offset = words.next().and_then(resp::parse_i64);
                let offset = offset.and_then(|offset| u64::try_from(offset).ok());
                match (id, offset) {
                    (Some(id), Some(offset)) => Ok(Action::FullSync(Position { id, offset })),
                    _ => Err(unexpected("PSYNC", line)),
                }
            }
            Some(b"-NOMASTERLINK" | b"-LOADING") => Err(HandshakeError::TryLater(text(line))),
            Some(b"-NOAUTH" | b"-NOPERM") => Err(HandshakeError::Authentication(text(line))),
            Some(error) if error.starts_with(b"-") => self.fall_back_to_sync(line),
            Some(_) | None => Err(unexpected("PSYNC", line)),
        }
    }

    /// The master knows no PSYNC: the old way, a snapshot at once. Only an "unknown command" is
    /// taken for that; a refusal of another kind must not cost a full copy.
    fn fall_back_to_sync(&self, line: &[u8]) -> Result<Action, HandshakeError> {
        if self.settings.failover == Takeover::Requested {
            return Err(HandshakeError::TakeoverRejected(text(line)));
        }
        if line.starts_with(b"-ERR unknown command") {
            return Ok(Action::FullSyncWithoutOffset);
        }
        Err(HandshakeError::TryLater(text(line)))
    }
}

/// The bytes that ask for a snapshot in the old way.
pub fn sync_request() -> Vec<u8> {
    let mut out = Vec::new();
    resp::encode_command(&mut out, [b"SYNC".as_slice()]);
    out
}

fn unexpected(request: &'static str, line: &[u8]) -> HandshakeError {
    HandshakeError::Unexpected {
        request,
        answer: text(line),
    }
}

/// A master's line in a message: at most 200 bytes, escaped.
fn text(line: &[u8]) -> String {
    const MAX_SHOWN_BYTES: usize = 200;
    line[..line.len().min(MAX_SHOWN_BYTES)]
        .escape_ascii()
        .to_string()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef01234567";

    fn position() -> Position {
        Position {
            id: ReplId::parse(ID.as_bytes()).unwrap(),
            offset: 41,
        }
    }

    fn until_psync(settings: Settings) -> (Handshake, Vec<String>) {
        let (mut machine, first) = Handshake::start(settings);
        let mut said = vec![words(&first)];
        while machine.step != Step::Psync {
            if let Action::Send(bytes) = machine.on_line(b"+OK").unwrap() {
                said.push(words(&bytes));
            }
        }
        (machine, said)
    }

    fn words(bytes: &[u8]) -> String {
        let text = String::from_utf8_lossy(bytes).into_owned();
        let lines = text
            .split("\r\n")
            .filter(|l| !l.starts_with(['*', '$']) && !l.is_empty());
        lines.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_replica_without_data_asks_for_everything() {
        let settings = Settings {
            listening_port: 6380,
            ..Settings::default()
        };
        let (mut machine, said) = until_psync(settings);
        let expected = [
            "PING",
            "REPLCONF listening-port 6380 REPLCONF capa eof capa psync2",
            "PSYNC ? -1",
        ];
        assert_eq!(said, expected);
        assert_eq!(machine.on_line(b""), Ok(Action::Wait));
        let answer = format!("+FULLRESYNC {ID} 41");
        assert_eq!(
            machine.on_line(answer.as_bytes()),
            Ok(Action::FullSync(position()))
        );
    }

    #[test]
    fn a_replica_with_a_history_asks_for_the_byte_after_it() {
        let settings = Settings {
            user: b"repl".to_vec(),
            password: b"secret".to_vec(),
            listening_port: 6380,
            announce_ip: b"10.0.0.7".to_vec(),
            position: Some(position()),
            failover: Takeover::Requested,
        };
        let (mut machine, said) = until_psync(settings);
        assert_eq!(said[1], "AUTH repl secret");
        assert!(said[2].contains("REPLCONF ip-address 10.0.0.7"));
        assert_eq!(said[3], format!("PSYNC {ID} 42 FAILOVER"));
        assert_eq!(machine.on_line(b"+CONTINUE"), Ok(Action::Continue(None)));
        let answer = machine.on_line(b"-ERR no, I am a master");
        assert!(matches!(answer, Err(HandshakeError::TakeoverRejected(_))));
    }

    #[test]
    fn a_wrong_password_is_named() {
        let settings = Settings {
            password: b"x".to_vec(),
            ..Settings::default()
        };
        let (mut machine, _) = Handshake::start(settings);
        assert!(machine.on_line(b"-NOAUTH Authentication required.").is_ok());
        let answer = machine.on_line(b"-WRONGPASS invalid username-password pair");
        assert!(matches!(answer, Err(HandshakeError::Authentication(_))));
    }

    #[test]
    fn answers_that_ask_to_wait_lose_nothing() {
        for line in [
            "-NOMASTERLINK Can't SYNC",
            "-LOADING Redis is loading",
            "-ERR something",
        ] {
            let settings = Settings {
                position: Some(position()),
                ..Settings::default()
            };
            let (mut machine, _) = until_psync(settings);
            let answer = machine.on_line(line.as_bytes());
            assert!(matches!(answer, Err(HandshakeError::TryLater(_))), "{line}");
        }
    }

    #[test]
    fn a_master_that_waits_for_its_replicas_is_joined() {
        let (mut machine, _) = Handshake::start(Settings::default());
        let refusal = b"-NOREPLICAS This master has not been acknowledged by a majority.";
        assert!(matches!(machine.on_line(refusal), Ok(Action::Send(_))));
    }

    #[test]
    fn only_a_master_without_psync_is_asked_in_the_old_way() {
        let (mut machine, _) = until_psync(Settings::default());
        let answer = machine.on_line(b"-ERR unknown command 'PSYNC'");
        assert_eq!(answer, Ok(Action::FullSyncWithoutOffset));
    }

    #[test]
    fn rubbish_ends_the_handshake() {
        let (mut machine, _) = until_psync(Settings::default());
        for line in [
            "HTTP/1.1 400 Bad Request",
            "+FULLRESYNC short 1",
            "+CONTINUE",
            "$5",
        ] {
            assert!(machine.on_line(line.as_bytes()).is_err(), "{line}");
        }
    }

    /// Lines that look enough like a master's to get far.
    fn line() -> impl Strategy<Value = Vec<u8>> {
        let word = prop_oneof![
            prop::sample::select(vec![
                "+PONG",
                "+OK",
                "+CONTINUE",
                "+FULLRESYNC",
                "-ERR",
                "-NOAUTH",
                "-NOMASTERLINK",
                "-LOADING",
                "-NOPERM",
                "-ERR unknown command",
                "$5",
                "*1",
                ":1",
                "",
                "0",
                "-1",
                "9223372036854775807",
                "9223372036854775808",
                ID,
            ])
            .prop_map(|word| word.as_bytes().to_vec()),
            prop::collection::vec(any::<u8>(), 0..50),
        ];
        prop::collection::vec(word, 0..4).prop_map(|words| words.join(&b' '))
    }

    fn settings() -> impl Strategy<Value = Settings> {
        let bytes = || prop::collection::vec(any::<u8>(), 0..8);
        let offset = prop::option::of(prop_oneof![any::<u64>(), Just(u64::MAX), Just(0)]);
        (bytes(), bytes(), bytes(), offset, any::<bool>()).prop_map(
            |(user, password, announce_ip, offset, takeover)| Settings {
                user,
                password,
                listening_port: 6380,
                announce_ip,
                position: offset.map(|offset| Position {
                    id: ReplId::parse(ID.as_bytes()).unwrap(),
                    offset,
                }),
                failover: if takeover {
                    Takeover::Requested
                } else {
                    Takeover::No
                },
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1000))]

        /// Whatever a master says: the machine ends, says only requests, and continues only a
        /// history that there is.
        #[test]
        fn any_conversation_ends_in_an_action_or_an_error(
            settings in settings(), lines in prop::collection::vec(line(), 1..12),
        ) {
            let has_data = settings.position.is_some();
            let (mut machine, first) = Handshake::start(settings);
            let mut said = first;
            for line in lines {
                match machine.on_line(&line) {
                    Ok(Action::Send(bytes)) => said.extend_from_slice(&bytes),
                    Ok(Action::Wait) => {}
                    Ok(Action::Continue(_)) => {
                        prop_assert!(has_data);
                        break;
                    }
                    Ok(Action::FullSync(position)) => {
                        prop_assert!(i64::try_from(position.offset).is_ok());
                        break;
                    }
                    Ok(Action::FullSyncWithoutOffset) => break,
                    Err(error) => {
                        prop_assert!(error.to_string().len() < 1000, "{}", error);
                        break;
                    }
                }
            }
            let mut parser = resp::RequestParser::new(resp::Limits::AUTHENTICATED);
            while !said.is_empty() {
                let Ok(resp::Parsed::Request { consumed }) = parser.parse(&said) else {
                    return Err(TestCaseError::fail("not a row of requests"));
                };
                said.drain(..consumed);
            }
        }
    }
}
