//! REPLICAOF, ROLE, PSYNC, REPLCONF, WAIT: what servers and their operators say to each other.

use std::time::Duration;

use resp::Args;

use super::{
    CommandError, CommandSpec, Context, Flags, Group,
    args::{self, is},
    effects::{Failover, Next, PsyncRequest},
    error::CommandResult,
    host::{AtDeadline, FailoverRequest, RoleChange, RoleView},
    session::{ReplicaHello, Switch},
};

/// Unlike in Redis they run on a stale replica, and on a master whose lease has ended: replicas must be able to come
/// back to it, or it would never be acknowledged again.
const LINK: Flags = Flags::ADMIN
    .with(Flags::NOSCRIPT)
    .with(Flags::NO_MULTI)
    .with(Flags::NO_ASYNC_LOADING)
    .with(Flags::STALE);
const FOLLOW: Flags = Flags::ADMIN
    .with(Flags::NOSCRIPT)
    .with(Flags::STALE)
    .with(Flags::NO_ASYNC_LOADING);

/// The family's commands.
pub const COMMANDS: &[CommandSpec] = &[
    CommandSpec::new("replicaof", Group::Server, 3, replicaof)
        .flags(FOLLOW)
        .doc(
            "5.0.0",
            "Configures a server as replica of another, or promotes it to a master.",
        ),
    CommandSpec::new("slaveof", Group::Server, 3, replicaof)
        .flags(FOLLOW)
        .doc(
            "1.0.0",
            "Sets a Redis server as a replica of another, or promotes it to being a master.",
        ),
    CommandSpec::new("role", Group::Server, 1, role)
        .flags(
            Flags::NOSCRIPT
                .with(Flags::LOADING)
                .with(Flags::STALE)
                .with(Flags::FAST),
        )
        .in_categories(&["@admin", "@dangerous"])
        .doc("2.8.12", "Returns the replication role."),
    CommandSpec::new("psync", Group::Server, -3, psync)
        .flags(LINK)
        .doc("2.8.0", "An internal command used in replication."),
    CommandSpec::new("sync", Group::Server, 1, sync)
        .flags(LINK)
        .doc("1.0.0", "An internal command used in replication."),
    CommandSpec::new("replconf", Group::Server, -1, replconf)
        .flags(
            Flags::ADMIN
                .with(Flags::NOSCRIPT)
                .with(Flags::LOADING)
                .with(Flags::STALE)
                .with(Flags::ALLOW_BUSY),
        )
        .doc(
            "3.0.0",
            "An internal command for configuring the replication stream.",
        ),
    CommandSpec::new("failover", Group::Server, -1, failover)
        .flags(Flags::ADMIN.with(Flags::NOSCRIPT).with(Flags::STALE))
        .doc(
            "6.2.0",
            "Starts a coordinated failover from a server to one of its replicas.",
        ),
    CommandSpec::new("wait", Group::Generic, 3, wait)
        .flags(Flags::BLOCKING)
        .in_categories(&["@connection"])
        .doc(
            "3.0.0",
            "Blocks until the asynchronous replication of all preceding write commands sent by \
             the connection is completed.",
        ),
];

fn replicaof(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    if is(&args[1], "NO") && is(&args[2], "ONE") {
        cx.host.replica_of(None)?;
        cx.reply.ok();
        return Ok(());
    }
    let port = args::integer(&args[2])
        .ok()
        .and_then(|port| u16::try_from(port).ok());
    let port = port.ok_or(CommandError::new("ERR Invalid master port"))?;
    let host =
        std::str::from_utf8(&args[1]).map_err(|_| CommandError::new("ERR Invalid master host"))?;
    match cx.host.replica_of(Some((host, port)))? {
        RoleChange::Made => cx.reply.ok(),
        RoleChange::None => cx.reply.simple("OK Already connected to specified master"),
    }
    Ok(())
}

fn role(cx: &mut Context<'_>, _: Args<'_>) -> CommandResult {
    match cx.host.role() {
        RoleView::Master { offset, replicas } => {
            cx.reply.array(3);
            cx.reply.bulk(b"master");
            cx.reply.integer(offset as i64);
            cx.reply.array(replicas.len());
            for (ip, port, acked) in replicas {
                cx.reply.array(3);
                cx.reply.bulk(ip.as_bytes());
                cx.reply.bulk_int(i64::from(port));
                cx.reply.bulk_int(acked as i64);
            }
        }
        RoleView::Replica {
            host,
            port,
            state,
            offset,
        } => {
            cx.reply.array(5);
            cx.reply.bulk(b"slave");
            cx.reply.bulk(host.as_bytes());
            cx.reply.integer(i64::from(port));
            cx.reply.bulk(state.as_bytes());
            cx.reply.integer(offset);
        }
    }
    Ok(())
}

fn psync(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    let offset = args::integer(&args[2])?;
    let failover = match args.get(3) {
        None => Failover::No,
        Some(word) if is(word, "FAILOVER") && args.len() == 4 => Failover::Requested,
        Some(_) => return Err(CommandError::SYNTAX),
    };
    if failover == Failover::Requested {
        cx.host.accept_failover(&args[1])?;
    }
    let replid = args[1].to_vec();
    cx.effects.then(Next::BecomeReplica(PsyncRequest::Continue {
        replid,
        offset,
        failover,
    }));
    Ok(())
}

fn failover(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    if args.len() == 2 && is(&args[1], "ABORT") {
        cx.host.failover_abort()?;
        cx.reply.ok();
        return Ok(());
    }
    let mut request = FailoverRequest {
        target: None,
        timeout: None,
        at_deadline: AtDeadline::Abort,
    };
    let mut words = args.iter().skip(1);
    while let Some(word) = words.next() {
        if is(word, "TO") && request.target.is_none() {
            let (host, port) = words.next().zip(words.next()).ok_or(CommandError::SYNTAX)?;
            // What is no port is 0, which is refused as a target that is not there.
            let port = u16::try_from(args::integer(port)?).unwrap_or(0);
            request.target = Some((String::from_utf8_lossy(host).into_owned(), port));
        } else if is(word, "TIMEOUT") && request.timeout.is_none() {
            let ms = args::integer(words.next().ok_or(CommandError::SYNTAX)?)?;
            let ms = u64::try_from(ms).ok().filter(|ms| *ms > 0);
            let ms = ms.ok_or(CommandError::new(
                "ERR FAILOVER timeout must be greater than 0",
            ))?;
            request.timeout = Some(Duration::from_millis(ms));
        } else if is(word, "FORCE") {
            request.at_deadline = AtDeadline::GoOn;
        } else {
            return Err(CommandError::SYNTAX);
        }
    }
    cx.host.failover(request)?;
    cx.reply.ok();
    Ok(())
}

fn sync(cx: &mut Context<'_>, _: Args<'_>) -> CommandResult {
    cx.effects.then(Next::BecomeReplica(PsyncRequest::Full));
    Ok(())
}

fn replconf(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    if args.len().is_multiple_of(2) {
        return Err(CommandError::SYNTAX);
    }
    let mut pairs = args.iter().skip(1);
    while let (Some(option), Some(value)) = (pairs.next(), pairs.next()) {
        // Acknowledgements belong on a replica's link (`replication::sender`), where nobody
        // answers them; here they are noise from a client and get no reply either.
        if is(option, "ACK") || is(option, "GETACK") {
            return Ok(());
        }
        let hello = cx.session.replica.get_or_insert_default();
        note(hello, option, value)?;
    }
    cx.reply.ok();
    Ok(())
}

/// Notes what a replica says about itself. Capabilities that we do not know are ignored.
fn note(hello: &mut ReplicaHello, option: &[u8], value: &[u8]) -> CommandResult {
    if is(option, "LISTENING-PORT") {
        let port = args::integer(value)
            .ok()
            .and_then(|port| u16::try_from(port).ok());
        hello.listening_port = port.ok_or(CommandError::NOT_INTEGER)?;
    } else if is(option, "IP-ADDRESS") {
        const MAX_ADDRESS_BYTES: usize = 255;
        if value.len() > MAX_ADDRESS_BYTES {
            return Err(CommandError::new(
                "ERR REPLCONF ip-address provided by replica instance is too long",
            ));
        }
        hello.ip_address = (!value.is_empty()).then(|| value.to_vec());
    } else if is(option, "CAPA") {
        if is(value, "EOF") {
            hello.capa_eof = Switch::On;
        } else if is(value, "PSYNC2") {
            hello.capa_psync2 = Switch::On;
        }
    } else if is(option, "VERSION") {
        const MAX_VERSION_BYTES: usize = 32;
        hello.version = Some(value[..value.len().min(MAX_VERSION_BYTES)].to_vec());
    } else if is(option, "RDB-ONLY") {
        hello.rdb_only = if args::integer(value)? == 0 {
            Switch::Off
        } else {
            Switch::On
        };
    } else if is(option, "RDB-FILTER-ONLY") {
        // The words say what is left; no word leaves nothing, which is all that there is of functions, too.
        let words = value.split(|byte| byte.is_ascii_whitespace());
        if !words
            .filter(|word| !word.is_empty())
            .all(|word| is(word, "FUNCTIONS"))
        {
            return Err(CommandError::new("ERR Unsupported rdb-filter-only option"));
        }
        hello.functions_only = Switch::On;
    } else {
        return Err(CommandError::quoting(
            "ERR Unrecognized REPLCONF option: ",
            option,
            "",
        ));
    }
    Ok(())
}

fn wait(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    if let RoleView::Replica { .. } = cx.host.role() {
        return Err(CommandError::new(
            "ERR WAIT cannot be used with replica instances. Please also note that since Redis \
             4.0 if a replica is configured to be writable (which is not the default) writes to \
             replicas are just local and are not propagated.",
        ));
    }
    let count = u32::try_from(args::integer(&args[1])?).unwrap_or(0);
    let wrong = CommandError::new("ERR timeout is not an integer or out of range");
    let timeout = resp::parse_i64(&args[2]).ok_or(wrong)?;
    if timeout < 0 {
        return Err(CommandError::new("ERR timeout is negative"));
    }
    let acknowledged = cx.host.acknowledged_by(cx.session.last_write_offset);
    if acknowledged >= count as usize {
        cx.reply.integer(acknowledged as i64);
        return Ok(());
    }
    let timeout = (timeout > 0).then(|| Duration::from_millis(timeout as u64));
    cx.effects.then(Next::AwaitReplicas { count, timeout });
    Ok(())
}
