//! The Secrets of a set. Generated values come in as arguments; nothing is generated here.
//!
//! ```text
//! <name>-client       what clients read: the published password with everything to connect
//! <name>-replication  what stock replicas outside the set read
//! <name>-server       what members start with, and the operator's memory of every password still accepted
//! ```
//!
//! The first two are written only while their password is generated, and stay as they were when a Secret of the user
//! takes over; a user's own Secret is never written. The third always exists: it is written before any member is told, so that an
//! operator killed in between knows what it did. Members read its files at start; later changes of passwords
//! reach them over the control port, the control token by its file, which they read again and again.

use std::collections::BTreeMap;

use k8s_openapi::{ByteString, api::core::v1::Secret};
use thiserror::Error;

use super::metadata;
use crate::{
    api::names,
    set::{Password, ValidatedSet},
};

/// Key of the file that `redis.conf` includes.
pub const CREDENTIALS_FILE: &str = "credentials.conf";
/// Key of the credential of the control port.
pub const CONTROL_TOKEN_FILE: &str = "control-token";

/// The passwords of one credential that members accept at present.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ring {
    /// Number of the newest.
    pub revision: i64,
    /// The newest.
    pub newest: Password,
    /// The one before it, while both are accepted.
    pub previous: Option<Password>,
}

/// Everything that members start with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerCredentials {
    /// Of clients.
    pub client: Ring,
    /// Of replicas.
    pub replication: Ring,
    /// Of the control port.
    pub control_token: Password,
}

/// Why the Secret of the servers cannot be understood.
#[derive(Debug, Error, PartialEq, Eq)]
#[error(
    "Secret {secret} lacks a usable {key}: correct or restore it, or delete the Secret; it is then made anew with \
     the passwords that are published"
)]
pub struct DamagedSecret {
    /// Name of the Secret.
    pub secret: String,
    /// The key that is missing or wrong.
    pub key: String,
}

impl Ring {
    /// A ring with one password.
    #[must_use]
    pub fn only(revision: i64, password: Password) -> Self {
        Self {
            revision,
            newest: password,
            previous: None,
        }
    }

    /// The password that everybody accepts at any moment of a rotation.
    #[must_use]
    pub fn oldest(&self) -> &Password {
        self.previous.as_ref().unwrap_or(&self.newest)
    }
}

/// The Secret `<name>-client` for a generated password.
#[must_use]
pub fn client_secret(set: &ValidatedSet, password: &Password) -> Secret {
    let host = format!("{}.{}.svc", names::master_service(&set.name), set.namespace);
    let port = names::REDIS_PORT;
    let text = password.expose();
    secret(
        set,
        names::client_secret(&set.name),
        [
            ("username".to_owned(), names::CLIENT_USER.to_owned()),
            (names::PASSWORD_KEY.to_owned(), text.to_owned()),
            ("host".to_owned(), host.clone()),
            (
                "replicas-host".to_owned(),
                format!(
                    "{}.{}.svc",
                    names::replicas_service(&set.name),
                    set.namespace
                ),
            ),
            ("port".to_owned(), port.to_string()),
            (
                "uri".to_owned(),
                format!("redis://{}:{text}@{host}:{port}", names::CLIENT_USER),
            ),
        ],
    )
}

/// The Secret `<name>-replication` for a generated password.
#[must_use]
pub fn replication_secret(set: &ValidatedSet, password: &Password) -> Secret {
    secret(
        set,
        names::replication_secret(&set.name),
        [
            ("username".to_owned(), names::REPLICATION_USER.to_owned()),
            (names::PASSWORD_KEY.to_owned(), password.expose().to_owned()),
        ],
    )
}

/// The Secret `<name>-server`.
#[must_use]
pub fn server_secret(set: &ValidatedSet, credentials: &ServerCredentials) -> Secret {
    let mut data = vec![
        (
            CONTROL_TOKEN_FILE.to_owned(),
            credentials.control_token.expose().to_owned(),
        ),
        (CREDENTIALS_FILE.to_owned(), credentials_conf(credentials)),
    ];
    for (kind, ring) in [
        (CLIENT_PREFIX, &credentials.client),
        (REPLICATION_PREFIX, &credentials.replication),
    ] {
        data.push((
            format!("{kind}{}", ring.revision),
            ring.newest.expose().to_owned(),
        ));
        if let Some(previous) = &ring.previous {
            data.push((
                format!("{kind}{}", ring.revision.saturating_sub(1)),
                previous.expose().to_owned(),
            ));
        }
    }
    secret(set, names::server_secret(&set.name), data)
}

/// The password in a Secret that [`client_secret`] or [`replication_secret`] made, if it can be used.
#[must_use]
pub fn read_published(found: &Secret) -> Option<Password> {
    Password::check(&found.data.as_ref()?.get(names::PASSWORD_KEY)?.0).ok()
}

/// Reads what [`server_secret`] wrote.
pub fn read_server_secret(found: &Secret) -> Result<ServerCredentials, DamagedSecret> {
    let name = found.metadata.name.clone().unwrap_or_default();
    let empty = BTreeMap::new();
    let data = found.data.as_ref().unwrap_or(&empty);
    let damaged = |key: &str| DamagedSecret {
        secret: name.clone(),
        key: key.to_owned(),
    };
    let token = data
        .get(CONTROL_TOKEN_FILE)
        .ok_or_else(|| damaged(CONTROL_TOKEN_FILE))?;
    Ok(ServerCredentials {
        client: read_ring(data, CLIENT_PREFIX).ok_or_else(|| damaged("client password"))?,
        replication: read_ring(data, REPLICATION_PREFIX)
            .ok_or_else(|| damaged("replication password"))?,
        control_token: Password::check(&token.0).map_err(|_| damaged(CONTROL_TOKEN_FILE))?,
    })
}

const CLIENT_PREFIX: &str = "client-";
const REPLICATION_PREFIX: &str = "replication-";

/// More revisions than any set has seen; what comes after one can be counted for ever.
const MAX_REVISION: i64 = 1 << 40;

/// The revision that a key tells of, if it is one that [`server_secret`] writes: `client-01` beside `client-1` is a
/// stranger's.
fn revision(key: &str, prefix: &str) -> Option<i64> {
    let digits = key.strip_prefix(prefix)?;
    let revision = digits.parse().ok()?;
    let is_ours = (0..=MAX_REVISION).contains(&revision) && revision.to_string() == digits;
    is_ours.then_some(revision)
}

/// The two highest revisions of a credential, if the second follows on the first.
fn read_ring(data: &BTreeMap<String, ByteString>, prefix: &str) -> Option<Ring> {
    let mut found: Vec<(i64, Password)> = data
        .iter()
        .filter_map(|(key, value)| Some((revision(key, prefix)?, Password::check(&value.0).ok()?)))
        .collect();
    found.sort_by_key(|(revision, _)| std::cmp::Reverse(*revision));
    let mut found = found.into_iter();
    let (revision, newest) = found.next()?;
    let previous = found
        .next()
        .filter(|(older, _)| older.saturating_add(1) == revision)
        .map(|(_, password)| password);
    Some(Ring {
        revision,
        newest,
        previous,
    })
}

/// What a member accepts and presents until the operator has told it more: everything that is accepted now.
/// Kubernetes brings a change of this file to a running pod only after a minute or so, and the file as it was
/// before the last change must do, too. A member that finds its `masterauth` refused tries what else the user
/// of replicas may have, so it gets in before, during and after a rotation.
fn credentials_conf(credentials: &ServerCredentials) -> String {
    let (client, replication) = (&credentials.client, &credentials.replication);
    let mut text = format!(
        "requirepass {}\nmasteruser {}\nmasterauth {}\n",
        quoted(client.newest.expose()),
        names::REPLICATION_USER,
        quoted(replication.oldest().expose()),
    );
    if let Some(previous) = &client.previous {
        text.push_str(&accepted(names::CLIENT_USER, previous));
    }
    if replication.previous.is_some() {
        text.push_str(&accepted(names::REPLICATION_USER, &replication.newest));
    }
    text
}

/// The line that has a member accept one more password.
fn accepted(user: &str, password: &Password) -> String {
    format!("accept-password {user} {}\n", quoted(password.expose()))
}

/// A word of `redis.conf`, whatever it contains.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

fn secret(
    set: &ValidatedSet,
    name: String,
    data: impl IntoIterator<Item = (String, String)>,
) -> Secret {
    Secret {
        metadata: metadata(set, name),
        type_: Some("Opaque".to_owned()),
        data: Some(
            data.into_iter()
                .map(|(key, text)| (key, ByteString(text.into_bytes())))
                .collect(),
        ),
        ..Secret::default()
    }
}
