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
//! A big collection counts as passed when its slices have begun; the collection itself then sees to it that they are as
//! it was (`slices.rs`). The walk gives the slices of what has begun before it goes on.
//!
//! A table that is emptied or replaced meanwhile is kept here and walked to its end; an entry that is removed with slices
//! to come is kept as well. An aborted snapshot is walked to its end without a sink, because the next one needs all bits
//! equal.
//!
//! Limit: one string, or one element of a collection, goes to the sink in one call.

use std::collections::VecDeque;
use std::mem;
use std::sync::Arc;

use parking_lot::Mutex;

use super::Keyspace;
use super::db::Db;
use super::entry::Entry;
use super::garbage::Garbage;
use super::slices::Begun;
use super::table::{Occupied, Table};
use super::types::walk::{Head, Left, Piece};

/// Cost of an entry in a step's budget: one, and one for each of these many bytes of memory.
const BYTES_PER_COST: usize = 1024;

/// Elements of a big collection from which its size is estimated for that.
const COST_SAMPLES: usize = 5;

/// Takes the entries of a snapshot.
pub trait SnapshotSink: Send {
    /// One entry as it was when the snapshot began; `db` is the database it was in. Called under the engine's lock.
    fn entry(&mut self, db: u32, entry: &Entry);

    /// A big collection as it was: its pieces follow, and its end. Entries may come in between, another collection not.
    fn begin(&mut self, head: &Head);

    /// A piece of the collection that has begun.
    fn piece(&mut self, piece: Piece<'_>);

    /// The collection that has begun is complete.
    fn end(&mut self);
}

type SharedSink = Arc<Mutex<Box<dyn SnapshotSink>>>;

/// A table that a snapshot still has to walk, taken out of its database.
pub(super) struct Kept {
    origin: u32,
    table: Table,
    begun: Begun,
}

/// A database's part of a snapshot.
pub(super) struct Hook {
    sink: Option<SharedSink>,
    /// The number of the database in which the table's old entries were when the snapshot began (SWAPDB).
    origin: u32,
    /// Big collections of the table that have begun.
    begun: Begun,
    /// Tables taken out of the database.
    kept: Vec<Kept>,
}

impl Hook {
    pub(super) fn new(origin: u32) -> Self {
        Self {
            sink: None,
            origin,
            begun: Begun::default(),
            kept: Vec::new(),
        }
    }

    /// Gives an entry to the running snapshot if that has not passed it yet. Must come before every change.
    #[inline]
    pub(super) fn before_change(&mut self, occupied: &mut Occupied<'_>) {
        let epoch = occupied.table_epoch();
        if occupied.entry().epoch() != epoch {
            let entry = occupied.entry_mut();
            self.pass(entry);
            self.begun.note(entry);
            entry.set_epoch(epoch);
        }
    }

    /// As `before_change`, for an entry just taken out of `table`.
    pub(super) fn before_drop(&mut self, table: &Table, entry: &mut Entry) {
        if entry.epoch() != table.epoch() {
            self.pass(entry);
        }
    }

    #[cold]
    fn pass(&mut self, entry: &mut Entry) {
        if let Some(sink) = &self.sink {
            pass(&mut **sink.lock(), self.origin, entry);
        }
    }

    /// Before an entry is put into the table: it may come from another key with slices to come.
    #[inline]
    pub(super) fn note_moved(&mut self, entry: &Entry) {
        self.begun.note(entry);
    }

    /// Keeps a table that was taken out of the database, if a snapshot has to walk it; else gives it back.
    pub(super) fn keep_table(&mut self, table: Table) -> Option<Table> {
        let begun = mem::take(&mut self.begun);
        if self.sink.is_none() {
            return Some(table);
        }
        self.kept.push(Kept {
            origin: self.origin,
            table,
            begun,
        });
        None
    }

    /// After two databases exchanged their tables.
    pub(super) fn swap_origin(&mut self, other: &mut Self) {
        mem::swap(&mut self.origin, &mut other.origin);
        mem::swap(&mut self.begun, &mut other.begun);
    }
}

/// Gives an entry to the sink, or begins its slices if it is big.
fn pass(sink: &mut dyn SnapshotSink, origin: u32, entry: &mut Entry) {
    if entry.is_big() {
        entry.begin_slices(origin);
    } else {
        sink.entry(origin, entry);
    }
}

/// The snapshot in progress.
pub(super) struct SnapshotRun {
    /// `None` after an abort.
    sink: Option<SharedSink>,
    /// The database (by its number at the beginning) being walked, and the position in its table.
    origin: u32,
    position: u64,
    /// Tables that left their databases.
    kept: Vec<Kept>,
    /// Entries that left their tables with slices to come; the one being written comes first.
    unwritten: VecDeque<Box<Entry>>,
    garbage: Garbage,
}

impl SnapshotRun {
    /// Takes over what was removed from the databases since the last step.
    fn collect(&mut self, dbs: &mut [Db]) {
        for db in dbs {
            self.kept.append(&mut db.books.hook.kept);
            for entry in db.books.garbage.take_unwritten() {
                match entry.is_started() {
                    true => self.unwritten.push_front(entry),
                    false => self.unwritten.push_back(entry),
                }
            }
        }
    }

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
                ..Hook::new(index)
            };
        }
        self.snapshot = Some(SnapshotRun {
            sink: Some(sink),
            origin: 0,
            position: 0,
            kept: Vec::new(),
            unwritten: VecDeque::new(),
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
            run.collect(&mut self.dbs);
            if self.give_slices(&mut run, &mut budget) == Left::More {
                continue;
            }
            if run.origin < self.databases() {
                self.walk_database(&mut run, &mut budget);
            } else if let Some(kept) = run.kept.last_mut() {
                let Kept {
                    origin,
                    table,
                    begun,
                } = kept;
                let place = (*origin, &mut run.position);
                if !walk(table, begun, &run.sink, place, &mut budget) && begun.is_empty() {
                    let kept = run.kept.pop();
                    run.garbage.append_tables(kept.map(|kept| kept.table));
                    run.position = 0;
                }
            } else {
                return self.end_snapshot(run);
            }
        }
        self.snapshot = Some(run);
        SnapshotProgress::Running
    }

    /// Gives slices of a collection that has begun, if there is one: [`Left::More`] when it did.
    fn give_slices(&mut self, run: &mut SnapshotRun, budget: &mut usize) -> Left {
        let dbs = self.dbs.iter_mut();
        let lists = dbs.map(|db| (&mut db.books.hook.begun, &mut db.table));
        let kept = run.kept.iter_mut();
        let lists = lists.chain(kept.map(|kept| (&mut kept.begun, &mut kept.table)));
        let firsts = lists.filter_map(|(begun, table)| begun.first(table));
        let removed = run.unwritten.front_mut().map(|entry| &mut **entry);
        // What is in the stream with its head goes on; if nothing is, any may begin.
        let mut next = None;
        for entry in firsts.chain(removed) {
            let is_started = entry.is_started();
            if is_started || next.is_none() {
                next = Some(entry);
            }
            if is_started {
                break;
            }
        }
        let Some(entry) = next else {
            return Left::Nothing;
        };
        match &run.sink {
            None => entry.end_slices(),
            Some(sink) => {
                let mut sink = sink.lock();
                while *budget > 0 && entry.give_slice(&mut **sink, budget) == Left::More {}
            }
        }
        if removed_is_written(&run.unwritten) {
            run.garbage.discard_all(run.unwritten.pop_front());
        }
        Left::More
    }

    fn walk_database(&mut self, run: &mut SnapshotRun, budget: &mut usize) {
        let db = self
            .dbs
            .iter_mut()
            .find(|db| db.books.hook.origin == run.origin);
        let more = db.is_some_and(|db| {
            let place = (run.origin, &mut run.position);
            walk(
                &mut db.table,
                &mut db.books.hook.begun,
                &run.sink,
                place,
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
        debug_assert!(run.unwritten.is_empty(), "what has begun was given");
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
            run.kept.append(&mut db.books.hook.kept);
        }
        for kept in run.kept.drain(..) {
            run.garbage.discard_table(kept.table);
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

/// Whether the first of the removed entries has been given.
fn removed_is_written(unwritten: &VecDeque<Box<Entry>>) -> bool {
    unwritten.front().is_some_and(|entry| !entry.has_slices())
}

/// Passes entries of `table`, which were in a database of that number, from a position on until the budget is used up or
/// a big collection has begun; says whether there are more.
fn walk(
    table: &mut Table,
    begun: &mut Begun,
    sink: &Option<SharedSink>,
    (origin, position): (u32, &mut u64),
    budget: &mut usize,
) -> bool {
    let epoch = table.epoch();
    let mut sink = sink.as_ref().map(|sink| sink.lock());
    while *budget > 0 && begun.is_empty() {
        let mut cost = 1;
        let next = table.walk_mut(*position, 1, |entry| {
            if entry.epoch() == epoch {
                return;
            }
            if let Some(sink) = &mut sink {
                cost += 1;
                pass(&mut ***sink, origin, entry);
                begun.note(entry);
                if !entry.has_slices() {
                    cost += entry.memory_bytes(COST_SAMPLES) / BYTES_PER_COST;
                }
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
