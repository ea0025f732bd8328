//! The one door: find → admit → queue or run → account → propagate.

use resp::{Args, ReplyWriter};

use super::{State, admit::Refusal, clock};
use crate::command::{
    CommandError, Context, Flags,
    context::Authority,
    effects::Next,
    session::{Session, Switch, TransactionState},
    table::{self, CommandEntry},
};
use crate::config::NetConfig;
use crate::keyspace::usage::Uses;

/// Who asks. It decides which gates apply and whether the effect enters the replication stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// A client connection: every gate applies, effects are propagated.
    Client,
    /// The stream of our master: no gate applies, and the link forwards the bytes itself.
    Master,
    /// The engine itself (expiry, eviction): no gate applies, effects are propagated.
    Internal,
}

/// Longest string that any server can be told to take: the greatest `proto-max-bulk-len`.
const MAX_STRING_BYTES: usize = 2048 * 1024 * 1024;

impl Origin {
    /// Longest string that a command may make by adding to one; what the master has made is never refused.
    fn max_string_bytes(self, config: &NetConfig) -> usize {
        match self {
            Origin::Client | Origin::Internal => config.max_bulk_bytes as usize,
            Origin::Master => MAX_STRING_BYTES,
        }
    }

    fn authority(self) -> Authority {
        match self {
            Origin::Client | Origin::Internal => Authority::Own,
            Origin::Master => Authority::Master,
        }
    }
}

/// What became of a request.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Answered, or silently done.
    Done,
    /// Held back by a pause: nothing ran; present it again when the pause has ended.
    Paused,
    /// Answered as far as it could be; the connection has to act.
    Then(Next),
}

impl State {
    /// Runs one request of `session` and appends its reply to `out`.
    pub fn execute(
        &mut self,
        session: &mut Session,
        args: Args<'_>,
        out: &mut Vec<u8>,
        origin: Origin,
    ) -> Verdict {
        let mark = out.len();
        let verdict = match self.admit(session, args, origin) {
            Ok(entry) if self.must_queue(session, entry, origin) => {
                session.last_command = entry.id;
                self.queue(session, entry, args, out);
                Verdict::Done
            }
            Ok(entry) => {
                session.last_command = entry.id;
                self.run(session, entry, args, out, origin)
            }
            Err(Refusal::Paused) => return Verdict::Paused,
            Err(Refusal::Error(entry, error)) => {
                session.last_command = entry.map_or(usize::MAX, |entry| entry.id);
                self.refuse(session, entry, &error, out);
                Verdict::Done
            }
        };
        session.mute(out, mark);
        verdict
    }

    /// Runs an admitted command outside of any queueing.
    pub(super) fn run(
        &mut self,
        session: &mut Session,
        entry: &'static CommandEntry,
        args: Args<'_>,
        out: &mut Vec<u8>,
        origin: Origin,
    ) -> Verdict {
        self.effects.clear();
        let started = clock::ticks();
        self.call(session, entry, args, out, origin);
        let stats = &mut self.core.stats.commands[entry.id];
        stats.calls += 1;
        stats.ticks += clock::ticks().wrapping_sub(started);
        self.core.stats.commands_processed += 1;
        match origin {
            // Its stream is passed on as it is. Save points count what it changed, too.
            Origin::Master => self.core.stats.dirty += self.effects.dirty(),
            Origin::Client | Origin::Internal => self.propagate(session, args),
        }
        if entry.spec.flags.contains(Flags::ADMIN) {
            // It may have changed the role; what follows in the same batch or transaction must know.
            self.refresh_context();
        }
        match self.effects.continues() {
            true => Verdict::Done,
            false => self.follow_up(session, out, origin),
        }
    }

    /// Calls the handler; an error becomes the reply.
    fn call(
        &mut self,
        session: &mut Session,
        entry: &'static CommandEntry,
        args: Args<'_>,
        out: &mut Vec<u8>,
        origin: Origin,
    ) {
        let mark = out.len();
        let version = session.version;
        // TOUCH is for telling, whatever the client wants of its other commands.
        let is_silent = session.no_touch == Switch::On && entry.spec.name != "touch";
        if is_silent {
            self.keyspace.set_uses(Uses::Unseen);
        }
        let mut context = Context {
            keyspace: &mut self.keyspace,
            limits: self.core.encoding_limits,
            max_string_bytes: origin.max_string_bytes(&self.core.config.net),
            authority: origin.authority(),
            session,
            reply: ReplyWriter::new(out, version),
            effects: &mut self.effects,
            host: &mut self.core,
            now_ms: self.now_ms,
            now_us: self.now_us,
            random: &mut self.random,
        };
        let outcome = (entry.spec.handler)(&mut context, args);
        if is_silent {
            self.keyspace.set_uses(Uses::Recorded);
        }
        if let Err(error) = outcome {
            out.truncate(mark);
            ReplyWriter::new(out, version).error(error.text());
            self.core.stats.commands[entry.id].failed += 1;
            self.core.stats.count_error(&error);
        }
    }

    /// Appends what the command did to the replication stream.
    fn propagate(&mut self, session: &mut Session, args: Args<'_>) {
        if self.keyspace.has_expired() {
            self.propagate_expired();
        }
        let dirty = self.effects.dirty();
        if dirty == 0 && self.effects.rewritten().is_none() {
            return;
        }
        self.core.stats.dirty += dirty;
        let stream = &mut self.core.replication;
        match self.effects.rewritten() {
            None => stream.append_request(session.db, args),
            Some((bytes, count)) => stream.append_encoded(session.db, bytes, count),
        }
        session.last_write_offset = stream.offset();
    }

    /// Appends a DEL for every key that a lookup found expired.
    pub(super) fn propagate_expired(&mut self) {
        for (db, key) in self.keyspace.take_expired() {
            self.core.stats.dirty += 1;
            self.core
                .replication
                .append_command(db, [b"DEL".as_slice(), &key]);
        }
    }

    fn follow_up(&mut self, session: &mut Session, out: &mut Vec<u8>, origin: Origin) -> Verdict {
        match self.effects.take_next() {
            Next::Continue => Verdict::Done,
            Next::RunTransaction => self.run_transaction(session, out, origin),
            next @ (Next::Close
            | Next::AwaitReplicas { .. }
            | Next::AwaitSave
            | Next::AwaitRewrite(_)
            | Next::BecomeReplica(_)
            | Next::Shutdown(_)) => Verdict::Then(next),
        }
    }

    /// Answers an error before anything ran.
    fn refuse(
        &mut self,
        session: &mut Session,
        entry: Option<&'static CommandEntry>,
        error: &CommandError,
        out: &mut Vec<u8>,
    ) {
        if let Some(entry) = entry {
            self.core.stats.commands[entry.id].rejected += 1;
        }
        if entry.is_some_and(|entry| entry.spec.name == "exec") {
            // EXEC is refused as a whole: its queue goes with it.
            session.transaction = None;
            self.keyspace.unwatch(&mut session.watched);
            let cause = error.text();
            let cause = cause.strip_prefix(b"ERR ").unwrap_or(cause);
            let error =
                CommandError::quoting("EXECABORT Transaction discarded because of: ", cause, "");
            self.core.stats.count_error(&error);
            ReplyWriter::new(out, session.version).error(error.text());
            return;
        }
        self.core.stats.count_error(error);
        if let Some(transaction) = &mut session.transaction {
            transaction.state = TransactionState::Aborted;
        }
        ReplyWriter::new(out, session.version).error(error.text());
    }

    fn must_queue(&self, session: &Session, entry: &CommandEntry, origin: Origin) -> bool {
        const RUN_AT_ONCE: [&str; 6] = ["exec", "discard", "multi", "watch", "quit", "reset"];
        session.transaction.is_some()
            && origin != Origin::Internal
            && !RUN_AT_ONCE.contains(&entry.spec.name)
    }
}

/// Finds the command of a request.
pub(super) fn find(args: Args<'_>) -> Option<&'static CommandEntry> {
    table::table().find(args)
}
