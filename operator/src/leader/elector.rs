//! The loop that holds the Lease, with the API client.
//!
//! Started once by `main run`. Every request has its own short deadline: kube's client retries by
//! itself, and a renewal that arrives late is worse than one that failed.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
};
use kube::{Api, api::PostParams};
use thiserror::Error;
use tokio::{sync::watch, time};
use tracing::{debug, info, warn};

use super::{
    gate::Gate,
    lease::{Action, LEASE_DURATION, RENEW_DEADLINE, RETRY_PERIOD, Record, View},
};

/// Longest wait for one answer of the API server.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(2);

/// Why the Lease could not be read or written.
#[derive(Debug, Error)]
pub enum LeaseError {
    /// The API server refused or could not be reached.
    #[error("while {doing} the Lease {name}: {source}")]
    Api {
        /// What was being done.
        doing: &'static str,
        /// Name of the Lease.
        name: String,
        /// The answer.
        source: Box<kube::Error>,
    },
    /// No answer in time.
    #[error("no answer within {REQUEST_TIMEOUT:?} while {doing} the Lease {name}")]
    Timeout {
        /// What was being done.
        doing: &'static str,
        /// Name of the Lease.
        name: String,
    },
}

/// Holds one Lease for one identity.
pub struct Elector {
    api: Api<Lease>,
    name: String,
    identity: String,
    gate: Gate,
}

impl Elector {
    /// An elector for the Lease `name` in the namespace of `api`, acting as `identity`.
    #[must_use]
    pub fn new(api: Api<Lease>, name: String, identity: String, gate: Gate) -> Self {
        Self {
            api,
            name,
            identity,
            gate,
        }
    }

    /// Holds the Lease whenever possible until `stop` changes, then gives it back.
    pub async fn run(self, mut stop: watch::Receiver<bool>) {
        let mut view = View::default();
        let mut leading = false;
        loop {
            let asked = Instant::now();
            match self.attempt(&mut view, asked).await {
                Ok(true) => {
                    self.gate.open_until(asked + RENEW_DEADLINE);
                    if !leading {
                        info!(
                            lease = self.name,
                            identity = self.identity,
                            "acting operator now"
                        );
                    }
                    leading = true;
                }
                Ok(false) => {
                    if leading {
                        warn!(lease = self.name, "lost the lease to another operator");
                    }
                    self.gate.close();
                    leading = false;
                }
                Err(error) => {
                    warn!(%error, "lease not renewed");
                    if !self.gate.may_act(Instant::now()) {
                        self.gate.close();
                        leading = false;
                    }
                }
            }
            tokio::select! {
                () = time::sleep(RETRY_PERIOD) => {}
                _ = stop.changed() => break,
            }
        }
        self.gate.close();
        if leading && let Err(error) = self.release().await {
            debug!(%error, "lease not given back, it will expire");
        }
    }

    /// One look and, if due, one write. `Ok(true)`: we hold it.
    async fn attempt(&self, view: &mut View, now: Instant) -> Result<bool, LeaseError> {
        let read = self.within("reading", self.api.get_opt(&self.name)).await?;
        let record = read.as_ref().map(record_of);
        let acquired = read.as_ref().and_then(|l| l.spec.as_ref()).and_then(|s| {
            let mine = s.holder_identity.as_deref() == Some(self.identity.as_str());
            s.acquire_time.clone().filter(|_| mine)
        });
        let written = match view.observe(&self.identity, record, now) {
            Action::Wait => return Ok(false),
            Action::Create => {
                let lease = self.lease(None, 0, acquired, &self.identity);
                self.within("creating", self.api.create(&PostParams::default(), &lease))
                    .await
            }
            Action::Write {
                resource_version,
                transitions,
            } => {
                let lease = self.lease(
                    Some(resource_version),
                    transitions,
                    acquired,
                    &self.identity,
                );
                let params = PostParams::default();
                let write = self.api.replace(&self.name, &params, &lease);
                self.within("renewing", write).await
            }
        };
        match written {
            Ok(_) => Ok(true),
            Err(LeaseError::Api { source, .. }) if is_conflict(&source) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Gives the Lease back so that another pod acts at once.
    async fn release(&self) -> Result<(), LeaseError> {
        let Some(read) = self.within("reading", self.api.get_opt(&self.name)).await? else {
            return Ok(());
        };
        let record = record_of(&read);
        if record.holder != self.identity {
            return Ok(());
        }
        let lease = self.lease(Some(record.resource_version), record.transitions, None, "");
        let params = PostParams::default();
        let write = self.api.replace(&self.name, &params, &lease);
        self.within("releasing", write).await.map(|_| ())
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "a Lease says by the wall clock when it was renewed, for people; nobody decides by it"
    )]
    fn lease(
        &self,
        resource_version: Option<String>,
        transitions: i32,
        acquired: Option<MicroTime>,
        holder: &str,
    ) -> Lease {
        let now = MicroTime(Timestamp::now());
        Lease {
            metadata: ObjectMeta {
                name: Some(self.name.clone()),
                resource_version,
                ..ObjectMeta::default()
            },
            spec: Some(LeaseSpec {
                acquire_time: Some(acquired.unwrap_or_else(|| now.clone())),
                // A Lease that was given back has no holder; an empty name is refused by the API.
                holder_identity: Some(holder.to_owned()).filter(|h| !h.is_empty()),
                lease_duration_seconds: i32::try_from(LEASE_DURATION.as_secs()).ok(),
                lease_transitions: Some(transitions),
                renew_time: Some(now),
                ..LeaseSpec::default()
            }),
        }
    }

    async fn within<T>(
        &self,
        doing: &'static str,
        request: impl Future<Output = kube::Result<T>>,
    ) -> Result<T, LeaseError> {
        match time::timeout(REQUEST_TIMEOUT, request).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(source)) => Err(LeaseError::Api {
                doing,
                name: self.name.clone(),
                source: Box::new(source),
            }),
            Err(_) => Err(LeaseError::Timeout {
                doing,
                name: self.name.clone(),
            }),
        }
    }
}

fn record_of(lease: &Lease) -> Record {
    let spec = lease.spec.as_ref();
    Record {
        holder: spec
            .and_then(|s| s.holder_identity.clone())
            .unwrap_or_default(),
        transitions: spec.and_then(|s| s.lease_transitions).unwrap_or_default(),
        resource_version: lease.metadata.resource_version.clone().unwrap_or_default(),
    }
}

fn is_conflict(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 409)
}
