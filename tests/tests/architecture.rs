//! The arrows between layers, the sizes of files and the purity of the deciding modules, read from
//! the source text. What fails here is a design question first: see CONTRIBUTING.md.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "tests fail by panicking, in their helpers, too"
)]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use redfleet_tests::source::{Code, names};

/// Lines of a file that are not its tests, at most.
const MAX_FILE_LINES: usize = 600;

/// One module of a crate: its name, the other modules of the crate that it may name, and why not more. Modules without
/// a row do not exist, see [`every_module_has_a_row`].
type Arrows = &'static [(&'static str, &'static [&'static str], &'static str)];

/// `(crate, arrows)`: what may name what.
const ARROWS: &[(&str, Arrows)] = &[("server/src", SERVER), ("operator/src", OPERATOR)];

const SERVER: Arrows = &[
    ("glob", &[], "a pattern and a text"),
    ("input", &[], "a buffer"),
    ("scheduling", &[], "a priority of the kernel's"),
    ("descriptors", &[], "a limit of the kernel's"),
    (
        "keyspace",
        &[],
        "the keyspace knows values and time, nothing of commands or clients",
    ),
    (
        "config",
        &["glob"],
        "configuration is a value that others read",
    ),
    (
        "logging",
        &["config", "server"],
        "what it needs is in the configuration; of `server` it has the error of a failed start",
    ),
    (
        "command",
        &["config", "glob", "keyspace"],
        "commands reach the server through command::host only",
    ),
    (
        "metrics",
        &[],
        "what is shown comes in as values, see metrics::facts",
    ),
    (
        "engine",
        &[
            "command",
            "config",
            "descriptors",
            "keyspace",
            "logging",
            "metrics",
            "persistence",
            "replication",
        ],
        "the engine holds the state of replication and saving, and sees neither a socket nor the control port",
    ),
    (
        "persistence",
        &["engine", "keyspace", "replication", "scheduling"],
        "a file holds values and a history; commands and clients are the engine's",
    ),
    (
        "replication",
        &[
            "command",
            "config",
            "engine",
            "input",
            "keyspace",
            "persistence",
        ],
        "a link is no client: it has no connection of net's, and enters through the engine",
    ),
    (
        "net",
        &[
            "command",
            "engine",
            "input",
            "keyspace",
            "persistence",
            "replication",
            "scheduling",
        ],
        "bytes in, bytes out: what they mean is the engine's; sockets of replicas are handed to replication, and the \
         keyspace is told which keys come next",
    ),
    (
        "managed",
        &["command", "config", "engine", "replication"],
        "the control port gives orders to the engine, as a client would",
    ),
    ("server", EVERYTHING, ""),
    ("main", EVERYTHING, ""),
];

const OPERATOR: Arrows = &[
    ("api", &[], "the API types contain no behaviour"),
    ("quantity", &[], "a text and a number"),
    ("placement", &[], "placement is pure"),
    ("scaling", &[], "scaling is pure"),
    ("rollout", &[], "rollout is pure"),
    ("rotation", &[], "rotation is pure"),
    ("failover", &["api"], "failover is pure"),
    (
        "set",
        &["api", "placement"],
        "a set is a value that others read",
    ),
    (
        "resources",
        &["api", "placement", "set"],
        "builders are pure",
    ),
    ("leader", &[], "a Lease is no set's"),
    (
        "members",
        &["failover"],
        "a line to one member: of failover it has the state of the line",
    ),
    ("telemetry", &[], "what is shown comes in as values"),
    ("options", &["api", "telemetry"], "options are values"),
    (
        "context",
        &["api", "leader", "reconcile", "telemetry"],
        "what the acting parts share; of `reconcile` it has the defaults of validation",
    ),
    (
        "status",
        &[
            "api",
            "failover",
            "guard",
            "placement",
            "reconcile",
            "rollout",
            "scaling",
            "set",
        ],
        "what users read, made of what was found: the plan of `reconcile` and the view of `guard`, both values",
    ),
    (
        "guard",
        &[
            "api",
            "context",
            "failover",
            "members",
            "placement",
            "reconcile",
            "resources",
            "set",
            "status",
            "telemetry",
        ],
        "a guard waits for no reconcile; of `reconcile` it has the reading of a spec",
    ),
    (
        "reconcile",
        &[
            "api",
            "context",
            "controller",
            "failover",
            "guard",
            "members",
            "placement",
            "quantity",
            "resources",
            "rollout",
            "rotation",
            "scaling",
            "set",
            "status",
        ],
        "of `controller` it has the `Operator` that it runs for",
    ),
    (
        "controller",
        &[
            "api",
            "context",
            "guard",
            "leader",
            "placement",
            "reconcile",
        ],
        "it decides when, never what",
    ),
    ("run", EVERYTHING, ""),
    ("main", EVERYTHING, ""),
];

/// May name all: what puts the parts together.
const EVERYTHING: &[&str] = &["*"];

/// The module, of one that may be named for its values, that may be named: `(folder, module, what of it)`.
const ONLY: &[(&str, &str, &[&str])] = &[
    (
        "server/src/logging.rs",
        "server",
        &["crate::server::StartError"],
    ),
    (
        "server/src/net",
        "keyspace",
        &["crate::keyspace::PREFETCH_KEYS"],
    ),
    (
        "operator/src/context.rs",
        "reconcile",
        &["crate::reconcile::validate::Defaults"],
    ),
    (
        "operator/src/members",
        "failover",
        &["crate::failover::health::Line"],
    ),
    ("operator/src/status", "guard", &["crate::guard::view"]),
    (
        "operator/src/status",
        "reconcile",
        &[
            "crate::reconcile::plan",
            "crate::reconcile::validate::InvalidSpec",
        ],
    ),
    (
        "operator/src/guard",
        "reconcile",
        &["crate::reconcile::validate::tolerate"],
    ),
    (
        "operator/src/reconcile",
        "controller",
        &["crate::controller::Operator"],
    ),
];

/// What makes a module one that acts on Kubernetes.
const KUBERNETES: &[&str] = &["kube::Client", "kube::Api", "kube::client", "kube::Config"];

/// `(crate or folder, names from outside, the only places in it that may name them, why)`.
const OUTSIDE: &[(&str, &[&str], &[&str], &str)] = &[
    (
        "operator/src",
        KUBERNETES,
        &[
            "operator/src/context.rs",
            "operator/src/controller",
            "operator/src/guard",
            "operator/src/leader",
            "operator/src/reconcile/apply.rs",
            "operator/src/reconcile/observe.rs",
            "operator/src/reconcile/report.rs",
            "operator/src/run.rs",
        ],
        "only what acts has a client of Kubernetes; whoever decides is given values",
    ),
    (
        "operator/src",
        &["crate::context::Context"],
        &[
            "operator/src/controller",
            "operator/src/controller.rs",
            "operator/src/guard",
            "operator/src/reconcile/apply.rs",
            "operator/src/reconcile/observe.rs",
            "operator/src/reconcile/report.rs",
            "operator/src/run.rs",
        ],
        "whoever has the context has its client",
    ),
    (
        "operator/src",
        &[
            "tonic",
            "control::proto::member_client",
            "control::MemberClient",
        ],
        &["operator/src/members"],
        "members are called in one place",
    ),
    (
        "operator/src",
        &["tokio::net"],
        &[
            "operator/src/members",
            "operator/src/run.rs",
            "operator/src/telemetry/http.rs",
        ],
        "a socket to a member is opened in `members`; the other is that of the probes",
    ),
    (
        "server/src",
        &["tokio::net", "std::net::TcpListener", "std::net::TcpStream"],
        &[
            "server/src/managed",
            "server/src/metrics/http.rs",
            "server/src/net",
            "server/src/replication/replica/link.rs",
            "server/src/server.rs",
        ],
        "the engine and what it calls never see a socket",
    ),
    (
        "server/src",
        &[
            "tonic",
            "control::auth",
            "control::convert",
            "control::proto",
        ],
        &["server/src/managed", "server/src/server.rs"],
        "a server that nobody manages is the same server",
    ),
    (
        "server/protocol/src",
        &["tokio", "std::net", "std::fs"],
        &[],
        "the wire format does no I/O",
    ),
    (
        "server/replset/src",
        &["tokio", "std::net", "std::fs", "tonic", "control"],
        &[],
        "the rules do no I/O",
    ),
    (
        "server/control/src",
        &["tokio", "std::net", "std::fs", "kube"],
        &[],
        "the contract does no I/O but tonic's",
    ),
];

/// Files and folders that see no clock, no chance, no environment and no network: such values come in.
const PURE: &[&str] = &[
    "server/src/command",
    "server/src/glob.rs",
    "server/src/input.rs",
    "server/src/keyspace",
    "server/src/replication/backlog.rs",
    "server/src/replication/handover.rs",
    "server/src/replication/identity.rs",
    "server/src/replication/replica/handshake.rs",
    "server/src/replication/replica/streaming.rs",
    "server/src/replication/replica/transfer.rs",
    "server/src/replication/state",
    "server/src/replication/state.rs",
    "server/protocol/src",
    "server/replset/src",
    "operator/src/api",
    "operator/src/failover",
    "operator/src/guard/view.rs",
    "operator/src/leader/lease.rs",
    "operator/src/placement",
    "operator/src/quantity.rs",
    "operator/src/reconcile/diff.rs",
    "operator/src/reconcile/draft.rs",
    "operator/src/reconcile/plan",
    "operator/src/reconcile/step.rs",
    "operator/src/reconcile/validate.rs",
    "operator/src/resources",
    "operator/src/rollout",
    "operator/src/rotation",
    "operator/src/scaling.rs",
    "operator/src/set.rs",
    "operator/src/status",
];
const IMPURE: &[&str] = &[
    "Instant::now",
    "SystemTime::now",
    "Timestamp::now",
    "Zoned::now",
    "UtcDateTime::now",
    "engine::clock",
    "thread::sleep",
    "rand",
    "getrandom",
    "std::env",
    "std::fs",
    "std::process::id",
    "tokio::fs",
    "tokio::net",
    "tokio::spawn",
    "tokio::task",
    "tokio::time",
    "TcpListener",
    "TcpStream",
    "UdpSocket",
];

/// The audited modules with `unsafe` code.
const UNSAFE_FILES: &[&str] = &["server/src/keyspace/", "server/src/scheduling.rs"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("tests/ lies in the root")
        .to_owned()
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let Ok(entries) = fs::read_dir(folder) else {
        return files;
    };
    for path in entries.map(|entry| entry.unwrap().path()) {
        if path.is_dir() && !path.ends_with("target") {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}

/// The files of a folder, or the one file, that are not tests. Fails on one that does not exist, so that a renamed
/// layer cannot slip out of the checks.
fn sources(place: &str) -> Vec<PathBuf> {
    let path = root().join(place);
    if path.is_file() {
        return vec![path];
    }
    let mut files = rust_files(&path);
    assert!(
        !files.is_empty(),
        "{place} has no Rust files: correct this test"
    );
    files.retain(|path| {
        let in_tests = path.strip_prefix(root()).unwrap().components().rev();
        let stem = path.file_stem().unwrap().to_string_lossy().into_owned();
        !matches!(stem.as_str(), "tests" | "testing")
            && !stem.ends_with("_tests")
            && !in_tests
                .skip(1)
                .any(|part| matches!(part.as_os_str().to_str(), Some("tests" | "testing")))
    });
    files
}

fn code(path: &Path) -> Code {
    let text = fs::read_to_string(path).unwrap();
    Code::read(&text).unwrap_or_else(|error| panic!("{}: {error}", shown(path)))
}

/// The names of the module that a file is, in its crate.
fn module(path: &Path) -> Vec<String> {
    let shown = shown(path);
    let (_, inside) = shown.rsplit_once("src/").unwrap_or(("", &shown));
    let mut names: Vec<String> = inside.split('/').map(str::to_owned).collect();
    let file = names.pop().unwrap();
    match file.trim_end_matches(".rs") {
        "mod" | "lib" | "main" => {}
        name => names.push(name.to_owned()),
    }
    names
}

/// The paths that a file's code names.
fn paths(path: &Path) -> BTreeSet<String> {
    let module = module(path);
    let module: Vec<&str> = module.iter().map(String::as_str).collect();
    code(path).paths(&module)
}

/// The module right under the root of its crate that a file belongs to.
fn layer(krate: &str, path: &Path) -> String {
    let inside = path.strip_prefix(root().join(krate)).unwrap();
    let first = inside.components().next().unwrap().as_os_str();
    first.to_str().unwrap().trim_end_matches(".rs").to_owned()
}

fn is_in(file: &str, place: &str) -> bool {
    file.strip_prefix(place)
        .is_some_and(|rest| rest.is_empty() || place.ends_with(".rs") || rest.starts_with('/'))
}

fn shown(path: &Path) -> String {
    path.strip_prefix(root()).unwrap().display().to_string()
}

/// Names of modules, that is not of the crate's own types and constants, that `path` begins with behind `crate`.
fn named<'a>(path: &'a str, rows: &BTreeMap<&str, &[&str]>) -> Option<&'a str> {
    let first = path.strip_prefix("crate::")?.split("::").next()?;
    rows.contains_key(first).then_some(first)
}

#[test]
fn every_module_has_a_row() {
    for (krate, arrows) in ARROWS {
        let mut rows: Vec<&str> = arrows.iter().map(|(module, ..)| *module).collect();
        rows.push("lib");
        rows.sort_unstable();
        let mut modules: Vec<String> = sources(krate).iter().map(|f| layer(krate, f)).collect();
        modules.sort_unstable();
        modules.dedup();
        assert_eq!(modules, rows, "modules of {krate} and rows of its arrows");
    }
}

#[test]
fn layers_only_point_downwards() {
    let mut wrong = Vec::new();
    for (krate, arrows) in ARROWS {
        let rows: BTreeMap<&str, &[&str]> = arrows.iter().map(|(m, may, _)| (*m, *may)).collect();
        for file in sources(krate) {
            let layer = layer(krate, &file);
            let Some((module, may, why)) = arrows.iter().find(|(module, ..)| *module == layer)
            else {
                continue;
            };
            for path in paths(&file) {
                let allowed = |name| name == *module || *may == EVERYTHING || may.contains(&name);
                if named(&path, &rows).is_some_and(|name| !allowed(name)) {
                    wrong.push(format!("{} names {path}: {why}", shown(&file)));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// An arrow that nothing needs any more is taken out of the table, so that nobody relies on it unseen.
#[test]
fn every_arrow_is_used() {
    let mut unused = Vec::new();
    for (krate, arrows) in ARROWS {
        let rows: BTreeMap<&str, &[&str]> = arrows.iter().map(|(m, may, _)| (*m, *may)).collect();
        let mut used = BTreeSet::new();
        for file in sources(krate) {
            let layer = layer(krate, &file);
            let paths = paths(&file);
            let targets = paths.iter().filter_map(|path| named(path, &rows));
            used.extend(targets.map(|target| (layer.clone(), target.to_owned())));
        }
        for (module, may, _) in *arrows {
            let all = may.iter().filter(|target| **target != "*");
            let spare = all.filter(|t| !used.contains(&((*module).into(), (**t).into())));
            unused.extend(spare.map(|target| format!("{krate}: {module} -> {target}")));
        }
    }
    assert!(unused.is_empty(), "arrows without use: {unused:?}");
}

#[test]
fn of_some_modules_only_values_are_named() {
    let mut wrong = Vec::new();
    for (place, module, only) in ONLY {
        let module = format!("crate::{module}");
        let files = sources(place);
        let all: Vec<(String, String)> = files
            .iter()
            .flat_map(|file| paths(file).into_iter().map(|path| (shown(file), path)))
            .filter(|(_, path)| is_under(path, &module))
            .collect();
        assert!(
            !all.is_empty(),
            "{place} names nothing of {module} any more"
        );
        let others = all
            .iter()
            .filter(|(_, path)| !only.iter().any(|allowed| is_under(path, allowed)));
        wrong.extend(others.map(|(file, path)| format!("{file} names {path}, not only {only:?}")));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Whether `path` is `of` or something in it.
fn is_under(path: &str, of: &str) -> bool {
    path.strip_prefix(of)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

#[test]
fn clients_and_sockets_are_where_they_belong() {
    let mut wrong = Vec::new();
    for (place, words, places, why) in OUTSIDE {
        for allowed in *places {
            let _exists = sources(allowed);
        }
        for file in sources(place) {
            let name = shown(&file);
            if places.iter().any(|allowed| is_in(&name, allowed)) {
                continue;
            }
            let paths = paths(&file);
            let found = paths
                .iter()
                .filter(|path| words.iter().any(|word| is_under(path, word)));
            wrong.extend(found.map(|path| format!("{name} names {path}: {why}")));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn deciding_modules_see_no_clock_and_no_chance() {
    let mut wrong = Vec::new();
    for file in PURE.iter().flat_map(|place| sources(place)) {
        let paths = paths(&file);
        let found = paths
            .iter()
            .filter(|path| IMPURE.iter().any(|word| names(path, word)));
        wrong.extend(found.map(|path| format!("{} names {path}", shown(&file))));
        // The clock is asked by a method, too.
        if code(&file).text().contains(".elapsed()") {
            wrong.push(format!("{} asks how much time elapsed", shown(&file)));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn files_stay_readable_in_one_sitting() {
    let folders = ["server", "operator/src", "tests/src"];
    let long: Vec<String> = folders
        .iter()
        .flat_map(|folder| sources(folder))
        .map(|file| (code(&file).lines, file))
        .filter(|(lines, _)| *lines > MAX_FILE_LINES)
        .map(|(lines, file)| format!("{} has {lines} lines without tests", shown(&file)))
        .collect();
    assert!(long.is_empty(), "{}", long.join("\n"));
}

#[test]
fn unsafe_code_lives_in_the_audited_modules_only() {
    let folders = ["server", "operator/src", "tests/src"];
    let wrong: Vec<String> = folders
        .iter()
        .flat_map(|folder| sources(folder))
        .filter(|file| {
            let code = code(file);
            ["unsafe {", "unsafe fn", "unsafe impl"]
                .iter()
                .any(|word| code.text().contains(word))
        })
        .map(|file| shown(&file))
        .filter(|name| !UNSAFE_FILES.iter().any(|audited| name.starts_with(audited)))
        .collect();
    assert!(
        wrong.is_empty(),
        "unsafe code outside the audited modules: {}",
        wrong.join(", ")
    );
}

#[test]
fn unsafe_code_is_forbidden_where_there_is_none() {
    let roots: Vec<String> = ["server", "operator/src", "tests/src"]
        .iter()
        .flat_map(|folder| sources(folder))
        .map(|file| shown(&file))
        .filter(|name| {
            let is_root = ["src/lib.rs", "src/main.rs"]
                .iter()
                .any(|r| name.ends_with(r));
            (is_root || name.contains("/bin/")) && !name.starts_with("server/src/")
        })
        .collect();
    let forbidding = |name: &&String| {
        let text = code(&root().join(name));
        text.text().contains("#![forbid(unsafe_code)]")
    };
    let free: Vec<&String> = roots.iter().filter(|root| !forbidding(root)).collect();
    assert!(free.is_empty(), "no #![forbid(unsafe_code)]: {free:?}");
}

#[test]
fn every_module_says_what_it_owns() {
    let folders = ["server", "operator/src", "tests/src"];
    let silent: Vec<String> = folders
        .iter()
        .flat_map(|folder| sources(folder))
        .filter(|file| !fs::read_to_string(file).unwrap().starts_with("//!"))
        .map(|file| shown(&file))
        .collect();
    assert!(
        silent.is_empty(),
        "no module documentation: {}",
        silent.join(", ")
    );
}
