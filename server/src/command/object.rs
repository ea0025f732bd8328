//! What is known about a key's value: OBJECT and MEMORY USAGE.
//!
//! Looking does not count as a use of the key.

use resp::Args;

use super::{
    CommandError, CommandSpec, Context, Flags, Group, KeySpec, args, error::CommandResult,
    introspection::unknown_subcommand, spec::Handler,
};
use crate::keyspace::{ValueRef, entry::Entry, string::StringRef};

/// Elements of a collection from which MEMORY USAGE estimates unless `SAMPLES` says otherwise.
const DEFAULT_SAMPLES: usize = 5;
/// Bytes of the table for each key, on average: a slot with its tag at the usual load.
const SLOT_BYTES: usize = 11;

const fn spec(name: &'static str, arity: i32, handler: Handler) -> CommandSpec {
    CommandSpec::new(name, Group::Generic, arity, handler)
}

/// The key of a subcommand.
const SECOND: KeySpec = KeySpec::Range {
    first: 2,
    last: 2,
    step: 1,
};

/// The family's commands.
pub const COMMANDS: &[CommandSpec] = &[
    spec("object", -2, unknown_subcommand)
        .subcommands(OBJECT)
        .doc("2.2.3", "A container for object introspection commands."),
    CommandSpec::new("memory", Group::Server, -2, unknown_subcommand)
        .subcommands(MEMORY)
        .doc("4.0.0", "A container for memory diagnostics commands."),
];

const OBJECT: &[CommandSpec] = &[
    spec("encoding", 3, object_encoding)
        .reads(SECOND)
        .uses(&["RO"])
        .doc("2.2.3", "Returns the internal encoding of a Redis object."),
    spec("freq", 3, object_freq)
        .reads(SECOND)
        .uses(&["RO"])
        .doc(
            "4.0.0",
            "Returns the logarithmic access frequency counter of a Redis object.",
        ),
    spec("idletime", 3, object_idletime)
        .reads(SECOND)
        .uses(&["RO"])
        .doc(
            "2.2.3",
            "Returns the time since the last access to a Redis object.",
        ),
    spec("refcount", 3, object_refcount)
        .reads(SECOND)
        .uses(&["RO"])
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
        .uses(&["RO"])
        .doc("4.0.0", "Estimates the memory usage of a key."),
    CommandSpec::new("help", Group::Server, 2, memory_help)
        .flags(Flags::LOADING.with(Flags::STALE))
        .doc(
            "4.0.0",
            "Returns helpful text about the different subcommands.",
        ),
];

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
    let context = cx.keyspace.context();
    match cx.keyspace.db(cx.session.db).inspect(&args[2]) {
        None => cx.reply.null(),
        Some(entry) => {
            let frequency = context.frequency(entry).ok_or(NOT_LFU)?;
            cx.reply.integer(i64::from(frequency));
        }
    }
    Ok(())
}

fn object_idletime(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    const IS_LFU: CommandError = CommandError::new(
        "ERR An LFU maxmemory policy is selected, idle time not tracked. Please note that when \
         switching between policies at runtime LRU and LFU data will take some time to adjust.",
    );
    let context = cx.keyspace.context();
    match cx.keyspace.db(cx.session.db).inspect(&args[2]) {
        None => cx.reply.null(),
        Some(entry) if context.frequency(entry).is_some() => return Err(IS_LFU),
        Some(entry) => cx.reply.integer(i64::from(context.idle_seconds(entry))),
    }
    Ok(())
}

/// No value is shared here; small integers answer what they do in Redis, where they are.
fn object_refcount(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    const SHARED: std::ops::Range<i64> = 0..10_000;
    let value = cx.keyspace.db(cx.session.db).inspect(&args[2]);
    match value.map(Entry::value) {
        None => cx.reply.null(),
        Some(ValueRef::String(StringRef::Int(value))) if SHARED.contains(&value) => {
            cx.reply.integer(i64::from(i32::MAX));
        }
        Some(
            ValueRef::String(_)
            | ValueRef::List(_)
            | ValueRef::Set(_)
            | ValueRef::Hash(_)
            | ValueRef::SortedSet(_),
        ) => cx.reply.integer(1),
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
