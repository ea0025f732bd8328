//! The server as a whole: INFO, DBSIZE, FLUSHALL, TIME, LASTSAVE, SHUTDOWN, and a little of DEBUG.

use std::time::Duration;

use resp::Args;

use super::{
    CommandError, CommandSpec, Context, Flags, Group,
    args::{self, is, parse_float},
    effects::{FailedSave, LaggingReplicas, Next, ShutdownMode, ShutdownRequest},
    error::CommandResult,
    introspection::{help_of, unknown_subcommand},
    session::Switch,
};
use crate::config::Permission;

/// Longest DEBUG SLEEP: it stops everybody.
const MAX_DEBUG_SLEEP: Duration = Duration::from_secs(600);

/// The family's commands.
pub const COMMANDS: &[CommandSpec] = &[
    CommandSpec::new("info", Group::Server, -1, info)
        .flags(Flags::LOADING.with(Flags::STALE))
        .doc(
            "1.0.0",
            "Returns information and statistics about the server.",
        )
        .in_categories(&["@dangerous"]),
    CommandSpec::new("dbsize", Group::Server, 1, dbsize)
        .flags(Flags::READONLY.with(Flags::FAST))
        .in_categories(&["@keyspace"])
        .doc("1.0.0", "Returns the number of keys in the database."),
    CommandSpec::new("flushall", Group::Server, -1, flushall)
        .flags(Flags::WRITE)
        .in_categories(&["@keyspace", "@dangerous"])
        .doc("1.0.0", "Removes all keys from all databases."),
    CommandSpec::new("flushdb", Group::Server, -1, flushdb)
        .flags(Flags::WRITE)
        .in_categories(&["@keyspace", "@dangerous"])
        .doc("1.0.0", "Remove all keys from the current database."),
    CommandSpec::new("time", Group::Server, 1, time)
        .flags(Flags::LOADING.with(Flags::STALE).with(Flags::FAST))
        .doc("2.6.0", "Returns the server time."),
    CommandSpec::new("lastsave", Group::Server, 1, lastsave)
        .flags(Flags::LOADING.with(Flags::STALE).with(Flags::FAST))
        .in_categories(&["@admin", "@dangerous"])
        .doc(
            "1.0.0",
            "Returns the Unix timestamp of the last successful save to disk.",
        ),
    CommandSpec::new("shutdown", Group::Server, -1, shutdown)
        .flags(
            Flags::ADMIN
                .with(Flags::NOSCRIPT)
                .with(Flags::LOADING)
                .with(Flags::STALE)
                .with(Flags::NO_MULTI)
                .with(Flags::ALLOW_BUSY),
        )
        .doc(
            "1.0.0",
            "Synchronously saves the database(s) to disk and shuts down the Redis server.",
        ),
    CommandSpec::new("debug", Group::Server, -2, unknown_subcommand)
        .flags(DEBUG_FLAGS)
        .doc("1.0.0", "A container for debugging commands.")
        .subcommands(DEBUG),
];

const DEBUG_FLAGS: Flags = Flags::ADMIN
    .with(Flags::NOSCRIPT)
    .with(Flags::LOADING)
    .with(Flags::STALE);

const DEBUG: &[CommandSpec] = &[
    CommandSpec::new("sleep", Group::Server, 3, debug_sleep)
        .flags(DEBUG_FLAGS)
        .doc("1.0.0", "Stop the server for the given number of seconds."),
    CommandSpec::new(
        "set-active-expire",
        Group::Server,
        3,
        debug_set_active_expire,
    )
    .flags(DEBUG_FLAGS)
    .doc(
        "1.0.0",
        "Switch the removal of expired keys that nobody looks up off (0) or on (1).",
    ),
    CommandSpec::new("help", Group::Server, 2, |cx, _| help_of(cx, "debug"))
        .flags(Flags::LOADING.with(Flags::STALE))
        .doc(
            "1.0.0",
            "Returns helpful text about the different subcommands.",
        ),
];

fn info(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    let names: Vec<String> = args
        .tail(1)
        .iter()
        .map(|word| String::from_utf8_lossy(word).to_ascii_lowercase())
        .collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let text = cx.host.info(&names, cx.keyspace, cx.now_ms);
    cx.reply.verbatim("txt", text.as_bytes());
    Ok(())
}

fn dbsize(cx: &mut Context<'_>, _: Args<'_>) -> CommandResult {
    let keys = cx.keyspace.db(cx.session.db).len();
    cx.reply.integer(keys as i64);
    Ok(())
}

/// `ASYNC` and `SYNC` are accepted; either way the memory is given back in slices.
fn check_flush_mode(args: Args<'_>) -> CommandResult {
    match (args.len(), args.get(1)) {
        (1, _) => Ok(()),
        (2, Some(word)) if is(word, "ASYNC") || is(word, "SYNC") => Ok(()),
        _ => Err(CommandError::SYNTAX),
    }
}

fn flushall(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    check_flush_mode(args)?;
    let keys = cx.keyspace.len() as u64;
    cx.keyspace.clear();
    flushed(cx, args, keys);
    Ok(())
}

fn flushdb(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    check_flush_mode(args)?;
    let db = cx.keyspace.db(cx.session.db);
    let keys = db.len() as u64;
    db.clear();
    flushed(cx, args, keys);
    Ok(())
}

/// It is propagated even if there was nothing: a replica may hold keys that have expired here.
fn flushed(cx: &mut Context<'_>, args: Args<'_>, keys: u64) {
    cx.effects.changed(keys.max(1));
    cx.effects.propagate(args.iter().collect::<Vec<_>>());
    cx.reply.ok();
}

fn time(cx: &mut Context<'_>, _: Args<'_>) -> CommandResult {
    cx.reply.array(2);
    const US_PER_S: i64 = 1_000_000;
    cx.reply.bulk_int(cx.now_us.div_euclid(US_PER_S));
    cx.reply.bulk_int(cx.now_us.rem_euclid(US_PER_S));
    Ok(())
}

fn lastsave(cx: &mut Context<'_>, _: Args<'_>) -> CommandResult {
    let seconds = cx.host.last_save_s();
    cx.reply.integer(seconds);
    Ok(())
}

fn shutdown(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    let mut request = ShutdownRequest::default();
    if args.len() == 2 && is(&args[1], "ABORT") {
        cx.host.abort_shutdown()?;
        cx.reply.ok();
        return Ok(());
    }
    for word in args.tail(1).iter() {
        match (word, request.mode) {
            (save, ShutdownMode::Default | ShutdownMode::Save) if is(save, "SAVE") => {
                request.mode = ShutdownMode::Save;
            }
            (no, ShutdownMode::Default | ShutdownMode::NoSave) if is(no, "NOSAVE") => {
                request.mode = ShutdownMode::NoSave;
            }
            (now, _) if is(now, "NOW") => request.replicas = LaggingReplicas::Leave,
            (force, _) if is(force, "FORCE") => request.failed_save = FailedSave::Leave,
            _ => return Err(CommandError::SYNTAX),
        }
    }
    cx.effects.then(Next::Shutdown(request));
    Ok(())
}

fn check_debug(cx: &Context<'_>) -> CommandResult {
    let allowed = match cx.host.debug_permission() {
        Permission::Yes => true,
        Permission::Local => cx.session.is_local(),
        Permission::No => false,
    };
    if allowed {
        return Ok(());
    }
    Err(CommandError::new(
        "ERR DEBUG command not allowed. If the enable-debug-command option is set to \"local\", \
         you can run it from a local connection, otherwise you need to set this option in the \
         configuration file, and then restart the server.",
    ))
}

fn debug_sleep(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    check_debug(cx)?;
    let seconds =
        parse_float(&args[2]).filter(|s| (0.0..=MAX_DEBUG_SLEEP.as_secs_f64()).contains(s));
    let seconds = seconds.ok_or(CommandError::NOT_FLOAT)?;
    cx.host.debug_sleep(Duration::from_secs_f64(seconds));
    cx.reply.ok();
    Ok(())
}

fn debug_set_active_expire(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    check_debug(cx)?;
    let wanted = if args::integer(&args[2])? == 0 {
        Switch::Off
    } else {
        Switch::On
    };
    cx.host.set_active_expire(wanted);
    cx.reply.ok();
    Ok(())
}
