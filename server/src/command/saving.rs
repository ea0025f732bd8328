//! SAVE and BGSAVE: the dataset to disk.

use resp::Args;

use super::{
    CommandError, CommandSpec, Context, Flags, Group, args::is, effects::Next, error::CommandResult,
};

const SAVING: Flags = Flags::ADMIN
    .with(Flags::NOSCRIPT)
    .with(Flags::NO_ASYNC_LOADING);

/// The family's commands.
pub const COMMANDS: &[CommandSpec] = &[
    CommandSpec::new("save", Group::Server, 1, save)
        .flags(SAVING.with(Flags::NO_MULTI))
        .doc("1.0.0", "Synchronously saves the database(s) to disk."),
    CommandSpec::new("bgsave", Group::Server, -1, bgsave)
        .flags(SAVING)
        .doc("1.0.0", "Asynchronously saves the database(s) to disk."),
    CommandSpec::new("bgrewriteaof", Group::Server, 1, bgrewriteaof)
        .flags(SAVING)
        .doc(
            "1.0.0",
            "Asynchronously rewrites the append-only file to disk.",
        ),
];

/// There is no append-only file to rewrite.
fn bgrewriteaof(_: &mut Context<'_>, _: Args<'_>) -> CommandResult {
    Err(CommandError::new(
        "ERR append-only files are not supported yet: use BGSAVE",
    ))
}

fn save(cx: &mut Context<'_>, _: Args<'_>) -> CommandResult {
    cx.host.check_not_saving()?;
    cx.effects.then(Next::AwaitSave);
    Ok(())
}

/// With SCHEDULE, Redis waits for an AOF rewrite, which does not exist here: it saves at once.
fn bgsave(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    if args.len() > 2 || args.get(1).is_some_and(|word| !is(word, "SCHEDULE")) {
        return Err(CommandError::SYNTAX);
    }
    cx.host.begin_save()?;
    cx.reply.simple("Background saving started");
    Ok(())
}
