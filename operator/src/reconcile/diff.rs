//! Would applying this object change anything?
//!
//! Called by `reconcile::plan` for every child object, so that nothing is written while nothing
//! changes. Pure.
//!
//! An object is current when two things hold: its [`DIGEST_ANNOTATION`] names the digest of what we
//! want (which catches fields that we no longer want and server-side apply must remove), and every
//! field that we want has the wanted value in the cluster (which catches what others changed).
//! Defaults that the API server added are not ours and do not count.

use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::quantity;

/// Annotation with the digest of what was applied.
pub const DIGEST_ANNOTATION: &str = "redfleet.dev/applied";

/// Whether an object must be applied.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Change {
    /// It is as wanted.
    None,
    /// It does not exist.
    Missing,
    /// We want something else than we applied last.
    Wanted,
    /// Somebody changed the named field.
    Drift {
        /// Path of the first field that differs.
        path: String,
    },
}

/// The digest of a wanted object, short enough for an annotation that people read.
#[must_use]
pub fn digest(wanted: &Value) -> String {
    let bytes = Sha256::digest(wanted.to_string().as_bytes());
    bytes.iter().take(8).map(|b| format!("{b:02x}")).collect()
}

/// Adds the digest of `wanted` to its own annotations.
pub fn stamp(wanted: &mut Value) {
    let digest = digest(wanted);
    if let Some(metadata) = wanted.get_mut("metadata").and_then(Value::as_object_mut) {
        let annotations = metadata
            .entry("annotations")
            .or_insert_with(|| Value::Object(serde_json::Map::new()));
        if let Some(annotations) = annotations.as_object_mut() {
            annotations.insert(DIGEST_ANNOTATION.to_owned(), Value::String(digest));
        }
    }
}

/// Compares a stamped wanted object with the one in the cluster.
#[must_use]
pub fn change(stamped: &Value, actual: Option<&Value>) -> Change {
    let Some(actual) = actual else {
        return Change::Missing;
    };
    let annotation = |v: &Value| {
        v.get("metadata")
            .and_then(|m| m.get("annotations"))
            .and_then(|a| a.get(DIGEST_ANNOTATION))
            .and_then(|d| d.as_str().map(str::to_owned))
    };
    if annotation(stamped) != annotation(actual) {
        return Change::Wanted;
    }
    match first_difference(stamped, actual, String::new()) {
        Some(path) => Change::Drift { path },
        None => Change::None,
    }
}

/// The path of the first wanted field that the cluster has not, or has otherwise.
fn first_difference(wanted: &Value, actual: &Value, path: String) -> Option<String> {
    match (wanted, actual) {
        (Value::Object(w), Value::Object(a)) => w.iter().find_map(|(key, value)| {
            let here = format!("{path}.{key}");
            match a.get(key) {
                Some(found) => first_difference(value, found, here),
                None => (!is_nothing(value)).then_some(here),
            }
        }),
        (Value::Array(w), Value::Array(a)) if w.len() == a.len() => w
            .iter()
            .zip(a)
            .enumerate()
            .find_map(|(i, (w, a))| first_difference(w, a, format!("{path}[{i}]"))),
        (wanted, actual) => (!same_scalar(wanted, actual)).then_some(path),
    }
}

/// The API server drops empty values, so a wanted empty one that is absent is no difference.
fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(b) => !b,
        Value::Object(o) => o.values().all(is_nothing),
        Value::Array(a) => a.is_empty(),
        Value::String(s) => s.is_empty(),
        Value::Number(n) => n.as_i64() == Some(0),
    }
}

fn same_scalar(wanted: &Value, actual: &Value) -> bool {
    match (wanted, actual) {
        (Value::String(w), Value::String(a)) => w == a || quantity::same(w, a),
        (wanted, actual) => wanted == actual,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn stamped(mut wanted: Value) -> Value {
        stamp(&mut wanted);
        wanted
    }

    #[test]
    fn defaults_of_the_api_server_are_no_difference() {
        let wanted = stamped(json!({"metadata": {"name": "a"}, "spec": {"ports": [{"port": 1}]}}));
        let mut actual = wanted.clone();
        actual["spec"]["ports"][0]["protocol"] = json!("TCP");
        actual["metadata"]["uid"] = json!("u");
        assert_eq!(change(&wanted, Some(&actual)), Change::None);
    }

    #[test]
    fn a_field_that_somebody_changed_is_named() {
        let wanted = stamped(json!({"metadata": {"name": "a"}, "spec": {"replicas": 3}}));
        let mut actual = wanted.clone();
        actual["spec"]["replicas"] = json!(4);
        assert_eq!(
            change(&wanted, Some(&actual)),
            Change::Drift {
                path: ".spec.replicas".into()
            }
        );
    }

    #[test]
    fn a_field_that_we_no_longer_want_is_a_change() {
        let before = stamped(json!({"metadata": {"name": "a"}, "spec": {"x": 1, "y": 2}}));
        let now = stamped(json!({"metadata": {"name": "a"}, "spec": {"x": 1}}));
        assert_eq!(change(&now, Some(&before)), Change::Wanted);
    }

    #[test]
    fn a_missing_object_is_missing_and_an_absent_field_is_an_empty_one() {
        let wanted = stamped(json!({"metadata": {"name": "a"}, "none": []}));
        assert_eq!(change(&wanted, None), Change::Missing);
        let mut actual = wanted.clone();
        actual.as_object_mut().unwrap().remove("none");
        assert_eq!(change(&wanted, Some(&actual)), Change::None);
    }

    #[test]
    fn a_quantity_that_the_api_server_wrote_otherwise_is_no_drift() {
        let object = |cpu: &str, storage: &str| json!({"metadata": {"name": "a"}, "cpu": cpu, "storage": storage});
        let cases = [
            (("0.5", "1.5Gi"), ("500m", "1536Mi"), true),
            (("100m", "0.5Gi"), ("100m", "512Mi"), true),
            (("1000m", "1e3"), ("1", "1k"), true),
            (("100m", "1Gi"), ("200m", "1Gi"), false),
            (("1", "1.5Gi"), ("1", "1.5G"), false),
        ];
        for (wanted, stored, same) in cases {
            let wanted = stamped(object(wanted.0, wanted.1));
            let mut actual = wanted.clone();
            (actual["cpu"], actual["storage"]) = (json!(stored.0), json!(stored.1));
            let found = change(&wanted, Some(&actual));
            assert_eq!(found == Change::None, same, "{wanted} {stored:?}");
        }
    }

    #[test]
    fn a_list_of_another_length_differs() {
        let wanted = stamped(json!({"metadata": {"name": "a"}, "l": [1, 2]}));
        let mut actual = wanted.clone();
        actual["l"] = json!([1]);
        assert_eq!(
            change(&wanted, Some(&actual)),
            Change::Drift { path: ".l".into() }
        );
    }
}
