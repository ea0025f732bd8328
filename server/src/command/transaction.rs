//! MULTI, EXEC, DISCARD, WATCH, UNWATCH. Queueing and running the queue is the engine's work
//! (`engine::transaction`); the handlers here change the session.

use resp::Args;

use super::{
    CommandError, CommandSpec, Context, Flags, Group, KeySpec,
    effects::Next,
    error::CommandResult,
    session::{Transaction, TransactionState},
};

const ALWAYS: Flags = Flags::NOSCRIPT
    .with(Flags::LOADING)
    .with(Flags::STALE)
    .with(Flags::FAST)
    .with(Flags::ALLOW_BUSY);

/// The family's commands.
pub const COMMANDS: &[CommandSpec] = &[
    CommandSpec::new("multi", Group::Transactions, 1, multi)
        .flags(ALWAYS)
        .doc("1.2.0", "Starts a transaction."),
    CommandSpec::new("exec", Group::Transactions, 1, exec)
        .flags(
            Flags::NOSCRIPT
                .with(Flags::LOADING)
                .with(Flags::STALE)
                .with(Flags::SKIP_SLOWLOG),
        )
        .doc("1.2.0", "Executes all commands in a transaction."),
    CommandSpec::new("discard", Group::Transactions, 1, discard)
        .flags(ALWAYS)
        .doc("2.0.0", "Discards a transaction."),
    CommandSpec {
        keys: KeySpec::ALL,
        ..CommandSpec::new("watch", Group::Transactions, -2, watch)
    }
    .uses(&["RO"])
    .flags(ALWAYS)
    .doc(
        "2.2.0",
        "Monitors changes to keys to determine the execution of a transaction.",
    ),
    CommandSpec::new("unwatch", Group::Transactions, 1, unwatch)
        .flags(ALWAYS)
        .doc("2.2.0", "Forgets about watched keys of a transaction."),
];

fn multi(cx: &mut Context<'_>, _: Args<'_>) -> CommandResult {
    if cx.session.transaction.is_some() {
        return Err(CommandError::new("ERR MULTI calls can not be nested"));
    }
    cx.session.transaction = Some(Transaction::default());
    cx.reply.ok();
    Ok(())
}

fn exec(cx: &mut Context<'_>, _: Args<'_>) -> CommandResult {
    let Some(transaction) = &cx.session.transaction else {
        return Err(CommandError::new("ERR EXEC without MULTI"));
    };
    if transaction.state == TransactionState::Aborted {
        end(cx);
        return Err(CommandError::new(
            "EXECABORT Transaction discarded because of previous errors.",
        ));
    }
    if cx.keyspace.watch_broken(&cx.session.watched, cx.now_ms) {
        end(cx);
        cx.reply.null_array();
        return Ok(());
    }
    cx.effects.then(Next::RunTransaction);
    Ok(())
}

fn discard(cx: &mut Context<'_>, _: Args<'_>) -> CommandResult {
    if cx.session.transaction.is_none() {
        return Err(CommandError::new("ERR DISCARD without MULTI"));
    }
    end(cx);
    cx.reply.ok();
    Ok(())
}

/// Ends the transaction and forgets what was watched for it.
fn end(cx: &mut Context<'_>) {
    cx.session.transaction = None;
    cx.keyspace.unwatch(&mut cx.session.watched);
}

fn watch(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    if cx.session.transaction.is_some() {
        return Err(CommandError::new("ERR WATCH inside MULTI is not allowed"));
    }
    for key in args.iter().skip(1) {
        cx.keyspace
            .watch(&mut cx.session.watched, cx.session.db, key);
    }
    cx.reply.ok();
    Ok(())
}

fn unwatch(cx: &mut Context<'_>, _: Args<'_>) -> CommandResult {
    cx.keyspace.unwatch(&mut cx.session.watched);
    cx.reply.ok();
    Ok(())
}
