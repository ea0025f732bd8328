//! MULTI: queueing, and running the queue as one unit under one lock.

use resp::{Args, OwnedArgs, ReplyWriter};

use super::{
    State,
    execute::{Origin, Verdict},
};
use crate::command::{
    CommandError, Flags,
    effects::{Next, PartialReply},
    session::{Session, TransactionState},
    table::CommandEntry,
};

/// Most bytes that one MULTI may queue, like the largest query buffer of Redis.
const MAX_QUEUED_BYTES: usize = 1024 * 1024 * 1024;

impl State {
    /// Queues an admitted command and answers `QUEUED`.
    pub(super) fn queue(
        &mut self,
        session: &mut Session,
        entry: &'static CommandEntry,
        args: Args<'_>,
        out: &mut Vec<u8>,
    ) {
        let Some(transaction) = &mut session.transaction else {
            return;
        };
        let mut reply = ReplyWriter::new(out, session.version);
        let owned = OwnedArgs::from_args(args);
        transaction.bytes += owned.heap_bytes();
        let refused = if entry.spec.flags.contains(Flags::NO_MULTI) {
            Some(CommandError::new(
                "ERR Command not allowed inside a transaction",
            ))
        } else if transaction.bytes > MAX_QUEUED_BYTES {
            Some(CommandError::new("ERR transaction queue too long"))
        } else {
            None
        };
        match refused {
            Some(error) => {
                transaction.state = TransactionState::Aborted;
                reply.error(error.text());
                self.core.stats.count_error(&error);
            }
            None => {
                transaction.queue.push((entry, owned));
                reply.simple("QUEUED");
            }
        }
    }

    /// Runs what was queued. Its effects enter the stream between MULTI and EXEC if they are more
    /// than one. A CONFIG REWRITE is done after the others, without the lock, and the whole reply
    /// waits for it.
    pub(super) fn run_transaction(
        &mut self,
        session: &mut Session,
        out: &mut Vec<u8>,
        origin: Origin,
    ) -> Verdict {
        let Some(transaction) = session.transaction.take() else {
            return Verdict::Done;
        };
        self.keyspace.unwatch(&mut session.watched);
        let mark = out.len();
        let mut gaps = Vec::new();
        ReplyWriter::new(out, session.version).array(transaction.queue.len());
        self.core.replication.begin_unit();
        for (entry, args) in &transaction.queue {
            match self.run_queued(session, entry, args, out, origin) {
                Answered::Now => {}
                Answered::AfterRewrite => gaps.push(out.len() - mark),
            }
        }
        self.core.replication.end_unit();
        session.last_write_offset = self.core.replication.offset();
        if gaps.is_empty() {
            return Verdict::Done;
        }
        let reply = PartialReply::with_gaps(out.split_off(mark), gaps);
        Verdict::Then(Next::AwaitRewrite(reply))
    }

    fn run_queued(
        &mut self,
        session: &mut Session,
        entry: &'static CommandEntry,
        args: &OwnedArgs,
        out: &mut Vec<u8>,
        origin: Origin,
    ) -> Answered {
        // Inside EXEC nothing blocks: WAIT answers what has been acknowledged so far.
        match self.run(session, entry, args.as_args(), out, origin) {
            Verdict::Then(Next::AwaitReplicas { .. }) => {
                let acknowledged = self
                    .core
                    .replication
                    .acknowledged_by(session.last_write_offset);
                ReplyWriter::new(out, session.version).integer(acknowledged as i64);
            }
            Verdict::Then(Next::AwaitRewrite(_)) => return Answered::AfterRewrite,
            Verdict::Then(Next::Shutdown(mode)) => self.core.shared.request_shutdown(mode),
            Verdict::Then(
                Next::Close
                | Next::Continue
                | Next::AwaitSave
                | Next::BecomeReplica(_)
                | Next::RunTransaction,
            )
            | Verdict::Paused
            | Verdict::Done => {}
        }
        Answered::Now
    }
}

/// When a queued command has its reply.
enum Answered {
    Now,
    AfterRewrite,
}
