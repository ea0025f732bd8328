//! Strings: GET, SET, INCR, APPEND and their kin.
//!
//! The model of a family file: specs on top, handlers below in the same order, tests against a real
//! Redis in `tests/tests/processes/diff`.

use resp::{Args, ReplyWriter};

use super::{
    CommandError, CommandSpec, Context, Group, KeySpec,
    args::{self, TimeBase, TimeUnit},
    error::CommandResult,
    float80::Float80,
};
use crate::keyspace::{
    ExpiryRule, SetExpiry, StringInput, ValueMut, ValueRef, entry::Entry, string::StringRef,
};

const TOO_LONG: CommandError =
    CommandError::new("ERR string exceeds maximum allowed size (proto-max-bulk-len)");
const OVERFLOW: CommandError = CommandError::new("ERR increment or decrement would overflow");

const fn spec(name: &'static str, arity: i32, handler: super::spec::Handler) -> CommandSpec {
    CommandSpec::new(name, Group::String, arity, handler)
}

/// The family's commands.
pub const COMMANDS: &[CommandSpec] = &[
    spec("get", 2, get).reads(KeySpec::FIRST).fast().doc("1.0.0", "Returns the string value of a key."),
    spec("set", -3, set).writes(KeySpec::FIRST).uses(&["RW access update variable_flags"]).grows().doc(
        "1.0.0",
        "Sets the string value of a key, ignoring its type. The key is created if it doesn't exist.",
    ),
    spec("setnx", 3, setnx).writes(KeySpec::FIRST).uses(&["OW insert"]).grows().fast().doc(
        "1.0.0",
        "Sets the string value of a key only when the key doesn't exist.",
    ),
    spec("setex", 4, setex).writes(KeySpec::FIRST).uses(&["OW update"]).grows().doc(
        "2.0.0",
        "Sets the string value and expiration time of a key. Creates the key if it doesn't exist.",
    ),
    spec("psetex", 4, psetex).writes(KeySpec::FIRST).uses(&["OW update"]).grows().doc(
        "2.6.0",
        "Sets both string value and expiration time in milliseconds of a key.",
    ),
    spec("getset", 3, getset).writes(KeySpec::FIRST).uses(&["RW access update"]).grows().fast().doc(
        "1.0.0",
        "Returns the previous string value of a key after setting it to a new value.",
    ),
    spec("getdel", 2, getdel).writes(KeySpec::FIRST).uses(&["RW access delete"]).fast().doc(
        "6.2.0",
        "Returns the string value of a key after deleting the key.",
    ),
    spec("getex", -2, getex).writes(KeySpec::FIRST).uses(&["RW access update"]).fast().doc(
        "6.2.0",
        "Returns the string value of a key after setting its expiration time.",
    ),
    spec("mget", -2, mget).reads(KeySpec::ALL).fast().doc(
        "1.0.0",
        "Atomically returns the string values of one or more keys.",
    ),
    spec("mset", -3, mset).writes(KeySpec::PAIRS).uses(&["OW update"]).grows().doc(
        "1.0.1",
        "Atomically creates or modifies the string values of one or more keys.",
    ),
    spec("msetnx", -3, msetnx).writes(KeySpec::PAIRS).uses(&["OW insert"]).grows().doc(
        "1.0.1",
        "Atomically modifies the string values of one or more keys only when all keys don't exist.",
    ),
    spec("strlen", 2, strlen).reads(KeySpec::FIRST).uses(&["RO"]).fast().doc(
        "2.2.0",
        "Returns the length of a string value.",
    ),
    spec("getrange", 4, getrange).reads(KeySpec::FIRST).doc(
        "2.4.0",
        "Returns a substring of the string stored at a key.",
    ),
    spec("substr", 4, getrange).reads(KeySpec::FIRST).doc(
        "1.0.0",
        "Returns a substring from a string value.",
    ),
    spec("setrange", 4, setrange).writes(KeySpec::FIRST).grows().doc(
        "2.2.0",
        "Overwrites a part of a string value with another by an offset. Creates the key if it doesn't exist.",
    ),
    spec("append", 3, append).writes(KeySpec::FIRST).uses(&["RW insert"]).grows().fast().doc(
        "2.0.0",
        "Appends a string to the value of a key. Creates the key if it doesn't exist.",
    ),
    spec("incr", 2, incr).writes(KeySpec::FIRST).uses(&["RW access update"]).grows().fast().doc(
        "1.0.0",
        "Increments the integer value of a key by one. Uses 0 as initial value if the key doesn't exist.",
    ),
    spec("decr", 2, decr).writes(KeySpec::FIRST).uses(&["RW access update"]).grows().fast().doc(
        "1.0.0",
        "Decrements the integer value of a key by one. Uses 0 as initial value if the key doesn't exist.",
    ),
    spec("incrby", 3, incrby).writes(KeySpec::FIRST).uses(&["RW access update"]).grows().fast().doc(
        "1.0.0",
        "Increments the integer value of a key by a number. Uses 0 as initial value if the key doesn't exist.",
    ),
    spec("decrby", 3, decrby).writes(KeySpec::FIRST).uses(&["RW access update"]).grows().fast().doc(
        "1.0.0",
        "Decrements a number from the integer value of a key. Uses 0 as initial value if the key doesn't exist.",
    ),
    spec("incrbyfloat", 3, incrbyfloat).writes(KeySpec::FIRST).uses(&["RW access update"]).grows().fast().doc(
        "2.6.0",
        "Increment the floating point value of a key by a number. Uses 0 as initial value if the key doesn't exist.",
    ),
];

/// The string at an entry, or `WRONGTYPE`.
fn string_of(entry: &Entry) -> Result<StringRef<'_>, CommandError> {
    match entry.value() {
        ValueRef::String(string) => Ok(string),
        ValueRef::List(_) | ValueRef::Set(_) | ValueRef::Hash(_) | ValueRef::SortedSet(_) => {
            Err(CommandError::WRONG_TYPE)
        }
    }
}

fn reply_string(reply: &mut ReplyWriter<'_>, string: StringRef<'_>) {
    match string {
        StringRef::Int(value) => reply.bulk_int(value),
        StringRef::Bytes(bytes) => reply.bulk(bytes),
    }
}

/// Replies the string at `key`, null where there is none.
fn reply_at(cx: &mut Context<'_>, key: &[u8]) -> CommandResult {
    match cx.keyspace.db(cx.session.db).get(key) {
        None => cx.reply.null(),
        Some(entry) => reply_string(&mut cx.reply, string_of(entry)?),
    }
    Ok(())
}

fn get(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    reply_at(cx, &args[1])
}

/// When SET may write.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Condition {
    Always,
    IfAbsent,
    IfPresent,
}

/// What SET answers.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Answer {
    Ok,
    OldValue,
}

struct SetOptions<'a> {
    condition: Condition,
    answer: Answer,
    expiry: AskedExpiry<'a>,
}

/// An expiry as asked for: its number is looked at when all options are known.
#[derive(Clone, Copy)]
enum AskedExpiry<'a> {
    Clear,
    Keep,
    At(&'a [u8], TimeUnit, TimeBase),
}

impl AskedExpiry<'_> {
    /// Whether this option has asked for it. It may come again: the last time counts, and no other is looked at.
    fn is_by(self, unit: TimeUnit, base: TimeBase) -> bool {
        matches!(self, Self::At(_, its_unit, its_base) if (its_unit, its_base) == (unit, base))
    }

    fn resolve(self, now_ms: i64, command: &str) -> Result<SetExpiry, CommandError> {
        Ok(match self {
            Self::Clear => SetExpiry::Clear,
            Self::Keep => SetExpiry::Keep,
            Self::At(time, unit, base) => SetExpiry::At(expiry(time, unit, base, now_ms, command)?),
        })
    }
}

/// The options behind SET's value. They exclude each other as in Redis.
fn set_options(options: Args<'_>) -> Result<SetOptions<'_>, CommandError> {
    let mut set = SetOptions {
        condition: Condition::Always,
        answer: Answer::Ok,
        expiry: AskedExpiry::Clear,
    };
    let mut words = options.iter();
    while let Some(word) = words.next() {
        let unset = matches!(set.expiry, AskedExpiry::Clear);
        if args::is(word, "NX") && set.condition != Condition::IfPresent {
            set.condition = Condition::IfAbsent;
        } else if args::is(word, "XX") && set.condition != Condition::IfAbsent {
            set.condition = Condition::IfPresent;
        } else if args::is(word, "GET") {
            set.answer = Answer::OldValue;
        } else if args::is(word, "KEEPTTL") && (unset || matches!(set.expiry, AskedExpiry::Keep)) {
            set.expiry = AskedExpiry::Keep;
        } else if let Some((unit, base)) = time_option(word)
            && (unset || set.expiry.is_by(unit, base))
        {
            let time = words.next().ok_or(CommandError::SYNTAX)?;
            set.expiry = AskedExpiry::At(time, unit, base);
        } else {
            return Err(CommandError::SYNTAX);
        }
    }
    Ok(set)
}

/// The options of GETEX, which exclude each other, too.
fn getex_options(options: Args<'_>) -> Result<AskedExpiry<'_>, CommandError> {
    let mut asked = AskedExpiry::Keep;
    let mut words = options.iter();
    while let Some(word) = words.next() {
        let unset = matches!(asked, AskedExpiry::Keep);
        if args::is(word, "PERSIST") && (unset || matches!(asked, AskedExpiry::Clear)) {
            asked = AskedExpiry::Clear;
        } else if let Some((unit, base)) = time_option(word)
            && (unset || asked.is_by(unit, base))
        {
            let time = words.next().ok_or(CommandError::SYNTAX)?;
            asked = AskedExpiry::At(time, unit, base);
        } else {
            return Err(CommandError::SYNTAX);
        }
    }
    Ok(asked)
}

fn time_option(word: &[u8]) -> Option<(TimeUnit, TimeBase)> {
    const OPTIONS: [(&str, TimeUnit, TimeBase); 4] = [
        ("EX", TimeUnit::Seconds, TimeBase::Relative),
        ("PX", TimeUnit::Milliseconds, TimeBase::Relative),
        ("EXAT", TimeUnit::Seconds, TimeBase::Absolute),
        ("PXAT", TimeUnit::Milliseconds, TimeBase::Absolute),
    ];
    let found = OPTIONS.iter().find(|(name, ..)| args::is(word, name));
    found.map(|&(_, unit, base)| (unit, base))
}

/// A time that must be positive, as Unix milliseconds.
fn expiry(
    time: &[u8],
    unit: TimeUnit,
    base: TimeBase,
    now_ms: i64,
    command: &str,
) -> Result<i64, CommandError> {
    if args::integer(time)? <= 0 {
        return Err(CommandError::invalid_expire(command));
    }
    args::expire_at(time, unit, base, now_ms, command)
}

fn set(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    let (key, value) = (&args[1], &args[2]);
    if args.len() == 3 {
        cx.keyspace
            .db(cx.session.db)
            .set_string(key, value.into(), SetExpiry::Clear);
        cx.effects.changed(1);
        cx.reply.ok();
        return Ok(());
    }
    let options = set_options(args.tail(3))?;
    let expiry = options.expiry.resolve(cx.now_ms, "set")?;
    let db = cx.keyspace.db(cx.session.db);
    let old = db.peek(key);
    let may_write = match options.condition {
        Condition::Always => true,
        Condition::IfAbsent => old.is_none(),
        Condition::IfPresent => old.is_some(),
    };
    match (options.answer, old) {
        (Answer::OldValue, Some(entry)) => reply_string(&mut cx.reply, string_of(entry)?),
        (Answer::OldValue, None) => cx.reply.null(),
        (Answer::Ok, _) if may_write => cx.reply.ok(),
        (Answer::Ok, _) => cx.reply.null(),
    }
    if may_write {
        store(cx, key, value, expiry);
    }
    Ok(())
}

/// Stores a string and propagates an absolute expiry. A replica that comes late to a time that is over keeps the key: the
/// master may have given it another time since, and sends a DEL if not.
fn store(cx: &mut Context<'_>, key: &[u8], value: &[u8], expiry: SetExpiry) {
    let rule = cx.keyspace.context().expiry;
    cx.effects.changed(1);
    match expiry {
        SetExpiry::At(at) if at <= cx.now_ms && rule == ExpiryRule::Delete => {
            cx.keyspace.db(cx.session.db).remove(key);
            cx.effects.propagate([b"DEL", key]);
            return;
        }
        SetExpiry::At(at) => {
            let at = resp::format_i64(at);
            cx.effects.propagate([b"SET", key, value, b"PXAT", &at]);
        }
        SetExpiry::Keep => cx.effects.propagate([b"SET", key, value, b"KEEPTTL"]),
        SetExpiry::Clear => cx.effects.propagate([b"SET", key, value]),
    }
    cx.keyspace
        .db(cx.session.db)
        .set_string(key, value.into(), expiry);
}

fn setnx(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    let db = cx.keyspace.db(cx.session.db);
    if db.contains(&args[1]) {
        cx.reply.integer(0);
        return Ok(());
    }
    db.set_string(&args[1], args[2].into(), SetExpiry::Clear);
    cx.effects.changed(1);
    cx.reply.integer(1);
    Ok(())
}

fn setex(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    set_with_ttl(cx, args, TimeUnit::Seconds, "setex")
}

fn psetex(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    set_with_ttl(cx, args, TimeUnit::Milliseconds, "psetex")
}

fn set_with_ttl(
    cx: &mut Context<'_>,
    args: Args<'_>,
    unit: TimeUnit,
    command: &str,
) -> CommandResult {
    let at = expiry(&args[2], unit, TimeBase::Relative, cx.now_ms, command)?;
    store(cx, &args[1], &args[3], SetExpiry::At(at));
    cx.reply.ok();
    Ok(())
}

fn getset(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    reply_at(cx, &args[1])?;
    store(cx, &args[1], &args[2], SetExpiry::Clear);
    Ok(())
}

fn getdel(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    reply_at(cx, &args[1])?;
    if cx.keyspace.db(cx.session.db).remove(&args[1]) {
        cx.effects.changed(1);
        cx.effects.propagate([b"DEL", &args[1]]);
    }
    Ok(())
}

fn getex(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    let key = &args[1];
    let asked = getex_options(args.tail(2))?;
    reply_at(cx, key)?;
    let (now_ms, rule) = (cx.now_ms, cx.keyspace.context().expiry);
    // As in Redis, a key that is not there hides a wrong time.
    if cx.keyspace.db(cx.session.db).peek(key).is_none() {
        return Ok(());
    }
    let expiry = asked.resolve(now_ms, "getex")?;
    let Some(mut entry) = cx.keyspace.db(cx.session.db).get_mut(key) else {
        return Ok(());
    };
    match expiry {
        SetExpiry::Keep => {}
        SetExpiry::Clear => {
            if entry.expire_at().is_some() {
                entry.set_expiry(None);
                cx.effects.changed(1);
                cx.effects.propagate([b"PERSIST", key]);
            }
        }
        SetExpiry::At(at) if at <= now_ms && rule == ExpiryRule::Delete => {
            cx.keyspace.db(cx.session.db).remove(key);
            cx.effects.changed(1);
            cx.effects.propagate([b"DEL", key]);
        }
        SetExpiry::At(at) => {
            entry.set_expiry(Some(at));
            cx.effects.changed(1);
            cx.effects
                .propagate([b"PEXPIREAT", key, &resp::format_i64(at)]);
        }
    }
    Ok(())
}

fn mget(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    cx.reply.array(args.len() - 1);
    let db = cx.keyspace.db(cx.session.db);
    for key in args.iter().skip(1) {
        match db.get(key).and_then(|entry| string_of(entry).ok()) {
            Some(string) => reply_string(&mut cx.reply, string),
            None => cx.reply.null(),
        }
    }
    Ok(())
}

fn mset(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    if args.len().is_multiple_of(2) {
        return Err(CommandError::wrong_arity("mset"));
    }
    set_pairs(cx, args);
    cx.reply.ok();
    Ok(())
}

fn msetnx(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    if args.len().is_multiple_of(2) {
        return Err(CommandError::wrong_arity("msetnx"));
    }
    let db = cx.keyspace.db(cx.session.db);
    if args.iter().skip(1).step_by(2).any(|key| db.contains(key)) {
        cx.reply.integer(0);
        return Ok(());
    }
    set_pairs(cx, args);
    cx.reply.integer(1);
    Ok(())
}

fn set_pairs(cx: &mut Context<'_>, args: Args<'_>) {
    let db = cx.keyspace.db(cx.session.db);
    let mut words = args.iter().skip(1);
    while let (Some(key), Some(value)) = (words.next(), words.next()) {
        db.set_string(key, value.into(), SetExpiry::Clear);
        cx.effects.changed(1);
    }
}

fn strlen(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    let entry = cx.keyspace.db(cx.session.db).get(&args[1]);
    let length = entry.map_or(Ok(0), |entry| string_of(entry).map(|string| string.len()))?;
    cx.reply.integer(length as i64);
    Ok(())
}

fn getrange(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    let (start, end) = (args::integer(&args[2])?, args::integer(&args[3])?);
    let Some(entry) = cx.keyspace.db(cx.session.db).get(&args[1]) else {
        cx.reply.bulk(b"");
        return Ok(());
    };
    let reply = &mut cx.reply;
    string_of(entry)?.with_bytes(|bytes| reply.bulk(slice(bytes, start, end)));
    Ok(())
}

/// `bytes[start..=end]` where negative positions count from the end, as GETRANGE cuts.
fn slice(bytes: &[u8], start: i64, end: i64) -> &[u8] {
    let len = bytes.len() as i64;
    if start < 0 && end < 0 && start > end {
        return b"";
    }
    let absolute = |position: i64| {
        if position < 0 {
            (len + position).max(0)
        } else {
            position
        }
    };
    let (start, end) = (absolute(start), absolute(end).min(len - 1));
    if start > end {
        b""
    } else {
        &bytes[start as usize..=end as usize]
    }
}

fn setrange(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    let (key, patch) = (&args[1], &args[3]);
    let offset = args::non_negative(&args[2], "ERR offset is out of range")?;
    let db = cx.keyspace.db(cx.session.db);
    let old = db
        .get(key)
        .map_or(Ok(None), |e| string_of(e).map(|string| Some(string.len())))?;
    if patch.is_empty() {
        cx.reply.integer(old.unwrap_or(0) as i64);
        return Ok(());
    }
    if offset.saturating_add(patch.len()) > cx.max_string_bytes {
        return Err(TOO_LONG);
    }
    if old.is_none() {
        db.set_string(key, StringInput::Bytes(b""), SetExpiry::Clear);
    }
    let mut length = 0;
    if let Some(mut entry) = db.get_mut(key)
        && let ValueMut::String(mut string) = entry.value_mut()
    {
        string.set_range(offset, patch);
        length = string.len();
    }
    cx.effects.changed(1);
    cx.reply.integer(length as i64);
    Ok(())
}

fn append(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    let (key, suffix) = (&args[1], &args[2]);
    let db = cx.keyspace.db(cx.session.db);
    let old = db
        .get(key)
        .map_or(Ok(None), |e| string_of(e).map(|string| Some(string.len())))?;
    let length = match old {
        None => {
            db.set_string(key, suffix.into(), SetExpiry::Clear);
            suffix.len()
        }
        Some(old) => {
            if old.saturating_add(suffix.len()) > cx.max_string_bytes {
                return Err(TOO_LONG);
            }
            if let Some(mut entry) = db.get_mut(key)
                && let ValueMut::String(mut string) = entry.value_mut()
            {
                string.append(suffix);
            }
            old + suffix.len()
        }
    };
    cx.effects.changed(1);
    cx.reply.integer(length as i64);
    Ok(())
}

fn incr(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    add(cx, &args[1], 1)
}

fn decr(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    add(cx, &args[1], -1)
}

fn incrby(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    add(cx, &args[1], args::integer(&args[2])?)
}

fn decrby(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    let amount = args::integer(&args[2])?;
    let amount = amount
        .checked_neg()
        .ok_or(CommandError::new("ERR decrement would overflow"))?;
    add(cx, &args[1], amount)
}

fn add(cx: &mut Context<'_>, key: &[u8], amount: i64) -> CommandResult {
    let db = cx.keyspace.db(cx.session.db);
    let sum = match db.get_mut(key) {
        None => {
            db.set_string(key, StringInput::Int(amount), SetExpiry::Clear);
            amount
        }
        Some(mut entry) => {
            let ValueMut::String(mut string) = entry.value_mut_quietly() else {
                return Err(CommandError::WRONG_TYPE);
            };
            let old = string.as_int().ok_or(CommandError::NOT_INTEGER)?;
            let sum = old.checked_add(amount).ok_or(OVERFLOW)?;
            string.set_int(sum);
            entry.report_change();
            sum
        }
    };
    cx.effects.changed(1);
    cx.reply.integer(sum);
    Ok(())
}

fn incrbyfloat(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    let key = &args[1];
    let db = cx.keyspace.db(cx.session.db);
    let old = match db.peek(key) {
        None => Float80::ZERO,
        Some(entry) => string_of(entry)?
            .with_bytes(Float80::parse)
            .ok_or(CommandError::NOT_FLOAT)?,
    };
    let amount = Float80::parse(&args[2]).ok_or(CommandError::NOT_FLOAT)?;
    let sum = old.plus(amount).ok_or(CommandError::NOT_FINITE)?;
    let text = sum.human();
    db.set_string(key, StringInput::Bytes(text.as_bytes()), SetExpiry::Keep);
    cx.effects.changed(1);
    cx.effects
        .propagate([b"SET", key, text.as_bytes(), b"KEEPTTL"]);
    cx.reply.bulk(text.as_bytes());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_cut_as_redis_does() {
        let text = b"This is a string";
        assert_eq!(slice(text, 0, 3), b"This");
        assert_eq!(slice(text, -3, -1), b"ing");
        assert_eq!(slice(text, 0, -1), text);
        assert_eq!(slice(text, 10, 100), b"string");
        assert_eq!(slice(text, -1, -5), b"");
        assert_eq!(slice(text, -100, 2), b"Thi");
        assert_eq!(slice(b"", 0, -1), b"");
    }
}
