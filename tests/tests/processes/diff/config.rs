//! CONFIG SET, held against a real Redis: what cannot be changed while the server runs.

use anyhow::Result;
use redfleet_tests::{
    client::{Client, as_text},
    diff::{Order, Pair},
};
use redis::Value;

/// What Redis can change and this server reads at the start only.
const OURS: [&str; 2] = ["bind", "port"];

/// Names and values, one after the other.
#[allow(
    clippy::wildcard_enum_match_arm,
    reason = "the crate may add kinds of values"
)]
fn words(client: &mut Client, pattern: &str) -> Result<Vec<String>> {
    Ok(match client.call(&["CONFIG", "GET", pattern])? {
        Value::Array(items) => items.iter().map(as_text).collect(),
        _ => Vec::new(),
    })
}

#[test]
fn what_redis_reads_at_the_start_only_cannot_be_set() -> Result<()> {
    let mut pair = Pair::start(&[])?;
    let ours = words(&mut pair.our_client, "*")?;
    let theirs = words(&mut pair.their_client, "*")?;
    let mut immutable = 0;
    for pair_of_words in theirs.chunks_exact(2) {
        let (name, value) = (&*pair_of_words[0], &*pair_of_words[1]);
        if OURS.contains(&name) || !ours.iter().step_by(2).any(|own| own == name) {
            continue;
        }
        let set = ["CONFIG", "SET", name, value];
        let theirs = as_text(&pair.their_client.call(&set)?);
        let ours = as_text(&pair.our_client.call(&set)?);
        let is_refused = |reply: &str| reply.contains("can't set immutable config");
        assert_eq!(is_refused(&ours), is_refused(&theirs), "{name}: {ours}");
        if is_refused(&theirs) {
            assert_eq!(ours, theirs);
            immutable += 1;
        }
    }
    assert!(immutable >= 20, "{immutable}");
    pair.script(
        "CONFIG SET slave-ignore-maxmemory yes
        CONFIG GET slave-ignore-maxmemory
        CONFIG SET repl-backlog-size 1
        CONFIG GET repl-backlog-size
        CONFIG SET hash-max-listpack-value 1kb
        CONFIG GET hash-max-listpack-value
        CONFIG SET zset-max-ziplist-value x
        CONFIG SET hash-max-ziplist-entries 9223372036854775807
        CONFIG GET hash-max-listpack-entries
        CONFIG SET hz 1000
        CONFIG GET hz
        CONFIG SET maxmemory kb
        CONFIG GET maxmemory",
    )?;
    for name in [
        "client-output-buffer-limit",
        "maxmemory",
        "repl-backlog-size",
    ] {
        pair.same(&["CONFIG", "SET", name, ""], Order::Fixed)?;
    }
    Ok(())
}
