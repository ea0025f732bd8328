//! The arrows between layers, the sizes of files and the purity of the deciding modules, read from
//! the source text. What fails here is a design question first: see CONTRIBUTING.md.

#![allow(
    clippy::unwrap_used,
    reason = "tests fail by panicking, in their helpers, too"
)]

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Lines of a file that are not its tests, at most.
const MAX_FILE_LINES: usize = 600;

/// `(folder, what it may not name, why)`.
const FORBIDDEN: &[(&str, &[&str], &str)] = &[
    (
        "server/src/keyspace",
        &[
            "crate::command",
            "crate::engine",
            "crate::net",
            "crate::replication",
            "crate::persistence",
            "crate::managed",
            "crate::metrics",
        ],
        "the keyspace knows values and time, nothing of commands or clients",
    ),
    (
        "server/src/command",
        &[
            "crate::engine",
            "crate::net",
            "crate::replication",
            "crate::persistence",
            "crate::managed",
            "crate::metrics",
        ],
        "commands reach the server through command::host only",
    ),
    (
        "server/src/engine",
        &["crate::net", "tokio::net"],
        "the engine never sees a socket",
    ),
    (
        "server/src/config",
        &[
            "crate::engine",
            "crate::net",
            "crate::replication",
            "crate::persistence",
        ],
        "configuration is a value that others read",
    ),
    (
        "server/protocol/src",
        &["tokio", "std::net", "std::fs"],
        "the wire format does no I/O",
    ),
    (
        "server/replset/src",
        &["tokio", "std::net", "std::fs", "tonic"],
        "the rules do no I/O",
    ),
    (
        "operator/src/api",
        &[
            "crate::reconcile",
            "crate::failover",
            "crate::rollout",
            "kube::Client",
        ],
        "the API types contain no behaviour",
    ),
    (
        "operator/src/placement",
        &["kube::Client", "kube::Api", "control::"],
        "placement is pure",
    ),
    (
        "operator/src/rollout",
        &["kube::Client", "kube::Api", "control::"],
        "rollout is pure",
    ),
    (
        "operator/src/rotation",
        &["kube::Client", "kube::Api", "control::"],
        "rotation is pure",
    ),
    (
        "operator/src/resources",
        &["kube::Client", "kube::Api", "tokio"],
        "builders are pure",
    ),
];

/// Folders that see no clock and no chance: such values come in.
const PURE: &[&str] = &[
    "server/src/command",
    "server/src/keyspace",
    "server/protocol/src",
    "server/replset/src",
    "operator/src/placement",
    "operator/src/rollout",
    "operator/src/rotation",
    "operator/src/resources",
];
const IMPURE_WORDS: &[&str] = &[
    "Instant::now",
    "SystemTime::now",
    "rand::random",
    "rand::rng(",
    "Timestamp::now",
    "thread::sleep",
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

/// The files of a folder that are not tests. Fails on a folder that does not exist, so that a
/// renamed layer cannot slip out of the checks.
fn sources(folder: &str) -> Vec<PathBuf> {
    let mut files = rust_files(&root().join(folder));
    assert!(
        !files.is_empty(),
        "{folder} has no Rust files: correct this test"
    );
    files.retain(|path| {
        let in_tests = path.strip_prefix(root()).unwrap().components().rev();
        let stem = path.file_stem().unwrap().to_string_lossy().into_owned();
        stem != "tests"
            && !stem.ends_with("_tests")
            && !in_tests.skip(1).any(|part| part.as_os_str() == "tests")
    });
    files
}

/// The file without its tests.
fn without_tests(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap();
    let lines = text
        .lines()
        .take_while(|line| !line.starts_with("#[cfg(test)]"));
    lines.map(str::to_owned).collect()
}

/// The file's code without its tests and without comments.
fn code(path: &Path) -> String {
    let mut lines = without_tests(path);
    lines.retain(|line| !line.trim_start().starts_with("//"));
    lines.join("\n")
}

fn shown(path: &Path) -> String {
    path.strip_prefix(root()).unwrap().display().to_string()
}

#[test]
fn layers_only_point_downwards() {
    let mut wrong = Vec::new();
    for (folder, words, why) in FORBIDDEN {
        for file in sources(folder) {
            let code = code(&file);
            let found = words.iter().filter(|word| code.contains(**word));
            wrong.extend(found.map(|word| format!("{} names {word}: {why}", shown(&file))));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn deciding_modules_see_no_clock_and_no_chance() {
    let mut wrong = Vec::new();
    for file in PURE.iter().flat_map(|folder| sources(folder)) {
        let code = code(&file);
        let found = IMPURE_WORDS.iter().filter(|word| code.contains(**word));
        wrong.extend(found.map(|word| format!("{} uses {word}", shown(&file))));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn files_stay_readable_in_one_sitting() {
    let folders = ["server", "operator/src", "tests/src"];
    let long: Vec<String> = folders
        .iter()
        .flat_map(|folder| sources(folder))
        .map(|file| (without_tests(&file).len(), file))
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
                .any(|word| code.contains(word))
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
