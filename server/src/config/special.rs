//! The directives whose values have a grammar of their own: `bind`, `dir`, `save`, `replicaof`,
//! `client-output-buffer-limit`, `accept-password`; and the checks on texts. Error texts are Redis's where it has one.

use std::path::Path;

use super::kind::{Kind, Problem, WRONG_ARGUMENTS, format_bytes, parse_bytes, quote};
use super::{AcceptedPassword, BindAddress, Config, HostPort, OutputLimit, SavePoint};

/// Most addresses in `bind`.
const MAX_BIND_ADDRESSES: usize = 16;

/// Most pairs in `save`; more cannot mean anything sensible.
const MAX_SAVE_POINTS: usize = 64;

/// Most lines of `accept-password`: two users with an old and a new password need two.
const MAX_ACCEPTED_PASSWORDS: usize = 16;

/// Longest password or name in bytes.
const MAX_SECRET_BYTES: usize = 512;

pub(super) const fn bind() -> Kind {
    fn set(config: &mut Config, words: &[&str]) -> Result<(), Problem> {
        let words: Vec<&str> = words
            .iter()
            .flat_map(|w| w.split_ascii_whitespace())
            .collect();
        if words.len() > MAX_BIND_ADDRESSES {
            return Err("Too many bind addresses specified.".into());
        }
        config.net.bind = words.into_iter().map(BindAddress::new).collect();
        Ok(())
    }
    fn get(config: &Config) -> String {
        config
            .net
            .bind
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(" ")
    }
    fn lines(config: &Config) -> Vec<String> {
        let words = config
            .net
            .bind
            .iter()
            .map(|address| quote(&address.to_string()));
        let line = words.collect::<Vec<_>>().join(" ");
        vec![if line.is_empty() { quote("") } else { line }]
    }
    Kind::Words {
        get,
        set,
        add: set,
        lines,
    }
}

pub(super) const fn dir() -> Kind {
    fn set(config: &mut Config, word: &str) -> Result<(), Problem> {
        let path = config.persistence.dir.join(word);
        match std::fs::metadata(&path) {
            Err(error) => Err(plain_os_error(&error).into()),
            Ok(found) if !found.is_dir() => Err("Not a directory".into()),
            Ok(_) => {
                let path = path
                    .canonicalize()
                    .map_err(|error| plain_os_error(&error))?;
                config.persistence.dir = path;
                Ok(())
            }
        }
    }
    Kind::Text {
        get: |c| c.persistence.dir.to_string_lossy().into_owned(),
        set,
    }
}

/// The system's text without Rust's error number behind it, as Redis shows it.
fn plain_os_error(error: &std::io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error")
        .next()
        .unwrap_or_default()
        .to_owned()
}

pub(super) const fn save() -> Kind {
    fn add(config: &mut Config, words: &[&str]) -> Result<(), Problem> {
        let words: Vec<&str> = words
            .iter()
            .flat_map(|w| w.split_ascii_whitespace())
            .collect();
        if words.is_empty() {
            config.persistence.save_points.clear();
            return Ok(());
        }
        let mut points = Vec::new();
        for pair in words.chunks(2) {
            let number = |at: usize| {
                pair.get(at)
                    .and_then(|w| w.parse::<u32>().ok())
                    .map(u64::from)
            };
            match (number(0), number(1)) {
                (Some(seconds), Some(changes)) if seconds > 0 => {
                    points.push(SavePoint { seconds, changes })
                }
                _ => return Err("Invalid save parameters".into()),
            }
        }
        config.persistence.save_points.extend(points);
        if config.persistence.save_points.len() > MAX_SAVE_POINTS {
            return Err("Invalid save parameters".into());
        }
        Ok(())
    }
    fn set(config: &mut Config, words: &[&str]) -> Result<(), Problem> {
        if words.is_empty() {
            return Err(WRONG_ARGUMENTS.into());
        }
        let before = std::mem::take(&mut config.persistence.save_points);
        add(config, words).inspect_err(|_| config.persistence.save_points = before)
    }
    fn lines(config: &Config) -> Vec<String> {
        match config.persistence.save_points.as_slice() {
            [] => vec![quote("")],
            points => points.iter().map(ToString::to_string).collect(),
        }
    }
    Kind::Words {
        get: |c| {
            c.persistence
                .save_points
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join(" ")
        },
        set,
        add,
        lines,
    }
}

pub(super) const fn replica_of() -> Kind {
    fn set(config: &mut Config, words: &[&str]) -> Result<(), Problem> {
        let words: Vec<&str> = words
            .iter()
            .flat_map(|w| w.split_ascii_whitespace())
            .collect();
        config.replication.replica_of = match words.as_slice() {
            [] => None,
            [no, one] if no.eq_ignore_ascii_case("no") && one.eq_ignore_ascii_case("one") => None,
            [host, port] => match port.parse::<u16>() {
                Ok(port) if port > 0 => Some(HostPort {
                    host: (*host).to_owned(),
                    port,
                }),
                _ => return Err("Invalid master port".into()),
            },
            _ => return Err(WRONG_ARGUMENTS.into()),
        };
        Ok(())
    }
    fn get(config: &Config) -> String {
        config
            .replication
            .replica_of
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default()
    }
    fn lines(config: &Config) -> Vec<String> {
        let line = |to: &HostPort| format!("{} {}", quote(&to.host), to.port);
        config.replication.replica_of.iter().map(line).collect()
    }
    Kind::Words {
        get,
        set,
        add: set,
        lines,
    }
}

pub(super) const fn output_limits() -> Kind {
    fn set(config: &mut Config, words: &[&str]) -> Result<(), Problem> {
        if words.is_empty() {
            return Err(WRONG_ARGUMENTS.into());
        }
        let words: Vec<&str> = words
            .iter()
            .flat_map(|w| w.split_ascii_whitespace())
            .collect();
        let (groups, []) = words.as_chunks() else {
            return Err("Wrong number of arguments in buffer limit configuration.".into());
        };
        let mut limits = config.net.output_limits;
        for [class, hard, soft, seconds] in groups {
            let class = class.to_ascii_lowercase();
            let limit = match class.as_str() {
                "normal" => &mut limits.normal,
                "replica" | "slave" => &mut limits.replica,
                "pubsub" => &mut limits.pubsub,
                _ => {
                    return Err(
                        "Invalid client class specified in buffer limit configuration.".into(),
                    );
                }
            };
            let parsed = (parse_bytes(hard), parse_bytes(soft), seconds.parse::<u32>());
            let (Some(hard_bytes), Some(soft_bytes), Ok(seconds)) = parsed else {
                return Err(
                    "Error in hard, soft or soft_seconds setting in buffer limit configuration."
                        .into(),
                );
            };
            *limit = OutputLimit {
                hard_bytes,
                soft_bytes,
                soft_seconds: u64::from(seconds),
            };
        }
        config.net.output_limits = limits;
        Ok(())
    }
    fn get(config: &Config) -> String {
        let limits = &config.net.output_limits;
        format!(
            "normal {} slave {} pubsub {}",
            limits.normal, limits.replica, limits.pubsub
        )
    }
    fn lines(config: &Config) -> Vec<String> {
        let limits = &config.net.output_limits;
        [
            ("normal", limits.normal),
            ("replica", limits.replica),
            ("pubsub", limits.pubsub),
        ]
        .into_iter()
        .map(|(class, limit)| {
            let (hard, soft) = (
                format_bytes(limit.hard_bytes),
                format_bytes(limit.soft_bytes),
            );
            format!("{class} {hard} {soft} {}", limit.soft_seconds)
        })
        .collect()
    }
    Kind::Words {
        get,
        set,
        add: set,
        lines,
    }
}

pub(super) const fn accept_password() -> Kind {
    fn add(config: &mut Config, words: &[&str]) -> Result<(), Problem> {
        let [user, password] = words else {
            return Err(WRONG_ARGUMENTS.into());
        };
        check_word(user)?;
        check_password(password)?;
        if user.is_empty() || password.is_empty() {
            return Err("user and password must not be empty".into());
        }
        if config.fleet.accepted.len() == MAX_ACCEPTED_PASSWORDS {
            return Err("more than 16 lines".into());
        }
        config.fleet.accepted.push(AcceptedPassword {
            user: (*user).to_owned(),
            password: (*password).to_owned(),
        });
        Ok(())
    }
    fn set(config: &mut Config, words: &[&str]) -> Result<(), Problem> {
        config.fleet.accepted.clear();
        add(config, words)
    }
    fn lines(config: &Config) -> Vec<String> {
        let line = |a: &AcceptedPassword| format!("{} {}", quote(&a.user), quote(&a.password));
        config.fleet.accepted.iter().map(line).collect()
    }
    Kind::Words {
        get: |c| lines(c).join(" "),
        set,
        add,
        lines,
    }
}

/// The snapshot's name must stay within `dir`.
pub(super) fn check_file_name(word: &str) -> Result<(), Problem> {
    let name = Path::new(word).file_name().and_then(|name| name.to_str());
    if name == Some(word) {
        Ok(())
    } else {
        Err("dbfilename can't be a path, just a filename".into())
    }
}

pub(super) fn check_password(word: &str) -> Result<(), Problem> {
    if word.len() > MAX_SECRET_BYTES {
        return Err(format!("argument must be at most {MAX_SECRET_BYTES} bytes long").into());
    }
    Ok(())
}

/// For names and addresses, which are printed between other fields of a line.
pub(super) fn check_control_bind(word: &str) -> Result<(), Problem> {
    if word == "*" || word.parse::<std::net::IpAddr>().is_ok() {
        Ok(())
    } else {
        Err("argument must be an IP address, or * for every address".into())
    }
}

pub(super) fn check_word(word: &str) -> Result<(), Problem> {
    check_password(word)?;
    if word
        .chars()
        .any(|c| c.is_whitespace() || c.is_control() || c == ',' || c == '=')
    {
        return Err("argument must not contain blanks, commas or equal signs".into());
    }
    Ok(())
}
