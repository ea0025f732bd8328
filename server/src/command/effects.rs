//! What a command caused besides its reply: changes, propagation, and what becomes of the
//! connection. Made by the engine for each command, filled by the handler, consumed by the engine.

use std::time::Duration;

/// Effects of one command. Cleared and reused by the engine; nothing here allocates unless the
/// command rewrites what is propagated.
#[derive(Debug, Default)]
pub struct Effects {
    /// Number of changes to the dataset (`rdb_changes_since_last_save` counts them).
    dirty: u64,
    propagation: Propagation,
    /// RESP encoded commands that replace the request in the replication stream.
    rewritten: Vec<u8>,
    rewritten_count: u32,
    next: Next,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Propagation {
    /// The request itself, when it changed something.
    #[default]
    Request,
    /// What the handler wrote into `rewritten` (nothing, where it wrote nothing).
    Rewritten,
}

/// What the engine does with the connection after the command.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub enum Next {
    /// Goes on with the next request.
    #[default]
    Continue,
    /// Closes once the reply has been written.
    Close,
    /// `WAIT`: no reply yet; the engine answers with the number of replicas.
    AwaitReplicas {
        /// Replicas wanted.
        count: u32,
        /// Longest wait; `None` is for ever.
        timeout: Option<Duration>,
    },
    /// `SAVE`: no reply yet; the engine answers when the snapshot is on disk.
    AwaitSave,
    /// `CONFIG REWRITE`, alone or in a transaction: no reply yet; the engine answers when the file
    /// is on disk.
    AwaitRewrite(PartialReply),
    /// `PSYNC`/`SYNC`: the connection becomes a replica's link.
    BecomeReplica(PsyncRequest),
    /// `EXEC`: the engine runs what was queued and writes its replies.
    RunTransaction,
    /// `SHUTDOWN`: the server ends.
    Shutdown(ShutdownRequest),
}

/// A reply of which parts are missing, all the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartialReply {
    bytes: Vec<u8>,
    /// Where in `bytes` a part is missing, in order.
    gaps: Vec<usize>,
}

impl PartialReply {
    /// `bytes` with a part missing at each of these positions, which are in order.
    pub fn with_gaps(bytes: Vec<u8>, gaps: Vec<usize>) -> Self {
        Self { bytes, gaps }
    }

    /// A reply of which nothing is known yet.
    pub fn missing() -> Self {
        Self::with_gaps(Vec::new(), vec![0])
    }

    /// Appends the whole reply to `out`, with `part` in each gap.
    pub fn complete(&self, part: &[u8], out: &mut Vec<u8>) {
        let mut from = 0;
        for &gap in &self.gaps {
            out.extend_from_slice(&self.bytes[from..gap]);
            out.extend_from_slice(part);
            from = gap;
        }
        out.extend_from_slice(&self.bytes[from..]);
    }
}

/// What a replica asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PsyncRequest {
    /// `SYNC`: the snapshot at once, no acknowledgements.
    Full,
    /// `PSYNC replid offset`: a continuation where possible; `failover` asks the receiver to
    /// promote itself first.
    Continue {
        /// The history asked for, 40 hex digits, or `?`.
        replid: Vec<u8>,
        /// First byte wanted, or -1.
        offset: i64,
        /// `FAILOVER` followed the offset.
        failover: Failover,
    },
}

/// Whether a `PSYNC` carried the word `FAILOVER`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failover {
    /// It did: the sender wants the receiver to become master.
    Requested,
    /// A plain synchronization.
    No,
}

/// What `SHUTDOWN` asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShutdownRequest {
    /// How the data are treated.
    pub mode: ShutdownMode,
    /// Whether replicas are waited for.
    pub replicas: LaggingReplicas,
    /// What a save that fails means.
    pub failed_save: FailedSave,
}

/// Whether a shutdown waits until replicas have everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LaggingReplicas {
    /// It does, for `shutdown-timeout`.
    Await,
    /// It does not (`NOW`).
    Leave,
}

/// Whether a shutdown goes on although the data could not be saved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailedSave {
    /// It does not: the server stays.
    Stay,
    /// It does (`FORCE`).
    Leave,
}

impl Default for ShutdownRequest {
    fn default() -> Self {
        Self {
            mode: ShutdownMode::Default,
            replicas: LaggingReplicas::Await,
            failed_save: FailedSave::Stay,
        }
    }
}

/// How `SHUTDOWN` treats the data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShutdownMode {
    /// Saves where save points are configured.
    Default,
    /// Saves always.
    Save,
    /// Saves never.
    NoSave,
}

impl Effects {
    /// Reports `count` changes; the request is propagated as it is unless rewritten.
    pub fn changed(&mut self, count: u64) {
        self.dirty += count;
    }

    /// Number of changes so far.
    pub fn dirty(&self) -> u64 {
        self.dirty
    }

    /// Propagates this command instead of the request (several calls add up, in order).
    pub fn propagate<'a, I>(&mut self, command: I)
    where
        I: IntoIterator<Item = &'a [u8], IntoIter: ExactSizeIterator>,
    {
        self.propagation = Propagation::Rewritten;
        self.rewritten_count += 1;
        resp::encode_command(&mut self.rewritten, command);
    }

    /// Propagates nothing for this command although it changed something.
    pub fn propagate_nothing(&mut self) {
        self.propagation = Propagation::Rewritten;
    }

    /// Sets what becomes of the connection.
    pub fn then(&mut self, next: Next) {
        self.next = next;
    }

    /// Takes what becomes of the connection.
    pub fn take_next(&mut self) -> Next {
        std::mem::take(&mut self.next)
    }

    /// Whether the connection simply goes on.
    pub fn continues(&self) -> bool {
        self.next == Next::Continue
    }

    /// What to propagate in place of the request: `None` for the request itself.
    pub fn rewritten(&self) -> Option<(&[u8], u32)> {
        match self.propagation {
            Propagation::Request => None,
            Propagation::Rewritten => Some((&self.rewritten, self.rewritten_count)),
        }
    }

    /// Makes it ready for the next command, keeping its buffer unless it has grown large.
    pub fn clear(&mut self) {
        const KEEP_BYTES: usize = 64 * 1024;
        self.dirty = 0;
        if self.propagation == Propagation::Rewritten {
            self.propagation = Propagation::Request;
            self.rewritten.clear();
            self.rewritten.shrink_to(KEEP_BYTES);
            self.rewritten_count = 0;
        }
        if self.next != Next::Continue {
            self.next = Next::Continue;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partial_reply_takes_the_missing_part_in_each_gap() {
        let complete = |reply: PartialReply| {
            let mut out = b"before ".to_vec();
            reply.complete(b"+OK", &mut out);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(complete(PartialReply::missing()), "before +OK");
        let gaps = vec![0, 1, 1, 3];
        let reply = PartialReply::with_gaps(b"abc".to_vec(), gaps);
        assert_eq!(complete(reply), "before +OKa+OK+OKbc+OK");
    }
}
