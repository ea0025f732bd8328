//! Configuration directives pushed by the operator, put in force without a restart where that is
//! possible.
//!
//! Owns the revision in force and which directives it set. A lower revision is refused, the same
//! one changes nothing. A directive that a later revision does not name goes back to its default,
//! so that removing it from the set's specification means what it says.

use std::collections::BTreeSet;

use control::proto;
use sha2::{Digest, Sha256};
use tonic::Status;

use crate::{
    command::host::ConfigHost,
    config::{Config, Demand, Locality, SetError, directive},
    engine::{Engine, State},
};

/// Directives that the operator has set.
#[derive(Debug, Default)]
pub struct Directives {
    revision: u64,
    hash: String,
    names: BTreeSet<String>,
    refused: Vec<proto::RefusedDirective>,
}

impl Directives {
    /// The revision in force.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Hash of the directives set, as the server reports them; empty before the first revision.
    pub fn hash(&self) -> &str {
        &self.hash
    }

    /// Puts a revision in force. What cannot be changed now is named in the answer.
    pub fn set(
        &mut self,
        engine: &Engine,
        request: &proto::SetConfigRequest,
    ) -> Result<proto::SetConfigReply, Status> {
        if request.revision < self.revision {
            let text = format!("revision {} is in force here", self.revision);
            return Err(Status::failed_precondition(text));
        }
        if request.revision > self.revision {
            self.revision = request.revision;
            self.refused = self.apply(engine, &request.directives);
        }
        let (revision, config_hash) = (self.revision, self.hash.clone());
        Ok(proto::SetConfigReply {
            revision,
            config_hash,
            refused: self.refused.clone(),
        })
    }

    fn apply(
        &mut self,
        engine: &Engine,
        wanted: &[proto::Directive],
    ) -> Vec<proto::RefusedDirective> {
        let named: BTreeSet<String> = wanted
            .iter()
            .map(|directive| directive.name.to_ascii_lowercase())
            .collect();
        let defaults = Config::default();
        let dropped = self.names.difference(&named);
        let dropped = dropped.filter_map(|name| {
            let value = directive::find(name)?.get(&defaults);
            Some(proto::Directive {
                name: name.clone(),
                value,
            })
        });
        let changes: Vec<proto::Directive> = dropped.chain(wanted.iter().cloned()).collect();
        let mut refused = Vec::new();
        let mut guard = engine.lock();
        let state = &mut *guard;
        for proto::Directive { name, value } in changes {
            if let Err((message, needs_restart)) = put(state, &name, &value) {
                tracing::warn!(name, message, "a directive of the operator is not in force");
                refused.push(proto::RefusedDirective {
                    name,
                    message,
                    needs_restart,
                });
            }
        }
        let mut hash = Sha256::new();
        for name in &named {
            for (name, value) in state.core.config_get(&[name]) {
                hash.update(format!("{name} {value}\n"));
            }
        }
        self.hash = hash
            .finalize()
            .iter()
            .take(8)
            .map(|byte| format!("{byte:02x}"))
            .collect();
        self.names = named;
        tracing::info!(revision = self.revision, "a new configuration is in force");
        refused
    }
}

/// Puts one value in force. The error says why it is not, and whether a restart is the cure.
fn put(state: &mut State, name: &str, value: &str) -> Result<(), (String, bool)> {
    let wrong = |error: SetError| {
        let text = error.to_string();
        (text.trim_start_matches("ERR ").to_owned(), false)
    };
    let demand = state.core.config.demand(name, value, Locality::Local);
    match demand.map_err(wrong)? {
        Demand::Nothing => Ok(()),
        Demand::Set => {
            let changed = state.core.config.with(&[(name, value)], Locality::Local);
            let changed = changed.map_err(wrong)?;
            state.core.apply_config(changed, &mut state.keyspace);
            Ok(())
        }
        Demand::Restart => Err(("it is read at start only".to_owned(), true)),
    }
}
