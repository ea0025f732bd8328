//! The text of INFO.
//!
//! Names, order and number formats are those of Redis 7.2, because monitors, Sentinel and clients parse them;
//! `connected_replicas` stands beside `connected_slaves` for readers of newer guides.

use std::fmt::Write;

use super::facts::{
    Facts, LinkFacts, LoadFacts, MemoryFacts, PersistenceFacts, ReplicationFacts, StatFacts,
};
use super::process;
use crate::REDIS_VERSION;

/// One section.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Section {
    Server,
    Clients,
    Memory,
    Persistence,
    Stats,
    Replication,
    Cpu,
    Modules,
    CommandStats,
    ErrorStats,
    Cluster,
    Keyspace,
}

/// Every section by its name, in the order of INFO.
const SECTIONS: &[(&str, Section)] = &[
    ("server", Section::Server),
    ("clients", Section::Clients),
    ("memory", Section::Memory),
    ("persistence", Section::Persistence),
    ("stats", Section::Stats),
    ("replication", Section::Replication),
    ("cpu", Section::Cpu),
    ("modules", Section::Modules),
    ("commandstats", Section::CommandStats),
    ("errorstats", Section::ErrorStats),
    ("cluster", Section::Cluster),
    ("keyspace", Section::Keyspace),
];

/// The sections asked for, rendered. Without names, all but the statistics of commands; `all` and `everything`
/// name every section. Unknown names add nothing.
pub fn render(facts: &Facts, names: &[&str]) -> String {
    let mut text = String::new();
    for (name, section) in SECTIONS {
        let by_default = *section != Section::CommandStats;
        let wanted = names.is_empty() && by_default
            || names.iter().any(|wanted| match *wanted {
                "all" | "everything" => true,
                "default" => by_default,
                wanted => wanted == *name,
            });
        if wanted {
            if !text.is_empty() {
                text.push_str("\r\n");
            }
            let body = render_section(facts, *section);
            text.push_str(&body.replace('\n', "\r\n"));
        }
    }
    text
}

fn render_section(facts: &Facts, section: Section) -> String {
    match section {
        Section::Server => server(facts),
        Section::Clients => clients(facts),
        Section::Memory => memory(
            &facts.memory,
            facts.process.rss_bytes,
            facts.process.machine_bytes,
        ),
        Section::Persistence => persistence(&facts.persistence),
        Section::Stats => stats(&facts.stats),
        Section::Replication => replication(&facts.replication),
        Section::Cpu => cpu(facts),
        Section::Modules => "# Modules\n".to_owned(),
        Section::CommandStats => command_stats(facts),
        Section::ErrorStats => error_stats(facts),
        Section::Cluster => "# Cluster\ncluster_enabled:0\n".to_owned(),
        Section::Keyspace => keyspace(facts),
    }
}

fn server(facts: &Facts) -> String {
    let server = &facts.server;
    let executable = std::env::current_exe().unwrap_or_default();
    format!(
        "# Server\n\
         redis_version:{REDIS_VERSION}\n\
         redis_git_sha1:00000000\n\
         redis_git_dirty:0\n\
         redfleet_version:{ours}\n\
         redis_mode:standalone\n\
         os:{system}\n\
         arch_bits:{bits}\n\
         multiplexing_api:epoll\n\
         process_id:{pid}\n\
         process_supervised:no\n\
         run_id:{run_id}\n\
         tcp_port:{port}\n\
         server_time_usec:{now_us}\n\
         uptime_in_seconds:{uptime}\n\
         uptime_in_days:{days}\n\
         hz:{hz}\n\
         configured_hz:{configured_hz}\n\
         executable:{executable}\n\
         config_file:{config_file}\n\
         io_threads_active:{threads_active}\n",
        ours = env!("CARGO_PKG_VERSION"),
        system = process::system(),
        bits = usize::BITS,
        pid = facts.process.pid,
        run_id = server.run_id,
        port = server.port,
        now_us = server.now_us,
        hz = server.hz,
        configured_hz = server.configured_hz,
        uptime = server.uptime_s,
        days = server.uptime_s / 86_400,
        executable = executable.display(),
        config_file = server.config_file,
        threads_active = u8::from(server.io_threads > 1),
    )
}

fn clients(facts: &Facts) -> String {
    let clients = &facts.clients;
    format!(
        "# Clients\n\
         connected_clients:{}\n\
         cluster_connections:0\n\
         maxclients:{}\n\
         blocked_clients:{}\n\
         tracking_clients:0\n",
        clients.connected, clients.max, clients.blocked
    )
}

/// `2.50M` as Redis writes sizes for people.
fn human(bytes: u64) -> String {
    let bytes = bytes as f64;
    for (unit, size) in [
        ("T", 1u64 << 40),
        ("G", 1 << 30),
        ("M", 1 << 20),
        ("K", 1 << 10),
    ] {
        if bytes >= size as f64 {
            return format!("{:.2}{unit}", bytes / size as f64);
        }
    }
    format!("{bytes}B")
}

fn percent(part: u64, whole: u64) -> String {
    format!(
        "{:.2}%",
        if whole == 0 {
            0.0
        } else {
            part as f64 * 100.0 / whole as f64
        }
    )
}

fn ratio(part: u64, whole: u64) -> String {
    format!(
        "{:.2}",
        if whole == 0 {
            0.0
        } else {
            part as f64 / whole as f64
        }
    )
}

fn memory(memory: &MemoryFacts, rss: u64, machine: u64) -> String {
    let used = memory.allocated;
    let overhead = memory.startup + memory.tables + memory.backlog + memory.clients;
    let dataset = used.saturating_sub(overhead);
    let mut text = String::from("# Memory\n");
    let sizes = [
        ("used_memory", used),
        ("used_memory_rss", rss),
        ("used_memory_peak", memory.peak),
        ("total_system_memory", machine),
        ("maxmemory", memory.limit),
    ];
    for (name, bytes) in sizes {
        push(&mut text, name, bytes);
        push(&mut text, &format!("{name}_human"), human(bytes));
    }
    push(&mut text, "maxmemory_policy", &memory.policy);
    push(
        &mut text,
        "used_memory_peak_perc",
        percent(used, memory.peak),
    );
    push(&mut text, "used_memory_overhead", overhead);
    push(&mut text, "used_memory_startup", memory.startup);
    push(&mut text, "used_memory_dataset", dataset);
    let net = used.saturating_sub(memory.startup);
    push(&mut text, "used_memory_dataset_perc", percent(dataset, net));
    push_allocator(&mut text, memory, rss);
    text
}

fn push_allocator(text: &mut String, memory: &MemoryFacts, rss: u64) {
    let used = memory.allocated;
    push(text, "allocator_allocated", used);
    push(text, "allocator_active", memory.active);
    push(text, "allocator_resident", memory.resident);
    push(text, "allocator_frag_ratio", ratio(memory.active, used));
    push(
        text,
        "allocator_frag_bytes",
        memory.active.saturating_sub(used),
    );
    push(
        text,
        "allocator_rss_ratio",
        ratio(memory.resident, memory.active),
    );
    push(
        text,
        "allocator_rss_bytes",
        memory.resident.saturating_sub(memory.active),
    );
    push(text, "rss_overhead_ratio", ratio(rss, memory.resident));
    push(
        text,
        "rss_overhead_bytes",
        rss as i64 - memory.resident as i64,
    );
    push(text, "mem_fragmentation_ratio", ratio(rss, used));
    push(text, "mem_fragmentation_bytes", rss as i64 - used as i64);
    push(text, "mem_not_counted_for_evict", memory.uncounted);
    push(text, "mem_replication_backlog", memory.backlog);
    push(text, "mem_clients_normal", memory.clients);
    push(text, "mem_aof_buffer", 0);
    push(text, "mem_allocator", "jemalloc");
    push(text, "active_defrag_running", 0);
}

fn persistence(persistence: &PersistenceFacts) -> String {
    let mut text = String::from("# Persistence\n");
    push(
        &mut text,
        "loading",
        u8::from(persistence.loading.is_some()),
    );
    push(
        &mut text,
        "async_loading",
        u8::from(persistence.loads_aside),
    );
    push(&mut text, "current_cow_size", 0);
    push(
        &mut text,
        "rdb_changes_since_last_save",
        persistence.changes,
    );
    push(
        &mut text,
        "rdb_bgsave_in_progress",
        u8::from(persistence.running_s.is_some()),
    );
    push(&mut text, "rdb_last_save_time", persistence.last_save_s);
    push(
        &mut text,
        "rdb_last_bgsave_status",
        ok_or_err(persistence.last_ok),
    );
    push(
        &mut text,
        "rdb_last_bgsave_time_sec",
        persistence.last_duration_s,
    );
    push(
        &mut text,
        "rdb_current_bgsave_time_sec",
        persistence.running_s.unwrap_or(-1),
    );
    push(&mut text, "rdb_saves", persistence.saves);
    push(&mut text, "rdb_last_cow_size", 0);
    push(&mut text, "aof_enabled", 0);
    push(&mut text, "aof_rewrite_in_progress", 0);
    push(&mut text, "aof_rewrite_scheduled", 0);
    push(&mut text, "aof_last_rewrite_time_sec", -1);
    push(&mut text, "aof_current_rewrite_time_sec", -1);
    push(&mut text, "aof_last_bgrewrite_status", "ok");
    push(&mut text, "aof_last_write_status", "ok");
    if let Some(loading) = persistence.loading {
        push_load(&mut text, loading);
    }
    text
}

fn push_load(text: &mut String, loading: LoadFacts) {
    let LoadFacts {
        since_s,
        elapsed_s,
        loaded_bytes,
        total_bytes,
    } = loading;
    push(text, "loading_start_time", since_s);
    push(text, "loading_total_bytes", total_bytes);
    push(text, "loading_loaded_bytes", loaded_bytes);
    let percent = loaded_bytes as f64 * 100.0 / total_bytes.max(1) as f64;
    push(text, "loading_loaded_perc", format!("{percent:.2}"));
    // In the first second nothing is known of the pace: Redis guesses as much.
    let eta_s = match elapsed_s {
        0 => 1,
        elapsed => {
            let left = total_bytes.saturating_sub(loaded_bytes);
            elapsed.saturating_mul(left) / (loaded_bytes + 1)
        }
    };
    push(text, "loading_eta_seconds", eta_s);
}

fn ok_or_err(ok: bool) -> &'static str {
    if ok { "ok" } else { "err" }
}

fn stats(stats: &StatFacts) -> String {
    let mut text = String::from("# Stats\n");
    push(
        &mut text,
        "total_connections_received",
        stats.connections_received,
    );
    push(
        &mut text,
        "total_commands_processed",
        stats.commands_processed,
    );
    push(
        &mut text,
        "instantaneous_ops_per_sec",
        stats.rates.commands.round(),
    );
    push(&mut text, "total_net_input_bytes", stats.net_input_bytes);
    push(&mut text, "total_net_output_bytes", stats.net_output_bytes);
    let kbps = |bytes: f64| format!("{:.2}", bytes / 1024.0);
    push(
        &mut text,
        "instantaneous_input_kbps",
        kbps(stats.rates.input_bytes),
    );
    push(
        &mut text,
        "instantaneous_output_kbps",
        kbps(stats.rates.output_bytes),
    );
    push(
        &mut text,
        "rejected_connections",
        stats.connections_rejected,
    );
    push(&mut text, "sync_full", stats.sync_full);
    push(&mut text, "sync_partial_ok", stats.sync_partial_ok);
    push(&mut text, "sync_partial_err", stats.sync_partial_err);
    push(&mut text, "expired_keys", stats.expired_keys);
    push(&mut text, "evicted_keys", stats.evicted_keys);
    push(&mut text, "evicted_clients", 0);
    push(&mut text, "keyspace_hits", stats.keyspace_hits);
    push(&mut text, "keyspace_misses", stats.keyspace_misses);
    push(&mut text, "pubsub_channels", 0);
    push(&mut text, "pubsub_patterns", 0);
    push(&mut text, "latest_fork_usec", 0);
    push(&mut text, "total_forks", 0);
    push(&mut text, "tracking_total_keys", 0);
    push(&mut text, "total_error_replies", stats.error_replies);
    text
}

fn replication(replication: &ReplicationFacts) -> String {
    let mut text = String::from("# Replication\n");
    match &replication.link {
        None => push(&mut text, "role", "master"),
        Some(link) => {
            push(&mut text, "role", "slave");
            link_to_master(&mut text, link, replication.offset);
        }
    }
    push(&mut text, "connected_slaves", replication.replicas.len());
    push(&mut text, "connected_replicas", replication.replicas.len());
    if let Some(good) = replication.good_replicas {
        push(&mut text, "min_slaves_good_slaves", good);
    }
    for (index, replica) in replication.replicas.iter().enumerate() {
        let line = format!(
            "ip={},port={},state={},offset={},lag={}",
            replica.ip, replica.port, replica.state, replica.offset, replica.lag_s
        );
        push(&mut text, &format!("slave{index}"), line);
    }
    let (first, length) = replication.backlog.unwrap_or((0, 0));
    let handover = replication.handover.unwrap_or("no-failover");
    push(&mut text, "master_failover_state", handover);
    push(&mut text, "master_replid", &replication.id);
    push(&mut text, "master_replid2", &replication.previous_id);
    push(&mut text, "master_repl_offset", replication.offset);
    push(&mut text, "second_repl_offset", replication.previous_offset);
    push(
        &mut text,
        "repl_backlog_active",
        u8::from(replication.backlog.is_some()),
    );
    push(&mut text, "repl_backlog_size", replication.backlog_size);
    push(&mut text, "repl_backlog_first_byte_offset", first);
    push(&mut text, "repl_backlog_histlen", length);
    text
}

fn link_to_master(text: &mut String, link: &LinkFacts, offset: u64) {
    push(text, "master_host", &link.host);
    push(text, "master_port", link.port);
    push(
        text,
        "master_link_status",
        if link.up { "up" } else { "down" },
    );
    push(
        text,
        "master_last_io_seconds_ago",
        link.last_io_s.unwrap_or(-1),
    );
    push(
        text,
        "master_sync_in_progress",
        u8::from(link.sync.is_some()),
    );
    push(text, "slave_read_repl_offset", link.read_offset);
    push(text, "slave_repl_offset", offset);
    if let Some((total, read)) = link.sync {
        push(text, "master_sync_total_bytes", total);
        push(text, "master_sync_read_bytes", read);
        push(text, "master_sync_left_bytes", total as i64 - read as i64);
        let share = if total == 0 {
            0.0
        } else {
            read as f64 * 100.0 / total as f64
        };
        push(text, "master_sync_perc", format!("{share:.2}"));
        push(
            text,
            "master_sync_last_io_seconds_ago",
            link.sync_last_io_s.unwrap_or(-1),
        );
    }
    if !link.up {
        let since_s = link.down_since_s.unwrap_or(-1);
        push(text, "master_link_down_since_seconds", since_s);
    }
    if let Some(error) = &link.last_error {
        // Clients take a value with these signs for a list.
        let line = error.replace([',', '='], " ");
        push(text, "master_link_error", line);
    }
    push(text, "slave_priority", link.priority);
    push(text, "slave_read_only", u8::from(link.read_only));
    push(text, "replica_announced", u8::from(link.announced));
}

fn cpu(facts: &Facts) -> String {
    format!(
        "# CPU\nused_cpu_sys:{:.6}\nused_cpu_user:{:.6}\nused_cpu_sys_children:0.000000\nused_cpu_user_children:0.000000\n",
        facts.process.cpu_sys_s, facts.process.cpu_user_s
    )
}

fn command_stats(facts: &Facts) -> String {
    let mut text = String::from("# Commandstats\n");
    for command in &facts.commands {
        let per_call = if command.calls == 0 {
            0.0
        } else {
            command.usec as f64 / command.calls as f64
        };
        let line = format!(
            "calls={},usec={},usec_per_call={per_call:.2},rejected_calls={},failed_calls={}",
            command.calls, command.usec, command.rejected, command.failed
        );
        push(&mut text, &format!("cmdstat_{}", command.name), line);
    }
    text
}

fn error_stats(facts: &Facts) -> String {
    let mut text = String::from("# Errorstats\n");
    for (code, count) in &facts.errors {
        push(
            &mut text,
            &format!("errorstat_{code}"),
            format!("count={count}"),
        );
    }
    text
}

fn keyspace(facts: &Facts) -> String {
    let mut text = String::from("# Keyspace\n");
    for db in &facts.keyspace {
        let line = format!(
            "keys={},expires={},avg_ttl={}",
            db.keys, db.expires, db.avg_ttl_ms
        );
        push(&mut text, &format!("db{}", db.index), line);
    }
    text
}

/// A line `name:value`. Values come from configuration and peers too: a line end in one would forge a field.
fn push(text: &mut String, name: &str, value: impl std::fmt::Display) {
    let start = text.len();
    write!(text, "{name}:{value}").expect("writing to a String cannot fail");
    if text[start..].contains(['\r', '\n']) {
        let clean = text[start..].replace(['\r', '\n'], " ");
        text.replace_range(start.., &clean);
    }
    text.push('\n');
}

#[cfg(test)]
mod tests;
