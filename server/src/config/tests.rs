use proptest::prelude::*;

use super::*;
use crate::config::{
    kind::{Occurrence, Problem},
    set::Locality::{Local, Remote},
};

fn set(config: &Config, pairs: &[(&str, &str)]) -> Result<Config, String> {
    config
        .with(pairs, Remote)
        .map(|changed| changed.config)
        .map_err(|error| error.to_string())
}

fn get(config: &Config, name: &str) -> String {
    let found = config.matching(&[name]);
    assert_eq!(found.len(), 1, "{name}");
    found[0].1.clone()
}

#[test]
fn many_pairs_are_set_together_or_not_at_all() {
    let config = Config::default();
    let changed = config
        .with(
            &[
                ("maxmemory", "100mb"),
                ("REPL-TIMEOUT", "7"),
                ("timeout", "0"),
            ],
            Remote,
        )
        .unwrap();
    assert_eq!(changed.names, ["maxmemory", "repl-timeout"]);
    assert_eq!(changed.config.memory.max_memory_bytes, 100 << 20);
    assert_eq!(changed.config.replication.timeout, Duration::from_secs(7));
    assert!(set(&config, &[("maxmemory", "100mb"), ("repl-timeout", "x")]).is_err());
}

/// Name, value, what Redis says of it.
const REFUSED_WITHOUT_EFFECT: &[(&str, &str, &str)] = &[
    (
        "appendfsync",
        "foo",
        "argument(s) must be one of the following: everysec, always, no",
    ),
    ("hz", "abc", "argument couldn't be parsed into an integer"),
    (
        "hz",
        "-1",
        "argument must be between 0 and 2147483647 inclusive",
    ),
    (
        "slowlog-max-len",
        "-1",
        "argument must be between 0 and 9223372036854775807 inclusive",
    ),
    (
        "lazyfree-lazy-expire",
        "maybe",
        "argument must be 'yes' or 'no'",
    ),
    (
        "stream-node-max-bytes",
        "x",
        "argument must be a memory value",
    ),
    (
        "auto-aof-rewrite-min-size",
        "9223372036854775808",
        "argument must be between 0 and 9223372036854775807 inclusive",
    ),
    (
        "latency-tracking-info-percentiles",
        "a b",
        "Invalid latency-tracking-info-percentiles parameters",
    ),
    (
        "latency-tracking-info-percentiles",
        "50 101",
        "latency-tracking-info-percentiles parameters should sit between [0.0,100.0]",
    ),
    ("oom-score-adj-values", "1 2", "wrong number of arguments"),
    (
        "oom-score-adj-values",
        "1 2 3000",
        "Invalid oom-score-adj-values, elements must be between -2000 and 2000.",
    ),
    (
        "appendfilename",
        "a/b",
        "appendfilename can't be a path, just a filename",
    ),
    (
        "unixsocketperm",
        "9",
        "argument couldn't be parsed as an octal number",
    ),
    (
        "proc-title-template",
        "{title} {nosuch}",
        "template format is invalid or contains unknown variables",
    ),
    (
        "unixsocketperm",
        "1000",
        "argument must be between 0 and 777 inclusive",
    ),
];

/// A line of the file, some of which CONFIG SET would refuse.
fn given(config: &mut Config, name: &str, value: &str) -> Result<(), Problem> {
    let directive = directive::find(name).unwrap();
    directive
        .kind
        .set(directive.name, config, &[value], Occurrence::First)
}

/// What CONFIG REWRITE wrote would otherwise be a file that neither Redis nor this server reads.
#[test]
fn directives_without_effect_refuse_what_redis_refuses() {
    for (name, value, why) in REFUSED_WITHOUT_EFFECT {
        let mut config = Config::default();
        assert_eq!(
            given(&mut config, name, value),
            Err((*why).into()),
            "{name} {value}"
        );
    }
}

#[test]
fn directives_without_effect_show_what_redis_shows() {
    let config = Config::default();
    for (name, value, shown) in [
        ("appendfsync", "ALWAYS", "always"),
        ("stream-node-max-bytes", "8kb", "8192"),
        ("lazyfree-lazy-expire", "Yes", "yes"),
        ("latency-tracking-info-percentiles", "50 99.90", "50 99.9"),
        ("latency-tracking-info-percentiles", "", ""),
        ("oom-score-adj-values", "1  2 3", "1 2 3"),
        ("unixsocketperm", "0700", "700"),
        ("slowlog-log-slower-than", "-1", "-1"),
    ] {
        let mut changed = config.clone();
        given(&mut changed, name, value).unwrap();
        assert_eq!(get(&changed, name), shown, "{name}");
    }
}

#[test]
fn directives_without_effect_have_good_defaults() {
    let config = Config::default();
    for directive in directive::all().iter().filter(|d| d.is_compatibility()) {
        let default = directive.get(&config);
        let mut set = config.clone();
        given(&mut set, directive.name, &default).unwrap();
        assert!(set == config, "{}", directive.name);
    }
}

#[test]
fn wrong_settings_get_the_texts_of_redis() {
    let failed = |name: &str, why: &str| {
        format!("ERR CONFIG SET failed (possibly related to argument '{name}') - {why}")
    };
    let config = Config::default();
    let cases = [
        (
            "nosuch",
            "1",
            "ERR Unknown option or number of arguments for CONFIG SET - 'nosuch'".to_owned(),
        ),
        ("port", "1", failed("port", "can't set immutable config")),
        ("dir", "/", failed("dir", "can't set protected config")),
        (
            "timeout",
            "-1",
            failed(
                "timeout",
                "argument must be between 0 and 2147483647 inclusive",
            ),
        ),
        (
            "timeout",
            "x",
            failed("timeout", "argument couldn't be parsed into an integer"),
        ),
        (
            "rdbcompression",
            "2",
            failed("rdbcompression", "argument must be 'yes' or 'no'"),
        ),
        (
            "maxmemory",
            "10x",
            failed("maxmemory", "argument must be a memory value"),
        ),
        ("save", "10", failed("save", "Invalid save parameters")),
        ("save", "0 1", failed("save", "Invalid save parameters")),
        (
            "loglevel",
            "loud",
            failed(
                "loglevel",
                "argument(s) must be one of the following: debug, verbose, notice, warning, nothing",
            ),
        ),
        (
            "client-output-buffer-limit",
            "wrong 1 2 3",
            failed(
                "client-output-buffer-limit",
                "Invalid client class specified in buffer limit configuration.",
            ),
        ),
        (
            "appendonly",
            "yes",
            failed(
                "appendonly",
                "not supported yet: keep 'appendonly no' and use save points (save 60 1)",
            ),
        ),
    ];
    for (name, value, expected) in cases {
        assert_eq!(set(&config, &[(name, value)]).unwrap_err(), expected);
    }
}

#[test]
fn bounds_and_units_are_those_of_redis() {
    const MOST: &str = "9223372036854775807";
    let cases = [
        ("hash-max-listpack-entries", MOST, Ok(MOST)),
        ("set-max-intset-entries", MOST, Ok(MOST)),
        ("set-max-listpack-entries", MOST, Ok(MOST)),
        ("set-max-listpack-value", MOST, Ok(MOST)),
        (
            "set-max-listpack-value",
            "1kb",
            Err("argument couldn't be parsed into an integer"),
        ),
        ("zset-max-ziplist-entries", MOST, Ok(MOST)),
        (
            "zset-max-listpack-entries",
            "-1",
            Err("argument must be between 0 and 9223372036854775807 inclusive"),
        ),
        ("repl-backlog-ttl", MOST, Ok(MOST)),
        ("hash-max-listpack-value", "1kb", Ok("1024")),
        ("hash-max-ziplist-value", "1k", Ok("1000")),
        ("zset-max-listpack-value", MOST, Ok(MOST)),
        (
            "zset-max-ziplist-value",
            "-1",
            Err("argument must be a memory value"),
        ),
        (
            "zset-max-listpack-value",
            "9223372036854775808",
            Err("argument must be between 0 and 9223372036854775807 inclusive"),
        ),
        ("maxmemory", "", Ok("0")),
        ("maxmemory", "kb", Ok("0")),
        (
            "repl-backlog-size",
            "",
            Err("argument must be between 1 and 9223372036854775807 inclusive"),
        ),
        ("hz", "0", Ok("1")),
        ("hz", "1000", Ok("500")),
        ("hz", "50", Ok("50")),
        (
            "client-output-buffer-limit",
            "",
            Ok("normal 0 0 0 slave 268435456 67108864 60 pubsub 33554432 8388608 60"),
        ),
        (
            "client-output-buffer-limit",
            "normal 0 0",
            Err("Wrong number of arguments in buffer limit configuration."),
        ),
    ];
    for (name, value, expected) in cases {
        let shown = set(&Config::default(), &[(name, value)]).map(|config| get(&config, name));
        let expected = expected.map(str::to_owned).map_err(|why| {
            format!("ERR CONFIG SET failed (possibly related to argument '{name}') - {why}")
        });
        assert_eq!(shown, expected, "{name} {value}");
    }
    let mut file = Config::default();
    given(&mut file, "hz", "1000").unwrap();
    assert_eq!((get(&file, "hz").as_str(), file.hz()), ("1000", 500));
}

#[test]
fn one_directive_cannot_be_set_twice_by_its_two_names() {
    let twice = set(
        &Config::default(),
        &[("min-slaves-to-write", "1"), ("min-replicas-to-write", "2")],
    );
    assert_eq!(
        twice.unwrap_err(),
        "ERR CONFIG SET failed (possibly related to argument 'min-replicas-to-write') - duplicate parameter"
    );
}

#[test]
fn protected_directives_need_permission() {
    let mut config = Config::default();
    config.security.protected_configs = Permission::Local;
    assert!(config.with(&[("dbfilename", "x.rdb")], Remote).is_err());
    assert!(config.with(&[("dbfilename", "x.rdb")], Local).is_ok());
    assert!(config.with(&[("dbfilename", "../x.rdb")], Local).is_err());
    let missing = config
        .with(&[("dir", "/no/such/folder")], Local)
        .unwrap_err();
    assert!(
        missing.to_string().ends_with("- No such file or directory"),
        "{missing}"
    );
}

#[test]
fn both_names_of_a_directive_read_and_write_the_same_value() {
    let config = set(&Config::default(), &[("slave-priority", "7")]).unwrap();
    assert_eq!(config.replication.replica_priority, 7);
    let found = config.matching(&["*-priority", "replica-priority", "SLAVE-priority"]);
    let expected = [("replica-priority", "7"), ("slave-priority", "7")];
    assert_eq!(found, expected.map(|(n, v)| (n.to_owned(), v.to_owned())));
}

#[test]
fn values_are_shown_as_redis_shows_them() {
    let config = Config::default();
    assert_eq!(get(&config, "save"), "3600 1 300 100 60 10000");
    assert_eq!(get(&config, "bind"), "* -::*");
    assert_eq!(get(&config, "repl-backlog-size"), "1048576");
    assert_eq!(
        get(&config, "client-output-buffer-limit"),
        "normal 0 0 0 slave 268435456 67108864 60 pubsub 33554432 8388608 60"
    );
    assert_eq!(get(&config, "appendonly"), "no");
    assert_eq!(get(&config, "hz"), "10");
    let config = set(
        &config,
        &[
            ("save", "900 1"),
            ("client-output-buffer-limit", "replica 1gb 0 0"),
        ],
    );
    let config = config.unwrap();
    assert_eq!(get(&config, "save"), "900 1");
    assert!(
        get(&config, "client-output-buffer-limit").contains("slave 1073741824 0 0 pubsub 33554432")
    );
    let config = set(&config, &[("save", "")]).unwrap();
    assert_eq!(get(&config, "save"), "");
}

#[test]
fn every_name_is_there_once_and_every_default_can_be_set() {
    let config = Config::default();
    let mut names: Vec<&str> = Vec::new();
    for directive in directive::all() {
        names.push(directive.name);
        names.extend(directive.alias);
        assert!(!directive.doc.is_empty(), "{}", directive.name);
        if directive.change == directive::Change::Live {
            let value = directive.get(&config);
            let again = set(&config, &[(directive.name, &value)]);
            assert_eq!(again.as_ref(), Ok(&config), "{} {value}", directive.name);
        }
    }
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), count);
}

#[test]
fn setting_a_password_counts_as_a_change_even_if_it_is_the_same() {
    let changed = Config::default()
        .with(&[("requirepass", "")], Remote)
        .unwrap();
    assert_eq!(changed.names, ["requirepass"]);
    assert!(!format!("{:?}", changed.config).contains("requirepass:"));
}

const WRITTEN: &str = "# my server
port 6379

save 900 1
# between
save 300 10
slaveof 10.0.0.1 6379
unknown-thing stays
include other.conf
timeout 5 # not a comment in Redis either
";

#[test]
fn a_rewritten_file_keeps_what_people_wrote() {
    let mut config = Config::default();
    config.persistence.dir = PathBuf::from("/data");
    config.persistence.save_points = vec![SavePoint {
        seconds: 60,
        changes: 7,
    }];
    config.replication.replica_of = Some(HostPort {
        host: "::1".into(),
        port: 7000,
    });
    config.security.requirepass = "a \"b\" \n#".into();
    config.replication.backlog_bytes = 3 << 20;
    let text = String::from_utf8(rewrite::rewritten(WRITTEN.as_bytes(), &config)).unwrap();
    let expected = "# my server
port 6379

save 60 7
# between
replicaof ::1 7000
unknown-thing stays
include other.conf
timeout 0
# Generated by CONFIG REWRITE
dir /data
requirepass \"a \\\"b\\\" \\n#\"
repl-backlog-size 3mb
";
    assert_eq!(text, expected);
    let again = rewrite::rewritten(text.as_bytes(), &config);
    assert_eq!(
        String::from_utf8(again).unwrap(),
        text,
        "a second time changes nothing"
    );
    config.replication.replica_of = None;
    let text = String::from_utf8(rewrite::rewritten(text.as_bytes(), &config)).unwrap();
    assert!(!text.contains("replicaof"));
}

#[test]
fn rewriting_replaces_the_file_whole_and_keeps_its_permissions() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("redis.conf");
    std::fs::write(&path, b"# \xff comment\nrequirepass x\n").unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    let mut config = Config::default();
    config.security.requirepass = "y".into();
    rewrite::rewrite(&path, &config).unwrap();
    let text = std::fs::read(&path).unwrap();
    assert!(text.starts_with(b"# \xff comment\nrequirepass y\n"));
    assert_eq!(
        std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );
    assert_eq!(
        std::fs::read_dir(dir.path()).unwrap().count(),
        1,
        "no temporary file is left"
    );
    assert!(rewrite::rewrite(&dir.path().join("no/such/dir/redis.conf"), &config).is_err());
}

proptest! {
    #[test]
    fn what_is_rewritten_loads_as_the_same_configuration(
        password in "\\PC{0,20}|[\\x00-\\x7f]{0,20}",
        file in "[ -~\\n]{0,30}",
        host in "[!-~]{1,20}",
        points in proptest::collection::vec((1u64..1_000_000, 0u64..1000), 0..4),
        backlog in 16_384u64..u64::from(u32::MAX),
    ) {
        let mut config = Config::default();
        config.security.requirepass = password;
        given(&mut config, "pidfile", &file).unwrap();
        config.replication.replica_of = Some(HostPort { host, port: 6379 });
        config.persistence.save_points =
            points.into_iter().map(|(seconds, changes)| SavePoint { seconds, changes }).collect();
        config.replication.backlog_bytes = backlog;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("redis.conf");
        std::fs::write(&path, WRITTEN.replace("unknown-thing stays\n", "").replace("include other.conf\n", "")).unwrap();
        rewrite::rewrite(&path, &config).unwrap();
        let args = [path.to_string_lossy().into_owned()];
        let Startup::Run(loaded) = parse::from_args(&args).unwrap() else { panic!("it runs") };
        prop_assert_eq!(loaded.config, config);
    }
}

#[test]
fn what_makes_a_server_a_member_is_the_operators() {
    let owned = |name: &&str| control::directives::concern_of(name).is_some();
    let free: Vec<&str> = directive::FLEET
        .iter()
        .map(|directive| directive.name)
        .filter(|name| !owned(name))
        .collect();
    assert!(free.is_empty(), "users may set {free:?}");
    assert!(!owned(&"maxmemory"));
}
