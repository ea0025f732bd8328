//! COMMAND, and what every container of subcommands shares: HELP and the error for unknown ones.
//! Everything is read from the table of commands.

use resp::{Args, ReplyWriter};

use super::{
    CommandError, CommandSpec, Context, Flags, Group, KeySpec,
    args::is,
    error::CommandResult,
    table::{self, CommandEntry},
};
use crate::glob;

const ALWAYS: Flags = Flags::LOADING.with(Flags::STALE);
const CONNECTION: &[&str] = &["@connection"];

/// The family's commands.
pub const COMMANDS: &[CommandSpec] = &[CommandSpec::new("command", Group::Server, -1, command)
    .flags(ALWAYS)
    .in_categories(CONNECTION)
    .doc("2.8.13", "Returns detailed information about all commands.")
    .subcommands(COMMAND)];

const COMMAND: &[CommandSpec] = &[
    CommandSpec::new("count", Group::Server, 2, count)
        .flags(ALWAYS)
        .in_categories(CONNECTION)
        .doc("2.8.13", "Returns a count of commands."),
    CommandSpec::new("info", Group::Server, -2, info)
        .flags(ALWAYS)
        .in_categories(CONNECTION)
        .doc(
            "2.8.13",
            "Returns information about one, multiple or all commands.",
        ),
    CommandSpec::new("docs", Group::Server, -2, docs)
        .flags(ALWAYS)
        .in_categories(CONNECTION)
        .doc(
            "7.0.0",
            "Returns documentary information about one, multiple or all commands.",
        ),
    CommandSpec::new("list", Group::Server, -2, list)
        .flags(ALWAYS)
        .in_categories(CONNECTION)
        .doc("7.0.0", "Returns a list of command names."),
    CommandSpec::new("getkeys", Group::Server, -3, getkeys)
        .flags(ALWAYS)
        .in_categories(CONNECTION)
        .doc(
            "2.8.13",
            "Extracts the key names from an arbitrary command.",
        ),
    CommandSpec::new("getkeysandflags", Group::Server, -3, getkeysandflags)
        .flags(ALWAYS)
        .in_categories(CONNECTION)
        .doc(
            "7.0.0",
            "Extracts the key names and access flags for an arbitrary command.",
        ),
    CommandSpec::new("help", Group::Server, 2, |cx, _| help_of(cx, "command"))
        .flags(ALWAYS)
        .in_categories(CONNECTION)
        .doc(
            "5.0.0",
            "Returns helpful information about the different subcommands.",
        ),
];

/// Handler of a container. Without a subcommand its arity is wrong, and an unknown one is refused by the engine, so this
/// answers only what gets past both.
pub fn unknown_subcommand(_: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    Err(CommandError::unknown_subcommand(args))
}

/// `<container> HELP`: its subcommands and what they do.
pub fn help_of(cx: &mut Context<'_>, container: &str) -> CommandResult {
    let Some(entry) = table::table().command(container.as_bytes()) else {
        return Err(CommandError::SYNTAX);
    };
    let upper = container.to_ascii_uppercase();
    cx.reply.array(1 + 2 * entry.subcommands.len());
    cx.reply.simple(&format!(
        "{upper} <subcommand> [<arg> [value] [opt] ...]. Subcommands are:"
    ));
    for sub in &entry.subcommands {
        cx.reply.simple(&sub.spec.name.to_ascii_uppercase());
        cx.reply.simple(&format!("    {}", sub.spec.summary));
    }
    Ok(())
}

/// `COMMAND` alone.
fn command(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    if args.len() > 1 {
        return unknown_subcommand(cx, args);
    }
    let commands = table::table().commands();
    cx.reply.array(commands.len());
    commands.iter().for_each(|entry| describe(cx, entry));
    Ok(())
}

fn count(cx: &mut Context<'_>, _: Args<'_>) -> CommandResult {
    cx.reply.integer(table::table().commands().len() as i64);
    Ok(())
}

/// A command or, as `container|name`, a subcommand.
fn lookup(name: &[u8]) -> Option<&'static CommandEntry> {
    let mut parts = name.splitn(2, |byte| *byte == b'|');
    let entry = table::table().command(parts.next()?)?;
    match parts.next() {
        None => Some(entry),
        Some(sub) => entry.subcommand(sub),
    }
}

fn info(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    if args.len() == 2 {
        let commands = table::table().commands();
        cx.reply.array(commands.len());
        commands.iter().for_each(|entry| describe(cx, entry));
        return Ok(());
    }
    cx.reply.array(args.len() - 2);
    for name in args.tail(2).iter() {
        match lookup(name) {
            Some(entry) => describe(cx, entry),
            None => cx.reply.null(),
        }
    }
    Ok(())
}

/// One element of COMMAND INFO.
fn describe(cx: &mut Context<'_>, entry: &CommandEntry) {
    let spec = entry.spec;
    let (first, last, step) = first_last_step(spec.keys);
    let reply = &mut cx.reply;
    reply.array(10);
    reply.bulk(entry.full_name.as_bytes());
    reply.integer(i64::from(spec.arity));
    let shown = match spec.keys {
        KeySpec::Counted { .. } => spec.flags.with(Flags::MOVABLE_KEYS),
        KeySpec::None | KeySpec::Range { .. } | KeySpec::Two | KeySpec::TargetAndAll => spec.flags,
    };
    let flags = Flags::NAMES
        .iter()
        .filter(|(flag, _)| shown.contains(*flag));
    reply.set(flags.clone().count());
    flags.for_each(|(_, name)| reply.simple(name));
    for number in [first, last, step] {
        reply.integer(i64::from(number));
    }
    let categories = categories(spec);
    reply.set(categories.len());
    categories
        .iter()
        .for_each(|category| reply.simple(category));
    // No tips.
    reply.set(0);
    describe_keys(cx, spec);
    match entry.subcommands.len() {
        0 => cx.reply.set(0),
        // As Redis has it: an array, unless it is empty.
        count => cx.reply.array(count),
    }
    entry.subcommands.iter().for_each(|sub| describe(cx, sub));
}

/// The older description of key positions: first, last, step; zeros where it cannot say.
fn first_last_step(keys: KeySpec) -> (i32, i32, i32) {
    match keys {
        KeySpec::None => (0, 0, 0),
        KeySpec::Range { .. } | KeySpec::Two | KeySpec::TargetAndAll => {
            keys.range().unwrap_or_default()
        }
        KeySpec::Counted { count: _, extra } => {
            let extra = extra as i32;
            (extra, extra, i32::from(extra > 0))
        }
    }
}

/// The key specifications of COMMAND INFO, a set.
fn describe_keys(cx: &mut Context<'_>, spec: &CommandSpec) {
    let range = |last, step| [("lastkey", last), ("keystep", step), ("limit", 0)];
    let use_of = |index: usize| spec.key_uses.get(index).copied().unwrap_or_default();
    match spec.keys {
        KeySpec::None => cx.reply.set(0),
        KeySpec::Range { first, last, step } => {
            cx.reply.set(1);
            let last = if last < 0 { last } else { last - first };
            describe_key(cx, use_of(0), first, range(last, step));
        }
        KeySpec::Two => {
            cx.reply.set(2);
            describe_key(cx, use_of(0), 1, range(0, 1));
            describe_key(cx, use_of(1), 2, range(0, 1));
        }
        KeySpec::TargetAndAll => {
            cx.reply.set(2);
            describe_key(cx, use_of(0), 1, range(0, 1));
            describe_key(cx, use_of(1), 2, range(-1, 1));
        }
        KeySpec::Counted { count, extra } => {
            cx.reply.set(1 + usize::from(extra > 0));
            if extra > 0 {
                describe_key(cx, use_of(0), extra as i32, range(0, 1));
            }
            let find = [("keynumidx", 0), ("firstkey", 1), ("keystep", 1)];
            describe_key(cx, use_of(usize::from(extra > 0)), count as i32, find);
        }
    }
}

/// The words of a key's use as a set.
fn reply_use(reply: &mut ReplyWriter<'_>, key_use: &str) {
    reply.set(key_use.split_whitespace().count());
    key_use
        .split_whitespace()
        .for_each(|word| reply.simple(word));
}

fn describe_key(cx: &mut Context<'_>, key_use: &str, index: i32, find: [(&str, i32); 3]) {
    let reply = &mut cx.reply;
    reply.map(3);
    reply.bulk(b"flags");
    reply_use(reply, key_use);
    reply.bulk(b"begin_search");
    reply.map(2);
    reply.bulk(b"type");
    reply.bulk(b"index");
    reply.bulk(b"spec");
    reply.map(1);
    reply.bulk(b"index");
    reply.integer(i64::from(index));
    reply.bulk(b"find_keys");
    reply.map(2);
    reply.bulk(b"type");
    reply.bulk(if find[0].0 == "lastkey" {
        b"range"
    } else {
        b"keynum"
    });
    reply.bulk(b"spec");
    reply.map(find.len());
    for (name, value) in find {
        reply.bulk(name.as_bytes());
        reply.integer(i64::from(value));
    }
}

/// ACL categories, derived from group and flags.
pub fn categories(spec: &CommandSpec) -> Vec<&'static str> {
    let has = |flag| spec.flags.contains(flag);
    let group = match spec.group {
        // A container is no command itself, and what is said explicitly counts alone.
        _ if !spec.subcommands.is_empty() || !spec.categories.is_empty() => None,
        Group::Generic => Some("@keyspace"),
        Group::String => Some("@string"),
        Group::List => Some("@list"),
        Group::Set => Some("@set"),
        Group::SortedSet => Some("@sortedset"),
        Group::Hash => Some("@hash"),
        Group::Connection => Some("@connection"),
        Group::Transactions => Some("@transaction"),
        Group::PubSub => Some("@pubsub"),
        Group::Server => None,
    };
    let by_flag = [
        (Flags::WRITE, "@write"),
        (Flags::READONLY, "@read"),
        (Flags::ADMIN, "@admin"),
        (Flags::ADMIN, "@dangerous"),
        (Flags::BLOCKING, "@blocking"),
        (Flags::FAST, "@fast"),
    ];
    let mut categories: Vec<&'static str> = group.into_iter().collect();
    categories.extend(spec.categories);
    categories.extend(
        by_flag
            .iter()
            .filter(|(flag, _)| has(*flag))
            .map(|(_, name)| *name),
    );
    if !has(Flags::FAST) {
        categories.push("@slow");
    }
    categories
}

fn docs(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    let entries: Vec<&CommandEntry> = match args.len() {
        2 => table::table().commands().iter().collect(),
        _ => args.tail(2).iter().filter_map(lookup).collect(),
    };
    cx.reply.map(entries.len());
    entries.iter().for_each(|entry| document(cx, entry));
    Ok(())
}

fn document(cx: &mut Context<'_>, entry: &CommandEntry) {
    let spec = entry.spec;
    let reply = &mut cx.reply;
    reply.bulk(entry.full_name.as_bytes());
    reply.map(3 + usize::from(!entry.subcommands.is_empty()));
    let texts = [
        ("summary", spec.summary),
        ("since", spec.since),
        ("group", spec.group.name()),
    ];
    for (name, text) in texts {
        reply.bulk(name.as_bytes());
        reply.bulk(text.as_bytes());
    }
    if !entry.subcommands.is_empty() {
        reply.bulk(b"subcommands");
        reply.map(entry.subcommands.len());
        entry.subcommands.iter().for_each(|sub| document(cx, sub));
    }
}

fn list(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    let all = table::table().all();
    let names: Vec<&str> = match (args.get(2), args.get(3), args.get(4)) {
        (None, _, _) => all.map(|entry| &*entry.full_name).collect(),
        (Some(filter), Some(kind), Some(word)) if is(filter, "FILTERBY") && args.len() == 5 => {
            if is(kind, "PATTERN") {
                let hit =
                    |name: &&str| glob::matches(word, name.as_bytes(), glob::Case::Insensitive);
                all.map(|entry| &*entry.full_name).filter(hit).collect()
            } else if is(kind, "ACLCAT") {
                let hit = |entry: &&CommandEntry| {
                    let categories = categories(entry.spec);
                    categories
                        .iter()
                        .any(|c| word.eq_ignore_ascii_case(&c.as_bytes()[1..]))
                };
                all.filter(hit).map(|entry| &*entry.full_name).collect()
            } else if is(kind, "MODULE") {
                // There are no modules, so none has commands.
                Vec::new()
            } else {
                return Err(CommandError::SYNTAX);
            }
        }
        _ => return Err(CommandError::SYNTAX),
    };
    cx.reply.array(names.len());
    names.iter().for_each(|name| cx.reply.bulk(name.as_bytes()));
    Ok(())
}

/// The command that a request names, and the positions of the keys in it.
fn keys_of(request: Args<'_>) -> Result<(&'static CommandSpec, Vec<usize>), CommandError> {
    let Some(entry) = table::table().find(request) else {
        return Err(CommandError::new("ERR Invalid command specified"));
    };
    if !entry.spec.subcommands.is_empty() && request.len() > 1 {
        // A container, none of whose subcommands was meant.
        return Err(CommandError::new("ERR Invalid command specified"));
    }
    if matches!(entry.spec.keys, KeySpec::None) {
        return Err(CommandError::new("ERR The command has no key arguments"));
    }
    let invalid = CommandError::new("ERR Invalid number of arguments specified for command");
    if !entry.spec.accepts(request.len()) {
        return Err(invalid);
    }
    let positions = entry.spec.keys.positions(request);
    let positions = positions.ok_or(CommandError::new(
        "ERR Invalid arguments specified for command",
    ))?;
    Ok((entry.spec, positions))
}

fn getkeys(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    let request = args.tail(2);
    let (_, positions) = keys_of(request)?;
    cx.reply.array(positions.len());
    positions.iter().for_each(|at| cx.reply.bulk(&request[*at]));
    Ok(())
}

fn getkeysandflags(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    let request = args.tail(2);
    let (spec, positions) = keys_of(request)?;
    cx.reply.array(positions.len());
    for (number, at) in positions.iter().enumerate() {
        let other = number > 0 && spec.keys.begins_with_another_use();
        let key_use = spec.key_uses.get(usize::from(other));
        let key_use = match key_use.copied().unwrap_or_default() {
            // Of SET, that is: it reads the key if it answers the old value.
            varies if varies.ends_with("variable_flags") => {
                let reads = request.iter().skip(3).any(|word| is(word, "GET"));
                if reads {
                    "RW access update"
                } else {
                    "OW update"
                }
            }
            fixed => fixed,
        };
        cx.reply.array(2);
        cx.reply.bulk(&request[*at]);
        reply_use(&mut cx.reply, key_use);
    }
    Ok(())
}
