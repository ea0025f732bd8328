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
use tokio::{
    sync::{oneshot, watch},
    time,
};
use tracing::{debug, info, warn};

use super::{
    gate::{Gate, Holding},
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

    /// Holds the Lease whenever possible until `stop` changes, then gives it back. It does not ask for it before `ready`: a
    /// holder that cannot act yet keeps out one that could.
    pub async fn run(self, ready: oneshot::Receiver<()>, mut stop: watch::Receiver<bool>) {
        tokio::select! {
            told = ready => if told.is_err() {
                return;
            },
            _ = stop.changed() => return,
        }
        let mut view = View::default();
        let mut holding = Holding::Standby;
        loop {
            holding = self.turn(&mut view, holding, Instant::now).await;
            tokio::select! {
                () = time::sleep(RETRY_PERIOD) => {}
                _ = stop.changed() => break,
            }
        }
        self.gate.close();
        if holding == Holding::Leader
            && let Err(error) = self.release().await
        {
            debug!(%error, "lease not given back, it will expire");
        }
    }

    /// One attempt, and what it means for the gate. The gate is open for a time that counts from before the attempt.
    async fn turn(&self, view: &mut View, held: Holding, clock: impl Fn() -> Instant) -> Holding {
        let asked = clock();
        match self.attempt(view, asked).await {
            Ok(true) => {
                self.gate.open_until(asked + RENEW_DEADLINE);
                if held == Holding::Standby {
                    info!(
                        lease = self.name,
                        identity = self.identity,
                        "acting operator now"
                    );
                }
                Holding::Leader
            }
            Ok(false) => {
                if held == Holding::Leader {
                    warn!(lease = self.name, "lost the lease to another operator");
                }
                self.gate.close();
                Holding::Standby
            }
            Err(error) => {
                warn!(%error, "lease not renewed");
                if self.gate.may_act(clock()) {
                    return held;
                }
                self.gate.close();
                Holding::Standby
            }
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

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    };

    use serde_json::{Value, json};

    use super::*;
    use crate::testing::{Api as Server, Request, eventually, refused};

    /// What the API server keeps, for all operators.
    type Stored = Arc<Mutex<Option<Value>>>;

    /// An operator and its own way to the API server.
    struct Operator {
        elector: Elector,
        gate: Gate,
        view: View,
        holding: Holding,
        server: Server,
        is_cut_off: Arc<AtomicBool>,
    }

    fn missing() -> (u16, Value) {
        let (code, mut status) = refused(404);
        status["reason"] = json!("NotFound");
        (code, status)
    }

    /// A Lease is written only by whoever names its present version.
    fn answer(stored: &Stored, request: &Request) -> (u16, Value) {
        let mut stored = stored.lock().unwrap();
        let version = |lease: &Value| lease["metadata"]["resourceVersion"].clone();
        let present = stored.as_ref().map_or(Value::Null, version);
        match request.method.as_str() {
            "GET" => stored.clone().map_or_else(missing, |lease| (200, lease)),
            "POST" | "PUT" if version(&request.body) != present => refused(409),
            "POST" | "PUT" => {
                let number = present.as_str().map_or(0, |text| text.parse().unwrap());
                let mut lease = request.body.clone();
                lease["metadata"]["resourceVersion"] = json!(format!("{}", number + 1));
                *stored = Some(lease.clone());
                (200, lease)
            }
            other => panic!("{other}"),
        }
    }

    impl Operator {
        async fn new(identity: &str, stored: &Stored) -> Self {
            let (stored, is_cut_off) = (Arc::clone(stored), Arc::new(AtomicBool::new(false)));
            let cut_off = Arc::clone(&is_cut_off);
            let server = Server::start(move |request| match cut_off.load(Ordering::SeqCst) {
                true => refused(403),
                false => answer(&stored, request),
            })
            .await;
            let gate = Gate::closed();
            let leases = Api::namespaced(server.client(), "redfleet-system");
            Self {
                elector: Elector::new(leases, "redfleet".into(), identity.into(), gate.clone()),
                gate,
                view: View::default(),
                holding: Holding::Standby,
                server,
                is_cut_off,
            }
        }

        async fn turn(&mut self, now: Instant) -> Holding {
            let turn = self.elector.turn(&mut self.view, self.holding, || now);
            self.holding = turn.await;
            assert_eq!(self.holding, self.gate.holding());
            self.holding
        }
    }

    fn spec(stored: &Stored) -> Value {
        stored.lock().unwrap().as_ref().unwrap()["spec"].clone()
    }

    /// `n` quarters of a second after `start`.
    fn quarter(start: Instant, n: u32) -> Instant {
        start + Duration::from_millis(250) * n
    }

    #[tokio::test]
    async fn a_free_lease_is_taken_and_renewed() {
        let (stored, start) = (Stored::default(), Instant::now());
        let mut operator = Operator::new("a", &stored).await;
        for second in 0..10 {
            let now = start + RETRY_PERIOD * second;
            assert_eq!(operator.turn(now).await, Holding::Leader);
            assert!(operator.gate.may_act(now));
            assert!(!operator.gate.may_act(now + RENEW_DEADLINE));
        }
        let spec = spec(&stored);
        assert_eq!(spec["holderIdentity"], "a");
        assert_eq!(spec["leaseTransitions"], 0);
        assert_eq!(spec["leaseDurationSeconds"], LEASE_DURATION.as_secs());
        assert_ne!(spec["renewTime"], spec["acquireTime"]);
        let methods = operator.server.methods();
        let count = |method: &str| methods.iter().filter(|m| *m == method).count();
        assert_eq!((count("POST"), count("PUT")), (1, 9));
    }

    #[tokio::test]
    async fn one_that_cannot_renew_stops_acting_before_another_begins() {
        let (stored, start) = (Stored::default(), Instant::now());
        let mut cut_off = Operator::new("a", &stored).await;
        let mut other = Operator::new("b", &stored).await;
        let (mut stopped, mut began) = (None, None);
        for n in 0..60 {
            let now = quarter(start, n);
            // Each asks once a second, at different moments.
            if n % 4 == 0 {
                cut_off.is_cut_off.store(n > 4, Ordering::SeqCst);
                cut_off.turn(now).await;
            } else if n % 4 == 1 {
                other.turn(now).await;
            }
            match (cut_off.gate.may_act(now), other.gate.may_act(now)) {
                (true, true) => panic!("two operators act after {n} quarters of a second"),
                (true, false) => assert_eq!((stopped, began), (None, None)),
                (false, false) => stopped = stopped.or(Some(n)),
                (false, true) => began = began.or(Some(n)),
            }
        }
        // Renewed last after 4 quarters.
        assert_eq!(stopped, Some(4 + 4 * 4));
        assert_eq!(began, Some(5 + 4 * 6));
        assert_eq!(spec(&stored)["leaseTransitions"], 1);
        // Back again it does not take the Lease from the one that renews it.
        cut_off.is_cut_off.store(false, Ordering::SeqCst);
        assert_eq!(cut_off.turn(quarter(start, 60)).await, Holding::Standby);
        assert_eq!(spec(&stored)["holderIdentity"], "b");
    }

    #[tokio::test]
    async fn whoever_writes_second_stops_at_once() {
        let (stored, start) = (Stored::default(), Instant::now());
        let mut operator = Operator::new("a", &stored).await;
        assert_eq!(operator.turn(start).await, Holding::Leader);
        // Another writes between its reading and its writing.
        let read = stored.lock().unwrap().clone().unwrap();
        {
            let mut stored = stored.lock().unwrap();
            let lease = stored.as_mut().unwrap();
            lease["metadata"]["resourceVersion"] = json!("2");
            lease["spec"]["holderIdentity"] = json!("b");
        }
        let shared = Arc::clone(&stored);
        let server = Server::start(move |request| match request.method.as_str() {
            "GET" => (200, read.clone()),
            _ => answer(&shared, request),
        })
        .await;
        operator.elector.api = Api::namespaced(server.client(), "redfleet-system");
        let now = start + RETRY_PERIOD;
        assert_eq!(operator.turn(now).await, Holding::Standby);
        assert!(!operator.gate.may_act(now));
        assert_eq!(spec(&stored)["holderIdentity"], "b");
    }

    fn ready() -> oneshot::Receiver<()> {
        let (tell, told) = oneshot::channel();
        tell.send(()).unwrap();
        told
    }

    #[tokio::test]
    async fn nobody_asks_for_the_lease_before_it_is_ready() {
        for is_ready in [false, true] {
            let (tell, told) = oneshot::channel();
            let (stop, stopped) = watch::channel(false);
            let operator = Operator::new("a", &Stored::default()).await;
            if is_ready {
                tell.send(()).unwrap();
                let running = tokio::spawn(operator.elector.run(told, stopped));
                eventually(|| operator.gate.holding() == Holding::Leader).await;
                stop.send(true).unwrap();
                running.await.unwrap();
            } else {
                stop.send(true).unwrap();
                operator.elector.run(told, stopped).await;
                drop(tell);
                assert_eq!(operator.server.methods(), Vec::<String>::new());
            }
        }
    }

    #[tokio::test]
    async fn a_lease_is_given_back_by_its_holder_only() {
        let stored = Stored::default();
        let mut next = Operator::new("b", &stored).await;
        let (stop, stopped) = watch::channel(false);
        let holder = Operator::new("a", &stored).await;
        let running = tokio::spawn(holder.elector.run(ready(), stopped.clone()));
        eventually(|| holder.gate.holding() == Holding::Leader).await;
        let standby = Operator::new("c", &stored).await;
        let waiting = tokio::spawn(standby.elector.run(ready(), stopped.clone()));
        eventually(|| !standby.server.methods().is_empty()).await;
        stop.send(true).unwrap();
        waiting.await.unwrap();
        running.await.unwrap();
        assert!(!holder.gate.may_act(Instant::now()));
        assert_eq!(spec(&stored)["holderIdentity"], Value::Null);
        assert!(!standby.server.methods().contains(&"PUT".to_owned()));
        // Nobody waits for it to expire.
        assert_eq!(next.turn(Instant::now()).await, Holding::Leader);
        assert_eq!(spec(&stored)["leaseTransitions"], 1);
    }
}
