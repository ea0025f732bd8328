//! A thread that frees what is expensive to free: whole tables and big collections.
//!
//! The engine hands garbage over when a batch ends; nothing waits for it. The queue is bounded: if
//! the thread is that far behind, the engine frees in place and is slowed down, which is the
//! back-pressure that keeps memory from growing without end.

use std::{
    io,
    sync::mpsc::{SyncSender, TrySendError, sync_channel},
    thread,
};

use crate::keyspace::garbage::Garbage;

/// Batches of garbage that may wait.
const MAX_WAITING: usize = 1024;

/// The way to the thread.
#[derive(Debug, Clone)]
pub struct Dropper(SyncSender<Garbage>);

impl Dropper {
    /// Starts the thread; it ends when every `Dropper` is gone.
    pub fn start() -> io::Result<Self> {
        let (sender, receiver) = sync_channel(MAX_WAITING);
        thread::Builder::new()
            .name("dropper".to_owned())
            .spawn(move || receiver.into_iter().for_each(drop))?;
        Ok(Self(sender))
    }

    /// Frees `garbage` soon.
    pub fn give(&self, garbage: Garbage) {
        match self.0.try_send(garbage) {
            Ok(()) => {}
            Err(TrySendError::Full(garbage) | TrySendError::Disconnected(garbage)) => drop(garbage),
        }
    }
}
