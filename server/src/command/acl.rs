//! ACL, as far as users are supported: `default` with any number of passwords, and the user that replicas log in with.
//! Rules that would take something from a user are refused by name: nothing is accepted that has no effect.

use resp::Args;

use super::{
    CommandError, CommandSpec, Context, Flags, Group, args,
    error::{CommandResult, MAX_SHOWN_BYTES},
    host::{NeedsPassword, PasswordChange, UserView},
    introspection::{categories, help_of, unknown_subcommand},
    session::Scope,
    table,
};

/// Every category of Redis, in its order; those of types that are not there have no commands.
const CATEGORIES: [&str; 21] = [
    "keyspace",
    "read",
    "write",
    "set",
    "sortedset",
    "list",
    "hash",
    "string",
    "bitmap",
    "hyperloglog",
    "geo",
    "stream",
    "pubsub",
    "admin",
    "fast",
    "slow",
    "blocking",
    "dangerous",
    "connection",
    "transaction",
    "scripting",
];

/// Name of the user that may be changed.
const DEFAULT_USER: &[u8] = b"default";

const FLAGS: Flags = Flags::NOSCRIPT.with(Flags::LOADING).with(Flags::STALE);
const ADMIN: Flags = FLAGS.with(Flags::ADMIN);

/// The family's commands.
pub const COMMANDS: &[CommandSpec] =
    &[
        CommandSpec::new("acl", Group::Server, -2, unknown_subcommand)
            .doc("6.0.0", "A container for Access List Control commands.")
            .subcommands(ACL),
    ];

const fn spec(name: &'static str, arity: i32, handler: super::spec::Handler) -> CommandSpec {
    CommandSpec::new(name, Group::Server, arity, handler)
}

const ACL: &[CommandSpec] = &[
    spec("cat", -2, cat).flags(FLAGS).doc(
        "6.0.0",
        "Lists the ACL categories, or the commands inside a category.",
    ),
    spec("deluser", -3, deluser).flags(ADMIN).doc(
        "6.0.0",
        "Deletes ACL users, and terminates their connections.",
    ),
    spec("getuser", 3, getuser)
        .flags(ADMIN)
        .doc("6.0.0", "Lists the ACL rules of a user."),
    spec("list", 2, list)
        .flags(ADMIN)
        .doc("6.0.0", "Dumps the effective rules in ACL file format."),
    spec("setuser", -3, setuser)
        .flags(ADMIN)
        .doc("6.0.0", "Creates and modifies an ACL user and its rules."),
    spec("users", 2, users)
        .flags(ADMIN)
        .doc("6.0.0", "Lists all ACL users."),
    spec("whoami", 2, whoami).flags(FLAGS).doc(
        "6.0.0",
        "Returns the authenticated username of the current connection.",
    ),
    spec("help", 2, |cx, _| help_of(cx, "acl"))
        .flags(Flags::LOADING.with(Flags::STALE))
        .doc(
            "6.0.0",
            "Returns helpful text about the different subcommands.",
        ),
];

fn cat(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    let Some(wanted) = args.get(2).filter(|_| args.len() == 3) else {
        if args.len() > 3 {
            return Err(CommandError::unknown_form(args));
        }
        cx.reply.array(CATEGORIES.len());
        CATEGORIES
            .iter()
            .for_each(|name| cx.reply.bulk(name.as_bytes()));
        return Ok(());
    };
    let Some(category) = CATEGORIES.iter().find(|name| args::is(wanted, name)) else {
        let shown = &wanted[..wanted.len().min(MAX_SHOWN_BYTES)];
        return Err(CommandError::quoting("ERR Unknown category '", shown, "'"));
    };
    let has = |spec: &CommandSpec| categories(spec).iter().any(|c| &c[1..] == *category);
    let all = table::table().all();
    let names: Vec<&str> = all
        .filter(|entry| has(entry.spec))
        .map(|entry| &*entry.full_name)
        .collect();
    cx.reply.array(names.len());
    names.iter().for_each(|name| cx.reply.bulk(name.as_bytes()));
    Ok(())
}

/// There is nobody who could be removed.
fn deluser(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    let views = cx.host.users();
    for name in args.tail(2).iter() {
        if name == DEFAULT_USER {
            return Err(CommandError::new(
                "ERR The 'default' user cannot be removed",
            ));
        }
        if views.iter().any(|user| user.name.as_bytes() == name) {
            return Err(CommandError::new(
                "ERR this user comes from the configuration and cannot be removed",
            ));
        }
    }
    cx.reply.integer(0);
    Ok(())
}

fn hex(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The flags of a user, in Redis's order.
fn flags(user: &UserView) -> Vec<&'static str> {
    let open = match user.needs_password {
        NeedsPassword::No => Some("nopass"),
        NeedsPassword::Yes => None,
    };
    ["on"]
        .into_iter()
        .chain(open)
        .chain(["sanitize-payload"])
        .collect()
}

/// The rules of a scope, as ACL writes them: commands, keys, channels.
fn rules(scope: Scope) -> (&'static str, &'static str, &'static str) {
    match scope {
        Scope::Everything => ("+@all", "~*", "&*"),
        Scope::Replication => ("-@all +ping +replconf +psync +sync +select", "", ""),
    }
}

fn getuser(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    let views = cx.host.users();
    let Some(user) = views.iter().find(|user| user.name.as_bytes() == &args[2]) else {
        cx.reply.null();
        return Ok(());
    };
    let (commands, keys, channels) = rules(user.scope);
    let reply = &mut cx.reply;
    reply.map(6);
    reply.bulk(b"flags");
    let flags = flags(user);
    reply.set(flags.len());
    flags.iter().for_each(|flag| reply.bulk(flag.as_bytes()));
    reply.bulk(b"passwords");
    reply.array(user.digests.len());
    user.digests
        .iter()
        .for_each(|digest| reply.bulk(hex(digest).as_bytes()));
    for (name, value) in [
        ("commands", commands),
        ("keys", keys),
        ("channels", channels),
    ] {
        reply.bulk(name.as_bytes());
        reply.bulk(value.as_bytes());
    }
    reply.bulk(b"selectors");
    reply.array(0);
    Ok(())
}

fn line(user: &UserView) -> String {
    let (commands, keys, channels) = rules(user.scope);
    let mut words = vec!["user".to_owned(), user.name.to_string()];
    words.extend(flags(user).into_iter().map(str::to_owned));
    words.extend(
        user.digests
            .iter()
            .map(|digest| format!("#{}", hex(digest))),
    );
    let others = [keys, channels, commands]
        .into_iter()
        .filter(|word| !word.is_empty());
    words.extend(others.map(str::to_owned));
    words.join(" ")
}

fn list(cx: &mut Context<'_>, _: Args<'_>) -> CommandResult {
    let views = cx.host.users();
    cx.reply.array(views.len());
    views
        .iter()
        .for_each(|user| cx.reply.bulk(line(user).as_bytes()));
    Ok(())
}

fn users(cx: &mut Context<'_>, _: Args<'_>) -> CommandResult {
    let views = cx.host.users();
    cx.reply.array(views.len());
    views
        .iter()
        .for_each(|user| cx.reply.bulk(user.name.as_bytes()));
    Ok(())
}

fn whoami(cx: &mut Context<'_>, _: Args<'_>) -> CommandResult {
    match &cx.session.login {
        Some(login) => cx.reply.bulk(login.user.as_bytes()),
        None => cx.reply.null(),
    }
    Ok(())
}

fn setuser(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    if &args[2] != DEFAULT_USER {
        return Err(CommandError::new(
            "ERR ACL SETUSER: users other than 'default' are not supported yet",
        ));
    }
    let mut changes = Vec::new();
    for word in args.tail(3).iter() {
        if let Some(change) = change(word).map_err(|problem| modifier_error(word, problem))? {
            changes.push((word, change));
        }
    }
    let failed = cx.host.change_passwords(&changes);
    failed.map_err(|(word, problem)| modifier_error(word, &problem))?;
    cx.reply.ok();
    Ok(())
}

fn modifier_error(word: &[u8], problem: &str) -> CommandError {
    CommandError::quoting(
        "ERR Error in ACL SETUSER modifier '",
        word,
        &format!("': {problem}"),
    )
}

/// What a rule changes; nothing where it grants what the user has anyway.
fn change(word: &[u8]) -> Result<Option<PasswordChange<'_>>, &'static str> {
    const GRANTED: [&str; 8] = [
        "on",
        "sanitize-payload",
        "~*",
        "&*",
        "+@all",
        "allkeys",
        "allchannels",
        "allcommands",
    ];
    const KNOWN: [&str; 7] = [
        "off",
        "reset",
        "resetkeys",
        "resetchannels",
        "nocommands",
        "skip-sanitize-payload",
        "clearselectors",
    ];
    Ok(Some(match word {
        [b'>', password @ ..] => PasswordChange::Add(password),
        [b'<', password @ ..] => PasswordChange::Remove(password),
        [b'#', digest @ ..] => PasswordChange::AddDigest(parse_digest(digest)?),
        [b'!', digest @ ..] => PasswordChange::RemoveDigest(parse_digest(digest)?),
        _ if args::is(word, "NOPASS") => PasswordChange::NeedNone,
        _ if args::is(word, "RESETPASS") => PasswordChange::Clear,
        _ if GRANTED.iter().any(|rule| args::is(word, rule)) => return Ok(None),
        [b'+' | b'-' | b'~' | b'%' | b'&' | b'(', ..] => return Err(NOT_YET),
        _ if KNOWN.iter().any(|rule| args::is(word, rule)) => return Err(NOT_YET),
        _ => return Err("Syntax error"),
    }))
}

const NOT_YET: &str = "this server does not support the rule yet, user 'default' may do everything";

fn parse_digest(text: &[u8]) -> Result<[u8; 32], &'static str> {
    const WRONG: &str = "The password hash must be exactly 64 characters and contain only lowercase hexadecimal characters";
    let mut digest = [0; 32];
    if text.len() != 2 * digest.len() {
        return Err(WRONG);
    }
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Ok(byte - b'0'),
        b'a'..=b'f' => Ok(byte - b'a' + 10),
        _ => Err(WRONG),
    };
    for (byte, pair) in digest.iter_mut().zip(text.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Ok(digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_that_have_no_effect_are_refused() {
        for word in [
            "off", "-get", "+@read", "~a*", "%R~x", "&news", "reset", "(+get)",
        ] {
            assert_eq!(change(word.as_bytes()), Err(NOT_YET), "{word}");
        }
        for word in ["on", "~*", "+@all", "ALLKEYS"] {
            assert_eq!(change(word.as_bytes()), Ok(None), "{word}");
        }
        assert_eq!(change(b"bogus"), Err("Syntax error"));
        assert_eq!(change(b">a b"), Ok(Some(PasswordChange::Add(b"a b"))));
        assert!(change(b"#00").is_err());
        let digest = "0f".repeat(32);
        assert_eq!(
            change(format!("#{digest}").as_bytes()),
            Ok(Some(PasswordChange::AddDigest([15; 32])))
        );
    }
}
