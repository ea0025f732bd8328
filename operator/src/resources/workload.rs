//! The StatefulSet that owns the pods.
//!
//! `Parallel`, because members do not wait for each other to start; `OnDelete`, because the operator decides
//! which pod is replaced when (`rollout`). Its claim templates, selector and Service name never change.

use k8s_openapi::{
    api::{
        apps::v1::{
            StatefulSet, StatefulSetPersistentVolumeClaimRetentionPolicy, StatefulSetSpec,
            StatefulSetUpdateStrategy,
        },
        core::v1::{PersistentVolumeClaim, PersistentVolumeClaimSpec, VolumeResourceRequirements},
    },
    apimachinery::pkg::{
        api::resource::Quantity,
        apis::meta::v1::{LabelSelector, ObjectMeta},
    },
};

use super::{metadata, pod};
use crate::{
    api::{names, v1alpha1::Retention},
    set::{Storage, ValidatedSet},
};

/// Old templates that Kubernetes keeps; the operator never rolls back through them.
const REVISION_HISTORY: i32 = 2;

/// The StatefulSet with `members` pods.
#[must_use]
pub fn stateful_set(set: &ValidatedSet, members: u32) -> StatefulSet {
    StatefulSet {
        metadata: metadata(set, names::workload(&set.name)),
        spec: Some(StatefulSetSpec {
            replicas: Some(i32::try_from(members).unwrap_or(i32::MAX)),
            selector: LabelSelector {
                match_labels: Some(names::selector(&set.name)),
                ..LabelSelector::default()
            },
            service_name: Some(names::headless_service(&set.name)),
            pod_management_policy: Some("Parallel".to_owned()),
            update_strategy: Some(StatefulSetUpdateStrategy {
                type_: Some("OnDelete".to_owned()),
                rolling_update: None,
            }),
            revision_history_limit: Some(REVISION_HISTORY),
            persistent_volume_claim_retention_policy: retention(&set.storage),
            volume_claim_templates: claim_template(set).map(|claim| vec![claim]),
            template: pod::template(set),
            ..StatefulSetSpec::default()
        }),
        status: None,
    }
}

fn retention(storage: &Storage) -> Option<StatefulSetPersistentVolumeClaimRetentionPolicy> {
    let word = match storage {
        Storage::Ephemeral { .. } => return None,
        Storage::Persistent {
            retention: Retention::Retain,
            ..
        } => "Retain",
        Storage::Persistent {
            retention: Retention::Delete,
            ..
        } => "Delete",
    };
    Some(StatefulSetPersistentVolumeClaimRetentionPolicy {
        when_deleted: Some(word.to_owned()),
        when_scaled: Some(word.to_owned()),
    })
}

/// The volume of each member. Its labels are those that never change, because a claim template must not.
fn claim_template(set: &ValidatedSet) -> Option<PersistentVolumeClaim> {
    let (size, class) = match &set.storage {
        Storage::Ephemeral { .. } => return None,
        Storage::Persistent { size, class, .. } => (size, class),
    };
    Some(PersistentVolumeClaim {
        metadata: ObjectMeta {
            name: Some(names::DATA_VOLUME.to_owned()),
            labels: Some(names::selector(&set.name)),
            ..ObjectMeta::default()
        },
        spec: Some(PersistentVolumeClaimSpec {
            access_modes: Some(vec!["ReadWriteOnce".to_owned()]),
            storage_class_name: class.clone(),
            resources: Some(VolumeResourceRequirements {
                requests: Some([("storage".to_owned(), Quantity(size.clone()))].into()),
                limits: None,
            }),
            ..PersistentVolumeClaimSpec::default()
        }),
        status: None,
    })
}
