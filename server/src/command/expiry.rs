//! When keys expire: EXPIRE, PERSIST, TTL and their kin.
//!
//! What travels to replicas is absolute and certain: every form of EXPIRE as PEXPIREAT, an expiry in the past as DEL.

use resp::Args;

use super::{
    CommandError, CommandSpec, Context, Group, KeySpec,
    args::{self, TimeBase, TimeUnit},
    error::CommandResult,
    spec::Handler,
};
use crate::keyspace::{Entry, ExpiryRule};

const fn spec(name: &'static str, arity: i32, handler: Handler) -> CommandSpec {
    CommandSpec::new(name, Group::Generic, arity, handler)
}

/// The family's commands.
pub const COMMANDS: &[CommandSpec] = &[
    spec("expire", -3, expire)
        .writes(KeySpec::FIRST)
        .fast()
        .doc("1.0.0", "Sets the expiration time of a key in seconds."),
    spec("pexpire", -3, pexpire)
        .writes(KeySpec::FIRST)
        .fast()
        .doc(
            "2.6.0",
            "Sets the expiration time of a key in milliseconds.",
        ),
    spec("expireat", -3, expireat)
        .writes(KeySpec::FIRST)
        .fast()
        .doc(
            "1.2.0",
            "Sets the expiration time of a key to a Unix timestamp.",
        ),
    spec("pexpireat", -3, pexpireat)
        .writes(KeySpec::FIRST)
        .fast()
        .doc(
            "2.6.0",
            "Sets the expiration time of a key to a Unix milliseconds timestamp.",
        ),
    spec("persist", 2, persist)
        .writes(KeySpec::FIRST)
        .fast()
        .doc("2.2.0", "Removes the expiration time of a key."),
    spec("ttl", 2, ttl)
        .reads(KeySpec::FIRST)
        .fast()
        .doc("1.0.0", "Returns the expiration time in seconds of a key."),
    spec("pttl", 2, pttl).reads(KeySpec::FIRST).fast().doc(
        "2.6.0",
        "Returns the expiration time in milliseconds of a key.",
    ),
    spec("expiretime", 2, expiretime)
        .reads(KeySpec::FIRST)
        .fast()
        .doc(
            "7.0.0",
            "Returns the expiration time of a key as a Unix timestamp.",
        ),
    spec("pexpiretime", 2, pexpiretime)
        .reads(KeySpec::FIRST)
        .fast()
        .doc(
            "7.0.0",
            "Returns the expiration time of a key as a Unix milliseconds timestamp.",
        ),
];

fn expire(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    set_expiry(cx, args, TimeUnit::Seconds, TimeBase::Relative, "expire")
}

fn pexpire(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    set_expiry(
        cx,
        args,
        TimeUnit::Milliseconds,
        TimeBase::Relative,
        "pexpire",
    )
}

fn expireat(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    set_expiry(cx, args, TimeUnit::Seconds, TimeBase::Absolute, "expireat")
}

fn pexpireat(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    set_expiry(
        cx,
        args,
        TimeUnit::Milliseconds,
        TimeBase::Absolute,
        "pexpireat",
    )
}

/// Under which condition EXPIRE and its kin act: the words behind the time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct ExpireCondition {
    presence: Option<Presence>,
    order: Option<Order>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Presence {
    /// NX
    WithoutExpiry,
    /// XX
    WithExpiry,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    /// GT
    Later,
    /// LT
    Earlier,
}

impl ExpireCondition {
    fn parse(words: Args<'_>) -> Result<Self, CommandError> {
        const NX_EXCLUDES: CommandError = CommandError::new(
            "ERR NX and XX, GT or LT options at the same time are not compatible",
        );
        const GT_EXCLUDES: CommandError =
            CommandError::new("ERR GT and LT options at the same time are not compatible");
        let (mut nx, mut xx, mut gt, mut lt) = (false, false, false, false);
        for word in words.iter() {
            let known = [
                ("NX", &mut nx),
                ("XX", &mut xx),
                ("GT", &mut gt),
                ("LT", &mut lt),
            ];
            match known.into_iter().find(|(name, _)| args::is(word, name)) {
                Some((_, flag)) => *flag = true,
                None => {
                    return Err(CommandError::quoting("ERR Unsupported option ", word, ""));
                }
            }
        }
        if nx && (xx || gt || lt) {
            return Err(NX_EXCLUDES);
        }
        if gt && lt {
            return Err(GT_EXCLUDES);
        }
        Ok(Self {
            presence: match (nx, xx) {
                (true, _) => Some(Presence::WithoutExpiry),
                (false, true) => Some(Presence::WithExpiry),
                (false, false) => None,
            },
            order: match (gt, lt) {
                (true, _) => Some(Order::Later),
                (false, true) => Some(Order::Earlier),
                (false, false) => None,
            },
        })
    }

    /// Whether an expiry may change from `old` to `new`; none counts as later than any.
    fn allows(self, old: Option<i64>, new: i64) -> bool {
        let by_presence = match self.presence {
            None => true,
            Some(Presence::WithoutExpiry) => old.is_none(),
            Some(Presence::WithExpiry) => old.is_some(),
        };
        let by_order = match self.order {
            None => true,
            Some(Order::Later) => old.is_some_and(|old| new > old),
            Some(Order::Earlier) => old.is_none_or(|old| new < old),
        };
        by_presence && by_order
    }
}

fn set_expiry(
    cx: &mut Context<'_>,
    args: Args<'_>,
    unit: TimeUnit,
    base: TimeBase,
    command: &str,
) -> CommandResult {
    let condition = ExpireCondition::parse(args.tail(3))?;
    let at = args::expire_at(&args[2], unit, base, cx.now_ms, command)?;
    let key = &args[1];
    let rule = cx.keyspace.context().expiry;
    let Some(mut entry) = cx.keyspace.db(cx.session.db).get_mut(key) else {
        cx.reply.integer(0);
        return Ok(());
    };
    if !condition.allows(entry.expire_at(), at) {
        cx.reply.integer(0);
        return Ok(());
    }
    // A time in the past deletes the key; on a replica the master's DEL does.
    if at <= cx.now_ms && rule == ExpiryRule::Delete {
        entry.delete();
        cx.effects.propagate([b"DEL", key]);
    } else {
        entry.set_expiry(Some(at));
        let at = resp::format_i64(at);
        let words = [b"PEXPIREAT".as_slice(), key, &*at]
            .into_iter()
            .chain(args.tail(3).iter());
        cx.effects.propagate(words.collect::<Vec<_>>());
    }
    cx.effects.changed(1);
    cx.reply.integer(1);
    Ok(())
}

fn persist(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    let entry = cx.keyspace.db(cx.session.db).get_mut(&args[1]);
    let entry = entry.filter(|entry| entry.expire_at().is_some());
    let changed = u64::from(entry.is_some());
    if let Some(mut entry) = entry {
        entry.set_expiry(None);
    }
    cx.effects.changed(changed);
    cx.reply.integer(changed as i64);
    Ok(())
}

fn ttl(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    let now_ms = cx.now_ms;
    reply_expiry(cx, &args[1], |at| {
        (at.saturating_sub(now_ms).max(0).saturating_add(500)) / 1000
    })
}

fn pttl(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    let now_ms = cx.now_ms;
    reply_expiry(cx, &args[1], |at| at.saturating_sub(now_ms).max(0))
}

fn expiretime(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    reply_expiry(cx, &args[1], |at| at.saturating_add(500) / 1000)
}

fn pexpiretime(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    reply_expiry(cx, &args[1], |at| at)
}

/// -2 for no key, -1 for a key without expiry, else what `show` makes of the expiry.
fn reply_expiry(cx: &mut Context<'_>, key: &[u8], show: impl FnOnce(i64) -> i64) -> CommandResult {
    let reply = match cx
        .keyspace
        .db(cx.session.db)
        .inspect(key)
        .map(Entry::expire_at)
    {
        None => -2,
        Some(None) => -1,
        Some(Some(at)) => show(at),
    };
    cx.reply.integer(reply);
    Ok(())
}

#[cfg(test)]
mod tests {
    use resp::OwnedArgs;

    use super::*;

    fn condition(words: &[&str]) -> Result<ExpireCondition, CommandError> {
        let mut args = OwnedArgs::from_args(Args::new(&[], &[]));
        words.iter().for_each(|word| args.push(word.as_bytes()));
        ExpireCondition::parse(args.as_args())
    }

    #[test]
    fn conditions_of_expire_exclude_each_other_as_in_redis() {
        for pair in [["nx", "xx"], ["NX", "gt"], ["lt", "nx"]] {
            let text = "ERR NX and XX, GT or LT options at the same time are not compatible";
            assert_eq!(condition(&pair), Err(CommandError::new(text)));
        }
        let text = "ERR GT and LT options at the same time are not compatible";
        assert_eq!(condition(&["GT", "LT"]), Err(CommandError::new(text)));
        assert_eq!(
            condition(&["foo"]),
            Err(CommandError::new("ERR Unsupported option foo"))
        );
        assert!(condition(&["xx", "gt"]).is_ok() && condition(&["xx", "lt"]).is_ok());
    }

    #[test]
    fn no_expiry_counts_as_later_than_any() {
        let allows = |words: &[&str], old, new| {
            condition(words)
                .expect("the words are compatible")
                .allows(old, new)
        };
        assert!(allows(&[], None, 5) && allows(&[], Some(9), 5));
        assert!(allows(&["nx"], None, 5) && !allows(&["nx"], Some(9), 5));
        assert!(!allows(&["xx"], None, 5) && allows(&["xx"], Some(9), 5));
        assert!(
            !allows(&["gt"], None, 5)
                && !allows(&["gt"], Some(5), 5)
                && allows(&["gt"], Some(4), 5)
        );
        assert!(
            allows(&["lt"], None, 5) && !allows(&["lt"], Some(5), 5) && allows(&["lt"], Some(6), 5)
        );
        assert!(!allows(&["xx", "lt"], None, 5));
    }
}
