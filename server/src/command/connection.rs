//! Connections: PING, AUTH, HELLO, SELECT, RESET, QUIT and CLIENT.
//!
//! What concerns the caller alone is a field of its session; other connections are reached through
//! the host. Names and library versions are checked, because they end in the lines of CLIENT LIST.

use std::time::Duration;

use resp::{Args, Version};

use super::{
    CommandError, CommandSpec, Context, Flags, Group,
    args::{self, is},
    effects::Next,
    error::CommandResult,
    host::{ClientFilter, ClientType, Host, OpenDefault, PauseKind, RoleView, Unblock},
    introspection::{help_of, unknown_subcommand},
    session::{ReplyMode, Session, Switch},
};
use crate::REDIS_VERSION;

const ALWAYS: Flags = Flags::NOSCRIPT.with(Flags::LOADING).with(Flags::STALE);
const BEFORE_LOGIN: Flags = ALWAYS
    .with(Flags::FAST)
    .with(Flags::NO_AUTH)
    .with(Flags::ALLOW_BUSY);
const ADMIN: Flags = ALWAYS.with(Flags::ADMIN);

/// Name of the user that `AUTH password` means.
const DEFAULT_USER: &[u8] = b"default";

/// The family's commands.
pub const COMMANDS: &[CommandSpec] = &[
    CommandSpec::new("ping", Group::Connection, -1, ping)
        .fast()
        .doc("1.0.0", "Returns the server's liveliness response."),
    CommandSpec::new("echo", Group::Connection, 2, echo)
        .flags(Flags::LOADING.with(Flags::STALE).with(Flags::FAST))
        .doc("1.0.0", "Returns the given string."),
    CommandSpec::new("auth", Group::Connection, -2, auth)
        .flags(BEFORE_LOGIN)
        .doc("1.0.0", "Authenticates the connection."),
    CommandSpec::new("hello", Group::Connection, -1, hello)
        .flags(BEFORE_LOGIN)
        .doc("6.0.0", "Handshakes with the server."),
    CommandSpec::new("select", Group::Connection, 2, select)
        .flags(Flags::LOADING.with(Flags::STALE).with(Flags::FAST))
        .doc("1.0.0", "Changes the selected database."),
    CommandSpec::new("quit", Group::Connection, -1, quit)
        .flags(BEFORE_LOGIN)
        .doc("1.0.0", "Closes the connection."),
    CommandSpec::new("reset", Group::Connection, 1, reset)
        .flags(BEFORE_LOGIN)
        .doc("6.2.0", "Resets the connection."),
    CommandSpec::new("client", Group::Connection, -2, unknown_subcommand)
        .doc("2.4.0", "A container for client connection commands.")
        .subcommands(CLIENT),
];

const CLIENT: &[CommandSpec] = &[
    CommandSpec::new("id", Group::Connection, 2, client_id)
        .flags(ALWAYS)
        .doc("5.0.0", "Returns the unique client ID of the connection."),
    CommandSpec::new("info", Group::Connection, 2, client_info)
        .flags(ALWAYS)
        .doc("6.2.0", "Returns information about the connection."),
    CommandSpec::new("list", Group::Connection, -2, client_list)
        .flags(ADMIN)
        .doc("2.4.0", "Lists open connections."),
    CommandSpec::new("kill", Group::Connection, -3, client_kill)
        .flags(ADMIN)
        .doc("2.4.0", "Terminates open connections."),
    CommandSpec::new("pause", Group::Connection, -3, client_pause)
        .flags(ADMIN)
        .doc("3.0.0", "Suspends commands processing."),
    CommandSpec::new("unpause", Group::Connection, 2, client_unpause)
        .flags(ADMIN)
        .doc("6.2.0", "Resumes processing commands from paused clients."),
    CommandSpec::new("unblock", Group::Connection, -3, client_unblock)
        .flags(ADMIN)
        .doc(
            "5.0.0",
            "Unblocks a client blocked by a blocking command from a different connection.",
        ),
    CommandSpec::new("reply", Group::Connection, 3, client_reply)
        .flags(ALWAYS)
        .doc(
            "3.2.0",
            "Instructs the server whether to reply to commands.",
        ),
    CommandSpec::new("setname", Group::Connection, 3, client_setname)
        .flags(ALWAYS)
        .doc("2.6.9", "Sets the connection name."),
    CommandSpec::new("getname", Group::Connection, 2, client_getname)
        .flags(ALWAYS)
        .doc("2.6.9", "Returns the name of the connection."),
    CommandSpec::new("setinfo", Group::Connection, 4, client_setinfo)
        .flags(ALWAYS)
        .doc(
            "7.2.0",
            "Sets information specific to the client or connection.",
        ),
    CommandSpec::new("no-evict", Group::Connection, 3, client_no_evict)
        .flags(ADMIN)
        .doc("7.0.0", "Sets the client eviction mode of the connection."),
    CommandSpec::new("no-touch", Group::Connection, 3, client_no_touch)
        .flags(ALWAYS)
        .doc(
            "7.2.0",
            "Controls whether commands sent by the client affect the LRU/LFU of accessed keys.",
        ),
    CommandSpec::new("help", Group::Connection, 2, |cx, _| help_of(cx, "client"))
        .flags(Flags::LOADING.with(Flags::STALE))
        .doc(
            "5.0.0",
            "Returns helpful text about the different subcommands.",
        ),
];

fn ping(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    match args.len() {
        1 => cx.reply.simple("PONG"),
        2 => cx.reply.bulk(&args[1]),
        _ => return Err(CommandError::wrong_arity("ping")),
    }
    Ok(())
}

fn echo(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    cx.reply.bulk(&args[1]);
    Ok(())
}

fn auth(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    let (user, password) = match args.len() {
        2 => (DEFAULT_USER, &args[1]),
        3 => (&args[1], &args[2]),
        _ => return Err(CommandError::SYNTAX),
    };
    if args.len() == 2 && cx.host.default_user_is_open() == OpenDefault::Yes {
        return Err(CommandError::new(
            "ERR AUTH <password> called without any password configured for the default user. Are \
             you sure your configuration is correct?",
        ));
    }
    cx.host.authenticate(cx.session, user, password)?;
    cx.host.publish_session(cx.session);
    cx.reply.ok();
    Ok(())
}

/// What a HELLO asks for, checked as a whole before anything of it is done.
#[derive(Default)]
struct Hello<'a> {
    version: Option<Version>,
    login: Option<(&'a [u8], &'a [u8])>,
    name: Option<&'a [u8]>,
}

impl<'a> Hello<'a> {
    fn parse(args: Args<'a>) -> Result<Self, CommandError> {
        let mut hello = Self::default();
        let Some(version) = args.get(1) else {
            return Ok(hello);
        };
        hello.version = Some(match resp::parse_i64(version) {
            None => {
                return Err(CommandError::new(
                    "ERR Protocol version is not an integer or out of range",
                ));
            }
            Some(2) => Version::Resp2,
            Some(3) => Version::Resp3,
            Some(_) => return Err(CommandError::new("NOPROTO unsupported protocol version")),
        });
        let mut at = 2;
        while let Some(option) = args.get(at) {
            match (args.get(at + 1), args.get(at + 2)) {
                (Some(user), Some(password)) if is(option, "AUTH") => {
                    hello.login = Some((user, password));
                    at += 3;
                }
                (Some(name), _) if is(option, "SETNAME") => {
                    check_name(
                        name,
                        "ERR Client names cannot contain spaces, newlines or special characters.",
                    )?;
                    hello.name = Some(name);
                    at += 2;
                }
                _ => {
                    return Err(CommandError::quoting(
                        "ERR Syntax error in HELLO option '",
                        option,
                        "'",
                    ));
                }
            }
        }
        Ok(hello)
    }
}

fn hello(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    let hello = Hello::parse(args)?;
    if let Some((user, password)) = hello.login {
        cx.host.authenticate(cx.session, user, password)?;
    }
    if cx.session.login.is_none() {
        return Err(CommandError::new(
            "NOAUTH HELLO must be called with the client already authenticated, otherwise the \
             HELLO <proto> AUTH <user> <pass> option can be used to authenticate the client and \
             select the RESP protocol version at the same time",
        ));
    }
    if let Some(name) = hello.name {
        cx.session.name = name.to_vec();
    }
    if let Some(version) = hello.version {
        cx.session.version = version;
        cx.reply.set_version(version);
    }
    cx.host.publish_session(cx.session);
    let role = match cx.host.role() {
        RoleView::Master { .. } => "master",
        RoleView::Replica { .. } => "replica",
    };
    let reply = &mut cx.reply;
    reply.map(7);
    for (key, value) in [("server", "redis"), ("version", REDIS_VERSION)] {
        reply.bulk(key.as_bytes());
        reply.bulk(value.as_bytes());
    }
    reply.bulk(b"proto");
    reply.integer(i64::from(cx.session.version.number()));
    reply.bulk(b"id");
    reply.integer(cx.session.id as i64);
    for (key, value) in [("mode", "standalone"), ("role", role)] {
        reply.bulk(key.as_bytes());
        reply.bulk(value.as_bytes());
    }
    reply.bulk(b"modules");
    reply.array(0);
    Ok(())
}

fn select(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    cx.session.db = args::database(&args[1], cx.keyspace.databases())?;
    cx.host.publish_session(cx.session);
    cx.reply.ok();
    Ok(())
}

fn quit(cx: &mut Context<'_>, _: Args<'_>) -> CommandResult {
    cx.reply.ok();
    cx.effects.then(Next::Close);
    Ok(())
}

fn reset(cx: &mut Context<'_>, _: Args<'_>) -> CommandResult {
    cx.keyspace.unwatch(&mut cx.session.watched);
    let old = &*cx.session;
    let fresh = Session::new(old.id, old.address.clone(), old.local_address.clone());
    let kept = (
        old.library_name.clone(),
        old.library_version.clone(),
        old.last_write_offset,
        old.last_command,
    );
    *cx.session = fresh;
    (
        cx.session.library_name,
        cx.session.library_version,
        cx.session.last_write_offset,
        cx.session.last_command,
    ) = kept;
    if cx.host.default_user_is_open() == OpenDefault::Yes {
        cx.host.authenticate(cx.session, DEFAULT_USER, b"")?;
    }
    cx.host.publish_session(cx.session);
    cx.reply.set_version(cx.session.version);
    cx.reply.simple("RESET");
    Ok(())
}

fn client_id(cx: &mut Context<'_>, _: Args<'_>) -> CommandResult {
    cx.reply.integer(cx.session.id as i64);
    Ok(())
}

fn client_info(cx: &mut Context<'_>, _: Args<'_>) -> CommandResult {
    let line = cx.host.client_info(cx.session);
    cx.reply.verbatim("txt", line.as_bytes());
    Ok(())
}

fn client_list(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    let mut filter = ClientFilter::default();
    match args.get(2) {
        None => {}
        Some(option) if is(option, "TYPE") && args.len() == 4 => {
            filter.kind = Some(client_type(&args[3])?);
        }
        Some(option) if is(option, "ID") && args.len() > 3 => {
            filter.ids = args
                .iter()
                .skip(3)
                .map(client_number)
                .collect::<Result<_, _>>()?;
        }
        Some(_) => return Err(CommandError::SYNTAX),
    }
    cx.host.publish_session(cx.session);
    let list = cx.host.client_list(&filter);
    cx.reply.verbatim("txt", list.as_bytes());
    Ok(())
}

/// A number that a client may have; a negative one is larger than those that are given.
fn client_number(word: &[u8]) -> Result<u64, CommandError> {
    let id = resp::parse_i64(word).ok_or(CommandError::new("ERR Invalid client ID"))?;
    Ok(id as u64)
}

fn client_type(word: &[u8]) -> Result<ClientType, CommandError> {
    let names = [
        ("NORMAL", ClientType::Normal),
        ("MASTER", ClientType::Master),
        ("PRIMARY", ClientType::Master),
        ("REPLICA", ClientType::Replica),
        ("SLAVE", ClientType::Replica),
        ("PUBSUB", ClientType::PubSub),
    ];
    let found = names
        .iter()
        .find(|(name, _)| is(word, name))
        .map(|(_, kind)| *kind);
    found.ok_or_else(|| CommandError::quoting("ERR Unknown client type '", word, "'"))
}

fn client_kill(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    // The old form names an address and answers OK; it spares nobody.
    if args.len() == 3 {
        let filter = ClientFilter {
            address: Some(args[2].to_vec()),
            ..ClientFilter::default()
        };
        return match kill(cx, &filter) {
            0 => Err(CommandError::new("ERR No such client")),
            _ => {
                cx.reply.ok();
                Ok(())
            }
        };
    }
    let filter = kill_filter(cx.host, args)?;
    let count = kill(cx, &filter);
    cx.reply.integer(count as i64);
    Ok(())
}

fn kill(cx: &mut Context<'_>, filter: &ClientFilter) -> u64 {
    let killed = cx.host.kill_clients(filter, cx.session.id);
    if killed.own == Switch::On {
        cx.effects.then(Next::Close);
    }
    killed.count
}

fn kill_filter(host: &dyn Host, args: Args<'_>) -> Result<ClientFilter, CommandError> {
    let mut filter = ClientFilter {
        skip_me: Switch::On,
        ..ClientFilter::default()
    };
    let mut words = args.tail(2).iter();
    while let Some(option) = words.next() {
        let value = words.next().ok_or(CommandError::SYNTAX)?;
        if is(option, "ID") {
            let id = resp::parse_i64(value).and_then(|id| u64::try_from(id).ok());
            let id = id.filter(|id| *id > 0);
            filter.ids =
                vec![id.ok_or(CommandError::new("ERR client-id should be greater than 0"))?];
        } else if is(option, "TYPE") {
            filter.kind = Some(client_type(value)?);
        } else if is(option, "ADDR") {
            filter.address = Some(value.to_vec());
        } else if is(option, "LADDR") {
            filter.local_address = Some(value.to_vec());
        } else if is(option, "USER") {
            if !host
                .users()
                .iter()
                .any(|user| user.name.as_bytes() == value)
            {
                return Err(CommandError::quoting("ERR No such user '", value, "'"));
            }
            filter.user = Some(value.to_vec());
        } else if is(option, "MAXAGE") {
            let age = resp::parse_i64(value).and_then(|age| u64::try_from(age).ok());
            let wrong = CommandError::new("ERR maxage is not an integer or out of range");
            filter.min_age_s = Some(age.ok_or(wrong)?);
        } else if is(option, "SKIPME") {
            filter.skip_me = yes_or_no(value)?;
        } else {
            return Err(CommandError::SYNTAX);
        }
    }
    Ok(filter)
}

fn yes_or_no(word: &[u8]) -> Result<Switch, CommandError> {
    match word {
        yes if is(yes, "YES") => Ok(Switch::On),
        no if is(no, "NO") => Ok(Switch::Off),
        _ => Err(CommandError::SYNTAX),
    }
}

fn on_or_off(word: &[u8]) -> Result<Switch, CommandError> {
    match word {
        on if is(on, "ON") => Ok(Switch::On),
        off if is(off, "OFF") => Ok(Switch::Off),
        _ => Err(CommandError::SYNTAX),
    }
}

/// What Redis answers to a subcommand with one argument too many.
fn check_most(args: Args<'_>, most: usize) -> CommandResult {
    if args.len() <= most {
        return Ok(());
    }
    Err(CommandError::unknown_form(args))
}

fn client_pause(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    check_most(args, 4)?;
    let kind = match args.get(3) {
        None => PauseKind::All,
        Some(word) if is(word, "ALL") && args.len() == 4 => PauseKind::All,
        Some(word) if is(word, "WRITE") && args.len() == 4 => PauseKind::Writes,
        Some(_) => {
            return Err(CommandError::new(
                "ERR CLIENT PAUSE mode must be WRITE or ALL",
            ));
        }
    };
    let wrong = CommandError::new("ERR timeout is not an integer or out of range");
    let ms = resp::parse_i64(&args[2]).ok_or(wrong)?;
    let positive = u64::try_from(ms);
    let positive = positive.map_err(|_| CommandError::new("ERR timeout is negative"))?;
    if ms.checked_add(cx.now_ms).is_none() {
        return Err(CommandError::new("ERR timeout is out of range"));
    }
    cx.host.pause(kind, Duration::from_millis(positive));
    cx.reply.ok();
    Ok(())
}

fn client_unpause(cx: &mut Context<'_>, _: Args<'_>) -> CommandResult {
    cx.host.unpause();
    cx.reply.ok();
    Ok(())
}

fn client_unblock(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    check_most(args, 4)?;
    let how = match args.get(3) {
        None => Unblock::Timeout,
        Some(word) if is(word, "TIMEOUT") && args.len() == 4 => Unblock::Timeout,
        Some(word) if is(word, "ERROR") && args.len() == 4 => Unblock::Error,
        Some(_) => {
            return Err(CommandError::new(
                "ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR",
            ));
        }
    };
    let id = args::integer(&args[2])?;
    let unblocked = u64::try_from(id).is_ok_and(|id| cx.host.unblock(id, how) == Switch::On);
    cx.reply.integer(i64::from(unblocked));
    Ok(())
}

fn client_reply(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    match &args[2] {
        on if is(on, "ON") => {
            cx.session.reply_mode = ReplyMode::On;
            cx.reply.ok();
        }
        off if is(off, "OFF") => cx.session.reply_mode = ReplyMode::Off,
        skip if is(skip, "SKIP") => {
            if cx.session.reply_mode == ReplyMode::On {
                cx.session.reply_mode = ReplyMode::SkipNext;
            }
        }
        _ => return Err(CommandError::SYNTAX),
    }
    Ok(())
}

/// Names end in lines of `name=value` pairs: printable characters without blanks only.
fn check_name(name: &[u8], error: &'static str) -> CommandResult {
    let printable = name.iter().all(|byte| (b'!'..=b'~').contains(byte));
    if printable {
        Ok(())
    } else {
        Err(CommandError::new(error))
    }
}

fn client_setname(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    check_name(
        &args[2],
        "ERR Client names cannot contain spaces, newlines or special characters.",
    )?;
    cx.session.name = args[2].to_vec();
    cx.host.publish_session(cx.session);
    cx.reply.ok();
    Ok(())
}

fn client_getname(cx: &mut Context<'_>, _: Args<'_>) -> CommandResult {
    if cx.session.name.is_empty() {
        cx.reply.null();
    } else {
        cx.reply.bulk(&cx.session.name);
    }
    Ok(())
}

fn client_setinfo(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    let (field, error) = match &args[2] {
        name if is(name, "LIB-NAME") => (
            &mut cx.session.library_name,
            "ERR lib-name cannot contain spaces, newlines or special characters.",
        ),
        version if is(version, "LIB-VER") => (
            &mut cx.session.library_version,
            "ERR lib-ver cannot contain spaces, newlines or special characters.",
        ),
        other => {
            return Err(CommandError::quoting(
                "ERR Unrecognized option '",
                other,
                "'",
            ));
        }
    };
    check_name(&args[3], error)?;
    *field = args[3].to_vec();
    cx.host.publish_session(cx.session);
    cx.reply.ok();
    Ok(())
}

fn client_no_evict(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    cx.session.no_evict = on_or_off(&args[2])?;
    cx.reply.ok();
    Ok(())
}

fn client_no_touch(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    cx.session.no_touch = on_or_off(&args[2])?;
    cx.reply.ok();
    Ok(())
}
