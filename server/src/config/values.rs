//! The types of single values in a [`super::Config`], and their text forms.

use std::fmt;

/// An address to listen on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BindAddress {
    /// An IP address or host name, `*` for every IPv4 and `::*` for every IPv6 address.
    pub host: String,
    /// Whether it is no error if this machine does not have the address (written with a `-` in front).
    pub optional: bool,
}

impl BindAddress {
    /// Reads the form used in `redis.conf`.
    pub fn new(text: &str) -> Self {
        match text.strip_prefix('-') {
            Some(host) => Self {
                host: host.to_owned(),
                optional: true,
            },
            None => Self {
                host: text.to_owned(),
                optional: false,
            },
        }
    }

    /// Whether only programs on this machine can reach it.
    pub fn is_loopback(&self) -> bool {
        self.host == "localhost"
            || self
                .host
                .parse::<std::net::IpAddr>()
                .is_ok_and(|address| address.is_loopback())
    }
}

impl fmt::Display for BindAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", if self.optional { "-" } else { "" }, self.host)
    }
}

/// Another server's address.
#[derive(Clone, PartialEq, Eq, Debug, Hash)]
pub struct HostPort {
    /// IP address or host name.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.host, self.port)
    }
}

/// Take a snapshot after `seconds` if at least `changes` were made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SavePoint {
    /// Time since the last snapshot.
    pub seconds: u64,
    /// Changes since the last snapshot.
    pub changes: u64,
}

impl SavePoint {
    /// What Redis uses if nothing is said.
    pub const DEFAULT: [Self; 3] = [
        Self {
            seconds: 3600,
            changes: 1,
        },
        Self {
            seconds: 300,
            changes: 100,
        },
        Self {
            seconds: 60,
            changes: 10_000,
        },
    ];
}

impl fmt::Display for SavePoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.seconds, self.changes)
    }
}

/// When a connection that does not read its output is dropped; 0 is no limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OutputLimit {
    /// At once beyond so many bytes.
    pub hard_bytes: u64,
    /// Beyond so many bytes …
    pub soft_bytes: u64,
    /// … for so many seconds.
    pub soft_seconds: u64,
}

impl fmt::Display for OutputLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} {} {}",
            self.hard_bytes, self.soft_bytes, self.soft_seconds
        )
    }
}

/// The output limit of each class of connections.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OutputLimits {
    /// Ordinary clients.
    pub normal: OutputLimit,
    /// Replicas.
    pub replica: OutputLimit,
    /// Clients that subscribed to something.
    pub pubsub: OutputLimit,
}

impl Default for OutputLimits {
    fn default() -> Self {
        const MIB: u64 = 1024 * 1024;
        let limit = |hard, soft, soft_seconds| OutputLimit {
            hard_bytes: hard * MIB,
            soft_bytes: soft * MIB,
            soft_seconds,
        };
        Self {
            normal: limit(0, 0, 0),
            replica: limit(256, 64, 60),
            pubsub: limit(32, 8, 60),
        }
    }
}

/// An enumeration whose variants have names in `redis.conf`.
pub(super) trait Named: Copy + PartialEq + 'static {
    /// Every variant with its name.
    const NAMES: &'static [(&'static str, Self)];

    /// The name of this variant.
    fn name(self) -> &'static str {
        Self::NAMES
            .iter()
            .find(|(_, value)| *value == self)
            .map_or("", |(name, _)| name)
    }

    /// The variant of this name, in any case of letters.
    fn from_name(text: &str) -> Option<Self> {
        Self::NAMES
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(text))
            .map(|(_, value)| *value)
    }
}

/// Importance of a log message.
#[derive(Clone, Copy, PartialEq, Eq, Debug, PartialOrd, Ord)]
pub enum LogLevel {
    /// Everything.
    Debug,
    /// Much that is rarely useful.
    Verbose,
    /// What one wants in production.
    Notice,
    /// Only what needs attention.
    Warning,
    /// Nothing at all.
    Nothing,
}

impl Named for LogLevel {
    const NAMES: &'static [(&'static str, Self)] = &[
        ("debug", Self::Debug),
        ("verbose", Self::Verbose),
        ("notice", Self::Notice),
        ("warning", Self::Warning),
        ("nothing", Self::Nothing),
    ];
}

/// Who may do something that could harm the machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Permission {
    /// Nobody.
    No,
    /// Clients on the same machine.
    Local,
    /// Everybody who may connect.
    Yes,
}

impl Named for Permission {
    const NAMES: &'static [(&'static str, Self)] =
        &[("no", Self::No), ("local", Self::Local), ("yes", Self::Yes)];
}

/// What to do with a write when memory is at its limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MaxmemoryPolicy {
    /// Refuse it.
    NoEviction,
    /// Remove the least recently used of all keys.
    AllKeysLru,
    /// Remove the least used of all keys.
    AllKeysLfu,
    /// Remove any key.
    AllKeysRandom,
    /// Remove the least recently used of the keys with an expiry.
    VolatileLru,
    /// Remove the least used of the keys with an expiry.
    VolatileLfu,
    /// Remove any key with an expiry.
    VolatileRandom,
    /// Remove the key whose time is over first.
    VolatileTtl,
}

impl Named for MaxmemoryPolicy {
    const NAMES: &'static [(&'static str, Self)] = &[
        ("volatile-lru", Self::VolatileLru),
        ("volatile-lfu", Self::VolatileLfu),
        ("volatile-random", Self::VolatileRandom),
        ("volatile-ttl", Self::VolatileTtl),
        ("allkeys-lru", Self::AllKeysLru),
        ("allkeys-lfu", Self::AllKeysLfu),
        ("allkeys-random", Self::AllKeysRandom),
        ("noeviction", Self::NoEviction),
    ];
}
