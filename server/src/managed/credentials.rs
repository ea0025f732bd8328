//! Passwords pushed by the operator: which count, which this server shows to its master, and which
//! are still in use.
//!
//! Owns the revision in force and the memory of which revision brought which password. A lower
//! revision is refused, the same one changes nothing. Sessions that logged in with a password that
//! is no longer accepted stay; the oldest revision that any session uses is reported, so that the
//! operator retires a password only when nobody lives on it.

use std::collections::BTreeMap;

use control::proto;
use tonic::Status;

use crate::{
    command::session::Scope,
    config::Config,
    engine::{
        Engine,
        users::{DEFAULT_USER, PasswordDigest, Users, digest},
    },
};

/// Passwords remembered for the report of what is in use, at most.
const MAX_REMEMBERED: usize = 1_024;

/// The credentials in force.
#[derive(Debug, Default)]
pub struct Credentials {
    revision: u64,
    /// Which revision brought which password, for those that may still be in use.
    since: BTreeMap<PasswordDigest, u64>,
}

/// The user for replicas that the configuration file names, so that members of a set understand
/// each other before the operator has said anything.
pub fn admit_replication_user(users: &mut Users, config: &Config) {
    let (user, password) = (
        &config.replication.master_user,
        &config.replication.master_auth,
    );
    if !user.is_empty() && user != DEFAULT_USER && !password.is_empty() {
        users.set_passwords(user, Scope::Replication, vec![digest(password.as_bytes())]);
    }
}

impl Credentials {
    /// The revision in force.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Puts a revision in force.
    pub fn set(
        &mut self,
        engine: &Engine,
        request: &proto::SetCredentialsRequest,
    ) -> Result<proto::SetCredentialsReply, Status> {
        if request.revision < self.revision {
            let text = format!("revision {} is in force here", self.revision);
            return Err(Status::failed_precondition(text));
        }
        if request.revision > self.revision {
            self.check(request)?;
            self.remember(request);
            apply(engine, request);
            self.revision = request.revision;
            tracing::info!(revision = self.revision, "new credentials are in force");
        }
        Ok(proto::SetCredentialsReply {
            revision: self.revision,
        })
    }

    fn check(&self, request: &proto::SetCredentialsRequest) -> Result<(), Status> {
        let unnamed = request.users.iter().any(|user| user.name.is_empty());
        let empty = request.users.iter().flat_map(|user| &user.passwords);
        let empty = empty
            .filter(|accepted| accepted.password.is_empty())
            .count();
        if unnamed || empty > 0 {
            return Err(Status::invalid_argument(
                "a user has no name, or a password is empty",
            ));
        }
        // Without this a request that lacks the user would open the server to everybody.
        let default = request.users.iter().find(|user| user.name == DEFAULT_USER);
        if default.is_none_or(|user| user.passwords.is_empty()) {
            return Err(Status::invalid_argument("user default needs a password"));
        }
        Ok(())
    }

    fn remember(&mut self, request: &proto::SetCredentialsRequest) {
        for accepted in request.users.iter().flat_map(|user| &user.passwords) {
            let digest = digest(accepted.password.as_bytes());
            self.since.insert(digest, accepted.since_revision);
        }
        while self.since.len() > MAX_REMEMBERED {
            let oldest = self.since.iter().min_by_key(|(_, since)| **since);
            let Some(oldest) = oldest.map(|(digest, _)| *digest) else {
                break;
            };
            self.since.remove(&oldest);
        }
    }

    /// The oldest revision whose password a living session logged in with. A session that uses a
    /// password of unknown age, from before the first revision, counts as revision 0.
    pub fn oldest_in_use(&self, engine: &Engine) -> Option<u64> {
        let in_use = engine.shared.clients.credentials();
        in_use
            .iter()
            .map(|digest| self.since.get(digest).copied().unwrap_or(0))
            .min()
    }
}

fn apply(engine: &Engine, request: &proto::SetCredentialsRequest) {
    let replication = request.replication.clone().unwrap_or_default();
    let mut state = engine.lock();
    let core = &mut state.core;
    let gone: Vec<String> = core
        .users
        .iter()
        .map(|user| user.name.to_string())
        .filter(|name| request.users.iter().all(|user| user.name != *name))
        .collect();
    for name in gone {
        core.users
            .set_passwords(&name, Scope::Replication, Vec::new());
    }
    for user in &request.users {
        let digests = user
            .passwords
            .iter()
            .map(|p| digest(p.password.as_bytes()))
            .collect();
        let scope = if user.name == replication.user && user.name != DEFAULT_USER {
            Scope::Replication
        } else {
            Scope::Everything
        };
        core.users.set_passwords(&user.name, scope, digests);
    }
    let config = &mut core.config.replication;
    let changed =
        config.master_user != replication.user || config.master_auth != replication.password;
    config.master_user = replication.user;
    config.master_auth = replication.password;
    let revision = replication.since_revision;
    if changed || core.replication.login_revision() != revision {
        // The link logs in anew with the new password, which costs a partial synchronization.
        core.replication.log_in_anew(revision);
        core.role_changed();
    }
}
