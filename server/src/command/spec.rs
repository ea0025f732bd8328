//! The description of one command, from which COMMAND, its documentation, key extraction,
//! read-only checks, ACL categories and propagation are derived.

use resp::Args;

use super::{Context, error::CommandResult};

/// What a command does and where it may run. A set of bits, combined with [`Flags::with`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Flags(u32);

macro_rules! flags {
    ($($(#[$doc:meta])* $name:ident = $bit:literal => $text:literal;)*) => {
        impl Flags {
            $($(#[$doc])* pub const $name: Flags = Flags(1 << $bit);)*
            /// Every flag that `COMMAND` shows, with its name there.
            pub const NAMES: &'static [(Flags, &'static str)] = &[$((Flags::$name, $text)),*];
        }
    };
}

flags! {
    /// May change the data; refused on read-only replicas, propagated when it did.
    WRITE = 0 => "write";
    /// Reads keys only.
    READONLY = 1 => "readonly";
    /// May grow memory; refused with -OOM over `maxmemory`.
    DENYOOM = 2 => "denyoom";
    /// Administration.
    ADMIN = 3 => "admin";
    /// Publish and subscribe.
    PUBSUB = 4 => "pubsub";
    /// Not callable from scripts.
    NOSCRIPT = 5 => "noscript";
    /// Does not run while a dataset is loaded beside the present one.
    NO_ASYNC_LOADING = 6 => "no_async_loading";
    /// May block the client.
    BLOCKING = 7 => "blocking";
    /// Runs while a dataset is being loaded.
    LOADING = 8 => "loading";
    /// Runs on a replica whose data are stale.
    STALE = 9 => "stale";
    /// Not shown to MONITOR.
    SKIP_MONITOR = 10 => "skip_monitor";
    /// Not logged by SLOWLOG.
    SKIP_SLOWLOG = 11 => "skip_slowlog";
    /// Constant or logarithmic time.
    FAST = 12 => "fast";
    /// Runs before authentication.
    NO_AUTH = 13 => "no_auth";
    /// May not be queued by MULTI.
    NO_MULTI = 14 => "no_multi";
    /// Key positions must be asked from the command's own function.
    MOVABLE_KEYS = 15 => "movablekeys";
    /// May enter the replication stream although it is no write; held back by a pause of writes.
    MAY_REPLICATE = 16 => "may_replicate";
    /// Runs while a script runs too long.
    ALLOW_BUSY = 17 => "allow_busy";
}

impl Flags {
    /// No flag.
    pub const NONE: Flags = Flags(0);

    /// Both sets together.
    pub const fn with(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }

    /// The flags of several commands that run as one: it may do what any of them may, and runs
    /// only where all of them do.
    pub const fn as_unit_with(self, other: Flags) -> Flags {
        const PERMITS: Flags = Flags::LOADING
            .with(Flags::STALE)
            .with(Flags::NO_AUTH)
            .with(Flags::ALLOW_BUSY);
        let any = (self.0 | other.0) & !PERMITS.0;
        let all = self.0 & other.0 & PERMITS.0;
        Flags(any | all)
    }

    /// Whether every bit of `other` is set.
    pub const fn contains(self, other: Flags) -> bool {
        self.0 & other.0 == other.0
    }
}

/// The family a command belongs to, as `COMMAND DOCS` names it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Group {
    /// Keys of any type.
    Generic,
    /// Strings.
    String,
    /// Lists.
    List,
    /// Sets.
    Set,
    /// Sorted sets.
    SortedSet,
    /// Hashes.
    Hash,
    /// Connections and their state.
    Connection,
    /// The server itself.
    Server,
    /// MULTI and its kin.
    Transactions,
    /// Publish and subscribe.
    PubSub,
}

impl Group {
    /// The name in `COMMAND DOCS`.
    pub const fn name(self) -> &'static str {
        match self {
            Group::Generic => "generic",
            Group::String => "string",
            Group::List => "list",
            Group::Set => "set",
            Group::SortedSet => "sorted-set",
            Group::Hash => "hash",
            Group::Connection => "connection",
            Group::Server => "server",
            Group::Transactions => "transactions",
            Group::PubSub => "pubsub",
        }
    }
}

/// Where a command's keys are among its arguments (position 0 is the command's name).
#[derive(Clone, Copy, Debug)]
pub enum KeySpec {
    /// No keys.
    None,
    /// `first`, then every `step` up to `last`; a negative `last` counts from the end (-1 is the
    /// last argument).
    Range {
        /// Position of the first key.
        first: i32,
        /// Position of the last key.
        last: i32,
        /// Distance between keys.
        step: i32,
    },
    /// Positions 1 and 2, with a use of their own each (a source and a destination).
    Two,
    /// A destination at position 1, and sources from 2 to the end.
    TargetAndAll,
    /// A count at `count`, followed by that many keys; with `extra` a position of one more key
    /// (a destination), or 0.
    Counted {
        /// Position of the number of keys; the keys follow it.
        count: usize,
        /// Position of a destination key, 0 for none.
        extra: usize,
    },
}

impl KeySpec {
    /// One key at position 1.
    pub const FIRST: KeySpec = KeySpec::Range {
        first: 1,
        last: 1,
        step: 1,
    };
    /// Keys from position 1 to the end.
    pub const ALL: KeySpec = KeySpec::Range {
        first: 1,
        last: -1,
        step: 1,
    };
    /// Key and value alternate from position 1 to the end.
    pub const PAIRS: KeySpec = KeySpec::Range {
        first: 1,
        last: -1,
        step: 2,
    };

    /// First, last, step, for those that are one range.
    pub const fn range(self) -> Option<(i32, i32, i32)> {
        match self {
            KeySpec::Range { first, last, step } => Some((first, last, step)),
            KeySpec::Two => Some((1, 2, 1)),
            KeySpec::TargetAndAll => Some((1, -1, 1)),
            KeySpec::None | KeySpec::Counted { .. } => None,
        }
    }

    /// Whether the first of the found keys is used in another way than the others.
    pub const fn begins_with_another_use(self) -> bool {
        match self {
            KeySpec::Two | KeySpec::TargetAndAll => true,
            KeySpec::Counted { extra, .. } => extra > 0,
            KeySpec::None | KeySpec::Range { .. } => false,
        }
    }

    /// The positions of the keys in `args`, or `None` where the arguments do not fit.
    pub fn positions(self, args: Args<'_>) -> Option<Vec<usize>> {
        let len = args.len() as i64;
        match self {
            KeySpec::None => Some(Vec::new()),
            KeySpec::Range { .. } | KeySpec::Two | KeySpec::TargetAndAll => {
                let (first, last, step) = self.range()?;
                let last = if last < 0 {
                    len + i64::from(last)
                } else {
                    i64::from(last)
                };
                if i64::from(first) >= len || last >= len || last < i64::from(first) {
                    return None;
                }
                Some(
                    (i64::from(first)..=last)
                        .step_by(step as usize)
                        .map(|i| i as usize)
                        .collect(),
                )
            }
            KeySpec::Counted { count, extra } => {
                let number = usize::try_from(resp::parse_i64(args.get(count)?)?).ok()?;
                if number == 0 || number > args.len().checked_sub(count + 1)? {
                    return None;
                }
                let destination = (extra > 0).then_some(extra);
                Some(
                    destination
                        .into_iter()
                        .chain(count + 1..=count + number)
                        .collect(),
                )
            }
        }
    }
}

/// A handler: reads arguments, works on the keyspace, writes one reply, reports effects.
pub type Handler = fn(&mut Context<'_>, Args<'_>) -> CommandResult;

/// One command or subcommand.
#[derive(Debug)]
pub struct CommandSpec {
    /// Lower case; a subcommand's own name only (`get` for `CONFIG GET`).
    pub name: &'static str,
    /// One sentence for `COMMAND DOCS`.
    pub summary: &'static str,
    /// First Redis version that had it.
    pub since: &'static str,
    /// Family.
    pub group: Group,
    /// Number of arguments, the name included; negative: at least that many.
    pub arity: i32,
    /// What it does and where it may run.
    pub flags: Flags,
    /// Where its keys are.
    pub keys: KeySpec,
    /// What it does with them, in the words of COMMAND INFO: of all keys, or of the first and of the others.
    pub key_uses: &'static [&'static str],
    /// ACL categories in place of the group's, beside those that follow from flags.
    pub categories: &'static [&'static str],
    /// The function that runs it. For a container of subcommands: called when none matched.
    pub handler: Handler,
    /// Subcommands, searched by the second argument.
    pub subcommands: &'static [CommandSpec],
}

impl CommandSpec {
    /// A command with the fields that every command has; add the others with the `const` setters.
    pub const fn new(
        name: &'static str,
        group: Group,
        arity: i32,
        handler: Handler,
    ) -> CommandSpec {
        CommandSpec {
            name,
            summary: "",
            since: "1.0.0",
            group,
            arity,
            flags: Flags::NONE,
            keys: KeySpec::None,
            key_uses: &[],
            categories: &[],
            handler,
            subcommands: &[],
        }
    }

    /// Adds flags.
    pub const fn flags(mut self, flags: Flags) -> CommandSpec {
        self.flags = self.flags.with(flags);
        self
    }

    /// A command that writes to the keys at `keys`.
    pub const fn writes(mut self, keys: KeySpec) -> CommandSpec {
        self.keys = keys;
        self.key_uses = &["RW update"];
        self.flags(Flags::WRITE)
    }

    /// A command that only reads the keys at `keys`.
    pub const fn reads(mut self, keys: KeySpec) -> CommandSpec {
        self.keys = keys;
        self.key_uses = &["RO access"];
        self.flags(Flags::READONLY)
    }

    /// What it does with its keys, where that is not the usual of a write or read.
    pub const fn uses(mut self, uses: &'static [&'static str]) -> CommandSpec {
        self.key_uses = uses;
        self
    }

    /// ACL categories in place of the group's.
    pub const fn in_categories(mut self, categories: &'static [&'static str]) -> CommandSpec {
        self.categories = categories;
        self
    }

    /// Constant or logarithmic time.
    pub const fn fast(self) -> CommandSpec {
        self.flags(Flags::FAST)
    }

    /// May grow memory.
    pub const fn grows(self) -> CommandSpec {
        self.flags(Flags::DENYOOM)
    }

    /// Documentation: first Redis version and one sentence.
    pub const fn doc(mut self, since: &'static str, summary: &'static str) -> CommandSpec {
        self.since = since;
        self.summary = summary;
        self
    }

    /// Subcommands.
    pub const fn subcommands(mut self, list: &'static [CommandSpec]) -> CommandSpec {
        self.subcommands = list;
        self
    }

    /// Whether a request of `count` arguments (the name included) fits the arity.
    pub const fn accepts(&self, count: usize) -> bool {
        if self.arity >= 0 {
            count == self.arity as usize
        } else {
            count >= -self.arity as usize
        }
    }
}
