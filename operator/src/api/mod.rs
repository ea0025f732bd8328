//! What users write and what other tools may rely on: the group, the CRD types, the names and labels of
//! every object a set owns.
//!
//! Called by every other part of the operator; calls nothing of it. There is no logic here beyond
//! validation rules and naming. Read `v1alpha1/mod.rs` first, then `names.rs`.

pub mod crd;
pub mod duration;
pub mod names;
pub mod reference;
pub mod v1alpha1;

/// The API group of every kind of this project.
pub const GROUP: &str = "redfleet.dev";

/// The field manager of everything the operator writes by server-side apply, status excepted.
pub const FIELD_MANAGER: &str = "redfleet-operator";

/// The field manager of the status subresource: apart from [`FIELD_MANAGER`], so that a write to one
/// never drops fields of the other.
pub const STATUS_FIELD_MANAGER: &str = "redfleet-operator-status";

/// Annotation on a `RedisReplicaSet` that asks for a rotation of credentials now. The value is
/// `client`, `replication` or `all`, followed by `@` and any text; the text makes the request new:
/// `kubectl annotate rrs orders redfleet.dev/rotate=client@$(date +%s) --overwrite`.
pub const ROTATE_ANNOTATION: &str = "redfleet.dev/rotate";

/// Annotation on a `RedisReplicaSet` all of whose members lost their data: begin anew, without any. The value is
/// `status.term`, the term of the mastership whose data are given up: once there is another master it means nothing more.
pub const ACCEPT_EMPTY_ANNOTATION: &str = "redfleet.dev/accept-empty";

/// Prefix of labels and annotations that only the operator writes.
pub const RESERVED_PREFIX: &str = "redfleet.dev/";

pub use v1alpha1::{RedisReplicaSet, RedisReplicaSetSpec, RedisReplicaSetStatus};
