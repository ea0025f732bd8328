//! Performs the steps of a plan in order; stops at the first failure, but for what must not wait, see [`Step::goes_on_after`].
//!
//! Called after `plan`. Before each step it asks again whether this process is still the acting
//! operator. Objects are written by server-side apply with one field manager; what is decided goes
//! through `guard::term` with its compare-and-swap.

use std::sync::Arc;

use base64::Engine as _;
use k8s_openapi::api::{
    apps::v1::StatefulSet,
    core::v1::{ConfigMap, Pod, Secret, Service, ServiceAccount},
    networking::v1::NetworkPolicy,
    policy::v1::PodDisruptionBudget,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{
    Api, ResourceExt,
    api::{
        ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, PostParams, Preconditions,
    },
};
use serde_json::{Value, json};
use tokio::time::timeout;
use tracing::{debug, info};

use super::{
    diff::{self, Change},
    draft::CredentialsDraft,
    error::{APPLYING, Error},
    observe::{ConfigAnswer, Cure, Observed, RefusedDirective},
    step::{Child, CredentialKind, Planned, Step},
};
use crate::{
    api::{
        FIELD_MANAGER, RedisReplicaSet, names,
        v1alpha1::{FailoverReason, RotationState},
    },
    context::{API_TIMEOUT, Context, SetKey},
    controller::Operator,
    failover::switchover::{Failures, Order},
    guard::{
        handover::Consequence,
        term::{TermError, swap},
    },
    members::remote::Remote,
    resources::{
        Belonging,
        secrets::{ServerCredentials, read_server_secret, server_secret},
    },
    set::{Password, ValidatedSet},
};

/// Random bytes of a generated password: 32 characters, 192 bits.
const PASSWORD_BYTES: usize = 24;

/// What came of the steps of a plan.
#[derive(Debug)]
pub struct Applied<'a> {
    /// Those that were done.
    pub done: Vec<&'a Planned>,
    /// Why not all of them: the first failure.
    pub failure: Option<Error>,
}

/// Performs `steps`.
pub async fn apply<'a>(
    operator: &Operator,
    key: &SetKey,
    set: &ValidatedSet,
    observed: &Observed,
    steps: &'a [Planned],
) -> Applied<'a> {
    let applier = Applier {
        operator,
        context: &operator.context,
        key,
        set,
        observed,
    };
    let mut done = Vec::new();
    let mut failed: Option<(&Step, Error)> = None;
    for planned in steps {
        let step = &planned.step;
        if failed.as_ref().is_some_and(|(f, _)| !step.goes_on_after(f)) {
            continue;
        }
        if !operator.context.may_act() {
            let failure = Some(Error::NotActing);
            return Applied { done, failure };
        }
        info!(set = %key, step = step.name(), why = planned.why, "step");
        match (Box::pin(applier.perform(planned)).await, &failed) {
            (Ok(()), _) => done.push(planned),
            (Err(error), None) => failed = Some((step, error)),
            (Err(error), Some(_)) => {
                debug!(set = %key, %error, "a second failure");
                break;
            }
        }
    }
    let failure = failed.map(|(_, error)| error);
    Applied { done, failure }
}

struct Applier<'a> {
    operator: &'a Operator,
    context: &'a Arc<Context>,
    key: &'a SetKey,
    set: &'a ValidatedSet,
    observed: &'a Observed,
}

impl Applier<'_> {
    async fn perform(&self, planned: &Planned) -> Result<(), Error> {
        match &planned.step {
            Step::StoreCredentials { present, wanted } => {
                self.store_credentials(present.as_deref(), wanted).await
            }
            Step::Apply(child) => self.apply_child(child).await,
            Step::RecordRotation { kind, seen, state } => {
                let field = kind.status_field();
                self.decide(|newest| {
                    is_still(*kind, seen, newest)?;
                    Ok(json!({"rotation": {field: state}}))
                })
                .await
            }
            Step::PushCredentials { member, request } => {
                let told = self
                    .remote(member)?
                    .set_credentials(request.0.clone())
                    .await;
                told.map(|_| ()).map_err(|source| Error::Member {
                    member: member.clone(),
                    source,
                })
            }
            Step::PushConfig {
                member,
                boot,
                pod_uid,
                request,
            } => self.push_config(member, *boot, pod_uid, request).await,
            Step::SetVoters { after, voters } => {
                let after = *after;
                self.decide(|newest| {
                    let present = newest.status.as_ref().map_or(0, |s| s.voters_generation);
                    if present != after {
                        return Err(format!("the voters are at generation {present}"));
                    }
                    Ok(json!({"voters": voters, "votersGeneration": after + 1}))
                })
                .await
            }
            Step::SwitchOver { order, reason } => {
                self.switch_over(order, *reason, &planned.why).await
            }
            Step::RecordRelocation(relocation) => {
                self.decide(|_| Ok(json!({"relocation": relocation}))).await
            }
            Step::DeletePod { member, uid } => self.delete_pod(member, uid).await,
            Step::LabelPod { member, role } => self.label_pod(member, role).await,
        }
    }

    /// Writes credentials over those that the plan was made from, and over no others: a password
    /// that members may know already is never overwritten because a cache was behind.
    async fn store_credentials(
        &self,
        present: Option<&ServerCredentials>,
        wanted: &CredentialsDraft,
    ) -> Result<(), Error> {
        let name = names::server_secret(&self.key.name);
        let api: Api<Secret> = Api::namespaced(self.context.client.clone(), &self.key.namespace);
        let newest = self
            .answered("reading", "Secret", &name, api.get_opt(&name))
            .await?;
        let found = newest.as_ref().map(read_server_secret);
        match (&newest, found, present) {
            (None, _, None) => {}
            (Some(_), Some(Ok(found)), Some(present)) if found == *present => {}
            (Some(secret), _, None) => {
                self.is_free("Secret", &name, &secret.metadata)?;
                return Err(overtaken("the Secret of the servers was made meanwhile"));
            }
            (_, _, Some(_)) => {
                return Err(overtaken("the Secret of the servers was changed meanwhile"));
            }
        }
        let credentials = wanted.clone().made(generated);
        let secret = server_secret(self.set, &credentials);
        let object = child("Secret", &secret, Change::Wanted).object;
        self.context.metrics.wrote("Secret");
        // Not server-side apply: it would not be refused where somebody else has created the Secret meanwhile, and it would
        // leave passwords there that another field manager has restored.
        let write = async {
            match &newest {
                None => {
                    let params = PostParams {
                        field_manager: Some(FIELD_MANAGER.to_owned()),
                        ..PostParams::default()
                    };
                    let api: Api<DynamicObject> = Api::namespaced_with(
                        self.context.client.clone(),
                        &self.key.namespace,
                        &resource("Secret"),
                    );
                    let object = serde_json::from_value(object).map_err(kube::Error::SerdeError)?;
                    api.create(&params, &object).await.map(drop)
                }
                Some(found) => {
                    let params = PatchParams {
                        field_manager: Some(FIELD_MANAGER.to_owned()),
                        ..PatchParams::default()
                    };
                    let patch = Patch::Merge(replacement(found, object));
                    api.patch(&name, &params, &patch).await.map(drop)
                }
            }
        };
        match self.answered("writing", "Secret", &name, write).await {
            Err(Error::Api { source, .. }) if is_conflict(&source) => {
                Err(overtaken("the Secret of the servers was changed meanwhile"))
            }
            other => other,
        }
    }

    async fn apply_child(&self, child: &Child) -> Result<(), Error> {
        let Child {
            kind,
            name,
            object,
            change,
        } = child;
        let resource = resource(kind);
        let api: Api<DynamicObject> =
            Api::namespaced_with(self.context.client.clone(), &self.key.namespace, &resource);
        if *change == Change::Missing {
            // The cache holds only objects with our labels; this name may be taken by another.
            let found = self
                .answered("looking up", kind, name, api.get_metadata_opt(name))
                .await?;
            if let Some(found) = found {
                self.is_free(kind, name, &found.metadata)?;
            }
        }
        self.context.metrics.wrote(kind);
        let params = PatchParams::apply(FIELD_MANAGER).force();
        let patch = Patch::Apply(object);
        let write = api.patch(name, &params, &patch);
        self.answered(APPLYING, kind, name, write).await.map(|_| ())
    }

    /// Whether an object of a child's name is the set's, to be written.
    fn is_free(&self, kind: &'static str, name: &str, found: &ObjectMeta) -> Result<(), Error> {
        let name = name.to_owned();
        match Belonging::of(found, &self.set.name, &self.set.uid) {
            Belonging::Ours => Ok(()),
            Belonging::Leaving => Err(Error::NameNotFree { kind, name }),
            Belonging::Others => Err(Error::NameTaken { kind, name }),
        }
    }

    async fn push_config(
        &self,
        member: &str,
        boot: u64,
        pod_uid: &str,
        request: &control::proto::SetConfigRequest,
    ) -> Result<(), Error> {
        let told = self.remote(member)?.set_config(request.clone()).await;
        let reply = told.map_err(|source| Error::Member {
            member: member.to_owned(),
            source,
        })?;
        let answer = ConfigAnswer {
            boot,
            pod_uid: pod_uid.to_owned(),
            revision: request.revision,
            refused: reply.refused.into_iter().map(refusal).collect(),
        };
        self.operator.notes(self.key, |notes| {
            notes.config_answers.insert(member.to_owned(), answer);
        });
        Ok(())
    }

    async fn switch_over(
        &self,
        order: &Order,
        reason: FailoverReason,
        why: &str,
    ) -> Result<(), Error> {
        let guards = &self.operator.guards;
        let switched = guards.switch_over(self.key, order.clone(), reason, why);
        let result = switched.await;
        let now_ms = self.context.now_ms();
        self.operator.notes(self.key, |notes| match &result {
            Ok(()) => notes.switchovers = Failures::default(),
            Err(why) => match why.consequence() {
                Consequence::Nothing => {}
                Consequence::PassOver => notes.switchovers.pass_over(&order.to, now_ms),
                Consequence::Pause => notes.switchovers.add(&order.to, now_ms),
            },
        });
        Ok(result?)
    }

    async fn delete_pod(&self, member: &str, uid: &str) -> Result<(), Error> {
        let api: Api<Pod> = Api::namespaced(self.context.client.clone(), &self.key.namespace);
        let params = DeleteParams {
            preconditions: Some(Preconditions {
                uid: Some(uid.to_owned()),
                resource_version: None,
            }),
            ..DeleteParams::default()
        };
        self.context.metrics.wrote("Pod");
        match self
            .answered("deleting", "Pod", member, api.delete(member, &params))
            .await
        {
            Err(Error::Api { source, .. }) if is_gone(&source) => Ok(()),
            other => other.map(|_| ()),
        }
    }

    async fn label_pod(&self, member: &str, role: &str) -> Result<(), Error> {
        let api: Api<Pod> = Api::namespaced(self.context.client.clone(), &self.key.namespace);
        let patch = json!({"metadata": {"labels": {names::ROLE_LABEL: role}}});
        let params = PatchParams {
            field_manager: Some(FIELD_MANAGER.to_owned()),
            ..PatchParams::default()
        };
        self.context.metrics.wrote("Pod");
        let patch = Patch::Merge(&patch);
        let write = api.patch_metadata(member, &params, &patch);
        match self.answered("labelling", "Pod", member, write).await {
            Err(Error::Api { source, .. }) if is_gone(&source) => Ok(()),
            other => other.map(|_| ()),
        }
    }

    async fn decide(
        &self,
        decide: impl Fn(&RedisReplicaSet) -> Result<Value, String> + Send + Sync,
    ) -> Result<(), Error> {
        let api = Api::namespaced(self.context.client.clone(), &self.key.namespace);
        let metrics = &self.context.metrics;
        swap(&api, self.observed.set.clone(), metrics, decide).await?;
        Ok(())
    }

    fn remote(&self, member: &str) -> Result<&Remote, Error> {
        let view = self.observed.view.members.get(member);
        view.map(|v| &v.remote).ok_or_else(|| Error::Disconnected {
            member: member.to_owned(),
        })
    }

    async fn answered<T>(
        &self,
        doing: &'static str,
        kind: &'static str,
        name: &str,
        request: impl Future<Output = kube::Result<T>>,
    ) -> Result<T, Error> {
        match timeout(API_TIMEOUT, request).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(source)) => Err(Error::Api {
                doing,
                kind,
                name: name.to_owned(),
                source: Box::new(source),
            }),
            Err(_) => Err(Error::Timeout {
                doing,
                kind,
                name: name.to_owned(),
            }),
        }
    }
}

fn refusal(told: control::proto::RefusedDirective) -> RefusedDirective {
    RefusedDirective {
        name: told.name,
        message: told.message,
        cure: if told.needs_restart {
            Cure::Restart
        } else {
            Cure::Correction
        },
    }
}

fn overtaken(why: &str) -> Error {
    Error::Decision(TermError::Overtaken(why.to_owned()))
}

fn is_conflict(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 409)
}

/// A merge patch after which `found` holds the data of `wanted` and no other, if nobody has changed it meanwhile.
fn replacement(found: &Secret, mut wanted: Value) -> Value {
    wanted["metadata"]["resourceVersion"] = json!(found.metadata.resource_version);
    for key in found.data.iter().flatten().map(|(key, _)| key) {
        if wanted["data"].get(key).is_none() {
            wanted["data"][key] = Value::Null;
        }
    }
    wanted
}

fn is_gone(error: &kube::Error) -> bool {
    // 409: the precondition on the UID failed, so the pod that was meant is gone.
    matches!(error, kube::Error::Api(status) if status.code == 404 || status.code == 409)
}

fn generated() -> Password {
    let bytes: [u8; PASSWORD_BYTES] = rand::random();
    Password::new(base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes))
}

/// Whether the rotation of `kind` stands where the plan saw it; else somebody was faster, or the
/// cache was behind, and what the plan would record is of the past.
pub(super) fn is_still(
    kind: CredentialKind,
    seen: &RotationState,
    newest: &RedisReplicaSet,
) -> Result<(), String> {
    let recorded = newest.status.as_ref().map(|s| kind.recorded(&s.rotation));
    let (revision, phase) = recorded.map_or_else(Default::default, |r| (r.revision, r.phase));
    if (revision, phase) == (seen.revision, seen.phase) {
        return Ok(());
    }
    let whose = kind.whose();
    Err(format!(
        "the password of {whose} is at revision {revision}, {phase:?}"
    ))
}

fn child<T: serde::Serialize + ResourceExt>(
    kind: &'static str,
    object: &T,
    change: Change,
) -> Child {
    let mut value = super::plan::json(object);
    diff::stamp(&mut value);
    Child {
        kind,
        name: object.name_any(),
        object: value,
        change,
    }
}

/// The API resource of a kind of child.
fn resource(kind: &str) -> ApiResource {
    match kind {
        "StatefulSet" => ApiResource::erase::<StatefulSet>(&()),
        "Service" => ApiResource::erase::<Service>(&()),
        "ConfigMap" => ApiResource::erase::<ConfigMap>(&()),
        "ServiceAccount" => ApiResource::erase::<ServiceAccount>(&()),
        "NetworkPolicy" => ApiResource::erase::<NetworkPolicy>(&()),
        "PodDisruptionBudget" => ApiResource::erase::<PodDisruptionBudget>(&()),
        _ => ApiResource::erase::<Secret>(&()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use control::proto;

    use super::*;
    use crate::{
        api::v1alpha1::{ConditionType, Reason},
        guard::view::View,
        reconcile::{plan::tests::World, step, told},
        status::{
            conditions::{Finding, Truth},
            findings::findings,
        },
        testing::{self, member},
    };

    fn planned(step: Step) -> Planned {
        let why = "the test says so".to_owned();
        Planned { step, why }
    }

    #[tokio::test]
    async fn passwords_are_pushed_though_a_child_is_refused() {
        for kind in ["StatefulSet", "Secret"] {
            let api = testing::Api::start(|_| testing::refused(422)).await;
            let (context, _writers) = testing::context(api.client());
            let soon = Instant::now() + Duration::from_secs(60);
            context.gate.open_until(soon);
            let (operator, _news) = Operator::new(context);
            let mut world = World::new(&json!({"storage": {"size": "1Gi"}}), 2);
            let state = member::state(proto::Role::Master, 1);
            let (member, view) = member::Member::start("orders-0", state).await;
            let members = &mut world.observed.view.members;
            members.insert("orders-0".to_owned(), view);
            let refused = Child {
                kind,
                name: "orders".to_owned(),
                object: json!({"metadata": {"name": "orders"}}),
                change: Change::Wanted,
            };
            let steps = [
                Step::Apply(Box::new(refused)),
                Step::PushCredentials {
                    member: "orders-0".to_owned(),
                    request: step::Credentials(proto::SetCredentialsRequest::default()),
                },
                Step::DeletePod {
                    member: "orders-0".to_owned(),
                    uid: "pod".to_owned(),
                },
            ]
            .map(planned);
            let key = SetKey {
                namespace: "shop".to_owned(),
                name: "orders".to_owned(),
            };
            let set = world.set();
            let applied = apply(&operator, &key, &set, &world.observed, &steps).await;
            let failure = applied.failure.unwrap();
            let found = findings(&set, &View::default(), &world.plan(), Some(&told(&failure)));
            let stalled = found.iter().find(|f| f.kind == ConditionType::Stalled);
            let message = &stalled.unwrap().message;
            assert_eq!(stalled.unwrap().reason, Reason::ApplyFailed);
            assert!(message.contains("as the test says"), "{message}");
            let progressing = |f: &Finding| f.kind == ConditionType::Progressing;
            let progressing = found.into_iter().find(progressing).unwrap();
            assert_eq!(progressing.truth, Truth::False);
            let told = failure.to_string();
            assert!(
                told.starts_with(&format!("applying {kind} orders")),
                "{told}"
            );
            let pushed = kind == "StatefulSet";
            assert_eq!(applied.done.len(), usize::from(pushed));
            assert_eq!(member.calls().contains(&"set credentials"), pushed);
            assert_eq!(api.methods(), ["PATCH"], "no pod is deleted");
        }
    }

    #[tokio::test]
    async fn the_remains_of_a_deleted_set_are_waited_for() {
        for (owner, stalled) in [("orders", None), ("others", Some(Reason::NameTaken))] {
            let owner = json!({
                "apiVersion": "redfleet.dev/v1alpha1", "kind": "RedisReplicaSet", "name": owner, "uid": "gone",
                "controller": true,
            });
            let found = json!({
                "apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata",
                "metadata": {"name": "orders", "ownerReferences": [owner]},
            });
            let api = testing::Api::start(move |_| (200, found.clone())).await;
            let (context, _writers) = testing::context(api.client());
            context
                .gate
                .open_until(Instant::now() + Duration::from_secs(60));
            let (operator, _news) = Operator::new(context);
            let world = World::new(&json!({"storage": {"size": "1Gi"}}), 2);
            let missing = Child {
                kind: "Service",
                name: "orders".to_owned(),
                object: json!({"metadata": {"name": "orders"}}),
                change: Change::Missing,
            };
            let steps = [planned(Step::Apply(Box::new(missing)))];
            let key = SetKey {
                namespace: "shop".to_owned(),
                name: "orders".to_owned(),
            };
            let set = world.set();
            let applied = apply(&operator, &key, &set, &world.observed, &steps).await;
            let failure = told(&applied.failure.unwrap());
            let found = findings(&set, &View::default(), &world.plan(), Some(&failure));
            let reason = |kind| found.iter().find(|f| f.kind == kind).map(|f| f.reason);
            assert_eq!(reason(ConditionType::Stalled), stalled, "{failure:?}");
            assert_eq!(api.methods(), ["GET"], "nothing is written");
        }
    }
}
