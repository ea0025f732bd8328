//! Pure builders: a [`ValidatedSet`] becomes the Kubernetes objects of the set.
//!
//! Called by `reconcile::plan`; applied by `reconcile::apply` with server-side apply, so each object holds
//! exactly the fields that the operator owns. Invariants: the same input gives the same object, byte for byte;
//! nothing here reads a client, a clock or a random number (generated secrets come in); every object carries
//! the labels of [`names::child_labels`] and the owner reference of the set.
//!
//! Reading order: `workload` with `pod/`, `config`, `services` with `endpoints`, `secrets`, `disruption`,
//! `network`, `rbac`.

pub mod config;
pub mod disruption;
pub mod endpoints;
pub mod network;
pub mod pod;
pub mod rbac;
pub mod secrets;
pub mod services;
pub mod workload;

use k8s_openapi::{
    api::{
        apps::v1::StatefulSet,
        core::v1::{ConfigMap, Service, ServiceAccount},
        networking::v1::NetworkPolicy,
        policy::v1::PodDisruptionBudget,
    },
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};
use kube::Resource;

use crate::{
    api::{RedisReplicaSet, names},
    set::ValidatedSet,
};

/// The objects of a set that follow from its spec alone; Secrets and EndpointSlices also depend on what
/// happened and have builders of their own.
#[derive(Clone, Debug, PartialEq)]
pub struct Desired {
    /// Identity of the pods, unless the user gave one.
    pub service_account: Option<ServiceAccount>,
    /// `redis.conf`.
    pub config_map: ConfigMap,
    /// DNS names of the members.
    pub headless_service: Service,
    /// Leads to the master.
    pub master_service: Service,
    /// Leads to replicas in sync.
    pub replicas_service: Service,
    /// Who may speak to which port.
    pub network_policy: NetworkPolicy,
    /// At most one member is drained at a time.
    pub disruption_budget: PodDisruptionBudget,
    /// The members.
    pub workload: StatefulSet,
}

/// Everything that follows from the spec. `members` is how many members there are to be now, which differs
/// from the spec while members are added or removed.
#[must_use]
pub fn build(set: &ValidatedSet, members: u32) -> Desired {
    Desired {
        service_account: rbac::service_account(set),
        config_map: config::config_map(set),
        headless_service: services::headless(set),
        master_service: services::master(set),
        replicas_service: services::replicas(set),
        network_policy: network::network_policy(set),
        disruption_budget: disruption::disruption_budget(set),
        workload: workload::stateful_set(set, members),
    }
}

/// Metadata that every child object has.
fn metadata(set: &ValidatedSet, name: String) -> ObjectMeta {
    ObjectMeta {
        name: Some(name),
        namespace: Some(set.namespace.clone()),
        labels: Some(names::child_labels(&set.name)),
        owner_references: Some(vec![set.owner.clone()]),
        ..ObjectMeta::default()
    }
}

/// `None` for an empty collection, so that server-side apply does not own what nobody said.
fn non_empty<T: Default + PartialEq>(value: T) -> Option<T> {
    (value != T::default()).then_some(value)
}

/// Whose an object is that has the name of a child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Belonging {
    /// The set's: it is owned by it, or it has no owner who controls it and says so by its label, as a copy does that somebody
    /// restored.
    Ours,
    /// Nobody's soon: it is being deleted, or left of a set of this name that is gone, so that the garbage collector takes it.
    Leaving,
    /// Somebody else's.
    Others,
}

impl Belonging {
    /// By the metadata of the object, for the set of this name and UID.
    #[must_use]
    pub fn of(object: &ObjectMeta, set: &str, uid: &str) -> Self {
        let mut owners = object.owner_references.iter().flatten();
        let label = object.labels.as_ref().and_then(|l| l.get(names::SET_LABEL));
        let predecessor =
            |owner: &OwnerReference| is_a_set(owner) && owner.name == set && owner.uid != uid;
        match owners.find(|owner| owner.controller == Some(true)) {
            Some(controller) if controller.uid == uid => Self::Ours,
            None if label.map(String::as_str) == Some(set) => Self::Ours,
            Some(controller) if predecessor(controller) => Self::Leaving,
            Some(_) | None if object.deletion_timestamp.is_some() => Self::Leaving,
            Some(_) | None => Self::Others,
        }
    }
}

fn is_a_set(owner: &OwnerReference) -> bool {
    let group = owner.api_version.split_once('/').map(|(group, _)| group);
    owner.kind == RedisReplicaSet::kind(&()) && group == Some(&*RedisReplicaSet::group(&()))
}

#[cfg(test)]
mod tests;
