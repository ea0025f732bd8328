//! Managed servers: born followers, promises that survive a kill, masters that fence themselves,
//! switchovers that lose nothing. The servers are real processes, the elector is `replset`'s.

use std::{
    sync::mpsc,
    time::{Duration, Instant},
};

use anyhow::ensure;
use control::proto;
use nix::sys::signal::Signal;
use redfleet_tests::{
    client::{Client, as_text, encode},
    fake_master::{self, FakeMaster},
    fleet::{DEADLINE, Fleet},
    servers::eventually,
};
use replset::{Bootstrapped, Intent, Loss, NotObeyed, Term};

#[test]
fn a_set_is_born_without_a_master_and_bootstrapped_once() -> anyhow::Result<()> {
    let mut fleet = Fleet::start(3, &[])?;
    for at in 0..3 {
        let state = fleet.state(at)?;
        ensure!(
            state.role() == proto::Role::Idle && state.blank && !state.serving,
            "{state:#?}"
        );
        let mut client = fleet.members[at].server.client()?;
        let refused = client.text("SET k v")?;
        ensure!(
            refused.contains("READONLY") || refused.contains("NOREPLICAS"),
            "{refused}"
        );
        let refused = client.text("GET k")?;
        ensure!(refused.contains("NOREPLICAS"), "{refused}");
    }
    // A set that is recorded as bootstrapped is never begun anew with nothing.
    let refusal = fleet
        .elect(Intent::Unplanned, Bootstrapped::Yes)
        .unwrap_err()
        .to_string();
    ensure!(
        refusal == "no voter (of 3) holds data, although the set had some",
        "{refusal}"
    );
    fleet.elect(Intent::Unplanned, Bootstrapped::No)?;
    fleet.wait(0, "to serve", |state| state.serving)?;
    for at in 0..3 {
        fleet.wait(at, "a vote", |state| state.vote() == proto::Vote::Granted)?;
    }
    let mut master = fleet.members[0].server.client()?;
    ensure!(master.text("SET k v")? == "OK");
    for at in [1, 2] {
        let state = fleet.wait_attached(at, 0)?;
        ensure!(
            state.replid == fleet.state(0)?.replid,
            "another history: {}",
            state.replid
        );
        ensure!(
            state.replid.starts_with("4edf000000000002"),
            "no term in {}",
            state.replid
        );
        let mut replica = fleet.members[at].server.client()?;
        eventually("the value on the replica", DEADLINE, || {
            Ok((replica.text("GET k")? == "v").then_some(()))
        })?;
        ensure!(replica.text("SET k w")?.contains("READONLY"));
        ensure!(
            replica
                .text("REPLICAOF NO ONE")?
                .contains("managed by its operator")
        );
    }
    ensure!(
        master
            .text("REPLICAOF 127.0.0.1 1")?
            .contains("managed by its operator")
    );
    Ok(())
}

#[test]
fn the_control_port_wants_its_token_and_pushes_states() -> anyhow::Result<()> {
    let fleet = Fleet::bootstrapped(1, &[])?;
    let refused = fleet.state_with_token(0, "wrong").unwrap_err();
    ensure!(refused.code() == tonic::Code::Unauthenticated, "{refused}");
    let began = Instant::now();
    let states = fleet.watch(0, 3)?;
    ensure!(
        began.elapsed() < Duration::from_secs(15),
        "a state at least once a second, on a machine that does not always run"
    );
    ensure!(
        states
            .iter()
            .all(|state| state.serving && state.lease_remaining_ms.is_none())
    );
    Ok(())
}

#[test]
fn directives_are_judged_one_by_one_and_the_judgement_is_told_again() -> anyhow::Result<()> {
    let fleet = Fleet::bootstrapped(1, &[])?;
    let request = |revision: u64, directives: &[(&str, &str)]| proto::SetConfigRequest {
        revision,
        directives: directives
            .iter()
            .map(|(name, value)| proto::Directive {
                name: (*name).to_owned(),
                value: (*value).to_owned(),
            })
            .collect(),
    };
    let wanted = [
        ("timeout", "300"),
        ("no-such-thing", "1"),
        ("tcp-backlog", "128"),
        ("maxmemory", "a lot"),
        // In force already, in other words.
        ("proto-max-bulk-len", "512mb"),
        ("dir", "/tmp"),
    ];
    let expected = [
        ("no-such-thing", false),
        ("tcp-backlog", true),
        ("maxmemory", false),
        ("dir", true),
    ];
    for attempt in ["told", "told again"] {
        let reply = fleet.set_config(0, request(3, &wanted))?;
        let refused: Vec<(&str, bool)> = reply
            .refused
            .iter()
            .map(|r| (r.name.as_str(), r.needs_restart))
            .collect();
        ensure!(refused == expected, "{attempt}: {:?}", reply.refused);
    }
    let mut client = fleet.members[0].server.client()?;
    let timeout = client.text("CONFIG GET timeout")?;
    ensure!(timeout.contains("300"), "{timeout}");
    // A directive that is named no more goes back to its default, and nothing is refused then.
    let reply = fleet.set_config(0, request(4, &[]))?;
    ensure!(reply.refused.is_empty(), "{:?}", reply.refused);
    let timeout = client.text("CONFIG GET timeout")?;
    ensure!(!timeout.contains("300"), "{timeout}");
    ensure!(fleet.set_config(0, request(3, &wanted)).is_err());
    ensure!(fleet.state(0)?.config_revision == 4);
    Ok(())
}

#[test]
fn clients_may_tune_but_not_undo_the_operator() -> anyhow::Result<()> {
    let fleet = Fleet::bootstrapped(1, &[])?;
    let mut client = fleet.members[0].server.client()?;
    for (directive, cure) in [
        ("requirepass mine", "spec.auth.clientSecretName"),
        ("MasterAuth mine", "spec.auth.replicationSecretName"),
        ("slave-read-only no", "assigns the roles"),
        ("replica-announce-ip 10.0.0.1", "spec.services"),
        ("dir /tmp", "spec.storage"),
        ("maxmemory 1gb replica-priority 0", "assigns the roles"),
        ("fleet-id other", "how the process runs"),
    ] {
        let refused = client.text(&format!("CONFIG SET {directive}"))?;
        ensure!(
            refused.starts_with("(error) ERR CONFIG SET failed") && refused.contains(cure),
            "{directive}: {refused}"
        );
    }
    let limit = client.text("CONFIG GET maxmemory")?;
    ensure!(!limit.contains("1073741824"), "half a change: {limit}");
    ensure!(client.text("CONFIG SET maxmemory 1gb timeout 300")? == "OK");
    let refused = client.text("CONFIG REWRITE")?;
    ensure!(refused.contains("spec.config"), "{refused}");
    let request = proto::SetConfigRequest {
        revision: 1,
        directives: vec![proto::Directive {
            name: "maxmemory".to_owned(),
            value: "2gb".to_owned(),
        }],
    };
    let reply = fleet.set_config(0, request)?;
    ensure!(reply.refused.is_empty(), "{:?}", reply.refused);
    let limit = client.text("CONFIG GET maxmemory")?;
    ensure!(limit.contains("2147483648"), "{limit}");
    Ok(())
}

#[test]
fn a_promise_survives_a_kill_and_lower_terms_are_refused() -> anyhow::Result<()> {
    let mut fleet = Fleet::bootstrapped(3, &[])?;
    let promised = fleet.prepare(2, &fleet.request(9, "one", Intent::Forced))?;
    ensure!(promised.is_ok(), "{promised:?}");
    let member = &mut fleet.members[2];
    member.server.kill()?;
    member.server.respawn()?;
    let state = fleet.wait(2, "its control port", |_| true)?;
    ensure!(
        state.promised_term == 9 && state.role() == proto::Role::Idle,
        "{state:#?}"
    );
    ensure!(state.boot == 2, "{}", state.boot);
    let lower = fleet.prepare(2, &fleet.request(8, "one", Intent::Forced))?;
    ensure!(lower == Err(NotObeyed::HigherTerm(Term(9))), "{lower:?}");
    let other = fleet.prepare(2, &fleet.request(9, "two", Intent::Forced))?;
    ensure!(
        other == Err(NotObeyed::PromisedToOther("one".into())),
        "{other:?}"
    );
    let alive = fleet.prepare(1, &fleet.request(9, "one", Intent::Unplanned))?;
    ensure!(
        matches!(alive, Err(NotObeyed::MasterAlive { .. })),
        "{alive:?}"
    );
    eventually(
        "the master, for which a majority is enough",
        DEADLINE,
        || Ok((fleet.master()? == 0).then_some(())),
    )
}

#[test]
fn a_killed_master_is_replaced_and_comes_back_with_a_partial_sync() -> anyhow::Result<()> {
    let mut fleet = Fleet::bootstrapped(3, &[])?;
    let mut client = fleet.members[0].server.client()?;
    for number in 0..100 {
        ensure!(client.text(&format!("SET key:{number} {number}"))? == "OK");
    }
    ensure!(client.text("SAVE")? == "OK");
    ensure!(client.text("SET after save")? == "OK");
    for at in [1, 2] {
        fleet.wait_attached(at, 0)?;
    }
    let killed = Instant::now();
    fleet.members[0].server.kill()?;
    fleet.wait_master_lost()?;
    let noticed = killed.elapsed();
    let promotion = fleet.elect(Intent::Unplanned, Bootstrapped::Yes)?;
    let new = fleet.index(promotion.winner.name.as_str())?;
    ensure!(new != 0);
    fleet.wait(new, "to serve", |state| state.serving)?;
    println!(
        "killed master: noticed after {noticed:?}, deferred {} ms, served after {:?}",
        promotion.promote.defer_ms,
        killed.elapsed()
    );
    let mut client = fleet.members[new].server.client()?;
    ensure!(client.text("GET after")? == "save");
    ensure!(client.text("SET later on")? == "OK");

    fleet.members[0].server.respawn()?;
    let state = fleet.wait_attached(0, new)?;
    ensure!(
        state.vote() == proto::Vote::Granted && !state.blank,
        "{state:#?}"
    );
    let log = fleet.members[0].server.log();
    ensure!(
        log.contains("lets us continue (partial synchronization)"),
        "{log}"
    );
    let mut old = fleet.members[0].server.client()?;
    eventually("the new master's write", DEADLINE, || {
        Ok((old.text("GET later")? == "on").then_some(()))
    })?;
    ensure!(old.text("GET key:7")? == "7" && old.text("SET x y")?.contains("READONLY"));
    Ok(())
}

#[test]
fn a_frozen_master_refuses_and_closes_when_it_wakes() -> anyhow::Result<()> {
    let mut fleet = Fleet::bootstrapped(3, &[])?;
    let mut client = fleet.members[0].server.client()?;
    ensure!(client.text("SET k before")? == "OK");
    for at in [1, 2] {
        fleet.wait_attached(at, 0)?;
    }
    // Transactions that are open when it freezes are refused as single commands are.
    let mut open = Vec::new();
    for queued in ["SET k lost", "SET k lost", "GET k", "GET k"] {
        let mut client = fleet.members[0].server.client()?;
        ensure!(client.text("MULTI")? == "OK" && client.text(queued)? == "QUEUED");
        open.push((queued, client));
    }
    let frozen = Instant::now();
    fleet.members[0].server.signal(Signal::SIGSTOP)?;
    client.send_raw(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$4\r\nlost\r\n")?;
    for (_, client) in &mut open {
        client.send_raw(b"EXEC\r\n")?;
    }
    fleet.wait_master_lost()?;
    let promotion = fleet.elect(Intent::Unplanned, Bootstrapped::Yes)?;
    let new = fleet.index(promotion.winner.name.as_str())?;
    fleet.wait(new, "to serve", |state| state.serving)?;
    println!("frozen master: served after {:?}", frozen.elapsed());
    let mut fresh = fleet.members[new].server.client()?;
    ensure!(fresh.text("SET k after")? == "OK");
    std::thread::sleep(Duration::from_secs(3).saturating_sub(frozen.elapsed()));
    fleet.members[0].server.signal(Signal::SIGCONT)?;
    // The write that was under way is refused or its connection closed, never acknowledged.
    let outcome = client.read_reply();
    if let Ok(reply) = &outcome {
        let text = redfleet_tests::client::as_text(reply);
        ensure!(
            text.contains("NOREPLICAS") || text.contains("READONLY"),
            "answered {text}"
        );
    }
    for (queued, client) in &mut open {
        let Ok(reply) = client.read_reply() else {
            continue;
        };
        let text = redfleet_tests::client::as_text(&reply);
        ensure!(
            text.contains("EXECABORT")
                && (text.contains("NOREPLICAS") || text.contains("READONLY")),
            "EXEC of {queued} answered {text}"
        );
    }
    let closed = eventually("its client's connection to be closed", DEADLINE, || {
        Ok(client.text("GET k").err().map(|error| error.to_string()))
    })?;
    println!("its client: {outcome:?}, then {closed}");
    let state = fleet.wait_attached(0, new)?;
    ensure!(state.term == 2, "{state:#?}");
    let mut old = fleet.members[0].server.client()?;
    eventually("the new master's write", DEADLINE, || {
        Ok((old.text("GET k")? == "after").then_some(()))
    })
}

#[test]
fn a_master_without_replicas_fences_itself_and_revives() -> anyhow::Result<()> {
    let fleet = Fleet::bootstrapped(3, &[])?;
    let mut client = fleet.members[0].server.client()?;
    for at in [1, 2] {
        fleet.members[at].server.signal(Signal::SIGSTOP)?;
    }
    let cut = Instant::now();
    fleet.wait(0, "to stop serving", |state| !state.serving)?;
    println!(
        "cut off from all: stopped serving after {:?}",
        cut.elapsed()
    );
    eventually("its clients to be closed", DEADLINE, || {
        Ok(client.text("GET k").err())
    })?;
    let mut late = fleet.members[0].server.client()?;
    ensure!(late.text("SET k v")?.contains("NOREPLICAS"));
    fleet.members[1].server.signal(Signal::SIGCONT)?;
    fleet.wait(0, "to serve again", |state| state.serving)?;
    ensure!(late.text("SET k v")? == "OK");
    fleet.members[2].server.signal(Signal::SIGCONT)?;
    fleet.wait_attached(2, 0)?;
    Ok(())
}

#[test]
fn a_planned_switchover_waits_for_no_lease_and_needs_partial_syncs_only() -> anyhow::Result<()> {
    let mut fleet = Fleet::bootstrapped(3, &[])?;
    let mut client = fleet.members[0].server.client()?;
    for number in 0..1_000 {
        ensure!(client.text(&format!("SET key:{number} {number}"))? == "OK");
    }
    fleet.wait_attached(2, 0)?;
    let began = Instant::now();
    let handed = fleet.hand_over(0, 2, Duration::from_secs(10))?;
    let handed = handed.map_err(|refusal| anyhow::anyhow!("{refusal}"))?;
    let released = began.elapsed();
    let intent = Intent::Planned(handed.release);
    let promotion = fleet.elect_preferring(intent, Bootstrapped::Yes, Some(2))?;
    ensure!(promotion.winner.name.as_str() == "m-2" && promotion.promote.defer_ms == 0);
    fleet.wait(2, "to serve", |state| state.serving)?;
    println!(
        "switchover: released after {released:?}, served after {:?}",
        began.elapsed()
    );
    ensure!(
        client.text("GET key:1").is_err(),
        "the demoted master closes its clients"
    );
    let mut client = fleet.members[2].server.client()?;
    ensure!(client.text("GET key:999")? == "999" && client.text("SET more data")? == "OK");
    for at in [0, 1] {
        fleet.wait_attached(at, 2)?;
        let log = fleet.members[at].server.log();
        let full = log
            .matches("sends a snapshot (full synchronization)")
            .count();
        // The first one was at the bootstrap; the master of that had none.
        ensure!(full <= at, "member {at} copied everything {full} times");
    }
    Ok(())
}

#[test]
fn no_client_can_end_the_pause_of_a_switchover() -> anyhow::Result<()> {
    let mut fleet = Fleet::bootstrapped(3, &[])?;
    let (mut writer, mut admin) = (
        fleet.members[0].server.client()?,
        fleet.members[0].server.client()?,
    );
    // While no replica catches up the writes wait, whatever clients say.
    let unpausing = std::thread::spawn(move || {
        let mut told = 0;
        while admin.text("CLIENT UNPAUSE").is_ok() {
            told += 1;
        }
        told
    });
    let (first, has_begun) = std::sync::mpsc::channel();
    let writing = std::thread::spawn(move || {
        let mut acknowledged = 0;
        while writer
            .text(&format!("SET n {}", acknowledged + 1))
            .is_ok_and(|answer| answer == "OK")
        {
            acknowledged += 1;
            // Only the first is waited for.
            let _heard = first.send(());
        }
        acknowledged
    });
    has_begun.recv_timeout(Duration::from_secs(30))?;
    let handed = fleet.hand_over(0, 1, Duration::from_secs(10))?;
    let handed = handed.map_err(|refusal| anyhow::anyhow!("{refusal}"))?;
    let intent = Intent::Planned(handed.release);
    fleet.elect_preferring(intent, Bootstrapped::Yes, Some(1))?;
    fleet.wait(1, "to serve", |state| state.serving)?;
    let acknowledged: u64 = writing.join().map_err(|_| anyhow::anyhow!("the writer"))?;
    let told: u64 = unpausing
        .join()
        .map_err(|_| anyhow::anyhow!("who unpauses"))?;
    ensure!(acknowledged > 0 && told > 0);
    let kept: u64 = fleet.members[1].server.client()?.text("GET n")?.parse()?;
    ensure!(
        kept >= acknowledged,
        "{acknowledged} writes were acknowledged, {kept} are there"
    );
    Ok(())
}

#[test]
fn a_master_that_is_told_to_end_gives_its_term_away() -> anyhow::Result<()> {
    let mut fleet = Fleet::bootstrapped(3, &[])?;
    let mut client = fleet.members[0].server.client()?;
    ensure!(client.text("SET k v")? == "OK");
    let began = Instant::now();
    fleet.members[0].server.signal(Signal::SIGTERM)?;
    // Its release is seen by the others: nobody waits for a suspicion or for the lease.
    fleet.wait(1, "the release", |state| state.released.is_some())?;
    fleet.wait_master_lost()?;
    let promotion = fleet.elect(Intent::Unplanned, Bootstrapped::Yes)?;
    ensure!(
        promotion.promote.defer_ms == 0,
        "deferred {} ms",
        promotion.promote.defer_ms
    );
    let new = fleet.index(promotion.winner.name.as_str())?;
    fleet.wait(new, "to serve", |state| state.serving)?;
    println!("SIGTERM: served after {:?}", began.elapsed());
    ensure!(fleet.members[new].server.client()?.text("GET k")? == "v");
    Ok(())
}

/// Whether members end in peace or are killed: the next election knows.
#[test]
fn a_killed_member_says_that_its_end_may_be_missing() -> anyhow::Result<()> {
    let mut fleet = Fleet::bootstrapped(3, &["--save", "3600 1"])?;
    let mut client = fleet.members[0].server.client()?;
    ensure!(client.text("SET k saved")? == "OK");
    (1..3).try_for_each(|replica| fleet.wait_attached(replica, 0).map(drop))?;
    for member in &mut fleet.members {
        ensure!(member.server.terminate()?, "{}", member.server.log());
    }
    fleet.respawn_all()?;
    let in_peace = fleet.elect(Intent::Forced, Bootstrapped::Yes)?;
    ensure!(in_peace.loss == Loss::None, "all had saved everything");

    let master = fleet.index(in_peace.winner.name.as_str())?;
    fleet.wait(master, "to serve", |state| state.serving)?;
    let mut client = fleet.members[master].server.client()?;
    ensure!(client.text("GET k")? == "saved");
    ensure!(client.text("SET k unsaved")? == "OK");
    for member in &mut fleet.members {
        member.server.kill()?;
    }
    fleet.respawn_all()?;
    let killed = fleet.elect(Intent::Forced, Bootstrapped::Yes)?;
    ensure!(
        killed.loss == Loss::Possible,
        "nobody had saved the last write"
    );

    // Who has caught up with the new master lacks nothing any more.
    let master = fleet.index(killed.winner.name.as_str())?;
    for replica in (0..3).filter(|at| *at != master) {
        fleet.wait_attached(replica, master)?;
    }
    eventually("two members that are sure", DEADLINE, || {
        let caught_up = fleet.elect(Intent::Forced, Bootstrapped::Yes)?;
        Ok((caught_up.loss == Loss::None).then_some(()))
    })
}

#[test]
fn a_member_that_lost_its_folder_is_a_learner_until_the_others_know_it() -> anyhow::Result<()> {
    let mut fleet = Fleet::bootstrapped(3, &[])?;
    let mut client = fleet.members[0].server.client()?;
    ensure!(client.text("SET k v")? == "OK");
    fleet.wait_attached(2, 0)?;
    let before = fleet.state(2)?.id;
    fleet.members[1].server.signal(Signal::SIGSTOP)?;
    fleet.members[2].server.kill()?;
    for entry in std::fs::read_dir(fleet.members[2].server.folder())? {
        std::fs::remove_file(entry?.path())?;
    }
    fleet.members[2].server.respawn()?;
    let state = fleet.wait(2, "a new life", |state| state.id != before)?;
    ensure!(state.vote() == proto::Vote::Suspended, "{state:#?}");
    // Without a second vote the master stops; the learner may copy, but its word does not count.
    fleet.wait(0, "to stop serving", |state| !state.serving)?;
    fleet.wait_attached(2, 0)?;
    let log = fleet.members[2].server.log();
    ensure!(
        log.contains("(full synchronization)"),
        "it held data: {log}"
    );
    ensure!(
        fleet.state(2)?.vote() == proto::Vote::Suspended,
        "admitted without the third"
    );
    fleet.members[1].server.signal(Signal::SIGCONT)?;
    fleet.wait(2, "its vote", |state| state.vote() == proto::Vote::Granted)?;
    fleet.wait(0, "to serve again", |state| state.serving)?;
    Ok(())
}

/// What the operator sends at the end of a rotation: `c2` and `r2` count alone, and a link logs in with `r2`.
fn retired() -> proto::SetCredentialsRequest {
    let user = |name: &str, password: &str| proto::User {
        name: name.to_owned(),
        passwords: vec![proto::AcceptedPassword {
            password: password.to_owned(),
        }],
    };
    proto::SetCredentialsRequest {
        revision: 16,
        users: vec![user("default", "c2"), user("replication", "r2")],
        replication: Some(proto::ReplicationCredential {
            user: "replication".to_owned(),
            password: "r2".to_owned(),
            since_revision: 2,
        }),
    }
}

#[test]
fn a_member_that_restarts_during_a_rotation_accepts_and_presents_what_counts() -> anyhow::Result<()>
{
    // As the operator writes the file while both passwords count; the member keeps this file to the end.
    let file = [
        ["--requirepass", "c2"].as_slice(),
        &["--accept-password", "default", "c1"],
        &["--masteruser", "replication", "--masterauth", "r1"],
        &["--accept-password", "replication", "r2"],
    ]
    .concat();
    let mut fleet = Fleet::bootstrapped(3, &file)?;
    for password in ["c1", "c2"] {
        let mut client = fleet.members[1].server.client()?;
        let answer = client.text(&format!("AUTH {password}"))?;
        ensure!(answer == "OK", "{password}: {answer}");
    }
    let retired = retired();
    for at in 0..3 {
        fleet.set_credentials(at, retired.clone())?;
    }
    let member = &mut fleet.members[2];
    member.server.kill()?;
    member.server.respawn()?;
    let state = fleet.wait_attached(2, 0)?;
    ensure!(state.secret_revision == 0, "{}", state.secret_revision);
    let mut client = fleet.members[2].server.client()?;
    ensure!(client.text("AUTH c2")? == "OK");
    fleet.set_credentials(2, retired)?;
    let mut client = fleet.members[2].server.client()?;
    let old = client.text("AUTH c1")?;
    ensure!(old.contains("WRONGPASS"), "{old}");
    fleet.wait(2, "to log in with the new password", |state| {
        state.link() == proto::Link::Up && state.link_secret_revision == Some(2)
    })?;
    Ok(())
}

/// The copy may take an hour, and its login was accepted.
#[test]
fn a_full_copy_outlives_a_rotation_and_the_link_logs_in_anew_after_it() -> anyhow::Result<()> {
    let fleet = Fleet::start(1, &[])?;
    let (rotated, rest_wanted) = mpsc::channel();
    let (said, heard) = mpsc::channel();
    let master = FakeMaster::start(move |peer| {
        loop {
            let request = peer.request()?;
            let [command, subject, ..] = request.as_slice() else {
                peer.send("+PONG\r\n")?;
                continue;
            };
            match command.as_str() {
                "PSYNC" if subject == fake_master::ID => peer.send("+CONTINUE\r\n")?,
                "PSYNC" => {
                    let snapshot = fake_master::snapshot(b"\0\x03key\x05value");
                    let (first, rest) = snapshot.split_at(12);
                    peer.send(format!("+FULLRESYNC {} 1000\r\n", fake_master::ID))?;
                    peer.send(format!("${}\r\n", snapshot.len()))?;
                    peer.send(first)?;
                    let wanted = rest_wanted.recv_timeout(DEADLINE);
                    wanted.map_err(std::io::Error::other)?;
                    peer.send(rest)?;
                }
                "REPLCONF" if subject == "ACK" => continue,
                "REPLCONF" | "AUTH" => peer.send("+OK\r\n")?,
                other => return Err(std::io::Error::other(other.to_owned())),
            }
            // The test may have ended.
            let _unheard = said.send(request.join(" "));
        }
    })?;
    fleet.follow_stranger(0, master.port)?;
    fleet.wait(0, "a copy under way", |state| {
        state
            .loading
            .is_some_and(|loading| loading.loaded_bytes > 0)
    })?;
    fleet.set_credentials(0, retired())?;
    rotated.send(())?;
    drop(rotated);
    fleet.wait(0, "to log in with the new password", |state| {
        state.link() == proto::Link::Up && state.link_secret_revision == Some(2)
    })?;
    drop(master);
    let said: Vec<String> = heard
        .iter()
        .filter(|said| !said.contains("REPLCONF"))
        .collect();
    let continued = format!("PSYNC {} 1001", fake_master::ID);
    ensure!(
        said == ["PSYNC ? -1", "AUTH replication r2", &*continued],
        "{said:?}"
    );
    Ok(())
}

/// Starts a command that holds the engine of `member` for `seconds`; its reply can be read from the client.
fn busy(fleet: &Fleet, member: usize, seconds: u32) -> anyhow::Result<Client> {
    let server = &fleet.members[member].server;
    let mut client = server.client()?;
    let seconds = seconds.to_string();
    client.send_raw(&encode(&["DEBUG", "SLEEP", seconds.as_str()]))?;
    eventually("the command to run", DEADLINE, || {
        let mut other = server.client()?;
        other.send_raw(&encode(&["PING"]))?;
        let silent = other.is_silent_for(Duration::from_millis(100))?;
        Ok(silent.then_some(()))
    })?;
    Ok(client)
}

#[test]
fn a_long_command_costs_no_master_its_lease_however_many_acknowledge() -> anyhow::Result<()> {
    let fleet = Fleet::bootstrapped(7, &["--enable-debug-command", "yes"])?;
    let mut client = busy(&fleet, 0, 4)?;
    // A master whose lease ends closes its clients.
    let reply = client.read_reply()?;
    ensure!(as_text(&reply) == "OK", "{reply:?}");
    ensure!(client.text("SET k v")? == "OK");
    Ok(())
}

#[test]
fn a_switchover_in_the_middle_of_a_long_command_is_refused() -> anyhow::Result<()> {
    let fleet = Fleet::bootstrapped(3, &["--enable-debug-command", "yes"])?;
    let mut client = busy(&fleet, 0, 3)?;
    let refused = fleet.hand_over(0, 1, Duration::from_millis(500))?;
    ensure!(refused == Err(NotObeyed::Busy), "{refused:?}");
    ensure!(as_text(&client.read_reply()?) == "OK");
    ensure!(fleet.state(0)?.serving);
    ensure!(client.text("SET k v")? == "OK", "writes go on");
    Ok(())
}

#[test]
fn a_member_removes_what_a_killed_process_left_of_a_snapshot() -> anyhow::Result<()> {
    let mut fleet = Fleet::start(1, &[])?;
    let member = &mut fleet.members[0];
    member.server.kill()?;
    let folder = member.server.folder().to_owned();
    let names = ["temp-1.rdb", "temp-repl-1.rdb", "other.rdb"];
    for name in names {
        std::fs::write(folder.join(name), "REDIS")?;
    }
    fleet.respawn_all()?;
    eventually("the files to be removed", DEADLINE, || {
        let left = names.map(|name| folder.join(name).exists());
        Ok((left == [false, false, true]).then_some(()))
    })
}
