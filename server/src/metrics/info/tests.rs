use super::super::facts::*;
use super::*;

fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let prefix = format!("{name}:");
    text.split("\r\n")
        .find_map(|line| line.strip_prefix(prefix.as_str()))
}

#[test]
fn a_master_shows_its_replicas_as_redis_does() {
    let replica = ReplicaFacts {
        ip: "10.0.0.2".into(),
        port: 6380,
        state: "online",
        offset: 1751,
        lag_s: 1,
    };
    let replication = ReplicationFacts {
        replicas: vec![replica],
        good_replicas: Some(1),
        id: "a".repeat(40),
        previous_id: "0".repeat(40),
        previous_offset: -1,
        offset: 1800,
        backlog: Some((1, 1800)),
        backlog_size: 1 << 20,
        ..ReplicationFacts::default()
    };
    let text = render(
        &Facts {
            replication,
            ..Facts::default()
        },
        &["replication"],
    );
    let expected = "# Replication\r\nrole:master\r\nconnected_slaves:1\r\nconnected_replicas:1\r\n\
                    min_slaves_good_slaves:1\r\n\
                    slave0:ip=10.0.0.2,port=6380,state=online,offset=1751,lag=1\r\n\
                    master_failover_state:no-failover\r\n\
                    master_replid:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n\
                    master_replid2:0000000000000000000000000000000000000000\r\n\
                    master_repl_offset:1800\r\nsecond_repl_offset:-1\r\nrepl_backlog_active:1\r\n\
                    repl_backlog_size:1048576\r\nrepl_backlog_first_byte_offset:1\r\n\
                    repl_backlog_histlen:1800\r\n";
    assert_eq!(text, expected);
}

#[test]
fn a_replica_shows_its_link() {
    let link = LinkFacts {
        host: "master\r\nrole:master".into(),
        port: 6379,
        sync: Some((200, 50)),
        sync_last_io_s: Some(0),
        down_since_s: Some(3),
        last_error: Some("the master's stream: xadd, k=1\nrole:master".into()),
        read_only: true,
        priority: 100,
        ..LinkFacts::default()
    };
    let replication = ReplicationFacts {
        link: Some(link),
        ..ReplicationFacts::default()
    };
    let text = render(
        &Facts {
            replication,
            ..Facts::default()
        },
        &["replication"],
    );
    for (name, value) in [
        ("role", "slave"),
        ("master_host", "master  role:master"),
        ("master_link_status", "down"),
        ("master_last_io_seconds_ago", "-1"),
        ("master_sync_in_progress", "1"),
        ("master_sync_left_bytes", "150"),
        ("master_sync_perc", "25.00"),
        ("master_sync_last_io_seconds_ago", "0"),
        ("master_link_down_since_seconds", "3"),
        (
            "master_link_error",
            "the master's stream: xadd  k 1 role:master",
        ),
        ("slave_priority", "100"),
        ("slave_read_only", "1"),
    ] {
        assert_eq!(field(&text, name), Some(value), "{name} in {text}");
    }
}

#[test]
fn sections_are_chosen_by_name() {
    let set = CommandFacts {
        name: "set".into(),
        calls: 4,
        usec: 10,
        rejected: 1,
        failed: 2,
    };
    let facts = Facts {
        commands: vec![set],
        errors: vec![("ERR".into(), 3)],
        keyspace: vec![DbFacts {
            index: 2,
            keys: 10,
            expires: 1,
            avg_ttl_ms: 250,
        }],
        ..Facts::default()
    };
    let all = render(&facts, &["all"]);
    assert_eq!(
        field(&all, "cmdstat_set"),
        Some("calls=4,usec=10,usec_per_call=2.50,rejected_calls=1,failed_calls=2")
    );
    assert_eq!(field(&all, "errorstat_ERR"), Some("count=3"));
    assert_eq!(field(&all, "db2"), Some("keys=10,expires=1,avg_ttl=250"));
    let default = render(&facts, &[]);
    assert_eq!(field(&default, "cmdstat_set"), None);
    assert!(default.contains("# Server\r\n") && default.contains("\r\n\r\n# Keyspace\r\n"));
    let two = render(&facts, &["keyspace", "cpu", "nonsense"]);
    assert!(
        two.starts_with("# CPU\r\n") && two.contains("# Keyspace"),
        "{two}"
    );
    assert!(!two.contains("# Server"));
    assert_eq!(render(&facts, &["nonsense"]), "");
}

#[test]
fn sizes_for_people() {
    assert_eq!(human(0), "0B");
    assert_eq!(human(1023), "1023B");
    assert_eq!(human(966_024), "943.38K");
    assert_eq!(human(25_276_510_208), "23.54G");
}

#[test]
fn a_load_shows_its_progress_as_redis_does() {
    let shown = |elapsed_s| {
        let loading = LoadFacts {
            since_s: 1_700_000_000,
            elapsed_s,
            loaded_bytes: 999,
            total_bytes: 3999,
        };
        let persistence = PersistenceFacts {
            loading: Some(loading),
            ..PersistenceFacts::default()
        };
        let facts = Facts {
            persistence,
            ..Facts::default()
        };
        render(&facts, &["persistence"])
    };
    let text = shown(10);
    for (name, value) in [
        ("loading", "1"),
        ("loading_start_time", "1700000000"),
        ("loading_total_bytes", "3999"),
        ("loading_loaded_bytes", "999"),
        ("loading_loaded_perc", "24.98"),
        ("loading_eta_seconds", "30"),
    ] {
        assert_eq!(field(&text, name), Some(value), "{name}");
    }
    assert_eq!(field(&shown(0), "loading_eta_seconds"), Some("1"));
}
