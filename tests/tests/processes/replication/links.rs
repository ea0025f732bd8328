//! How far two servers are, and replicas that are no servers: what the tests of this program share.

use std::time::Duration;

use redfleet_tests::{
    client::Client,
    servers::{Server, eventually},
};

/// Longest wait for two servers to be equal.
pub const SYNC_DEADLINE: Duration = Duration::from_secs(120);

/// Offset of a server as ROLE tells it, for a replica only while its link is up.
pub fn offset(client: &mut Client) -> anyhow::Result<Option<i64>> {
    let redis::Value::Array(role) = client.run("ROLE")? else {
        return Ok(None);
    };
    Ok(match &role[..] {
        [_, redis::Value::Int(offset), _] => Some(*offset),
        [
            _,
            _,
            _,
            redis::Value::BulkString(state),
            redis::Value::Int(offset),
        ] if state == b"connected" => Some(*offset),
        _ => None,
    })
}

/// Waits until the replica has applied everything that the master has.
pub fn caught_up(master: &Server, replica: &Server) -> anyhow::Result<()> {
    let waited = equal_offsets(&mut master.client()?, &mut replica.client()?);
    waited.map_err(|error| {
        error.context(format!(
            "master:\n{}\nreplica:\n{}",
            master.log(),
            replica.log()
        ))
    })
}

/// The same for those who have logged in.
pub fn equal_offsets(master: &mut Client, replica: &mut Client) -> anyhow::Result<()> {
    eventually("equal offsets", SYNC_DEADLINE, || {
        let (master, replica) = (offset(master)?, offset(replica)?);
        Ok((master.is_some() && master == replica).then_some(()))
    })
}

/// A number of `INFO stats`.
pub fn counter(server: &Server, name: &str) -> anyhow::Result<u64> {
    Ok(server.client()?.info("stats", name)?.trim().parse()?)
}

/// A client that asks for a snapshot as a replica does, and reads only the answer's beginning.
pub fn ask_for_snapshot(master: &Server, capability: &str) -> anyhow::Result<Client> {
    let mut replica = master.client()?;
    replica.call(&["REPLCONF", "capa", capability])?;
    replica.send_raw(b"PSYNC ? -1\r\n")?;
    assert_eq!(replica.read_past_newlines(11)?, b"+FULLRESYNC");
    Ok(replica)
}
