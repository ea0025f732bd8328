//! Passwords pushed by the operator: which count, and which this server shows to its master.
//!
//! Owns the revision in force. A lower revision is refused, the same one changes nothing. Until the
//! first one counts what the configuration file says. Sessions that logged in with a password that is
//! no longer accepted stay, and a retirement does not wait for them.

use control::proto;
use tonic::Status;

use crate::{
    command::session::Scope,
    config::{Config, ReplicationConfig, SecurityConfig},
    engine::{
        Engine, clock,
        users::{DEFAULT_USER, PasswordDigest, Users, digest},
    },
};

/// The credentials in force.
#[derive(Debug, Default)]
pub struct Credentials {
    revision: u64,
}

/// The passwords of the configuration file, so that clients and members get in before the operator
/// has said anything: `requirepass`, the user for replicas with `masterauth`, and `accept-password`.
pub fn admit_configured(users: &mut Users, config: &Config) {
    let SecurityConfig { requirepass, .. } = &config.security;
    users.set_requirepass(requirepass.as_bytes());
    if !requirepass.is_empty() {
        let digests = configured(config, DEFAULT_USER, requirepass);
        users.set_passwords(DEFAULT_USER, Scope::Everything, digests);
    }
    let ReplicationConfig {
        master_user,
        master_auth,
        ..
    } = &config.replication;
    if !master_user.is_empty() && master_user != DEFAULT_USER && !master_auth.is_empty() {
        let digests = configured(config, master_user, master_auth);
        users.set_passwords(master_user, Scope::Replication, digests);
    }
}

/// `password` and what else `accept-password` gives this user.
fn configured(config: &Config, user: &str, password: &str) -> Vec<PasswordDigest> {
    let more = config.fleet.accepted.iter().filter(|a| a.user == user);
    more.map(|a| a.password.as_str())
        .chain([password])
        .map(|password| digest(password.as_bytes()))
        .collect()
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
            check(request)?;
            apply(engine, request);
            self.revision = request.revision;
            tracing::info!(revision = self.revision, "new credentials are in force");
        }
        Ok(proto::SetCredentialsReply {
            revision: self.revision,
        })
    }
}

fn check(request: &proto::SetCredentialsRequest) -> Result<(), Status> {
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
    // From now on the operator says what is tried, and it knows.
    core.config.fleet.accepted.clear();
    let config = &mut core.config.replication;
    let changed =
        config.master_user != replication.user || config.master_auth != replication.password;
    config.master_user = replication.user;
    config.master_auth = replication.password;
    let revision = replication.since_revision;
    if changed || core.replication.login_revision() != revision {
        // The link logs in anew with the new password, which costs a partial synchronization; a full one is ended first.
        core.replication
            .log_in_anew(revision, clock::monotonic_ms());
        core.role_changed();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::AcceptedPassword;

    #[test]
    fn a_start_accepts_every_password_of_the_file() {
        let accepted = |user: &str, password: &str| AcceptedPassword {
            user: user.to_owned(),
            password: password.to_owned(),
        };
        let mut config = Config::default();
        config.security.requirepass = "c2".to_owned();
        config.replication.master_user = "replication".to_owned();
        config.replication.master_auth = "r1".to_owned();
        config.fleet.accepted = vec![accepted("default", "c1"), accepted("replication", "r2")];
        let mut users = Users::default();
        admit_configured(&mut users, &config);
        let logs_in = |user: &str, password: &str| {
            users
                .authenticate(user.as_bytes(), password.as_bytes())
                .is_some()
        };
        for (user, passwords) in [("default", ["c1", "c2"]), ("replication", ["r1", "r2"])] {
            assert!(passwords.iter().all(|p| logs_in(user, p)), "{user}");
        }
        assert!(!logs_in("default", "r1") && !logs_in("replication", "c1"));
        config.security.requirepass.clear();
        admit_configured(&mut users, &config);
        assert!(
            users.open_login().is_some(),
            "without requirepass nobody is asked"
        );
    }
}
