//! Keys of any type: DEL, EXPIRE, RENAME, SCAN, OBJECT and their kin.
//!
//! What travels to replicas is absolute and certain: EXPIRE as PEXPIREAT, an expiry in the past as DEL. Reads that only
//! look at a key (TYPE, TTL, EXISTS, OBJECT) count as hit or miss but not as a use of the key.

use resp::Args;

use super::{
    CommandError, CommandSpec, Context, Flags, Group, KeySpec,
    args::{self, TimeBase, TimeUnit},
    error::CommandResult,
    spec::Handler,
};
use crate::{
    glob,
    keyspace::{Entry, ExpiryRule, RenameOutcome, ReplaceRule, TransferOutcome},
};

const SAME_OBJECT: CommandError =
    CommandError::new("ERR source and destination objects are the same");
const DB_OUT_OF_RANGE: CommandError = CommandError::new("ERR DB index is out of range");
const INVALID_CURSOR: CommandError = CommandError::new("ERR invalid cursor");

/// Keys that SCAN looks at unless `COUNT` says otherwise.
const DEFAULT_SCAN_COUNT: usize = 10;
/// Elements of a collection from which MEMORY USAGE estimates unless `SAMPLES` says otherwise.
const DEFAULT_SAMPLES: usize = 5;
/// Bytes of the table for each key, on average: a slot with its tag at the usual load.
const SLOT_BYTES: usize = 11;

const fn spec(name: &'static str, arity: i32, handler: Handler) -> CommandSpec {
    CommandSpec::new(name, Group::Generic, arity, handler)
}

/// Keys of commands that take two.
const PAIR: KeySpec = KeySpec::Range {
    first: 1,
    last: 2,
    step: 1,
};
/// The key of a subcommand.
const SECOND: KeySpec = KeySpec::Range {
    first: 2,
    last: 2,
    step: 1,
};

/// The family's commands.
pub const COMMANDS: &[CommandSpec] = &[
    spec("del", -2, del).writes(KeySpec::ALL).doc("1.0.0", "Deletes one or more keys."),
    spec("unlink", -2, del).writes(KeySpec::ALL).fast().doc(
        "4.0.0",
        "Asynchronously deletes one or more keys.",
    ),
    spec("exists", -2, exists).reads(KeySpec::ALL).fast().doc(
        "1.0.0",
        "Determines whether one or more keys exist.",
    ),
    spec("touch", -2, touch).reads(KeySpec::ALL).fast().doc(
        "3.2.1",
        "Returns the number of existing keys out of those specified after updating the time they were last accessed.",
    ),
    spec("type", 2, type_of).reads(KeySpec::FIRST).fast().doc(
        "1.0.0",
        "Determines the type of value stored at a key.",
    ),
    spec("expire", -3, expire).writes(KeySpec::FIRST).fast().doc(
        "1.0.0",
        "Sets the expiration time of a key in seconds.",
    ),
    spec("pexpire", -3, pexpire).writes(KeySpec::FIRST).fast().doc(
        "2.6.0",
        "Sets the expiration time of a key in milliseconds.",
    ),
    spec("expireat", -3, expireat).writes(KeySpec::FIRST).fast().doc(
        "1.2.0",
        "Sets the expiration time of a key to a Unix timestamp.",
    ),
    spec("pexpireat", -3, pexpireat).writes(KeySpec::FIRST).fast().doc(
        "2.6.0",
        "Sets the expiration time of a key to a Unix milliseconds timestamp.",
    ),
    spec("persist", 2, persist).writes(KeySpec::FIRST).fast().doc(
        "2.2.0",
        "Removes the expiration time of a key.",
    ),
    spec("ttl", 2, ttl).reads(KeySpec::FIRST).fast().doc(
        "1.0.0",
        "Returns the expiration time in seconds of a key.",
    ),
    spec("pttl", 2, pttl).reads(KeySpec::FIRST).fast().doc(
        "2.6.0",
        "Returns the expiration time in milliseconds of a key.",
    ),
    spec("expiretime", 2, expiretime).reads(KeySpec::FIRST).fast().doc(
        "7.0.0",
        "Returns the expiration time of a key as a Unix timestamp.",
    ),
    spec("pexpiretime", 2, pexpiretime).reads(KeySpec::FIRST).fast().doc(
        "7.0.0",
        "Returns the expiration time of a key as a Unix milliseconds timestamp.",
    ),
    spec("rename", 3, rename).writes(PAIR).doc(
        "1.0.0",
        "Renames a key and overwrites the destination.",
    ),
    spec("renamenx", 3, renamenx).writes(PAIR).fast().doc(
        "1.0.0",
        "Renames a key only when the target key name doesn't exist.",
    ),
    spec("copy", -3, copy).writes(PAIR).grows().doc(
        "6.2.0",
        "Copies the value of a key to a new key.",
    ),
    spec("move", 3, move_key).writes(KeySpec::FIRST).fast().doc(
        "1.0.0",
        "Moves a key to another database.",
    ),
    spec("keys", 2, keys).flags(Flags::READONLY).doc(
        "1.0.0",
        "Returns all key names that match a pattern.",
    ),
    spec("scan", -2, scan).flags(Flags::READONLY).doc(
        "2.8.0",
        "Iterates over the key names in the database.",
    ),
    spec("randomkey", 1, randomkey).flags(Flags::READONLY.with(Flags::RANDOM)).doc(
        "1.0.0",
        "Returns a random key name from the database.",
    ),
    spec("object", -2, unknown_object)
        .subcommands(OBJECT)
        .doc("2.2.3", "A container for object introspection commands."),
    CommandSpec::new("memory", Group::Server, -2, unknown_memory)
        .subcommands(MEMORY)
        .doc("4.0.0", "A container for memory diagnostics commands."),
];

const OBJECT: &[CommandSpec] = &[
    spec("encoding", 3, object_encoding)
        .reads(SECOND)
        .doc("2.2.3", "Returns the internal encoding of a Redis object."),
    spec("freq", 3, object_freq).reads(SECOND).doc(
        "4.0.0",
        "Returns the logarithmic access frequency counter of a Redis object.",
    ),
    spec("idletime", 3, object_idletime).reads(SECOND).doc(
        "2.2.3",
        "Returns the time since the last access to a Redis object.",
    ),
    spec("refcount", 3, object_refcount)
        .reads(SECOND)
        .doc("2.2.3", "Returns the reference count of a value of a key."),
    spec("help", 2, object_help)
        .flags(Flags::LOADING.with(Flags::STALE))
        .doc(
            "6.2.0",
            "Returns helpful text about the different subcommands.",
        ),
];

const MEMORY: &[CommandSpec] = &[
    CommandSpec::new("usage", Group::Server, -3, memory_usage)
        .reads(SECOND)
        .doc("4.0.0", "Estimates the memory usage of a key."),
    CommandSpec::new("help", Group::Server, 2, memory_help)
        .flags(Flags::LOADING.with(Flags::STALE))
        .doc(
            "4.0.0",
            "Returns helpful text about the different subcommands.",
        ),
];

/// DEL and UNLINK: big values are freed elsewhere by both.
fn del(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    let db = cx.keyspace.db(cx.session.db);
    let mut removed = 0;
    for key in args.iter().skip(1) {
        if let Some(entry) = db.remove(key) {
            db.discard(entry);
            removed += 1;
        }
    }
    cx.effects.changed(removed);
    cx.reply.integer(removed as i64);
    Ok(())
}

fn exists(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    let db = cx.keyspace.db(cx.session.db);
    let count = args
        .iter()
        .skip(1)
        .filter(|key| db.inspect(key).is_some())
        .count();
    cx.reply.integer(count as i64);
    Ok(())
}

fn touch(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    let db = cx.keyspace.db(cx.session.db);
    let count = args
        .iter()
        .skip(1)
        .filter(|key| db.get(key).is_some())
        .count();
    cx.reply.integer(count as i64);
    Ok(())
}

fn type_of(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    let entry = cx.keyspace.db(cx.session.db).inspect(&args[1]);
    cx.reply.simple(entry.map_or("none", Entry::type_name));
    Ok(())
}

fn expire(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    set_expiry(cx, args, TimeUnit::Seconds, TimeBase::Relative, "expire")
}

fn pexpire(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    set_expiry(
        cx,
        args,
        TimeUnit::Milliseconds,
        TimeBase::Relative,
        "pexpire",
    )
}

fn expireat(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    set_expiry(cx, args, TimeUnit::Seconds, TimeBase::Absolute, "expireat")
}

fn pexpireat(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    set_expiry(
        cx,
        args,
        TimeUnit::Milliseconds,
        TimeBase::Absolute,
        "pexpireat",
    )
}

/// Under which condition EXPIRE and its kin act: the words behind the time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct ExpireCondition {
    presence: Option<Presence>,
    order: Option<Order>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Presence {
    /// NX
    WithoutExpiry,
    /// XX
    WithExpiry,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    /// GT
    Later,
    /// LT
    Earlier,
}

impl ExpireCondition {
    fn parse(words: Args<'_>) -> Result<Self, CommandError> {
        const NX_EXCLUDES: CommandError = CommandError::new(
            "ERR NX and XX, GT or LT options at the same time are not compatible",
        );
        const GT_EXCLUDES: CommandError =
            CommandError::new("ERR GT and LT options at the same time are not compatible");
        let (mut nx, mut xx, mut gt, mut lt) = (false, false, false, false);
        for word in words.iter() {
            let known = [
                ("NX", &mut nx),
                ("XX", &mut xx),
                ("GT", &mut gt),
                ("LT", &mut lt),
            ];
            match known.into_iter().find(|(name, _)| args::is(word, name)) {
                Some((_, flag)) => *flag = true,
                None => {
                    let word = String::from_utf8_lossy(word);
                    return Err(CommandError::owned(format!(
                        "ERR Unsupported option {word}"
                    )));
                }
            }
        }
        if nx && (xx || gt || lt) {
            return Err(NX_EXCLUDES);
        }
        if gt && lt {
            return Err(GT_EXCLUDES);
        }
        Ok(Self {
            presence: match (nx, xx) {
                (true, _) => Some(Presence::WithoutExpiry),
                (false, true) => Some(Presence::WithExpiry),
                (false, false) => None,
            },
            order: match (gt, lt) {
                (true, _) => Some(Order::Later),
                (false, true) => Some(Order::Earlier),
                (false, false) => None,
            },
        })
    }

    /// Whether an expiry may change from `old` to `new`; none counts as later than any.
    fn allows(self, old: Option<i64>, new: i64) -> bool {
        let by_presence = match self.presence {
            None => true,
            Some(Presence::WithoutExpiry) => old.is_none(),
            Some(Presence::WithExpiry) => old.is_some(),
        };
        let by_order = match self.order {
            None => true,
            Some(Order::Later) => old.is_some_and(|old| new > old),
            Some(Order::Earlier) => old.is_none_or(|old| new < old),
        };
        by_presence && by_order
    }
}

fn set_expiry(
    cx: &mut Context<'_>,
    args: Args<'_>,
    unit: TimeUnit,
    base: TimeBase,
    command: &str,
) -> CommandResult {
    let condition = ExpireCondition::parse(args.tail(3))?;
    let at = args::expire_at(&args[2], unit, base, cx.now_ms, command)?;
    let key = &args[1];
    let rule = cx.keyspace.context().expiry;
    let Some(mut entry) = cx.keyspace.db(cx.session.db).get_mut(key) else {
        cx.reply.integer(0);
        return Ok(());
    };
    if !condition.allows(entry.expire_at(), at) {
        cx.reply.integer(0);
        return Ok(());
    }
    // A time in the past deletes the key; on a replica the master's DEL does.
    if at <= cx.now_ms && rule == ExpiryRule::Delete {
        entry.delete();
        cx.effects.propagate([b"DEL", key]);
    } else {
        entry.set_expiry(Some(at));
        let at = resp::format_i64(at);
        let words = [b"PEXPIREAT".as_slice(), key, &*at]
            .into_iter()
            .chain(args.tail(3).iter());
        cx.effects.propagate(words.collect::<Vec<_>>());
    }
    cx.effects.changed(1);
    cx.reply.integer(1);
    Ok(())
}

fn persist(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    let entry = cx.keyspace.db(cx.session.db).get_mut(&args[1]);
    let entry = entry.filter(|entry| entry.expire_at().is_some());
    let changed = u64::from(entry.is_some());
    if let Some(mut entry) = entry {
        entry.set_expiry(None);
    }
    cx.effects.changed(changed);
    cx.reply.integer(changed as i64);
    Ok(())
}

fn ttl(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    let now_ms = cx.now_ms;
    reply_expiry(cx, &args[1], |at| {
        (at.saturating_sub(now_ms).max(0).saturating_add(500)) / 1000
    })
}

fn pttl(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    let now_ms = cx.now_ms;
    reply_expiry(cx, &args[1], |at| at.saturating_sub(now_ms).max(0))
}

fn expiretime(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    reply_expiry(cx, &args[1], |at| at.saturating_add(500) / 1000)
}

fn pexpiretime(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    reply_expiry(cx, &args[1], |at| at)
}

/// -2 for no key, -1 for a key without expiry, else what `show` makes of the expiry.
fn reply_expiry(cx: &mut Context<'_>, key: &[u8], show: impl FnOnce(i64) -> i64) -> CommandResult {
    let reply = match cx
        .keyspace
        .db(cx.session.db)
        .inspect(key)
        .map(Entry::expire_at)
    {
        None => -2,
        Some(None) => -1,
        Some(Some(at)) => show(at),
    };
    cx.reply.integer(reply);
    Ok(())
}

fn rename(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    let outcome = cx.keyspace.db(cx.session.db).rename(&args[1], &args[2]);
    match outcome {
        RenameOutcome::NoSuchKey => return Err(CommandError::NO_SUCH_KEY),
        RenameOutcome::Renamed if args[1] == args[2] => {}
        RenameOutcome::Renamed => cx.effects.changed(1),
    }
    cx.reply.ok();
    Ok(())
}

fn renamenx(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    let db = cx.keyspace.db(cx.session.db);
    if !db.contains(&args[1]) {
        return Err(CommandError::NO_SUCH_KEY);
    }
    // A key renamed to itself exists as well.
    let done = !db.contains(&args[2]);
    if done {
        db.rename(&args[1], &args[2]);
        cx.effects.changed(1);
    }
    cx.reply.integer(i64::from(done));
    Ok(())
}

/// A database number of this server.
fn database(cx: &Context<'_>, word: &[u8]) -> Result<u32, CommandError> {
    let index = i32::try_from(args::integer(word)?).map_err(|_| CommandError::NOT_INTEGER)?;
    match u32::try_from(index) {
        Ok(index) if index < cx.keyspace.databases() => Ok(index),
        Ok(_) | Err(_) => Err(DB_OUT_OF_RANGE),
    }
}

fn copy(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    let (mut target, mut rule) = (cx.session.db, ReplaceRule::KeepTarget);
    let options = args.tail(3);
    let mut words = options.iter();
    while let Some(word) = words.next() {
        if args::is(word, "REPLACE") {
            rule = ReplaceRule::Replace;
        } else if args::is(word, "DB") {
            target = database(cx, words.next().ok_or(CommandError::SYNTAX)?)?;
        } else {
            return Err(CommandError::SYNTAX);
        }
    }
    let source = cx.session.db;
    if source == target && args[1] == args[2] {
        return Err(SAME_OBJECT);
    }
    let outcome = cx
        .keyspace
        .copy_key((source, &args[1]), (target, &args[2]), rule);
    reply_transfer(cx, outcome)
}

fn move_key(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    let target = database(cx, &args[2])?;
    if target == cx.session.db {
        return Err(SAME_OBJECT);
    }
    let outcome = cx.keyspace.move_key(cx.session.db, target, &args[1]);
    reply_transfer(cx, outcome)
}

fn reply_transfer(cx: &mut Context<'_>, outcome: TransferOutcome) -> CommandResult {
    let done = match outcome {
        TransferOutcome::NoSuchKey | TransferOutcome::TargetExists => 0,
        TransferOutcome::Done => 1,
    };
    cx.effects.changed(done);
    cx.reply.integer(done as i64);
    Ok(())
}

/// Walks the whole database under the lock, as in Redis; SCAN does not.
fn keys(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    let pattern = &args[1];
    let db = cx.keyspace.db(cx.session.db);
    let reply = &mut cx.reply;
    let (mark, mut count) = (reply.begin_array(), 0);
    db.scan(0, usize::MAX, |entry| {
        if pattern == b"*" || glob::matches(pattern, entry.key(), glob::Case::Sensitive) {
            reply.bulk(entry.key());
            count += 1;
        }
    });
    reply.finish_array(mark, count);
    Ok(())
}

struct ScanOptions<'a> {
    count: usize,
    pattern: Option<&'a [u8]>,
    type_name: Option<&'a [u8]>,
}

impl<'a> ScanOptions<'a> {
    fn parse(options: Args<'a>) -> Result<Self, CommandError> {
        let mut parsed = Self {
            count: DEFAULT_SCAN_COUNT,
            pattern: None,
            type_name: None,
        };
        let mut words = options.iter();
        while let Some(word) = words.next() {
            let value = words.next().ok_or(CommandError::SYNTAX)?;
            if args::is(word, "COUNT") {
                let count = usize::try_from(args::integer(value)?).unwrap_or(0);
                parsed.count = if count > 0 {
                    count
                } else {
                    return Err(CommandError::SYNTAX);
                };
            } else if args::is(word, "MATCH") {
                parsed.pattern = (value != b"*").then_some(value);
            } else if args::is(word, "TYPE") {
                parsed.type_name = Some(value);
            } else {
                return Err(CommandError::SYNTAX);
            }
        }
        Ok(parsed)
    }

    fn wants(&self, entry: &Entry) -> bool {
        let by_type = self
            .type_name
            .is_none_or(|name| name.eq_ignore_ascii_case(entry.type_name().as_bytes()));
        let matches = |pattern| glob::matches(pattern, entry.key(), glob::Case::Sensitive);
        by_type && self.pattern.is_none_or(matches)
    }
}

fn scan(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    let cursor = std::str::from_utf8(&args[1])
        .ok()
        .and_then(|text| text.parse::<u64>().ok());
    let cursor = cursor.ok_or(INVALID_CURSOR)?;
    let options = ScanOptions::parse(args.tail(2))?;
    let db = cx.keyspace.db(cx.session.db);
    let mut found = Vec::new();
    let mut count = 0;
    let next = db.scan(cursor, options.count, |entry| {
        if options.wants(entry) {
            resp::ReplyWriter::new(&mut found, cx.reply.version()).bulk(entry.key());
            count += 1;
        }
    });
    cx.reply.array(2);
    cx.reply.bulk(next.to_string().as_bytes());
    cx.reply.array(count);
    cx.reply.raw(&found);
    Ok(())
}

fn randomkey(cx: &mut Context<'_>, _: Args<'_>) -> CommandResult {
    let word = cx.random.next_word();
    match cx.keyspace.db(cx.session.db).random_key(word) {
        None => cx.reply.null(),
        Some(key) => cx.reply.bulk(key),
    }
    Ok(())
}

fn unknown_object(_: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    Err(unknown_subcommand("OBJECT", &args[1]))
}

fn unknown_memory(_: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    Err(unknown_subcommand("MEMORY", &args[1]))
}

fn unknown_subcommand(container: &str, word: &[u8]) -> CommandError {
    let word = String::from_utf8_lossy(&word[..word.len().min(128)]);
    CommandError::owned(format!(
        "ERR unknown subcommand '{word}'. Try {container} HELP."
    ))
}

fn object_encoding(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    match cx.keyspace.db(cx.session.db).inspect(&args[2]) {
        None => cx.reply.null(),
        Some(entry) => cx.reply.bulk(entry.encoding_name().as_bytes()),
    }
    Ok(())
}

fn object_freq(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    const NOT_LFU: CommandError = CommandError::new(
        "ERR An LFU maxmemory policy is not selected, access frequency not tracked. Please note \
         that when switching between policies at runtime LRU and LFU data will take some time to \
         adjust.",
    );
    match cx.keyspace.db(cx.session.db).inspect(&args[2]) {
        None => cx.reply.null(),
        Some(_) => return Err(NOT_LFU),
    }
    Ok(())
}

fn object_idletime(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    let context = cx.keyspace.context();
    match cx.keyspace.db(cx.session.db).inspect(&args[2]) {
        None => cx.reply.null(),
        Some(entry) => cx.reply.integer(i64::from(context.idle_seconds(entry))),
    }
    Ok(())
}

/// No value is shared here, so one reference each.
fn object_refcount(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    match cx.keyspace.db(cx.session.db).inspect(&args[2]) {
        None => cx.reply.null(),
        Some(_) => cx.reply.integer(1),
    }
    Ok(())
}

fn object_help(cx: &mut Context<'_>, _: Args<'_>) -> CommandResult {
    help(
        cx,
        &[
            "OBJECT <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
            "ENCODING <key>",
            "    Return the kind of internal representation used in order to store the value",
            "    associated with a <key>.",
            "FREQ <key>",
            "    Return the access frequency index of the <key>. The returned integer is",
            "    proportional to the logarithm of the recent access frequency of the key.",
            "IDLETIME <key>",
            "    Return the idle time of the <key>, that is the approximated number of",
            "    seconds elapsed since the last access to the key.",
            "REFCOUNT <key>",
            "    Return the number of references of the value associated with the specified",
            "    <key>.",
            "HELP",
            "    Prints this help.",
        ],
    )
}

fn memory_usage(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    let mut samples = DEFAULT_SAMPLES;
    let options = args.tail(3);
    let mut words = options.iter();
    while let Some(word) = words.next() {
        let value = words.next().filter(|_| args::is(word, "SAMPLES"));
        let value = args::integer(value.ok_or(CommandError::SYNTAX)?)?;
        samples = usize::try_from(value).map_err(|_| CommandError::SYNTAX)?;
    }
    match cx.keyspace.db(cx.session.db).inspect(&args[2]) {
        None => cx.reply.null(),
        Some(entry) => cx
            .reply
            .integer((entry.memory_bytes(samples) + SLOT_BYTES) as i64),
    }
    Ok(())
}

fn memory_help(cx: &mut Context<'_>, _: Args<'_>) -> CommandResult {
    help(
        cx,
        &[
            "MEMORY <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
            "USAGE <key> [SAMPLES <count>]",
            "    Return memory in bytes used by <key> and its value. Nested values are",
            "    sampled up to <count> times (default: 5, 0 means sample all).",
            "HELP",
            "    Prints this help.",
        ],
    )
}

fn help(cx: &mut Context<'_>, lines: &[&str]) -> CommandResult {
    cx.reply.array(lines.len());
    for line in lines {
        cx.reply.simple(line);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use resp::OwnedArgs;

    use super::*;

    fn condition(words: &[&str]) -> Result<ExpireCondition, CommandError> {
        let mut args = OwnedArgs::from_args(Args::new(&[], &[]));
        words.iter().for_each(|word| args.push(word.as_bytes()));
        ExpireCondition::parse(args.as_args())
    }

    #[test]
    fn conditions_of_expire_exclude_each_other_as_in_redis() {
        for pair in [["nx", "xx"], ["NX", "gt"], ["lt", "nx"]] {
            let text = "ERR NX and XX, GT or LT options at the same time are not compatible";
            assert_eq!(condition(&pair), Err(CommandError::new(text)));
        }
        let text = "ERR GT and LT options at the same time are not compatible";
        assert_eq!(condition(&["GT", "LT"]), Err(CommandError::new(text)));
        assert_eq!(
            condition(&["foo"]),
            Err(CommandError::new("ERR Unsupported option foo"))
        );
        assert!(condition(&["xx", "gt"]).is_ok() && condition(&["xx", "lt"]).is_ok());
    }

    #[test]
    fn no_expiry_counts_as_later_than_any() {
        let allows = |words: &[&str], old, new| {
            condition(words)
                .expect("the words are compatible")
                .allows(old, new)
        };
        assert!(allows(&[], None, 5) && allows(&[], Some(9), 5));
        assert!(allows(&["nx"], None, 5) && !allows(&["nx"], Some(9), 5));
        assert!(!allows(&["xx"], None, 5) && allows(&["xx"], Some(9), 5));
        assert!(
            !allows(&["gt"], None, 5)
                && !allows(&["gt"], Some(5), 5)
                && allows(&["gt"], Some(4), 5)
        );
        assert!(
            allows(&["lt"], None, 5) && !allows(&["lt"], Some(5), 5) && allows(&["lt"], Some(6), 5)
        );
        assert!(!allows(&["xx", "lt"], None, 5));
    }
}
