//! Counters that INFO and the metrics port show. Kept under the engine's lock; no clocks inside.

use std::collections::BTreeMap;

use crate::command::{CommandError, table};

/// Most error codes counted apart; further ones go to the last name (Redis has a similar cap).
const MAX_ERROR_CODES: usize = 128;

/// All counters.
#[derive(Debug)]
pub struct Stats {
    /// Connections accepted.
    pub connections_received: u64,
    /// Connections refused for `maxclients`.
    pub connections_rejected: u64,
    /// Commands run.
    pub commands_processed: u64,
    /// Bytes read from clients.
    pub net_input_bytes: u64,
    /// Bytes written to clients.
    pub net_output_bytes: u64,
    /// Error replies sent.
    pub error_replies: u64,
    /// Full synchronizations granted.
    pub sync_full: u64,
    /// Partial synchronizations granted.
    pub sync_partial_ok: u64,
    /// Partial synchronizations refused.
    pub sync_partial_err: u64,
    /// Keys removed for want of memory.
    pub evicted_keys: u64,
    /// Changes since the last save.
    pub dirty: u64,
    /// By command id.
    pub commands: Vec<CommandStats>,
    /// Error replies by code word.
    pub errors: BTreeMap<String, u64>,
}

/// Counters of one command.
#[derive(Debug, Clone, Copy, Default)]
pub struct CommandStats {
    /// Times run.
    pub calls: u64,
    /// Time of all runs, in units of `clock::ticks`.
    pub ticks: u64,
    /// Refused before they ran.
    pub rejected: u64,
    /// Ran and answered an error.
    pub failed: u64,
}

impl Default for Stats {
    fn default() -> Self {
        Self {
            connections_received: 0,
            connections_rejected: 0,
            commands_processed: 0,
            net_input_bytes: 0,
            net_output_bytes: 0,
            error_replies: 0,
            sync_full: 0,
            sync_partial_ok: 0,
            sync_partial_err: 0,
            evicted_keys: 0,
            dirty: 0,
            commands: vec![CommandStats::default(); table::table().len()],
            errors: BTreeMap::new(),
        }
    }
}

impl Stats {
    /// Counts an error reply.
    pub fn count_error(&mut self, error: &CommandError) {
        self.error_replies += 1;
        let code = error.code();
        if let Some(count) = self.errors.get_mut(code) {
            *count += 1;
        } else if self.errors.len() < MAX_ERROR_CODES {
            self.errors.insert(code.to_owned(), 1);
        }
    }

    /// `CONFIG RESETSTAT`.
    pub fn reset(&mut self) {
        let dirty = self.dirty;
        *self = Self {
            dirty,
            ..Self::default()
        };
    }
}
