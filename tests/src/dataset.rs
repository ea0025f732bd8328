//! Data of every type in every size, and a digest that any server can be asked for: what two servers
//! hold is equal if and only if (but for chance) their digests are.
//!
//! Values depend on the key's number alone, so that a test can write the same data twice.

use std::collections::BTreeMap;

use anyhow::{Context, bail};
use redis::Value;
use sha2::{Digest, Sha256};

use crate::client::{Client, as_text, encode};

/// Commands sent before their replies are read.
const PIPELINE: usize = 500;
/// Deadline of keys that have one: 2100-01-01, so that nothing expires during a test.
const FAR_DEADLINE_MS: &str = "4102444800000";

/// A digest of all keys, values and deadlines of the selected database.
pub type ContentDigest = [u8; 32];

/// Writes about `bytes` of mixed data under keys that begin with `prefix`.
pub fn fill(client: &mut Client, prefix: &str, bytes: usize) -> anyhow::Result<usize> {
    let mut written = 0;
    let mut number = 0;
    let mut batch = Vec::new();
    let mut count = 0;
    while written < bytes {
        for command in commands(prefix, number) {
            written += command.iter().map(Vec::len).sum::<usize>();
            batch.extend_from_slice(&encode(&command));
            count += 1;
        }
        number += 1;
        if count >= PIPELINE || written >= bytes {
            client.send_raw(&batch)?;
            for _ in 0..count {
                refuse_errors(&client.read_reply()?)?;
            }
            batch.clear();
            count = 0;
        }
    }
    Ok(number)
}

fn refuse_errors(reply: &Value) -> anyhow::Result<()> {
    if let Value::ServerError(_) = reply {
        bail!("a write was refused: {}", as_text(reply));
    }
    Ok(())
}

/// The commands that make key number `number`: each type small and large, now and then a deadline.
fn commands(prefix: &str, number: usize) -> Vec<Vec<Vec<u8>>> {
    let key = format!("{prefix}:{number}");
    let large = number % 97 == 5;
    let elements = if large { 700 } else { 1 + number % 20 };
    let mut command: Vec<Vec<u8>> = Vec::new();
    let mut push = |word: String| command.push(word.into_bytes());
    match number % 6 {
        0 => ["SET".to_owned(), key.clone(), text(number, 3000)]
            .into_iter()
            .for_each(&mut push),
        1 => ["SET".to_owned(), key.clone(), (number * 7919).to_string()]
            .into_iter()
            .for_each(&mut push),
        2 => {
            ["RPUSH".to_owned(), key.clone()]
                .into_iter()
                .for_each(&mut push);
            (0..elements).for_each(|i| push(text(number + i, 200)));
        }
        3 => {
            ["SADD".to_owned(), key.clone()]
                .into_iter()
                .for_each(&mut push);
            let integers = number % 12 == 3;
            let member = |i: usize| {
                if integers {
                    (number * 31 + i * i).to_string()
                } else {
                    format!("m{i}{}", text(number, 40))
                }
            };
            (0..elements).for_each(|i| push(member(i)));
        }
        4 => {
            ["HSET".to_owned(), key.clone()]
                .into_iter()
                .for_each(&mut push);
            for i in 0..elements {
                push(format!("field{i}"));
                push(text(number + i, 120));
            }
        }
        _ => {
            ["ZADD".to_owned(), key.clone()]
                .into_iter()
                .for_each(&mut push);
            for i in 0..elements {
                push(format!("{}", (number + i) as f64 * 0.37 - 1000.0));
                push(format!("member{i}"));
            }
        }
    }
    let mut all = vec![command];
    if number % 10 == 7 {
        let deadline = ["PEXPIREAT", &key, FAR_DEADLINE_MS].map(|word| word.as_bytes().to_vec());
        all.push(deadline.to_vec());
    }
    all
}

/// Text of up to `most` bytes: compressible, binary or short, by the number.
fn text(number: usize, most: usize) -> String {
    /// Characters after which the binary text begins anew.
    const CYCLE: usize = 90;
    let length = 1 + (number * 2_654_435_761) % most;
    match number % 3 {
        0 => "redfleet ".repeat(length / 9 + 1),
        1 => {
            let cycle: String = (0..CYCLE.min(length))
                .map(|i| char::from(33 + ((number * 31 + i * i * 7) % CYCLE) as u8))
                .collect();
            let mut text = cycle.repeat(length.div_ceil(CYCLE));
            text.truncate(length);
            text
        }
        _ => format!("v{number}"),
    }
}

/// The digest of everything in the selected database.
pub fn digest(client: &mut Client) -> anyhow::Result<ContentDigest> {
    let mut sum = [0; 32];
    let mut cursor = "0".to_owned();
    // SCAN may give a key twice: the digests are kept by key.
    let mut seen: BTreeMap<Vec<u8>, ContentDigest> = BTreeMap::new();
    loop {
        let reply = client.call(&["SCAN", &cursor, "COUNT", "1000"])?;
        let Value::Array(parts) = reply else {
            bail!("SCAN answered {reply:?}")
        };
        let [next, Value::Array(keys)] = &parts[..] else {
            bail!("SCAN answered {parts:?}")
        };
        cursor = as_text(next);
        let keys: Vec<Vec<u8>> = keys.iter().map(bytes).collect::<anyhow::Result<_>>()?;
        for (key, digest) in keys.iter().zip(digests(client, &keys)?) {
            seen.insert(key.clone(), digest);
        }
        if cursor == "0" {
            break;
        }
    }
    for digest in seen.values() {
        sum.iter_mut()
            .zip(digest)
            .for_each(|(sum, byte)| *sum ^= byte);
    }
    Ok(sum)
}

#[allow(
    clippy::wildcard_enum_match_arm,
    reason = "the crate may add kinds of values"
)]
fn bytes(value: &Value) -> anyhow::Result<Vec<u8>> {
    match value {
        Value::BulkString(bytes) => Ok(bytes.clone()),
        other => bail!("expected bytes, got {other:?}"),
    }
}

fn digests(client: &mut Client, keys: &[Vec<u8>]) -> anyhow::Result<Vec<ContentDigest>> {
    let ask = |command: &[&[u8]], batch: &mut Vec<u8>| batch.extend_from_slice(&encode(command));
    let mut batch = Vec::new();
    for key in keys {
        ask(&[b"TYPE", key], &mut batch);
        ask(&[b"PEXPIRETIME", key], &mut batch);
    }
    client.send_raw(&batch)?;
    let mut kinds = Vec::new();
    for _ in keys {
        kinds.push((
            as_text(&client.read_reply()?),
            as_text(&client.read_reply()?),
        ));
    }
    batch.clear();
    for (key, (kind, _)) in keys.iter().zip(&kinds) {
        match kind.as_str() {
            "string" => ask(&[b"GET", key], &mut batch),
            "list" => ask(&[b"LRANGE", key, b"0", b"-1"], &mut batch),
            "set" => ask(&[b"SMEMBERS", key], &mut batch),
            "hash" => ask(&[b"HGETALL", key], &mut batch),
            "zset" => ask(&[b"ZRANGE", key, b"0", b"-1", b"WITHSCORES"], &mut batch),
            other => bail!("key {} has type {other}", key.escape_ascii()),
        }
    }
    client.send_raw(&batch)?;
    let mut all = Vec::new();
    for (key, (kind, deadline)) in keys.iter().zip(&kinds) {
        let reply = client.read_reply()?;
        let elements = canonical(kind, reply).with_context(|| key.escape_ascii().to_string())?;
        let mut hasher = Sha256::new();
        for part in [key.as_slice(), kind.as_bytes(), deadline.as_bytes()]
            .into_iter()
            .chain(elements.iter().map(Vec::as_slice))
        {
            hasher.update(part.len().to_le_bytes());
            hasher.update(part);
        }
        all.push(hasher.finalize().into());
    }
    Ok(all)
}

/// The elements in an order that does not depend on the server.
#[allow(
    clippy::wildcard_enum_match_arm,
    reason = "the crate may add kinds of values"
)]
fn canonical(kind: &str, reply: Value) -> anyhow::Result<Vec<Vec<u8>>> {
    let elements = match reply {
        Value::Array(elements) => elements,
        single => vec![single],
    };
    let mut texts: Vec<Vec<u8>> = elements.iter().map(bytes).collect::<anyhow::Result<_>>()?;
    match kind {
        "set" => texts.sort(),
        "hash" => {
            let mut pairs: Vec<&[Vec<u8>]> = texts.chunks(2).collect();
            pairs.sort();
            texts = pairs.concat();
        }
        // Versions print the same score differently (-997.77 and -997.76999999999998).
        "zset" => {
            for score in texts.iter_mut().skip(1).step_by(2) {
                let number: f64 = std::str::from_utf8(score)?.parse()?;
                *score = number.to_le_bytes().to_vec();
            }
        }
        _ => {}
    }
    Ok(texts)
}
