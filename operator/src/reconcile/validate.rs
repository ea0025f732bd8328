//! Raw spec and the Secrets it refers to → [`ValidatedSet`]; nobody reads the raw spec after this.
//!
//! Called by the reconcile pipeline between observe and plan. Pure. It repeats the rules of the CRD, with the
//! same messages, for objects that were stored before a rule existed, checks what CEL cannot, and fills in
//! defaults. All mistakes are reported at once, each with its field and the cure. A problem of a referenced
//! Secret or of the annotation that asks for a rotation is no mistake of the spec: the set goes on with the password it has.

mod metadata;

use std::{collections::BTreeMap, time::Duration};

use k8s_openapi::api::core::v1::Secret;
use kube::Resource;
use thiserror::Error;

pub use crate::set::*;
use crate::{
    api::{
        self,
        duration::DurationText,
        names,
        v1alpha1::{
            AuthSpec, RedisReplicaSet, RedisReplicaSetSpec, Retention, SpreadRule, StorageSpec,
            rules,
        },
    },
    quantity,
};

/// What a spec leaves open and the operator's own configuration decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Defaults {
    /// Image of servers whose spec names none.
    pub server_image: String,
}

/// A Secret that the spec may refer to, as observed.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum ReferencedSecret {
    /// It could not be read, or was not asked for.
    #[default]
    Unknown,
    /// It does not exist.
    Missing,
    /// It exists.
    Found(Box<Secret>),
}

/// The Secrets that the spec refers to; those that it does not are never looked at.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct References {
    /// `auth.clientSecretName`.
    pub client: ReferencedSecret,
    /// `auth.replicationSecretName`.
    pub replication: ReferencedSecret,
}

/// One mistake in a spec.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{field}: {message}")]
pub struct Mistake {
    /// Path of the field, such as `spec.storage.size`.
    pub field: String,
    /// What is wrong and how to cure it.
    pub message: String,
}

/// All mistakes of a spec.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("the spec cannot be followed: {}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
pub struct InvalidSpec(pub Vec<Mistake>);

/// `auth.overlap` of a spec that does not say.
pub const DEFAULT_OVERLAP: Duration = Duration::from_secs(3600);
/// `services.replicas.maxLag` of a spec that does not say.
pub const DEFAULT_MAX_LAG: Duration = Duration::from_secs(10);
/// `failover.detectAfter` of a spec that does not say.
pub const DEFAULT_DETECT_AFTER: Duration = Duration::from_millis(800);
/// `podTemplate.terminationGracePeriodSeconds` of a spec that does not say.
pub const DEFAULT_TERMINATION_GRACE_SECONDS: i64 = 30;
/// `placement.spread` of a spec that does not say.
pub const DEFAULT_SPREAD_KEYS: [&str; 2] =
    ["topology.kubernetes.io/zone", "kubernetes.io/hostname"];

/// Checks a set and fills in its defaults.
pub fn validate(
    set: &RedisReplicaSet,
    references: &References,
    defaults: &Defaults,
) -> Result<ValidatedSet, InvalidSpec> {
    let mut found = Findings::default();
    let name = set.metadata.name.as_deref().unwrap_or_default();
    found.require(name_is_valid(name), "metadata.name", rules::NAME_MESSAGE);
    check_rules(&set.spec, &mut found);
    let validated = read(set, references, defaults, &mut found);
    found.into_result(validated)
}

impl InvalidSpec {
    /// Whether what the spec says about passwords can be followed all the same.
    #[must_use]
    pub fn spares_passwords(&self) -> bool {
        let concerns = |mistake: &Mistake| {
            mistake.field.starts_with("spec.auth") || mistake.field == "metadata.name"
        };
        !self.0.iter().any(concerns)
    }
}

/// What the guard goes by: a mistake in a spec must not leave a running set without failover, so a field with one has its
/// default here, and data are taken for such that must last.
pub fn tolerate(set: &RedisReplicaSet, defaults: &Defaults) -> ValidatedSet {
    tolerate_with(set, &References::default(), defaults)
}

/// The same with the passwords in the Secrets that the spec refers to.
pub fn tolerate_with(
    set: &RedisReplicaSet,
    references: &References,
    defaults: &Defaults,
) -> ValidatedSet {
    read(set, references, defaults, &mut Findings::default())
}

fn read(
    set: &RedisReplicaSet,
    references: &References,
    defaults: &Defaults,
    found: &mut Findings,
) -> ValidatedSet {
    let spec = &set.spec;
    ValidatedSet {
        namespace: set.metadata.namespace.clone().unwrap_or_default(),
        uid: set.metadata.uid.clone().unwrap_or_default(),
        generation: set.metadata.generation.unwrap_or_default(),
        owner: set.controller_owner_ref(&()).unwrap_or_default(),
        replicas: u32::try_from(spec.replicas).unwrap_or_default(),
        image: spec
            .image
            .clone()
            .unwrap_or_else(|| defaults.server_image.clone()),
        image_pull_policy: spec.image_pull_policy,
        resources: spec.resources.clone(),
        storage: storage(&spec.storage, found),
        config: spec.config.clone(),
        auth: auth(set, references, found),
        spread: spread(&spec.placement.spread),
        master_service: ServiceOptions {
            service_type: spec.services.master.service_type,
            annotations: spec.services.master.annotations.clone(),
        },
        replicas_service: ServiceOptions {
            service_type: spec.services.replicas.service_type,
            annotations: spec.services.replicas.annotations.clone(),
        },
        max_lag: found.duration(
            "spec.services.replicas.maxLag",
            spec.services.replicas.max_lag.as_ref(),
            DEFAULT_MAX_LAG,
            (Duration::from_secs(1), Duration::from_secs(3600)),
            rules::MAX_LAG_MESSAGE,
        ),
        pod: pod(spec),
        detect_after: found.duration(
            "spec.failover.detectAfter",
            spec.failover.detect_after.as_ref(),
            DEFAULT_DETECT_AFTER,
            (DEFAULT_DETECT_AFTER, Duration::from_secs(60)),
            rules::DETECT_AFTER_MESSAGE,
        ),
        activity: if spec.paused {
            Activity::Paused
        } else {
            Activity::Active
        },
        name: set.metadata.name.clone().unwrap_or_default(),
    }
}

/// Collects mistakes so that the user sees all of them at once.
#[derive(Default)]
struct Findings(Vec<Mistake>);

impl Findings {
    fn add(&mut self, field: &str, message: impl Into<String>) {
        self.0.push(Mistake {
            field: field.to_owned(),
            message: message.into(),
        });
    }

    fn require(&mut self, holds: bool, field: &str, message: &str) {
        if !holds {
            self.add(field, message);
        }
    }

    /// A duration within bounds; the default where there is none or it is wrong.
    fn duration(
        &mut self,
        field: &str,
        text: Option<&DurationText>,
        default: Duration,
        bounds: (Duration, Duration),
        message: &str,
    ) -> Duration {
        match text.map(DurationText::parse) {
            None => default,
            Some(Ok(duration)) => {
                self.require(duration >= bounds.0 && duration <= bounds.1, field, message);
                duration
            }
            Some(Err(error)) => {
                self.add(field, error.to_string());
                default
            }
        }
    }

    fn into_result(self, set: ValidatedSet) -> Result<ValidatedSet, InvalidSpec> {
        if self.0.is_empty() {
            Ok(set)
        } else {
            Err(InvalidSpec(self.0))
        }
    }
}

fn name_is_valid(name: &str) -> bool {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    name.len() <= rules::MAX_NAME_BYTES
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(inner)
        && !name.ends_with('-')
}

/// The rules of the CRD that concern single values, without durations and storage.
fn check_rules(spec: &RedisReplicaSetSpec, found: &mut Findings) {
    found.require(
        spec.replicas >= rules::MIN_REPLICAS,
        "spec.replicas",
        rules::REPLICAS_MIN_MESSAGE,
    );
    found.require(
        spec.replicas <= rules::MAX_REPLICAS,
        "spec.replicas",
        rules::REPLICAS_MAX_MESSAGE,
    );
    found.require(
        spec.image
            .as_deref()
            .is_none_or(|image| !image.trim().is_empty()),
        "spec.image",
        "image is empty: name one, or remove the field for the operator's default",
    );
    check_config(&spec.config, found);
    check_quantities(spec, found);
    metadata::check(spec, found);
    let reserved = |map: &BTreeMap<String, String>| {
        map.keys().any(|key| key.starts_with(api::RESERVED_PREFIX))
    };
    let services = &spec.services;
    found.require(
        !reserved(&services.master.annotations),
        "spec.services.master.annotations",
        rules::RESERVED_KEYS_MESSAGE,
    );
    found.require(
        !reserved(&services.replicas.annotations),
        "spec.services.replicas.annotations",
        rules::RESERVED_KEYS_MESSAGE,
    );
    let pod = &spec.pod_template;
    found.require(
        !reserved(&pod.annotations),
        "spec.podTemplate.annotations",
        rules::RESERVED_KEYS_MESSAGE,
    );
    let own_labels = names::child_labels("");
    let labels_are_free =
        !reserved(&pod.labels) && !pod.labels.keys().any(|key| own_labels.contains_key(key));
    found.require(
        labels_are_free,
        "spec.podTemplate.labels",
        rules::RESERVED_LABELS_MESSAGE,
    );
    let grace_fits = pod
        .termination_grace_period_seconds
        .is_none_or(|seconds| (5..=3600).contains(&seconds));
    found.require(
        grace_fits,
        "spec.podTemplate.terminationGracePeriodSeconds",
        rules::GRACE_MESSAGE,
    );
    for (index, rule) in spec.placement.spread.iter().enumerate() {
        let plausible =
            !rule.topology_key.is_empty() && !rule.topology_key.contains(char::is_whitespace);
        found.require(
            plausible,
            &format!("spec.placement.spread[{index}].topologyKey"),
            rules::TOPOLOGY_KEY_MESSAGE,
        );
    }
}

fn check_config(config: &BTreeMap<String, String>, found: &mut Findings) {
    for (name, value) in config {
        let field = format!("spec.config.{name}");
        let well_formed = !name.is_empty()
            && name
                .chars()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
        found.require(well_formed, &field, rules::CONFIG_NAME_MESSAGE);
        found.require(
            !value.contains(['\n', '\r', '\0']),
            &field,
            rules::CONFIG_LINE_MESSAGE,
        );
        if let Some(message) = rules::forbidden_directive(name) {
            found.add(&field, message);
        }
    }
}

fn check_quantities(spec: &RedisReplicaSetSpec, found: &mut Findings) {
    let lists = [
        ("limits", &spec.resources.limits),
        ("requests", &spec.resources.requests),
    ];
    for (list, quantities) in lists {
        for (name, quantity) in quantities.iter().flatten() {
            let valid = quantity::parse(&quantity.0).is_some();
            found.require(
                valid,
                &format!("spec.resources.{list}.{name}"),
                "it is not a quantity: write for example 500m, 2 or 4Gi",
            );
        }
    }
    let limits = spec.resources.limits.iter().flatten();
    for (name, limit) in limits {
        let requests = spec.resources.requests.as_ref();
        let Some(request) = requests.and_then(|r| r.get(name)) else {
            continue;
        };
        if quantity::exceeds(&request.0, &limit.0) {
            let (field, limit) = (format!("spec.resources.requests.{name}"), &limit.0);
            let message = format!(
                "it is more than spec.resources.limits.{name} ({limit}): lower it, or raise the limit"
            );
            found.add(&field, message);
        }
    }
}

fn storage(spec: &StorageSpec, found: &mut Findings) -> Storage {
    let mut size_fits = |field: &str, size: &str| {
        let bytes = quantity::parse(size);
        found.require(
            bytes.is_some_and(|bytes| {
                (rules::MIN_STORAGE_BYTES..=rules::MAX_STORAGE_BYTES).contains(&bytes)
            }),
            field,
            rules::STORAGE_SIZE_MESSAGE,
        );
    };
    match (&spec.size, &spec.ephemeral) {
        (Some(size), None) => {
            size_fits("spec.storage.size", size);
            Storage::Persistent {
                size: size.clone(),
                class: spec.storage_class_name.clone(),
                retention: spec.retention.unwrap_or_default(),
            }
        }
        (None, Some(ephemeral)) => {
            if let Some(limit) = &ephemeral.size_limit {
                size_fits("spec.storage.ephemeral.sizeLimit", limit);
            }
            let volumes_only = spec.storage_class_name.is_some() || spec.retention.is_some();
            found.require(
                !volumes_only,
                "spec.storage",
                rules::STORAGE_VOLUME_ONLY_MESSAGE,
            );
            Storage::Ephemeral {
                size_limit: ephemeral.size_limit.clone(),
            }
        }
        (Some(_), Some(_)) | (None, None) => {
            found.add("spec.storage", rules::STORAGE_CHOICE_MESSAGE);
            Storage::Persistent {
                size: String::new(),
                class: None,
                retention: Retention::Retain,
            }
        }
    }
}

fn auth(set: &RedisReplicaSet, references: &References, found: &mut Findings) -> Auth {
    let spec = &set.spec.auth;
    let month = Duration::from_secs(720 * 3600);
    let overlap = found.duration(
        "spec.auth.overlap",
        spec.overlap.as_ref(),
        DEFAULT_OVERLAP,
        (Duration::ZERO, month),
        rules::OVERLAP_MESSAGE,
    );
    let shortest = Duration::from_secs(60).max(overlap + Duration::from_millis(1));
    let rotate_every = spec.rotate_every.as_ref().map(|text| {
        found.duration(
            "spec.auth.rotateEvery",
            Some(text),
            Duration::MAX,
            (shortest, Duration::MAX),
            rules::ROTATE_EVERY_MESSAGE,
        )
    });
    check_secret_names(set, spec, found);
    let request = rotation_request(set).and_then(|request| match request {
        Some(request) => answerable(set, request).map(Some),
        None => Ok(None),
    });
    Auth {
        client: credential(spec.client_secret_name.as_deref(), &references.client),
        replication: credential(
            spec.replication_secret_name.as_deref(),
            &references.replication,
        ),
        rotate_every,
        overlap,
        request_mistake: request.as_ref().err().cloned(),
        request: request.unwrap_or_default(),
    }
}

/// A reference to a Secret that the operator itself writes would make it read its own writing.
fn check_secret_names(set: &RedisReplicaSet, spec: &AuthSpec, found: &mut Findings) {
    let differ = spec.client_secret_name.is_none()
        || spec.client_secret_name != spec.replication_secret_name;
    found.require(differ, "spec.auth", rules::SECRETS_DIFFER_MESSAGE);
    let name = set.metadata.name.as_deref().unwrap_or_default();
    let own = [
        names::client_secret(name),
        names::replication_secret(name),
        names::server_secret(name),
    ];
    let references = [
        ("clientSecretName", &spec.client_secret_name),
        ("replicationSecretName", &spec.replication_secret_name),
    ];
    for (field, reference) in references {
        let collides = reference
            .as_ref()
            .is_some_and(|reference| own.contains(reference));
        let message = "this is the name of a Secret that the operator writes: give yours another name, or remove the field to have it generated";
        found.require(!collides, &format!("spec.auth.{field}"), message);
    }
}

fn credential(reference: Option<&str>, observed: &ReferencedSecret) -> CredentialSource {
    let Some(secret) = reference else {
        return CredentialSource::Generated;
    };
    let password = match observed {
        ReferencedSecret::Unknown => Err(SecretProblem::Unknown),
        ReferencedSecret::Missing => Err(SecretProblem::Missing),
        ReferencedSecret::Found(found) => match found
            .data
            .as_ref()
            .and_then(|data| data.get(names::PASSWORD_KEY))
        {
            None => Err(SecretProblem::Invalid(format!(
                "Secret {secret} has no key {}: add it",
                names::PASSWORD_KEY
            ))),
            Some(bytes) => Password::check(&bytes.0).map_err(|problem| {
                SecretProblem::Invalid(format!(
                    "the key {} of Secret {secret} cannot be used, {problem}",
                    names::PASSWORD_KEY
                ))
            }),
        },
    };
    CredentialSource::Referenced {
        secret: secret.to_owned(),
        password,
    }
}

/// The rotation that the annotation asks for, or what is wrong with it.
fn rotation_request(set: &RedisReplicaSet) -> Result<Option<RotationRequest>, String> {
    let annotations = set.metadata.annotations.as_ref();
    let Some(token) = annotations.and_then(|all| all.get(api::ROTATE_ANNOTATION)) else {
        return Ok(None);
    };
    let scope = match token.split('@').next() {
        Some("client") => RotationScope::Client,
        Some("replication") => RotationScope::Replication,
        Some("all") => RotationScope::All,
        Some(_) | None => {
            return Err(format!(
                "metadata.annotations[{}]: the value must be client, replication or all, followed by @ and anything new: write \
                 for example client@1",
                api::ROTATE_ANNOTATION
            ));
        }
    };
    Ok(Some(RotationRequest {
        scope,
        token: token.clone(),
    }))
}

/// A request that concerns passwords of the user's only, unless it was acted upon before they were the user's, is a mistake.
fn answerable(set: &RedisReplicaSet, request: RotationRequest) -> Result<RotationRequest, String> {
    let auth = &set.spec.auth;
    let states = set.status.as_ref().map(|s| &s.rotation);
    let client = (
        "clientSecretName",
        &auth.client_secret_name,
        states.map(|r| &r.client),
    );
    let replication = (
        "replicationSecretName",
        &auth.replication_secret_name,
        states.map(|r| &r.replication),
    );
    let meant = match request.scope {
        RotationScope::Client => vec![client],
        RotationScope::Replication => vec![replication],
        RotationScope::All => vec![client, replication],
    };
    let mut theirs = Vec::new();
    for (field, secret, state) in meant {
        let seen = state.and_then(|s| s.request.as_ref()) == Some(&request.token);
        match secret {
            Some(secret) if !seen => theirs.push(format!("Secret {secret} (spec.auth.{field})")),
            Some(_) | None => return Ok(request),
        }
    }
    Err(format!(
        "metadata.annotations[{}]: the operator generates no such password: change {} instead, and remove the annotation",
        api::ROTATE_ANNOTATION,
        theirs.join(" and ")
    ))
}

fn spread(rules: &[SpreadRule]) -> Vec<Constraint> {
    if rules.is_empty() {
        let default = |key: &str| Constraint {
            topology_key: key.to_owned(),
            strictness: Strictness::Default,
        };
        return DEFAULT_SPREAD_KEYS.into_iter().map(default).collect();
    }
    let given = |rule: &SpreadRule| Constraint {
        topology_key: rule.topology_key.clone(),
        strictness: if rule.require {
            Strictness::Required
        } else {
            Strictness::Preferred
        },
    };
    rules.iter().map(given).collect()
}

fn pod(spec: &RedisReplicaSetSpec) -> PodOptions {
    let template = &spec.pod_template;
    PodOptions {
        labels: template.labels.clone(),
        annotations: template.annotations.clone(),
        node_selector: template.node_selector.clone(),
        tolerations: template.tolerations.clone(),
        affinity: template.affinity.clone(),
        priority_class: template.priority_class_name.clone(),
        service_account: template.service_account_name.clone(),
        termination_grace_seconds: template
            .termination_grace_period_seconds
            .unwrap_or(DEFAULT_TERMINATION_GRACE_SECONDS),
        image_pull_secrets: template.image_pull_secrets.clone(),
    }
}

#[cfg(test)]
#[path = "validate_tests.rs"]
mod tests;
