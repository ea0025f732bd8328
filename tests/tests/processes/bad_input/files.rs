//! Files that cannot be used: the server refuses to start, names the file and the cure, leaves the file as it is, and
//! takes no memory on the word of a damaged one.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use redfleet_tests::{
    dataset::{digest, fill},
    fake_master::snapshot,
    servers::{Program, Server},
};

/// No server of these tests may ever ask the kernel for more memory, whatever a file announces: their data have less than
/// 10 MB. One that does is refused it, and ends by a signal.
const MAX_DATA_BYTES: u64 = 192 * 1024 * 1024;

/// Runs the server and answers what it printed; it must fail by itself, without a crash.
fn refuses(arguments: &[&str]) -> anyhow::Result<String> {
    let arguments = [&["--port", "0", "--bind", "127.0.0.1"], arguments].concat();
    run_to_its_end(&arguments)
}

/// A server that starts in spite of everything is ended, which fails the test.
fn run_to_its_end(arguments: &[&str]) -> anyhow::Result<String> {
    let folder = tempfile::tempdir()?;
    let output = Command::new("prlimit")
        .current_dir(folder.path())
        .arg(format!("--data={MAX_DATA_BYTES}"))
        .args(["timeout", "60"])
        .arg(Program::Redfleet.path()?)
        .args(arguments)
        .output()?;
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {text}");
    assert!(!text.contains("panicked"), "{text}");
    Ok(text)
}

fn refuses_snapshot(folder: &Path, bytes: &[u8]) -> anyhow::Result<String> {
    let file = folder.join("dump.rdb");
    fs::write(&file, bytes)?;
    let text = refuses(&["--dir", &folder.display().to_string()])?;
    assert_eq!(fs::read(&file)?, bytes, "the file was changed: {text}");
    assert!(text.contains("dump.rdb"), "{text}");
    assert!(
        text.contains("restore the file, or move it away to start empty"),
        "{text}"
    );
    Ok(text)
}

#[test]
fn a_wrong_checksum_is_not_looked_at_where_none_is_wanted() -> anyhow::Result<()> {
    for program in [Program::Redis, Program::Redfleet] {
        let mut server = Server::start(program, &["--rdbchecksum", "no"])?;
        let mut client = server.client()?;
        client.run("SET k v")?;
        client.run("SAVE")?;
        server.kill()?;
        let file = server.folder().join("dump.rdb");
        let mut bytes = fs::read(&file)?;
        let end = bytes.len();
        bytes[end - 8..].fill(1);
        fs::write(&file, &bytes)?;
        server.restart()?;
        assert_eq!(server.client()?.text("GET k")?, "v", "{program:?}");
        let folder = tempfile::tempdir()?;
        let text = refuses_snapshot(folder.path(), &bytes)?;
        assert!(text.contains("'rdbchecksum no' loads it"), "{text}");
    }
    Ok(())
}

/// A snapshot of a real dataset, written by the server itself.
fn good_snapshot() -> anyhow::Result<(Vec<u8>, [u8; 32])> {
    let server = Server::start(Program::Redfleet, &[])?;
    let mut client = server.client()?;
    fill(&mut client, "key", 400_000)?;
    assert_eq!(client.text("SAVE")?, "OK");
    let digest = digest(&mut client)?;
    Ok((fs::read(server.folder().join("dump.rdb"))?, digest))
}

#[test]
fn a_damaged_snapshot_is_refused_and_kept() -> anyhow::Result<()> {
    let (good, _) = good_snapshot()?;
    let folder = tempfile::tempdir()?;
    for cut in [
        0,
        5,
        9,
        10,
        100,
        good.len() / 2,
        good.len() - 9,
        good.len() - 8,
        good.len() - 1,
    ] {
        let text = refuses_snapshot(folder.path(), &good[..cut])?;
        assert!(text.contains("ends in the middle"), "cut at {cut}: {text}");
    }
    for place in 1..40 {
        let mut damaged = good.clone();
        damaged[good.len() * place / 40] ^= 0x55;
        refuses_snapshot(folder.path(), &damaged)?;
    }
    let text = refuses_snapshot(folder.path(), &good.repeat(2)[7..])?;
    assert!(text.contains("not an RDB file"), "{text}");
    Ok(())
}

#[test]
fn lengths_in_a_snapshot_are_not_believed() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let huge = b"\x80\x7f\xff\xff\xff";
    let beyond = b"\x81\xff\xff\xff\xff\xff\xff\xff\xff";
    for type_byte in 0..26 {
        for length in [&huge[..], beyond] {
            let value = [&[type_byte], &b"\x03key"[..], length, b"abc"].concat();
            refuses_snapshot(folder.path(), &snapshot(&value))?;
            // The same announced inside: a string of that size, compressed from five bytes.
            let value = [&[type_byte], &b"\x03key\xc3\x05"[..], length, b"\0x\0x\0"].concat();
            refuses_snapshot(folder.path(), &snapshot(&value))?;
        }
    }
    Ok(())
}

#[test]
fn a_value_of_an_unknown_type_is_named_with_its_key() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    for (type_byte, what) in [
        (15, "a stream (RDB type 15)"),
        (19, "a stream (RDB type 19)"),
        (21, "a stream (RDB type 21)"),
        (7, "a module value (RDB type 7)"),
        (99, "a value of unknown type (RDB type 99)"),
    ] {
        let sections = [&b"\xfe\x05"[..], &[type_byte], b"\x06orders\0\0\0"].concat();
        let text = refuses_snapshot(folder.path(), &snapshot(&sections))?;
        let expected =
            format!("key 'orders' in database 5 holds {what}, which this server cannot store");
        assert!(text.contains(&expected), "{text}");
    }
    Ok(())
}

/// The cure works: with the file away the server starts, and with the good file back it has its data.
#[test]
fn the_cure_that_the_error_names_works() -> anyhow::Result<()> {
    let (good, digest_before) = good_snapshot()?;
    let mut server = Server::start(Program::Redfleet, &[])?;
    server.kill()?;
    let file = server.folder().join("dump.rdb");
    fs::write(&file, &good[..good.len() / 2])?;
    server.respawn()?;
    assert!(!server.wait_for_end()?, "{}", server.log());
    fs::rename(&file, server.folder().join("dump.rdb.damaged"))?;
    server.restart()?;
    assert_eq!(server.client()?.text("DBSIZE")?, "0");
    server.kill()?;
    fs::write(&file, &good)?;
    server.restart()?;
    assert_eq!(digest(&mut server.client()?)?, digest_before);
    Ok(())
}

#[test]
fn a_snapshot_that_cannot_be_read_is_not_taken_for_none() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    fs::create_dir(folder.path().join("dump.rdb"))?;
    let text = refuses(&["--dir", &folder.path().display().to_string()])?;
    assert!(
        text.contains("dump.rdb") && text.contains("Is a directory"),
        "{text}"
    );
    Ok(())
}

/// A file with this content.
fn config(folder: &Path, content: &[u8]) -> anyhow::Result<PathBuf> {
    let path = folder.join("redis.conf");
    fs::write(&path, content)?;
    Ok(path)
}

/// A file, where it is wrong, and a part of what is said about it.
const BAD_CONFIGURATIONS: &[(&[u8], &str, &str)] = &[
    (
        b"# good\nport 7000\nreplicaoff 127.0.0.1 1\n",
        "redis.conf, line 3",
        "did you mean 'replicaof'?",
    ),
    (b"port seven\n", "redis.conf, line 1", "port"),
    (b"port 70000\n", "redis.conf, line 1", "port"),
    (b"requirepass \"open\n", "redis.conf, line 1", "quotes"),
    (b"maxmemory 12parsecs\n", "redis.conf, line 1", "maxmemory"),
    (b"save 900\n", "redis.conf, line 1", "save"),
    (b"replicaof 127.0.0.1\n", "redis.conf, line 1", "replicaof"),
    (
        b"appendonly yes\n",
        "redis.conf, line 1",
        "keep 'appendonly no'",
    ),
    (b"include /no/such/file.conf\n", "/no/such/file.conf", ""),
    (b"\xff\xfe\0port\n", "redis.conf", ""),
];

#[test]
fn a_configuration_that_cannot_be_used_is_named_with_line_and_cure() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let missing = folder.path().join("missing.conf").display().to_string();
    let text = refuses_config(&missing)?;
    assert!(
        text.contains(&missing) && text.contains("Check the path and its permissions"),
        "{text}"
    );
    let text = refuses_config(&folder.path().display().to_string())?;
    assert!(
        text.contains("Cannot read the configuration file"),
        "{text}"
    );
    for (content, line, problem) in BAD_CONFIGURATIONS {
        let path = config(folder.path(), content)?;
        let text = refuses_config(&path.display().to_string())?;
        let shown = content.escape_ascii();
        assert!(
            text.contains(line) && text.contains(problem),
            "{shown}: {text}"
        );
        assert_eq!(&fs::read(&path)?, content);
    }
    Ok(())
}

fn refuses_config(path: &str) -> anyhow::Result<String> {
    run_to_its_end(&[path])
}
