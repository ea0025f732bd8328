//! What applications use: ioredis and redis-py as their registries have them, against a master and a replica of ours.
//!
//! The programs are in `tests/clients`; `tests/clients.sh` gets the libraries. Each program also runs against a real
//! Redis, so that it is proven to ask for nothing but what Redis answers.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, ensure};
use redfleet_tests::servers::{Program, Server, beside_the_tests, eventually};

/// Longest wait for the replica of a pair.
const LINK_DEADLINE: Duration = Duration::from_secs(30);
/// The servers that each program meets, the one that sets the standard first.
const PROGRAMS: [Program; 2] = [Program::Redis, Program::Redfleet];
const PASSWORD: &str = "correct horse";

/// A master with one replica in sync.
struct Pair {
    master: Server,
    replica: Server,
}

impl Pair {
    fn start(program: Program, password: &str) -> anyhow::Result<Self> {
        let secured = ["--requirepass", password, "--masterauth", password];
        let options: &[&str] = if password.is_empty() { &[] } else { &secured };
        let master = Server::start(program, options)?;
        let replica = Server::replica_of(program, &master, options)?;
        let mut client = replica.client()?;
        if !password.is_empty() {
            client.call(&["AUTH", password])?;
        }
        eventually("the link to the master", LINK_DEADLINE, || {
            let status = client.info("replication", "master_link_status")?;
            Ok((status == "up").then_some(()))
        })?;
        Ok(Self { master, replica })
    }
}

/// A folder that `tests/clients.sh` makes.
fn library(name: &str) -> anyhow::Result<PathBuf> {
    let folder = beside_the_tests("clients")?;
    let path = folder.join(name);
    let cure = format!("get it: tests/clients.sh {}", folder.display());
    ensure!(path.exists(), "{} is not there; {cure}", path.display());
    Ok(path)
}

fn program(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("clients")
        .join(name)
}

/// Runs a program to its end and answers what it printed.
fn run(command: &mut Command, what: &str) -> anyhow::Result<String> {
    let output = command
        .output()
        .with_context(|| format!("{what}: starting {command:?}; get it: tests/clients.sh"))?;
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    ensure!(
        output.status.success(),
        "{what}: {}\n{out}{err}",
        output.status
    );
    Ok(out.into_owned())
}

fn node(script: &str, module: &str, pair: &Pair) -> anyhow::Result<Command> {
    let mut command = Command::new("node");
    command
        .arg(program(script))
        .env("NODE_PATH", library("ioredis/node_modules")?)
        .env("IOREDIS", module)
        .env("MASTER_HOST", "127.0.0.1")
        .env("REPLICA_HOST", "127.0.0.1")
        .env("MASTER_PORT", pair.master.port.to_string())
        .env("REPLICA_PORT", pair.replica.port.to_string());
    Ok(command)
}

/// "Node.js Application Using Replication": one connection to the master for writes, one to a replica for reads.
#[test]
fn the_guides_ioredis_application_runs_unmodified() -> anyhow::Result<()> {
    for server in PROGRAMS {
        for module in ["ioredis", "ioredis-5"] {
            let pair = Pair::start(server, "")?;
            // The guide reads from the replica right after the write, which replication does not promise to be there
            // already: the same value was written before.
            let user = r#"{"name":"Ada Example","email":"ada@example.org"}"#;
            let mut client = pair.master.client()?;
            client.call(&["SET", "user:1001", user])?;
            client.run("SET last_system_update yesterday")?;
            assert_eq!(client.text("WAIT 1 30000")?, "1");
            let what = format!("{module} with {server:?}");
            let printed = run(&mut node("ioredis/guide.js", module, &pair)?, &what)?;
            assert_eq!(
                printed,
                "User data: { name: 'Ada Example', email: 'ada@example.org' }\nCritical data: yesterday\n",
                "{what}"
            );
        }
    }
    Ok(())
}

#[test]
fn ioredis_finds_everything_as_in_redis() -> anyhow::Result<()> {
    for server in PROGRAMS {
        for (module, protocol, password) in [
            ("ioredis", "2", ""),
            ("ioredis", "3", PASSWORD),
            ("ioredis-5", "2", PASSWORD),
        ] {
            let pair = Pair::start(server, password)?;
            let mut command = node("ioredis/library.js", module, &pair)?;
            command.env("PROTOCOL", protocol).env("PASSWORD", password);
            let what = format!("{module}, RESP{protocol}, {server:?}");
            let printed = run(&mut command, &what)?;
            assert!(
                printed.ends_with("wrongPassword: good\n"),
                "{what}: {printed}"
            );
        }
    }
    Ok(())
}

#[test]
fn redis_py_finds_everything_as_in_redis() -> anyhow::Result<()> {
    for server in PROGRAMS {
        for (protocol, password) in [("2", ""), ("3", ""), ("2", PASSWORD), ("3", PASSWORD)] {
            let pair = Pair::start(server, password)?;
            let mut command = Command::new("python3");
            command
                .arg(program("redis-py/library.py"))
                .args([&pair.master.port, &pair.replica.port].map(u16::to_string))
                .arg(protocol)
                .args((!password.is_empty()).then_some(password))
                .env("PYTHONPATH", library("redis-py")?)
                .env("PYTHONDONTWRITEBYTECODE", "1");
            let what = format!("redis-py, RESP{protocol}, {server:?}, password {password:?}");
            let printed = run(&mut command, &what)?;
            assert!(
                printed.ends_with("wrong_password: good\n"),
                "{what}: {printed}"
            );
        }
    }
    Ok(())
}
