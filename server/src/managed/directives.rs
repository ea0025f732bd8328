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
    config::{Config, Locality, directive},
    engine::Engine,
};

/// Directives that the operator has set.
#[derive(Debug, Default)]
pub struct Directives {
    revision: u64,
    hash: String,
    names: BTreeSet<String>,
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
        let refused = if request.revision > self.revision {
            self.revision = request.revision;
            self.apply(engine, &request.directives)
        } else {
            Vec::new()
        };
        let (revision, config_hash) = (self.revision, self.hash.clone());
        Ok(proto::SetConfigReply {
            revision,
            config_hash,
            refused,
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
            let before = state.core.config_get(&[&name]);
            if before.iter().any(|(_, present)| *present == value) {
                continue;
            }
            let pair = (name.as_str(), value.as_str());
            let set = state
                .core
                .config_set(&[pair], Locality::Local, &mut state.keyspace);
            if let Err(error) = set {
                let message = error.text().to_owned();
                tracing::warn!(name, message, "a directive of the operator is not in force");
                refused.push(proto::RefusedDirective { name, message });
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
