//! The rules of the CRD: CEL expressions for the API server and the messages that name the cure.
//!
//! The expressions are used by the derive macros of this folder; the messages also by
//! `reconcile::validate`, which checks the same things for objects that were stored before a rule existed.
//! Limits that only exist to bound the cost of an expression are here too.

use control::directives::{self, Concern};

pub use control::directives::{
    CONFIG_ADDRESS_RULE, CONFIG_CREDENTIAL_RULE, CONFIG_FILES_RULE, CONFIG_PROCESS_RULE,
    CONFIG_ROLE_RULE,
};

/// Most directives in `config`.
pub const MAX_CONFIG_DIRECTIVES: usize = 128;
/// Longest value of a directive, in bytes.
pub const MAX_CONFIG_VALUE_BYTES: usize = 1024;
/// Longest name of a set: leaves room for the suffixes of its Services and for the revision label of its pods.
pub const MAX_NAME_BYTES: usize = 40;
/// Fewest members.
pub const MIN_REPLICAS: i32 = 1;
/// Most members.
pub const MAX_REPLICAS: i32 = 9;

/// What Kubernetes accepts as a quantity.
pub const QUANTITY_PATTERN: &str = r"^(\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))(([KMGTPE]i)|[numkMGTPE]|([eE](\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))))?$";

/// See [`NAME_MESSAGE`].
pub const NAME_RULE: &str = "self.metadata.name.matches('^[a-z]([-a-z0-9]{0,38}[a-z0-9])?$')";
/// Services are named after the set.
pub const NAME_MESSAGE: &str = "metadata.name must start with a letter, contain only lower-case letters, digits and '-', and have at most 40 characters, because Services and pods are named after the set: choose a shorter or simpler name";

/// See [`REPLICAS_MIN_MESSAGE`].
pub const REPLICAS_MIN_RULE: &str = "self >= 1";
/// A set without members would have no master.
pub const REPLICAS_MIN_MESSAGE: &str = "replicas must be at least 1, because a set without members has no master: to remove a set but keep its data, delete it with storage.retention: Retain and apply it again later";
/// See [`REPLICAS_MAX_MESSAGE`].
pub const REPLICAS_MAX_RULE: &str = "self <= 9";
/// Every member votes.
pub const REPLICAS_MAX_MESSAGE: &str = "replicas must be at most 9, because every member takes part in each decision: for more read capacity let other replicas follow Service <name> with REPLICAOF";

/// See [`STORAGE_CHOICE_MESSAGE`].
pub const STORAGE_CHOICE_RULE: &str = "has(self.size) != has(self.ephemeral)";
/// One of the two.
pub const STORAGE_CHOICE_MESSAGE: &str = "storage needs exactly one of size and ephemeral: write {size: 8Gi} to keep data on volumes, or {ephemeral: {}} for a cache";
/// See [`STORAGE_VOLUME_ONLY_MESSAGE`].
pub const STORAGE_VOLUME_ONLY_RULE: &str =
    "!has(self.ephemeral) || (!has(self.storageClassName) && !has(self.retention))";
/// A cache has no volumes.
pub const STORAGE_VOLUME_ONLY_MESSAGE: &str = "storage.storageClassName and storage.retention belong to volumes: remove them, or replace ephemeral by size";
/// See [`STORAGE_SWITCH_MESSAGE`].
pub const STORAGE_SWITCH_RULE: &str = "has(self.ephemeral) == has(oldSelf.ephemeral)";
/// The kind of storage is for life.
pub const STORAGE_SWITCH_MESSAGE: &str = "storage cannot be switched between size and ephemeral: create a second set with the other kind and let it copy the data";
/// See [`STORAGE_SIZE_MESSAGE`].
pub const STORAGE_SIZE_RULE: &str = "isQuantity(self) && quantity(self).compareTo(quantity('64Mi')) >= 0 && quantity(self).compareTo(quantity('64Ti')) <= 0";
/// What a size may be.
pub const STORAGE_SIZE_MESSAGE: &str =
    "the size must be a quantity between 64Mi and 64Ti: write for example 8Gi";
/// Smallest volume, in bytes (64 MiB).
pub const MIN_STORAGE_BYTES: u128 = 64 << 20;
/// Largest volume, in bytes (64 TiB).
pub const MAX_STORAGE_BYTES: u128 = 64 << 40;
/// See [`STORAGE_SIZE_CHANGE_MESSAGE`].
pub const STORAGE_SIZE_CHANGE_RULE: &str = "!has(self.size) || !has(oldSelf.size) || quantity(self.size).compareTo(quantity(oldSelf.size)) == 0";
/// A set keeps the size that it was made with: claims would have to be changed one by one, which nothing here does.
pub const STORAGE_SIZE_CHANGE_MESSAGE: &str = "storage.size cannot be changed in this version: set it back, or create a second set of the size you need and let it copy the data";
/// See [`STORAGE_CLASS_CHANGE_MESSAGE`].
pub const STORAGE_CLASS_CHANGE_RULE: &str = "has(self.storageClassName) == has(oldSelf.storageClassName) && (!has(self.storageClassName) || self.storageClassName == oldSelf.storageClassName)";
/// Volumes do not move between classes.
pub const STORAGE_CLASS_CHANGE_MESSAGE: &str = "storage.storageClassName cannot be changed, because volumes do not move between classes: set it back, or create a second set and let it copy the data";

/// Why a directive must not be in `config`, and where to set it instead; `None` if it may be there.
pub fn forbidden_directive(name: &str) -> Option<&'static str> {
    directives::concern_of(name).map(|concern| match concern {
        Concern::Address => CONFIG_ADDRESS_MESSAGE,
        Concern::Files => CONFIG_FILES_MESSAGE,
        Concern::Role => CONFIG_ROLE_MESSAGE,
        Concern::Credentials => CONFIG_CREDENTIAL_MESSAGE,
        Concern::Process => CONFIG_PROCESS_MESSAGE,
    })
}

/// See [`CONFIG_LINE_MESSAGE`].
pub const CONFIG_LINE_RULE: &str = r"self.all(k, !self[k].contains('\n') && !self[k].contains('\r') && !self[k].contains('\u0000'))";
/// One directive, one line.
pub const CONFIG_LINE_MESSAGE: &str = "config values must be a single line: write several arguments in one line, such as save: \"3600 1 300 100\"";
/// What a directive's name may look like; the API server cannot afford this check, so only the operator makes it.
pub const CONFIG_NAME_MESSAGE: &str = "config names must be redis.conf directives in lower case, letters, digits and '-' only: write for example repl-backlog-size";
/// Addresses are fixed.
pub const CONFIG_ADDRESS_MESSAGE: &str = "config must not set port, bind, unixsocket, protected-mode or the announced addresses, because members listen on 6379 of their pod: remove them, and use spec.services to change how clients reach the set";
/// Files are fixed.
pub const CONFIG_FILES_MESSAGE: &str = "config must not set dir, the names of data files, include, loadmodule or aclfile, because data belong on the member's volume: remove them, and use spec.storage for where data live";
/// Roles are the operator's.
pub const CONFIG_ROLE_MESSAGE: &str = "config must not set replicaof, replica-priority, replica-read-only or cluster-enabled, because the operator assigns the roles: remove them";
/// Credentials are not configuration.
pub const CONFIG_CREDENTIAL_MESSAGE: &str = "config must not set requirepass, masterauth, masteruser, user or accept-password, because everybody may read it: put the password into a Secret and name that in spec.auth.clientSecretName or spec.auth.replicationSecretName";
/// How the process runs is the operator's.
pub const CONFIG_PROCESS_MESSAGE: &str = "config must not set how the process runs or is managed (daemonize, supervised, pidfile, logfile, syslog-*, managed, member-name, control-*, metrics-port, lease): remove them; logs go to standard output";

/// See [`OVERLAP_MESSAGE`].
pub const OVERLAP_RULE: &str = "duration(self) <= duration('720h')";
/// How long two passwords may be valid.
pub const OVERLAP_MESSAGE: &str =
    "auth.overlap must be at most 720h: a password that is never retired is not rotated";
/// See [`ROTATE_EVERY_MESSAGE`].
pub const ROTATE_EVERY_RULE: &str = "!has(self.rotateEvery) || (duration(self.rotateEvery) >= duration('1m') && duration(self.rotateEvery) > duration(has(self.overlap) ? self.overlap : '1h'))";
/// A rotation must end before the next begins.
pub const ROTATE_EVERY_MESSAGE: &str = "auth.rotateEvery must be at least 1m and longer than auth.overlap (default 1h), so that one rotation ends before the next begins: raise rotateEvery or lower overlap";
/// See [`SECRETS_DIFFER_MESSAGE`].
pub const SECRETS_DIFFER_RULE: &str = "!has(self.clientSecretName) || !has(self.replicationSecretName) || self.clientSecretName != self.replicationSecretName";
/// Clients must not be able to replicate.
pub const SECRETS_DIFFER_MESSAGE: &str = "auth.clientSecretName and auth.replicationSecretName must be different Secrets: who may read and write must not be able to pose as a member";

/// See [`TOPOLOGY_KEY_MESSAGE`].
pub const TOPOLOGY_KEY_RULE: &str =
    "self.matches('^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$')";
/// A topology key is a label's name.
pub const TOPOLOGY_KEY_MESSAGE: &str = "topologyKey must be the name of a node label: write for example topology.kubernetes.io/zone or kubernetes.io/hostname";

/// See [`MAX_LAG_MESSAGE`].
pub const MAX_LAG_RULE: &str =
    "duration(self) >= duration('1s') && duration(self) <= duration('1h')";
/// Bounds of the lag.
pub const MAX_LAG_MESSAGE: &str =
    "services.replicas.maxLag must be between 1s and 1h: write for example 10s";
/// See [`DETECT_AFTER_MESSAGE`].
pub const DETECT_AFTER_RULE: &str =
    "duration(self) >= duration('800ms') && duration(self) <= duration('1m')";
/// Bounds of the suspicion.
pub const DETECT_AFTER_MESSAGE: &str = "failover.detectAfter must be between 800ms and 1m: members themselves wait 800ms before they give a master up; write for example 2s";
/// See [`GRACE_MESSAGE`].
pub const GRACE_RULE: &str = "self >= 5 && self <= 3600";
/// Bounds of the grace period.
pub const GRACE_MESSAGE: &str = "podTemplate.terminationGracePeriodSeconds must be between 5 and 3600: a master needs the time to hand over and save";

/// See [`RESERVED_KEYS_MESSAGE`].
pub const RESERVED_KEYS_RULE: &str = "self.all(k, !k.startsWith('redfleet.dev/'))";
/// The prefix is ours.
pub const RESERVED_KEYS_MESSAGE: &str =
    "keys that start with redfleet.dev/ are written by the operator: use another prefix";
/// See [`RESERVED_LABELS_MESSAGE`].
pub const RESERVED_LABELS_RULE: &str = "self.all(k, !k.startsWith('redfleet.dev/') && !(k in ['app.kubernetes.io/name', 'app.kubernetes.io/instance', 'app.kubernetes.io/managed-by', 'app.kubernetes.io/component']))";
/// The selector's labels are ours.
pub const RESERVED_LABELS_MESSAGE: &str = "labels that start with redfleet.dev/ and app.kubernetes.io/name, instance, component and managed-by are written by the operator: use other names";
