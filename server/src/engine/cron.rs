//! Periodic work, each job with a budget: expiry, growth-independent housekeeping, statistics.
//!
//! One thread ticks; it holds the lock for one slice at a time, so that no client waits longer.

use std::{sync::Arc, time::Duration};

use super::{Engine, clock, evict::Room, huge_pages};
use crate::command::session::Switch;
use crate::persistence::snapshot;

/// Rounds of housekeeping in a second, whatever `hz` says: what costs time has a budget of it.
pub const ROUNDS_PER_SECOND: u32 = 10;
/// Time between two rounds.
const TICK: Duration = Duration::from_millis(1000 / ROUNDS_PER_SECOND as u64);
/// Entries looked at under one lock by active expiry.
const EXPIRE_BUDGET_ENTRIES: usize = 400;
/// Time under the lock that active expiry takes of one tick, at most: a quarter, as in Redis. It ends early when few keys
/// of every database were expired.
const MAX_EXPIRE_US: u64 = 25_000;

/// Runs for as long as the server does.
pub async fn run(engine: Arc<Engine>) {
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        expire(&engine).await;
        evict(&engine).await;
        close_idle_clients(&engine);
        close_slow_clients(&engine);
        housekeeping(&engine);
    }
}

/// Removes expired keys as long as many are found; on a replica nothing expires by itself.
async fn expire(engine: &Engine) {
    if engine.lock().core.about.active_expire == Switch::Off {
        return;
    }
    let (mut spent_us, mut turns) = (0, 0);
    while spent_us < MAX_EXPIRE_US {
        {
            let mut state = engine.lock();
            let started_us = clock::monotonic_us();
            state.begin_batch();
            turns += state.keyspace.active_expire(EXPIRE_BUDGET_ENTRIES).turns;
            state.propagate_expired();
            state.finish_batch();
            spent_us += clock::monotonic_us().saturating_sub(started_us);
            if turns >= state.keyspace.databases() {
                return;
            }
        }
        tokio::task::yield_now().await;
    }
}

/// Removes keys for want of memory, when no command does or commands alone are too slow.
async fn evict(engine: &Engine) {
    /// Slices of [`super::evict::MAX_EVICTIONS`] keys in one round.
    const MAX_EVICT_SLICES: usize = 64;
    for _ in 0..MAX_EVICT_SLICES {
        let room = {
            let mut state = engine.lock();
            state.begin_batch();
            let room = state.make_room();
            state.finish_batch();
            room
        };
        match room {
            Room::Soon => tokio::task::yield_now().await,
            Room::Enough | Room::None => break,
        }
    }
}

/// Save points, memory figures, PING to replicas, the end of an unused backlog.
fn housekeeping(engine: &Engine) {
    let mut state = engine.lock();
    let now_ms = clock::unix_ms();
    let memory = state.keyspace.memory_mut().refresh(now_ms);
    huge_pages::permit_for(memory.allocated);
    state.core.sample_rates();
    // A save before the data are there would replace the file they come from by nothing.
    if !state.core.shared.loading.is_running() {
        snapshot::check_save_points(&mut state.core, now_ms / 1000);
    }
    let managed = state.core.config.fleet.managed;
    let config = &state.core.config.replication;
    // The id of a managed server's history carries its term: it never gets another by itself.
    let backlog_ttl = if managed {
        Duration::ZERO
    } else {
        config.backlog_ttl
    };
    let ping_period = config.ping_replica_period;
    let monotonic_ms = clock::monotonic_ms();
    state
        .core
        .replication
        .tick(monotonic_ms, ping_period, backlog_ttl);
    state.core.check_failover();
    state.finish_batch();
}

/// `client-output-buffer-limit`.
fn close_slow_clients(engine: &Engine) {
    let limits = engine.lock().core.config.output_limits();
    engine
        .shared
        .clients
        .close_slow(&limits, clock::monotonic_ms());
}

/// `timeout`: closes normal clients that have been silent too long.
fn close_idle_clients(engine: &Engine) {
    let timeout = engine.lock().core.config.net.idle_timeout;
    if !timeout.is_zero() {
        let timeout_ms = timeout.as_millis() as i64;
        engine
            .shared
            .clients
            .close_idle(timeout_ms, clock::monotonic_ms());
    }
}
