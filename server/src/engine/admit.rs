//! Every gate a request passes before it runs: known, arity, authentication, failed saves, enough
//! replicas, read-only, loading, lease, stale, memory, pause. EXEC is judged by what it queued, too.

use resp::Args;

use super::{
    Lease, RepliesNeed, State, clock, evict::Room, execute::Origin, execute::find, pause::Purpose,
};
use crate::command::{
    CommandError, Flags,
    error::MAX_SHOWN_BYTES,
    host::PauseKind,
    session::{Scope, Session},
    table::CommandEntry,
};

/// Why a request does not run.
#[derive(Debug, PartialEq)]
pub enum Refusal {
    /// Clients are paused: present the request again later.
    Paused,
    /// The error reply, and the command it concerns where it is known.
    Error(Option<&'static CommandEntry>, CommandError),
}

impl PartialEq for CommandEntry {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

const NO_AUTH: CommandError = CommandError::new("NOAUTH Authentication required.");
const READ_ONLY: CommandError =
    CommandError::new("READONLY You can't write against a read only replica.");
const NO_LEASE: CommandError = CommandError::new(
    "NOREPLICAS This master has not been acknowledged by a majority of its set in time; \
     it serves again when it is, or a new master is chosen.",
);
const LOADING: CommandError = CommandError::new("LOADING Redis is loading the dataset in memory");
const MASTER_DOWN: CommandError = CommandError::new(
    "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
);
const OUT_OF_MEMORY: CommandError =
    CommandError::new("OOM command not allowed when used memory > 'maxmemory'.");
const NOT_FROM_A_MASTER: CommandError =
    CommandError::new("NOPERM a master's stream may not administer its replicas");
const NO_REPLICAS: CommandError =
    CommandError::new("NOREPLICAS Not enough good replicas to write.");
const MISCONF: CommandError = CommandError::new(
    "MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to \
     disk. Commands that may modify the data set are disabled, because this instance is \
     configured to report errors during writes if RDB snapshotting fails \
     (stop-writes-on-bgsave-error option). Please check the Redis logs for details about the RDB \
     error.",
);

impl State {
    /// Finds the command and checks every gate.
    pub(super) fn admit(
        &mut self,
        session: &Session,
        args: Args<'_>,
        origin: Origin,
    ) -> Result<&'static CommandEntry, Refusal> {
        let Some(entry) = find(args) else {
            return Err(Refusal::Error(None, unknown(args)));
        };
        if entry.is_container() && args.len() > 1 {
            // Before it could be queued: in a transaction it is an error of the whole.
            return Err(Refusal::Error(None, CommandError::unknown_subcommand(args)));
        }
        if !entry.spec.accepts(args.len()) {
            let error = CommandError::wrong_arity(&entry.full_name);
            return Err(Refusal::Error(Some(entry), error));
        }
        match origin {
            Origin::Client => {}
            Origin::Internal => return Ok(entry),
            // A master sends data. What would change this server itself never comes from a good one.
            Origin::Master if entry.spec.flags.contains(Flags::ADMIN) => {
                return Err(Refusal::Error(Some(entry), NOT_FROM_A_MASTER));
            }
            Origin::Master => return Ok(entry),
        }
        if self.is_handing_over() {
            return Err(Refusal::Paused);
        }
        let flags = flags_of(session, entry);
        self.check_login(session, entry)
            .and_then(|()| self.check_writable(flags, entry))
            .and_then(|()| self.check_state(flags))
            .and_then(|()| self.check_memory(session, entry, flags, args))
            .map_err(|error| Refusal::Error(Some(entry), error))?;
        if self.is_paused(flags, entry) {
            return Err(Refusal::Paused);
        }
        if !flags.contains(Flags::STALE) {
            self.replies_need = RepliesNeed::Lease(self.opening);
        }
        Ok(entry)
    }

    fn check_login(&self, session: &Session, entry: &CommandEntry) -> Result<(), CommandError> {
        if entry.spec.flags.contains(Flags::NO_AUTH) {
            return Ok(());
        }
        let Some(login) = &session.login else {
            return Err(NO_AUTH);
        };
        const REPLICATION_COMMANDS: [&str; 5] = ["ping", "replconf", "psync", "sync", "select"];
        match login.scope {
            Scope::Everything => Ok(()),
            Scope::Replication if REPLICATION_COMMANDS.contains(&entry.spec.name) => Ok(()),
            Scope::Replication => Err(CommandError::owned(format!(
                "NOPERM User {} has no permissions to run the '{}' command",
                login.user, entry.full_name
            ))),
        }
    }

    /// A write needs snapshots that succeed and a master (or a writable replica) with enough good
    /// replicas.
    fn check_writable(&self, flags: Flags, entry: &CommandEntry) -> Result<(), CommandError> {
        let writes = flags.contains(Flags::WRITE);
        // PING fails with the writes, as in Redis: whoever watches a master by it looks for another.
        if (writes || entry.spec.name == "ping") && self.core.saving_failed() {
            return Err(MISCONF);
        }
        if !writes {
            return Ok(());
        }
        let config = &self.core.config;
        if !self
            .core
            .replication
            .has_enough_good_replicas(config, clock::monotonic_ms)
        {
            return Err(NO_REPLICAS);
        }
        if self.core.replication.refuses_writes(config) {
            return Err(READ_ONLY);
        }
        Ok(())
    }

    /// What grows memory needs some; keys are evicted for it where the policy permits.
    fn check_memory(
        &mut self,
        session: &Session,
        entry: &CommandEntry,
        flags: Flags,
        args: Args<'_>,
    ) -> Result<(), CommandError> {
        match self.room_for(session, entry, flags, args) {
            Room::Enough | Room::Soon => Ok(()),
            Room::None => Err(OUT_OF_MEMORY),
        }
    }

    fn check_state(&self, flags: Flags) -> Result<(), CommandError> {
        let shared = &self.core.shared;
        // A managed server has no lease before it has its data: it tells which of the two is missing.
        if shared.loading.is_running() && !flags.contains(Flags::LOADING) {
            return Err(LOADING);
        }
        if shared.serve_until_ms.has_lapsed(clock::monotonic_ms) == Lease::Lapsed
            && !flags.contains(Flags::STALE)
        {
            return Err(NO_LEASE);
        }
        if self.core.replication.is_stale(&self.core.config) && !flags.contains(Flags::STALE) {
            return Err(MASTER_DOWN);
        }
        Ok(())
    }

    /// Whether a mastership was given away on purpose: clients wait for the successor instead of
    /// being refused, and their connections are closed when it is there.
    fn is_handing_over(&self) -> bool {
        let pauses = &self.core.pauses;
        let handover = pauses.of(Purpose::Handover, clock::monotonic_ms);
        let holds_all = handover.is_some_and(|pause| pause.kind == PauseKind::All);
        let lease = &self.core.shared.serve_until_ms;
        holds_all && lease.has_lapsed(clock::monotonic_ms) == Lease::Lapsed
    }

    fn is_paused(&mut self, flags: Flags, entry: &CommandEntry) -> bool {
        let Some(pause) = self.core.pauses.in_force(clock::monotonic_ms) else {
            return false;
        };
        match pause.kind {
            PauseKind::Writes => {
                flags.contains(Flags::WRITE) || flags.contains(Flags::MAY_REPLICATE)
            }
            // The command that ends a pause must pass.
            PauseKind::All => entry.full_name != "client|unpause",
        }
    }
}

/// What a request may do and where it may run: EXEC as its whole queue.
fn flags_of(session: &Session, entry: &CommandEntry) -> Flags {
    let flags = entry.spec.flags;
    match &session.transaction {
        Some(transaction) if entry.spec.name == "exec" => transaction.flags(flags),
        Some(_) | None => flags,
    }
}

/// `ERR unknown command 'name', with args beginning with: 'a' 'b' `, as Redis cuts it.
fn unknown(args: Args<'_>) -> CommandError {
    let show = |bytes: &[u8], most: usize| {
        let text = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
        text[..text.len().min(most)].to_vec()
    };
    let mut shown = show(args.get(0).unwrap_or_default(), MAX_SHOWN_BYTES);
    shown.extend_from_slice(b"', with args beginning with: ");
    let mut left = MAX_SHOWN_BYTES;
    for argument in args.iter().skip(1) {
        if left == 0 {
            break;
        }
        let part = [b"'", &*show(argument, left), b"' "].concat();
        left = left.saturating_sub(part.len());
        shown.extend(part);
    }
    CommandError::quoting("ERR unknown command '", &shown, "")
}
