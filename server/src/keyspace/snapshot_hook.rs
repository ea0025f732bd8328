//! Point-in-time snapshots without fork.
//!
//! Owns the walk of a snapshot over all tables and the hook that every change passes. Called by the engine
//! ([`Keyspace::begin_snapshot`], then [`Keyspace::snapshot_step`] again and again, between batches) and by [`super::db`].
//!
//! Every entry carries one bit, its epoch; so does every table. Between snapshots all entries of a table have the table's
//! epoch. A snapshot begins by turning the tables' epochs over: now every entry has the old one, which means "not yet
//! passed". The walk goes through the tables in hash order and gives each such entry to the sink, then sets its bit. A
//! change of an entry that has the old epoch does the same first ([`Hook::before_change`]); new entries are born with the
//! new epoch. So the sink gets every entry that existed at the beginning once, as it was then, in no order.
//!
//! A table that is emptied or replaced meanwhile is kept here and walked to its end. An aborted snapshot is walked to its
//! end without a sink, because the next one needs all bits equal.
//!
//! Limit: one value goes to the sink in one call. Slicing a huge one would have its place in [`SnapshotSink::entry`]
//! (a cursor in the sink, and `before_change` finishing the value).

use std::mem;
use std::sync::Arc;

use parking_lot::Mutex;

use super::Keyspace;
use super::entry::Entry;
use super::garbage::Garbage;
use super::table::{Occupied, Table};

/// Cost of an entry in a step's budget: one, and one for each of these many bytes of memory.
const BYTES_PER_COST: usize = 1024;

/// Elements of a big collection from which its size is estimated for that.
const COST_SAMPLES: usize = 5;

/// Takes the entries of a snapshot.
pub trait SnapshotSink: Send {
    /// One entry as it was when the snapshot began; `db` is the database it was in. Called under the engine's lock.
    fn entry(&mut self, db: u32, entry: &Entry);
}

type SharedSink = Arc<Mutex<Box<dyn SnapshotSink>>>;

/// A database's part of a snapshot.
pub(super) struct Hook {
    sink: Option<SharedSink>,
    /// The number of the database in which the table's old entries were when the snapshot began (SWAPDB).
    origin: u32,
    /// Tables taken out of the database that the snapshot still has to walk, with their origins.
    kept: Vec<(u32, Table)>,
}

impl Hook {
    pub(super) fn new(origin: u32) -> Self {
        Self {
            sink: None,
            origin,
            kept: Vec::new(),
        }
    }

    /// Gives an entry to the running snapshot if that has not passed it yet. Must come before every change.
    #[inline]
    pub(super) fn before_change(&self, occupied: &mut Occupied<'_>) {
        let epoch = occupied.table_epoch();
        if occupied.entry().epoch() != epoch {
            self.pass(occupied.entry());
            occupied.entry_mut().set_epoch(epoch);
        }
    }

    /// As `before_change`, for an entry just taken out of `table`.
    pub(super) fn before_drop(&self, table: &Table, entry: &Entry) {
        if entry.epoch() != table.epoch() {
            self.pass(entry);
        }
    }

    #[cold]
    fn pass(&self, entry: &Entry) {
        if let Some(sink) = &self.sink {
            sink.lock().entry(self.origin, entry);
        }
    }

    /// Keeps a table that was taken out of the database, if a snapshot has to walk it; else gives it back.
    pub(super) fn keep_table(&mut self, table: Table) -> Option<Table> {
        if self.sink.is_none() {
            return Some(table);
        }
        self.kept.push((self.origin, table));
        None
    }

    /// After two databases exchanged their tables.
    pub(super) fn swap_origin(&mut self, other: &mut Self) {
        mem::swap(&mut self.origin, &mut other.origin);
    }
}

/// The snapshot in progress.
pub(super) struct SnapshotRun {
    /// `None` after an abort.
    sink: Option<SharedSink>,
    /// The database (by its number at the beginning) being walked, and the position in its table.
    origin: u32,
    position: u64,
    /// Tables that left their databases, with the databases' numbers.
    kept: Vec<(u32, Table)>,
    garbage: Garbage,
}

impl SnapshotRun {
    pub(super) fn garbage(&self) -> &Garbage {
        &self.garbage
    }

    pub(super) fn garbage_mut(&mut self) -> &mut Garbage {
        &mut self.garbage
    }
}

/// Why a snapshot cannot begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// One is running.
    #[error("beginning a snapshot while another one is running")]
    Running,
    /// An aborted one has not been walked to its end yet: try again after some steps.
    #[error("beginning a snapshot while an aborted one is being cleared away")]
    Draining,
}

/// What a step of a snapshot came to.
pub enum SnapshotProgress {
    /// There is no snapshot.
    Idle,
    /// There is more to do.
    Running,
    /// All entries have been given to the sink, which returns.
    Finished(Box<dyn SnapshotSink>),
    /// An aborted snapshot has been cleared away: the next may begin.
    Drained,
}

impl Keyspace {
    /// Begins a snapshot of all databases as they are now.
    pub fn begin_snapshot(&mut self, sink: Box<dyn SnapshotSink>) -> Result<(), SnapshotError> {
        match &self.snapshot {
            Some(SnapshotRun { sink: Some(_), .. }) => return Err(SnapshotError::Running),
            Some(SnapshotRun { sink: None, .. }) => return Err(SnapshotError::Draining),
            None => {}
        }
        let sink: SharedSink = Arc::new(Mutex::new(sink));
        for (index, db) in (0..).zip(&mut self.dbs) {
            db.table.set_epoch(db.table.epoch().other());
            db.books.hook = Hook {
                sink: Some(sink.clone()),
                origin: index,
                kept: Vec::new(),
            };
        }
        self.snapshot = Some(SnapshotRun {
            sink: Some(sink),
            origin: 0,
            position: 0,
            kept: Vec::new(),
            garbage: Garbage::default(),
        });
        Ok(())
    }

    /// Whether a snapshot is running or being cleared away.
    pub fn has_snapshot(&self) -> bool {
        self.snapshot.is_some()
    }

    /// Goes on with the snapshot for about `budget` small entries; bigger ones count for more.
    pub fn snapshot_step(&mut self, mut budget: usize) -> SnapshotProgress {
        let Some(mut run) = self.snapshot.take() else {
            return SnapshotProgress::Idle;
        };
        while budget > 0 {
            for db in &mut self.dbs {
                run.kept.append(&mut db.books.hook.kept);
            }
            if run.origin < self.databases() {
                self.walk_database(&mut run, &mut budget);
            } else if let Some((origin, table)) = run.kept.last_mut() {
                if !walk(table, *origin, &run.sink, &mut run.position, &mut budget) {
                    run.garbage
                        .append_tables(run.kept.pop().map(|(_, table)| table));
                    run.position = 0;
                }
            } else {
                return self.end_snapshot(run);
            }
        }
        self.snapshot = Some(run);
        SnapshotProgress::Running
    }

    fn walk_database(&mut self, run: &mut SnapshotRun, budget: &mut usize) {
        let db = self
            .dbs
            .iter_mut()
            .find(|db| db.books.hook.origin == run.origin);
        let more = db.is_some_and(|db| {
            walk(
                &mut db.table,
                run.origin,
                &run.sink,
                &mut run.position,
                budget,
            )
        });
        if !more {
            run.origin += 1;
            run.position = 0;
        }
    }

    fn end_snapshot(&mut self, run: SnapshotRun) -> SnapshotProgress {
        for (index, db) in (0..).zip(&mut self.dbs) {
            db.books.hook = Hook::new(index);
        }
        let mut garbage = run.garbage;
        self.dbs[0].books.garbage.append(&mut garbage);
        match run.sink {
            None => SnapshotProgress::Drained,
            Some(sink) => {
                let sink = Arc::into_inner(sink).expect("the databases' handles were just dropped");
                SnapshotProgress::Finished(sink.into_inner())
            }
        }
    }

    /// Ends the running snapshot early and returns its sink. Steps must go on until [`SnapshotProgress::Drained`].
    pub fn abort_snapshot(&mut self) -> Option<Box<dyn SnapshotSink>> {
        let run = self.snapshot.as_mut()?;
        let sink = run.sink.take()?;
        for db in &mut self.dbs {
            db.books.hook.sink = None;
            for (_, table) in db.books.hook.kept.drain(..) {
                run.garbage.discard_table(table);
            }
        }
        for (_, table) in run.kept.drain(..) {
            run.garbage.discard_table(table);
        }
        if run.origin >= self.dbs.len() as u32 {
            run.position = 0;
        }
        Some(
            Arc::into_inner(sink)
                .expect("the databases' handles were just dropped")
                .into_inner(),
        )
    }
}

/// Passes entries of `table` from `position` on until the budget is used up; says whether there are more.
fn walk(
    table: &mut Table,
    origin: u32,
    sink: &Option<SharedSink>,
    position: &mut u64,
    budget: &mut usize,
) -> bool {
    let epoch = table.epoch();
    let mut sink = sink.as_ref().map(|sink| sink.lock());
    while *budget > 0 {
        let mut cost = 1;
        let next = table.walk_mut(*position, 1, |entry| {
            if entry.epoch() == epoch {
                return;
            }
            if let Some(sink) = &mut sink {
                cost += 1 + entry.memory_bytes(COST_SAMPLES) / BYTES_PER_COST;
                sink.entry(origin, entry);
            }
            entry.set_epoch(epoch);
        });
        *budget = budget.saturating_sub(cost);
        match next {
            None => return false,
            Some(next) => *position = next,
        }
    }
    true
}
