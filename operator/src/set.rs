//! [`ValidatedSet`]: a `RedisReplicaSet` after every default was filled in and every rule checked.
//!
//! Made by `reconcile::validate` and by nothing else; read by the builders in `resources` and by every
//! planning module. Nobody reads the raw spec after it. It holds values only: no client, no clock.

use std::{collections::BTreeMap, fmt, time::Duration};

use k8s_openapi::{
    api::core::v1::{Affinity, LocalObjectReference, ResourceRequirements, Toleration},
    apimachinery::pkg::apis::meta::v1::OwnerReference,
};
use sha2::{Digest, Sha256};

use crate::api::v1alpha1::{ImagePullPolicy, Retention, ServiceType};
pub use crate::placement::spread::{Constraint, Strictness};

/// A set that can be built.
#[derive(Clone, Debug, PartialEq)]
pub struct ValidatedSet {
    /// Name of the set.
    pub name: String,
    /// Namespace of the set.
    pub namespace: String,
    /// UID of the object: the identity of the fleet, so that a set of the same name made later is another one.
    pub uid: String,
    /// Generation of the spec that was read.
    pub generation: i64,
    /// Reference that makes the garbage collector remove child objects with the set.
    pub owner: OwnerReference,
    /// Members wanted.
    pub replicas: u32,
    /// Image of the server.
    pub image: String,
    /// When the image is pulled; `None` leaves it to Kubernetes.
    pub image_pull_policy: Option<ImagePullPolicy>,
    /// CPU and memory of the server's container.
    pub resources: ResourceRequirements,
    /// Where data live.
    pub storage: Storage,
    /// Directives of `redis.conf` that the user gave.
    pub config: BTreeMap<String, String>,
    /// Credentials.
    pub auth: Auth,
    /// Failure domains, most important first.
    pub spread: Vec<Constraint>,
    /// The Service of the master.
    pub master_service: ServiceOptions,
    /// The Service of the replicas.
    pub replicas_service: ServiceOptions,
    /// A replica that is cut off from its master, or waits for its data, for longer leaves the Service of the replicas.
    pub max_lag: Duration,
    /// Additions to the pods.
    pub pod: PodOptions,
    /// Silence after which a master is taken for lost.
    pub detect_after: Duration,
    /// Whether the operator acts on this set.
    pub activity: Activity,
}

/// Where data live.
#[derive(Clone, Debug, PartialEq)]
pub enum Storage {
    /// A volume for each member.
    Persistent {
        /// Size as the user wrote it.
        size: String,
        /// StorageClass; `None` is the cluster's default.
        class: Option<String>,
        /// What happens to volumes of removed members.
        retention: Retention,
    },
    /// The node's disk, for the life of the pod.
    Ephemeral {
        /// Most that a member may write.
        size_limit: Option<String>,
    },
}

impl Storage {
    /// Whether the loss of all pods is the loss of all data.
    pub fn is_ephemeral(&self) -> bool {
        match self {
            Self::Persistent { .. } => false,
            Self::Ephemeral { .. } => true,
        }
    }
}

/// Whether the operator acts on a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activity {
    /// It does.
    Active,
    /// `spec.paused`: it only reports.
    Paused,
}

/// Credentials and their rotation.
#[derive(Clone, Debug, PartialEq)]
pub struct Auth {
    /// Where the clients' password comes from.
    pub client: CredentialSource,
    /// Where the replication password comes from.
    pub replication: CredentialSource,
    /// Rotate generated passwords this often.
    pub rotate_every: Option<Duration>,
    /// How long the old password is accepted after the new one was published.
    pub overlap: Duration,
    /// The annotation that asks for a rotation, if it is there and can be understood.
    pub request: Option<RotationRequest>,
    /// What is wrong with that annotation, with its field and the cure.
    pub request_mistake: Option<String>,
}

/// Where a password comes from.
#[derive(Clone, Debug, PartialEq)]
pub enum CredentialSource {
    /// The operator generates it and publishes it in a Secret of its own.
    Generated,
    /// The user keeps it in a Secret. If that cannot be read now, the password in use stays in use.
    Referenced {
        /// Name of the Secret.
        secret: String,
        /// Its password, or why there is none.
        password: Result<Password, SecretProblem>,
    },
}

/// Why a referenced Secret gives no password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretProblem {
    /// It does not exist.
    Missing,
    /// It exists, but its password cannot be used; the text says why and what to do.
    Invalid(String),
    /// It could not be read this time.
    Unknown,
}

/// A password; never shown by `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(String);

impl Password {
    /// Wraps a password that was checked by [`Password::check`] or generated.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Says what is wrong with a password that a user chose: it has to survive a line of `redis.conf`, a URI
    /// and an AUTH command, and must not be empty.
    pub fn check(bytes: &[u8]) -> Result<Self, String> {
        let text = std::str::from_utf8(bytes)
            .map_err(|_| "it is not UTF-8: write a password of printable characters".to_owned())?;
        if text.is_empty() {
            return Err("it is empty: write a password".to_owned());
        }
        if text.len() > MAX_PASSWORD_BYTES {
            return Err(format!(
                "it has more than {MAX_PASSWORD_BYTES} bytes: write a shorter one"
            ));
        }
        match text.chars().find(|c| c.is_whitespace() || c.is_control()) {
            None => Ok(Self(text.to_owned())),
            Some('\n' | '\r') => {
                Err("it contains a line break: write it without one (echo -n)".to_owned())
            }
            Some(_) => {
                Err("it contains a space or control character: write a password without".to_owned())
            }
        }
    }

    /// The password itself.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(…)")
    }
}

/// Longest password accepted, in bytes.
pub const MAX_PASSWORD_BYTES: usize = 512;

/// A request to rotate now, from the annotation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RotationRequest {
    /// What to rotate.
    pub scope: RotationScope,
    /// The whole value; a request is new when it differs from the last one acted upon.
    pub token: String,
}

/// What a request wants rotated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RotationScope {
    /// The clients' password.
    Client,
    /// The replication password.
    Replication,
    /// Both.
    All,
}

/// How a Service is made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceOptions {
    /// How it is reached.
    pub service_type: ServiceType,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
}

/// Additions to the pods.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PodOptions {
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
    /// Labels that nodes must have.
    pub node_selector: BTreeMap<String, String>,
    /// Taints that are tolerated.
    pub tolerations: Vec<Toleration>,
    /// Affinity beyond the spread.
    pub affinity: Option<Affinity>,
    /// PriorityClass.
    pub priority_class: Option<String>,
    /// ServiceAccount of the user; `None` is the one that the operator creates.
    pub service_account: Option<String>,
    /// Seconds to hand over and save.
    pub termination_grace_seconds: i64,
    /// Secrets for pulling the image.
    pub image_pull_secrets: Vec<LocalObjectReference>,
}

impl ValidatedSet {
    /// Names of the members wanted, by ordinal.
    pub fn member_names(&self) -> Vec<String> {
        (0..self.replicas)
            .map(|ordinal| crate::api::names::member(&self.name, ordinal))
            .collect()
    }

    /// Digest of the directives; changes exactly when they do.
    pub fn config_revision(&self) -> String {
        revision(
            self.config
                .iter()
                .flat_map(|(name, value)| [name.as_bytes(), value.as_bytes()]),
        )
    }

    /// Members of which a majority is needed to choose a master.
    pub fn majority(&self) -> u32 {
        self.replicas / 2 + 1
    }
}

/// A short digest of a sequence of texts, in which no two sequences run together.
pub fn revision<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update((part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    hasher
        .finalize()
        .iter()
        .take(REVISION_BYTES)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// Bytes of a digest that a revision keeps; twice as many characters.
const REVISION_BYTES: usize = 6;
