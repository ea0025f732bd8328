//! The recent bytes of the replication stream, shared by everybody who reads it.
//!
//! Replicas do not have buffers of their own: each has a position in this one. It keeps at least
//! `limit` bytes for those who come back, and more while a slow replica still needs older ones (the
//! caller bounds how far behind a replica may be).
//!
//! Positions count bytes since the beginning of the history: position `p` is the byte that PSYNC
//! calls `p + 1`.

use std::collections::VecDeque;

/// Bytes of one block. Memory is taken and given back by blocks.
const BLOCK_BYTES: usize = 64 * 1024;

/// A window `[start, end)` of the stream.
#[derive(Debug)]
pub struct Backlog {
    /// All but the last are full.
    blocks: VecDeque<Vec<u8>>,
    start: u64,
    end: u64,
    limit: u64,
}

impl Backlog {
    /// An empty window at `position` that keeps at least `limit` bytes.
    pub fn new(position: u64, limit: u64) -> Self {
        Self {
            blocks: VecDeque::new(),
            start: position,
            end: position,
            limit,
        }
    }

    /// First position held.
    pub fn start(&self) -> u64 {
        self.start
    }

    /// Position behind the last byte.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// Bytes held.
    pub fn len(&self) -> u64 {
        self.end - self.start
    }

    /// Bytes held beyond what is kept for those who come back: a slow replica needs them.
    pub fn excess(&self) -> u64 {
        self.len().saturating_sub(self.limit)
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Changes how much is kept (`repl-backlog-size`).
    pub fn set_limit(&mut self, limit: u64) {
        self.limit = limit;
    }

    /// Whether a reader at `position` finds its next byte here (or is at the very end).
    pub fn holds(&self, position: u64) -> Held {
        if (self.start..=self.end).contains(&position) {
            Held::Yes
        } else {
            Held::No
        }
    }

    /// Adds to the end.
    pub fn append(&mut self, mut bytes: &[u8]) {
        self.end += bytes.len() as u64;
        while !bytes.is_empty() {
            match self.blocks.back_mut() {
                Some(block) if block.len() < BLOCK_BYTES => {
                    let room = (BLOCK_BYTES - block.len()).min(bytes.len());
                    block.extend_from_slice(&bytes[..room]);
                    bytes = &bytes[room..];
                }
                Some(_) | None => self.blocks.push_back(Vec::with_capacity(BLOCK_BYTES)),
            }
        }
    }

    /// Adds to the end what the limit keeps of it, for a stream that nobody reads at present: a long command must not take
    /// its length in memory once more.
    pub fn append_unread(&mut self, bytes: &[u8]) {
        let most = usize::try_from(self.limit).unwrap_or(usize::MAX);
        let beyond = bytes.len().saturating_sub(most);
        if beyond > 0 {
            self.blocks.clear();
            self.end += beyond as u64;
            self.start = self.end;
        }
        self.append(&bytes[beyond..]);
    }

    /// Gives back whole blocks that neither the limit nor a reader at `needed` keeps.
    pub fn trim(&mut self, needed: Option<u64>) {
        while let Some(block) = self.blocks.front() {
            let next = self.start + block.len() as u64;
            let kept_by_limit = self.end - next < self.limit;
            let kept_by_reader = needed.is_some_and(|needed| needed < next);
            if kept_by_limit || kept_by_reader {
                break;
            }
            self.start = next;
            self.blocks.pop_front();
        }
    }

    /// Appends up to `max` bytes from `position` on to `out`. Answers how many; 0 at the end.
    /// The position must be held.
    pub fn copy_from(&self, position: u64, max: usize, out: &mut Vec<u8>) -> usize {
        let mut skip = (position - self.start) as usize;
        let mut left = max.min((self.end - position) as usize);
        let total = left;
        // All blocks before the last are full, but the first may have been cut shorter by a limit
        // that never splits blocks: so the block of a position is found by division.
        let mut index = skip / BLOCK_BYTES;
        skip %= BLOCK_BYTES;
        while left > 0 {
            let Some(block) = self.blocks.get(index) else {
                break;
            };
            let part = &block[skip..(skip + left).min(block.len())];
            out.extend_from_slice(part);
            left -= part.len();
            (index, skip) = (index + 1, 0);
        }
        total - left
    }
}

/// Whether the backlog has a position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Held {
    /// It has.
    Yes,
    /// It is too old, or in the future.
    No,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(from: u64, len: usize) -> Vec<u8> {
        (from..from + len as u64).map(|i| (i % 251) as u8).collect()
    }

    #[test]
    fn readers_get_the_bytes_that_were_appended() {
        let mut backlog = Backlog::new(1000, 300_000);
        let mut at = 1000;
        for len in [1, 70_000, 13, 200_000, 65_536] {
            backlog.append(&pattern(at, len));
            at += len as u64;
        }
        for position in [1000, 1001, 66_536, 70_000, at - 1, at] {
            let mut out = Vec::new();
            let n = backlog.copy_from(position, usize::MAX, &mut out);
            assert_eq!(n as u64, at - position);
            assert_eq!(out, pattern(position, n), "from {position}");
        }
        let mut out = Vec::new();
        assert_eq!(backlog.copy_from(1500, 10, &mut out), 10);
        assert_eq!(out, pattern(1500, 10));
    }

    #[test]
    fn of_a_long_command_that_nobody_reads_only_the_limit_is_kept() {
        let mut backlog = Backlog::new(7, 100_000);
        backlog.append_unread(&pattern(7, 1000));
        assert_eq!((backlog.start(), backlog.end()), (7, 1007));
        backlog.append_unread(&pattern(1007, 1_000_000));
        assert_eq!((backlog.start(), backlog.end()), (901_007, 1_001_007));
        let mut out = Vec::new();
        assert_eq!(backlog.copy_from(901_007, usize::MAX, &mut out), 100_000);
        assert_eq!(out, pattern(901_007, 100_000));
    }

    #[test]
    fn trimming_keeps_the_limit_and_what_a_reader_needs() {
        let mut backlog = Backlog::new(0, 100_000);
        backlog.append(&pattern(0, 1_000_000));
        backlog.trim(Some(500_000));
        assert!(backlog.start() <= 500_000 && backlog.start() > 400_000);
        backlog.trim(None);
        assert!(backlog.len() >= 100_000 && backlog.len() < 100_000 + 2 * BLOCK_BYTES as u64);
        assert_eq!(backlog.holds(0), Held::No);
        assert_eq!(backlog.holds(1_000_000), Held::Yes);
        assert_eq!(backlog.holds(1_000_001), Held::No);
        let mut out = Vec::new();
        let start = backlog.start();
        let n = backlog.copy_from(start, usize::MAX, &mut out);
        assert_eq!(out, pattern(start, n));
    }
}
