//! Keys of any type: DEL, EXISTS, RENAME, COPY, SCAN and their kin (EXPIRE: `expiry.rs`, OBJECT: `object.rs`).
//!
//! Reads that only look at a key (TYPE, EXISTS) count as hit or miss but not as a use of the key.

use resp::Args;

use super::{
    CommandError, CommandSpec, Context, Flags, Group, KeySpec, args, error::CommandResult,
    spec::Handler,
};
use crate::{
    glob,
    keyspace::{Entry, RenameOutcome, ReplaceRule, TransferOutcome},
};

const SAME_OBJECT: CommandError =
    CommandError::new("ERR source and destination objects are the same");

/// Keys that SCAN looks at unless `COUNT` says otherwise.
const DEFAULT_SCAN_COUNT: usize = 10;
const fn spec(name: &'static str, arity: i32, handler: Handler) -> CommandSpec {
    CommandSpec::new(name, Group::Generic, arity, handler)
}

/// The family's commands.
pub const COMMANDS: &[CommandSpec] = &[
    spec("del", -2, del).writes(KeySpec::ALL).uses(&["RM delete"]).doc("1.0.0", "Deletes one or more keys."),
    spec("unlink", -2, del).writes(KeySpec::ALL).uses(&["RM delete"]).fast().doc(
        "4.0.0",
        "Asynchronously deletes one or more keys.",
    ),
    spec("exists", -2, exists).reads(KeySpec::ALL).uses(&["RO"]).fast().doc(
        "1.0.0",
        "Determines whether one or more keys exist.",
    ),
    spec("touch", -2, touch).reads(KeySpec::ALL).uses(&["RO"]).fast().doc(
        "3.2.1",
        "Returns the number of existing keys out of those specified after updating the time they were last accessed.",
    ),
    spec("type", 2, type_of).reads(KeySpec::FIRST).uses(&["RO"]).fast().doc(
        "1.0.0",
        "Determines the type of value stored at a key.",
    ),
    spec("rename", 3, rename).writes(KeySpec::Two).uses(&["RW access delete", "OW update"]).doc(
        "1.0.0",
        "Renames a key and overwrites the destination.",
    ),
    spec("renamenx", 3, renamenx).writes(KeySpec::Two).uses(&["RW access delete", "OW insert"]).fast().doc(
        "1.0.0",
        "Renames a key only when the target key name doesn't exist.",
    ),
    spec("copy", -3, copy).writes(KeySpec::Two).uses(&["RO access", "OW update"]).grows().doc(
        "6.2.0",
        "Copies the value of a key to a new key.",
    ),
    spec("move", 3, move_key).writes(KeySpec::FIRST).uses(&["RW access update"]).fast().doc(
        "1.0.0",
        "Moves a key to another database.",
    ),
    spec("swapdb", 3, swapdb).flags(Flags::WRITE.with(Flags::FAST)).in_categories(&["@keyspace", "@dangerous"]).doc(
        "4.0.0",
        "Swaps two Redis databases.",
    ),
    spec("keys", 2, keys).flags(Flags::READONLY).in_categories(&["@keyspace", "@dangerous"]).doc(
        "1.0.0",
        "Returns all key names that match a pattern.",
    ),
    spec("scan", -2, scan).flags(Flags::READONLY).doc(
        "2.8.0",
        "Iterates over the key names in the database.",
    ),
    spec("randomkey", 1, randomkey).flags(Flags::READONLY).doc(
        "1.0.0",
        "Returns a random key name from the database.",
    ),
];

/// DEL and UNLINK: big values are freed elsewhere by both.
fn del(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    let db = cx.keyspace.db(cx.session.db);
    let mut removed = 0;
    for key in args.iter().skip(1) {
        removed += u64::from(db.remove(key));
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

fn copy(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    let (mut target, mut rule) = (cx.session.db, ReplaceRule::KeepTarget);
    let options = args.tail(3);
    let mut words = options.iter();
    while let Some(word) = words.next() {
        if args::is(word, "REPLACE") {
            rule = ReplaceRule::Replace;
        } else if args::is(word, "DB") {
            let word = words.next().ok_or(CommandError::SYNTAX)?;
            target = args::database(word, cx.keyspace.databases())?;
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
    let target = args::database(&args[2], cx.keyspace.databases())?;
    if target == cx.session.db {
        return Err(SAME_OBJECT);
    }
    let outcome = cx.keyspace.move_key(cx.session.db, target, &args[1]);
    reply_transfer(cx, outcome)
}

/// Exchanges two databases for everybody: clients that have one of them selected see the other's keys.
fn swapdb(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    let number = |word: &[u8], error| match resp::parse_i64(word) {
        Some(index) => i32::try_from(index).map_err(|_| error),
        None => Err(error),
    };
    let first = number(&args[1], CommandError::new("ERR invalid first DB index"))?;
    let second = number(&args[2], CommandError::new("ERR invalid second DB index"))?;
    let checked = |index: i32| {
        let index = u32::try_from(index).ok();
        index.filter(|index| *index < cx.keyspace.databases())
    };
    let (Some(first), Some(second)) = (checked(first), checked(second)) else {
        return Err(CommandError::DB_OUT_OF_RANGE);
    };
    cx.keyspace.swap(first, second);
    cx.effects.changed(1);
    cx.reply.ok();
    Ok(())
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
    let cursor = args::cursor(&args[1])?;
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
