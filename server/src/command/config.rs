//! CONFIG GET, SET, REWRITE, RESETSTAT.

use resp::Args;

use super::{
    CommandError, CommandSpec, Context, Flags, Group,
    effects::{Next, PartialReply},
    error::CommandResult,
    introspection::{help_of, unknown_subcommand},
};
use crate::config::Locality;

const FLAGS: Flags = Flags::ADMIN
    .with(Flags::NOSCRIPT)
    .with(Flags::LOADING)
    .with(Flags::STALE);

/// The family's commands.
pub const COMMANDS: &[CommandSpec] =
    &[
        CommandSpec::new("config", Group::Server, -2, unknown_subcommand)
            .doc("2.0.0", "A container for server configuration commands.")
            .subcommands(CONFIG),
    ];

const CONFIG: &[CommandSpec] = &[
    CommandSpec::new("get", Group::Server, -3, get)
        .flags(FLAGS)
        .doc(
            "2.0.0",
            "Returns the effective values of configuration parameters.",
        ),
    CommandSpec::new("set", Group::Server, -4, set)
        .flags(FLAGS)
        .doc("2.0.0", "Sets configuration parameters in-flight."),
    CommandSpec::new("rewrite", Group::Server, 2, rewrite)
        .flags(FLAGS)
        .doc("2.8.0", "Persists the effective configuration to file."),
    CommandSpec::new("resetstat", Group::Server, 2, resetstat)
        .flags(FLAGS)
        .doc("2.0.0", "Resets the server's statistics."),
    CommandSpec::new("help", Group::Server, 2, |cx, _| help_of(cx, "config"))
        .flags(Flags::LOADING.with(Flags::STALE))
        .doc(
            "5.0.0",
            "Returns helpful text about the different subcommands.",
        ),
];

/// The words from `first` on as text. Names and values are text; others match nothing.
fn texts(args: Args<'_>, first: usize) -> Vec<std::borrow::Cow<'_, str>> {
    args.tail(first)
        .iter()
        .map(String::from_utf8_lossy)
        .collect()
}

fn get(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    let patterns = texts(args, 2);
    let patterns: Vec<&str> = patterns.iter().map(AsRef::as_ref).collect();
    let found = cx.host.config_get(&patterns);
    cx.reply.map(found.len());
    for (name, value) in found {
        cx.reply.bulk(name.as_bytes());
        cx.reply.bulk(value.as_bytes());
    }
    Ok(())
}

fn set(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    if !args.len().is_multiple_of(2) {
        return Err(CommandError::SYNTAX);
    }
    let is_text = |word: &[u8]| std::str::from_utf8(word).is_ok();
    if let Some(name) = args.tail(2).iter().step_by(2).find(|name| !is_text(name)) {
        let unknown = "ERR Unknown option or number of arguments for CONFIG SET - '";
        return Err(CommandError::quoting(unknown, name, "'"));
    }
    if !args.tail(2).iter().all(is_text) {
        return Err(CommandError::new(
            "ERR CONFIG SET failed - values must be UTF-8",
        ));
    }
    let words = texts(args, 2);
    let pairs: Vec<(&str, &str)> = words
        .chunks_exact(2)
        .map(|pair| (&*pair[0], &*pair[1]))
        .collect();
    let peer = if cx.session.is_local() {
        Locality::Local
    } else {
        Locality::Remote
    };
    cx.host.config_set(&pairs, peer, cx.keyspace)?;
    cx.reply.ok();
    Ok(())
}

fn rewrite(cx: &mut Context<'_>, _: Args<'_>) -> CommandResult {
    cx.host.check_config_file()?;
    cx.effects.then(Next::AwaitRewrite(PartialReply::missing()));
    Ok(())
}

fn resetstat(cx: &mut Context<'_>, _: Args<'_>) -> CommandResult {
    cx.keyspace.reset_stats();
    cx.host.reset_stats();
    cx.reply.ok();
    Ok(())
}
