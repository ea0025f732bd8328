//! File descriptors: the limit of the process, raised to what `maxclients` needs.
//!
//! Called at the start and by CONFIG SET. Owns no state but the soft limit of the process, which is only ever raised: the
//! hard limit is the administrator's. What clients may not take is kept for everything else that has to go on when they
//! are as many as they may be: saving, replication, the probes and the operator.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Kept for what is no client: the listeners, the 64 connections of the metrics port, those of the control port and to
/// other members, the link to a master, snapshots, the log, the threads that are always there.
const RESERVED: u64 = 128;
/// Kept for each I/O thread: its poll, its waker and its share of the signals.
const RESERVED_PER_IO_THREAD: u64 = 4;

/// What the process may open is too little.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shortage {
    /// So many clients are possible.
    pub clients: u32,
    /// The limit that would be needed.
    pub needed: u64,
    /// The hard limit.
    pub limit: u64,
}

/// Raises the soft limit so that `max_clients` connections fit beside what is reserved.
pub fn provide(max_clients: u32, io_threads: u32) -> Result<(), Shortage> {
    let limit = getrlimit(Resource::Nofile);
    let reserved = RESERVED + RESERVED_PER_IO_THREAD * u64::from(io_threads);
    let needed = u64::from(max_clients) + reserved;
    // Without a number there is no limit.
    let hard = limit.maximum.unwrap_or(u64::MAX);
    let mut soft = limit.current.unwrap_or(u64::MAX);
    let wanted = needed.min(hard);
    if soft < wanted {
        let raised = Rlimit {
            current: Some(wanted),
            maximum: limit.maximum,
        };
        match setrlimit(Resource::Nofile, raised) {
            Ok(()) => soft = wanted,
            Err(error) => {
                tracing::warn!(%error, wanted, "the limit of open files (ulimit -n) cannot be raised");
            }
        }
    }
    if soft >= needed {
        return Ok(());
    }
    Err(Shortage {
        // Below `max_clients`, so it fits.
        clients: soft.saturating_sub(reserved) as u32,
        needed,
        limit: hard,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_hard_limit_does_not_allow_is_told_with_what_would_be_possible() {
        let hard = getrlimit(Resource::Nofile).maximum;
        let Some(hard) = hard.filter(|hard| *hard < u64::from(u32::MAX) / 2) else {
            return;
        };
        let shortage = provide(u32::MAX / 2, 2).unwrap_err();
        assert_eq!(u64::from(shortage.clients) + RESERVED + 8, hard);
        assert_eq!(getrlimit(Resource::Nofile).current, Some(hard));
        assert_eq!(provide(shortage.clients, 2), Ok(()));
    }
}
