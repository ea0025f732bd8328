//! Credentials that are yet to be written.
//!
//! Made by `plan::secrets`, which has no chance and so generates nothing; finished by `apply`, which
//! generates what is missing and writes all of it at once. One draft holds everything that a plan
//! changes of the Secret of the servers: two writes of one plan would each be made from the same old
//! Secret, and the second would undo the first.

use super::step::CredentialKind;
use crate::{
    resources::secrets::{Ring, ServerCredentials},
    set::Password,
};

/// A password of a draft.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NewPassword {
    /// To be generated.
    Generated,
    /// This one.
    Given(Password),
}

/// The passwords of one credential to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RingDraft {
    /// Number of the newest.
    pub revision: i64,
    /// The newest.
    pub newest: NewPassword,
    /// The one before it, while both are accepted.
    pub previous: Option<Password>,
}

/// What the Secret of the servers shall hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CredentialsDraft {
    /// Of clients.
    pub client: RingDraft,
    /// Of replicas.
    pub replication: RingDraft,
    /// Of the control port.
    pub control_token: NewPassword,
}

impl NewPassword {
    fn made(self, generate: impl FnOnce() -> Password) -> Password {
        match self {
            Self::Generated => generate(),
            Self::Given(password) => password,
        }
    }
}

impl RingDraft {
    /// These passwords.
    #[must_use]
    pub fn of(ring: &Ring) -> Self {
        Self {
            revision: ring.revision,
            newest: NewPassword::Given(ring.newest.clone()),
            previous: ring.previous.clone(),
        }
    }

    /// One password and none before it.
    #[must_use]
    pub fn only(revision: i64, newest: NewPassword) -> Self {
        Self {
            revision,
            newest,
            previous: None,
        }
    }

    fn made(self, generate: impl FnOnce() -> Password) -> Ring {
        Ring {
            revision: self.revision,
            newest: self.newest.made(generate),
            previous: self.previous,
        }
    }
}

impl CredentialsDraft {
    /// These credentials.
    #[must_use]
    pub fn of(credentials: &ServerCredentials) -> Self {
        Self {
            client: RingDraft::of(&credentials.client),
            replication: RingDraft::of(&credentials.replication),
            control_token: NewPassword::Given(credentials.control_token.clone()),
        }
    }

    /// The passwords of one credential.
    #[must_use]
    pub fn ring(&mut self, kind: CredentialKind) -> &mut RingDraft {
        match kind {
            CredentialKind::Client => &mut self.client,
            CredentialKind::Replication => &mut self.replication,
        }
    }

    /// The credentials, with `generate` for what is to be generated.
    #[must_use]
    pub fn made(self, mut generate: impl FnMut() -> Password) -> ServerCredentials {
        ServerCredentials {
            client: self.client.made(&mut generate),
            replication: self.replication.made(&mut generate),
            control_token: self.control_token.made(generate),
        }
    }
}
