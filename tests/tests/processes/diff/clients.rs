//! What CLIENT LIST tells of another connection, held against a real Redis.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use redfleet_tests::{
    client::Client,
    servers::{Program, Server},
};

/// Fields that do not depend on buffers, addresses or time.
const COMPARED: [&str; 11] = [
    "name", "flags", "db", "sub", "psub", "ssub", "multi", "cmd", "user", "redir", "resp",
];

fn fields(line: &str) -> BTreeMap<String, String> {
    let pairs = line
        .split_whitespace()
        .filter_map(|word| word.split_once('='));
    pairs
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

/// The compared fields of a connection, as somebody else sees them.
fn seen(watcher: &mut Client, id: &str) -> Result<Vec<String>> {
    let line = watcher.text(&format!("CLIENT LIST ID {id}"))?;
    let fields = fields(&line);
    let shown = COMPARED.iter().map(|name| {
        let value = fields
            .get(*name)
            .with_context(|| format!("{name} in {line}"))?;
        Ok(format!("{name}={value}"))
    });
    shown.collect()
}

/// What a client does, and what others see of it after each step.
fn story(program: Program) -> Result<Vec<(String, Vec<String>)>> {
    let server = Server::start(program, &[])?;
    let (mut watcher, mut client) = (server.client()?, server.client()?);
    let own = watcher.text("CLIENT ID")?;
    // It has said nothing yet. Before it there was the harness, which may not have left yet.
    let list = watcher.until("CLIENT LIST", |list| {
        let is_own = |line: &str| line.starts_with(&format!("id={own} "));
        list.lines().next().is_some_and(is_own) && list.lines().count() == 2
    })?;
    let last = list.lines().last().context("two lines")?;
    let id = fields(last).remove("id").context("an id")?;
    let mut story = vec![("fresh".to_owned(), seen(&mut watcher, &id)?)];
    for step in [
        "GET k",
        "SELECT 3",
        "WATCH k",
        "MULTI",
        "SET k v",
        "GET k",
        "NOSUCH a",
        "CONFIG nosuch",
        "GET",
        "EXEC",
        "MULTI",
        "SET k v",
        "EXEC",
        "MULTI",
        "DISCARD",
        "HELLO 3",
        "CLIENT SETNAME me",
        "CLIENT NO-EVICT ON",
        "CONFIG GET maxclients",
        // The peer keeps this one over a RESET, which newer ones do not.
        "CLIENT NO-EVICT OFF",
        "RESET",
    ] {
        client.text(step)?;
        story.push((step.to_owned(), seen(&mut watcher, &id)?));
    }
    client.send_raw(b"WAIT 1 0\r\n")?;
    watcher.until("INFO clients", |text| text.contains("blocked_clients:1"))?;
    story.push(("WAIT".to_owned(), seen(&mut watcher, &id)?));
    let own = watcher.text("CLIENT INFO")?;
    let own = fields(&own);
    let own = COMPARED.map(|name| own.get(name).cloned().unwrap_or_default());
    story.push(("CLIENT INFO".to_owned(), own.to_vec()));
    let _silent = server.client()?;
    watcher.until("CLIENT LIST", |list| list.lines().count() == 3)?;
    let killed = watcher.text("CLIENT KILL USER default")?;
    story.push(("CLIENT KILL USER default".to_owned(), vec![killed]));
    Ok(story)
}

#[test]
fn clients_look_to_others_as_in_redis() -> Result<()> {
    let (ours, theirs) = (story(Program::Redfleet)?, story(Program::Redis)?);
    for (ours, theirs) in ours.iter().zip(&theirs) {
        assert_eq!(ours, theirs);
    }
    Ok(())
}

/// The number of watched keys is newer than the peer.
#[test]
fn watched_keys_are_counted_where_others_see_them() -> Result<()> {
    let server = Server::start(Program::Redfleet, &[])?;
    let (mut watcher, mut client) = (server.client()?, server.client()?);
    let id = client.text("CLIENT ID")?;
    // SELECT shows the session as it is in the middle of a pipeline; what counts is its end.
    let pipeline = "WATCH a\r\nSELECT 0\r\nUNWATCH";
    for (step, count) in [
        ("WATCH a b", "2"),
        ("UNWATCH", "0"),
        ("WATCH c", "1"),
        ("UNWATCH", "0"),
        (pipeline, "0"),
    ] {
        client.send_raw(format!("{step}\r\n").as_bytes())?;
        for _ in step.lines() {
            client.read_reply()?;
        }
        let line = watcher.text(&format!("CLIENT LIST ID {id}"))?;
        assert_eq!(
            fields(&line).remove("watch").as_deref(),
            Some(count),
            "{step}"
        );
    }
    Ok(())
}

/// Errors name arguments byte by byte.
#[test]
fn errors_show_the_bytes_of_an_argument_as_they_came() -> Result<()> {
    let mut replies = Vec::new();
    for program in [Program::Redfleet, Program::Redis] {
        let server = Server::start(program, &[])?;
        let mut client = server.client()?;
        client.send_raw(
            b"*2\r\n$3\r\nNO\xff\r\n$5\r\n\xfe\x80a\x00b\r\n\
              *2\r\n$6\r\nCONFIG\r\n$2\r\n\xff\xfe\r\n\
              *4\r\n$6\r\nCLIENT\r\n$4\r\nLIST\r\n$4\r\nTYPE\r\n$2\r\n\xff\n\r\n\
              *4\r\n$6\r\nCONFIG\r\n$3\r\nSET\r\n$5\r\nno\xff\x00x\r\n$1\r\n1\r\n\
              *4\r\n$6\r\nEXPIRE\r\n$1\r\nk\r\n$1\r\n1\r\n$1\r\n\xff\r\n",
        )?;
        client.send_raw(
            format!("{0} {0} {0} {1}\r\n", "x".repeat(100), "y".repeat(200)).as_bytes(),
        )?;
        client.send_raw(b"QUIT\r\n")?;
        replies.push(client.read_to_end()?.escape_ascii().to_string());
    }
    assert_eq!(replies[0], replies[1]);
    Ok(())
}
