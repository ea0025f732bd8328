//! CONFIG GET and CONFIG SET, apart from their replies.
//!
//! CONFIG SET makes a whole new [`Config`] from the old one and its pairs, or an error; the caller puts it in
//! force at once and tells the parts that must act on a change, by the names in [`Changed`].

use thiserror::Error;

use super::directive::{self, Change, Directive};
use super::kind::Occurrence;
use super::{Config, Permission};
use crate::glob;

/// Where the client that wants a change sits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Locality {
    /// On this machine.
    Local,
    /// Elsewhere.
    Remote,
}

/// Why CONFIG SET changed nothing. The text is the error reply.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum SetError {
    /// No such directive.
    #[error("ERR Unknown option or number of arguments for CONFIG SET - '{0}'")]
    Unknown(String),
    /// A directive or value that cannot be set.
    #[error("ERR CONFIG SET failed (possibly related to argument '{name}') - {problem}")]
    Failed {
        /// The directive as the client wrote it.
        name: String,
        /// Redis's words where it has some.
        problem: String,
    },
}

/// A new configuration and what is new in it.
#[derive(Clone, PartialEq, Debug)]
pub struct Changed {
    /// The configuration to put in force.
    pub config: Config,
    /// Names of the directives whose value differs, in the order given. Setting a password to its present value
    /// counts too: it replaces all passwords.
    pub names: Vec<&'static str>,
}

/// What it takes to put a value in force.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Demand {
    /// It is in force.
    Nothing,
    /// CONFIG SET.
    Set,
    /// A new start with the value in the file.
    Restart,
}

impl Config {
    /// What it takes to put `value` in force, or why that cannot be done at all.
    pub fn demand(&self, name: &str, value: &str, client: Locality) -> Result<Demand, SetError> {
        let directive = directive::find(name).ok_or_else(|| SetError::Unknown(name.to_owned()))?;
        let mut wanted = self.clone();
        directive
            .kind
            .set(directive.name, &mut wanted, &[value], Occurrence::First)
            .map_err(|problem| failed(name, &problem))?;
        if directive.get(self) == directive.get(&wanted) {
            return Ok(Demand::Nothing);
        }
        wanted.check().map_err(|problem| failed(name, &problem))?;
        Ok(match directive.change {
            // What has no effect is worth no new start.
            Change::AtStart if directive.is_compatibility() => Demand::Nothing,
            Change::AtStart => Demand::Restart,
            Change::Protected if !self.permits_protected(client) => Demand::Restart,
            Change::Protected | Change::Live => Demand::Set,
        })
    }

    /// Applies all pairs or none.
    pub fn with(&self, pairs: &[(&str, &str)], client: Locality) -> Result<Changed, SetError> {
        let mut known: Vec<(&Directive, &str, &str)> = Vec::with_capacity(pairs.len());
        for (name, value) in pairs {
            let directive =
                directive::find(name).ok_or_else(|| SetError::Unknown((*name).to_owned()))?;
            let refuse = |problem: &str| Err(failed(name, problem));
            match directive.change {
                Change::AtStart => return refuse("can't set immutable config"),
                Change::Protected if !self.permits_protected(client) => {
                    return refuse("can't set protected config");
                }
                Change::Protected | Change::Live => {}
            }
            if known
                .iter()
                .any(|(other, _, _)| other.name == directive.name)
            {
                return refuse("duplicate parameter");
            }
            known.push((directive, name, value));
        }
        let mut config = self.clone();
        for (directive, name, value) in &known {
            let set = directive
                .kind
                .set(directive.name, &mut config, &[value], Occurrence::First);
            set.map_err(|problem| failed(name, &problem))?;
        }
        config.cap_hz();
        config
            .check()
            .map_err(|problem| failed(known.first().map_or("", |k| k.1), &problem))?;
        let differs = |d: &&Directive| d.is_secret() || d.get(self) != d.get(&config);
        let names = known
            .iter()
            .map(|(d, _, _)| *d)
            .filter(differs)
            .map(|d| d.name)
            .collect();
        Ok(Changed { config, names })
    }

    /// Names and values of all directives that match any of the patterns, in the order of the patterns, each once.
    /// Aliases are names of their own.
    pub fn matching(&self, patterns: &[&str]) -> Vec<(String, String)> {
        let mut found: Vec<(String, String)> = Vec::new();
        let mut add = |name: &str, directive: &Directive| {
            if !found.iter().any(|(known, _)| known == name) {
                found.push((name.to_owned(), directive.get(self)));
            }
        };
        for pattern in patterns {
            if !glob::is_pattern(pattern.as_bytes()) {
                if let Some(directive) = directive::find(pattern) {
                    add(&pattern.to_ascii_lowercase(), directive);
                }
                continue;
            }
            let hit = |name: &str| {
                glob::matches(pattern.as_bytes(), name.as_bytes(), glob::Case::Insensitive)
            };
            for directive in directive::all() {
                let names = [Some(directive.name), directive.alias];
                names
                    .into_iter()
                    .flatten()
                    .filter(|name| hit(name))
                    .for_each(|name| add(name, directive));
            }
        }
        found
    }

    fn permits_protected(&self, client: Locality) -> bool {
        match self.security.protected_configs {
            Permission::No => false,
            Permission::Local => client == Locality::Local,
            Permission::Yes => true,
        }
    }
}

fn failed(name: &str, problem: &str) -> SetError {
    SetError::Failed {
        name: name.to_owned(),
        problem: problem.to_owned(),
    }
}
