//! Why a pod must be replaced: ordered checks, first the ones people recognise.

use std::fmt;

/// What of a pod's specification can only change by replacing the pod.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Fingerprint {
    /// Image of the server container.
    pub image: String,
    /// Resources of the server container, rendered in one canonical form.
    pub resources: String,
    /// Hash of the configuration that the server reads only at start.
    pub start_config: String,
    /// Revision of the whole pod template.
    pub revision: String,
}

/// One reason to replace a pod.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Reason {
    /// Another image is wanted.
    Image {
        /// The image it runs.
        from: String,
        /// The image it should run.
        to: String,
    },
    /// Other resources are wanted.
    Resources,
    /// A directive changed that cannot be changed while the server runs.
    StartConfig,
    /// Anything else in the pod template.
    Template {
        /// Revision it has.
        from: String,
        /// Revision it should have.
        to: String,
    },
    /// It stands where the spread does not want it and another domain has room.
    Relocation {
        /// Where it is and where there is room, in words.
        sentence: String,
    },
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Image { from, to } => write!(f, "image {from} becomes {to}"),
            Self::Resources => f.write_str("its resources changed"),
            Self::StartConfig => f.write_str("a directive changed that is read only at start"),
            Self::Template { from, to } => write!(f, "pod template {from} becomes {to}"),
            Self::Relocation { sentence } => f.write_str(sentence),
        }
    }
}

/// Every reason to replace a pod that has `current` where `desired` is wanted, in fixed order.
///
/// The template's revision covers everything, so it is named only when nothing better explains it.
#[must_use]
pub fn reasons(current: &Fingerprint, desired: &Fingerprint) -> Vec<Reason> {
    if current.revision == desired.revision {
        return Vec::new();
    }
    let mut found = Vec::new();
    if current.image != desired.image {
        found.push(Reason::Image {
            from: current.image.clone(),
            to: desired.image.clone(),
        });
    }
    if current.resources != desired.resources {
        found.push(Reason::Resources);
    }
    if current.start_config != desired.start_config {
        found.push(Reason::StartConfig);
    }
    if found.is_empty() {
        found.push(Reason::Template {
            from: current.revision.clone(),
            to: desired.revision.clone(),
        });
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn print(image: &str, resources: &str, config: &str, revision: &str) -> Fingerprint {
        Fingerprint {
            image: image.into(),
            resources: resources.into(),
            start_config: config.into(),
            revision: revision.into(),
        }
    }

    #[test]
    fn an_equal_revision_is_no_reason_whatever_else_differs() {
        let found = reasons(&print("a", "x", "1", "r1"), &print("b", "y", "2", "r1"));
        assert_eq!(found, vec![]);
    }

    #[test]
    fn reasons_come_in_fixed_order() {
        let found = reasons(&print("a", "x", "1", "r1"), &print("b", "y", "2", "r2"));
        let words: Vec<String> = found.iter().map(ToString::to_string).collect();
        assert_eq!(
            words,
            [
                "image a becomes b",
                "its resources changed",
                "a directive changed that is read only at start"
            ]
        );
    }

    #[test]
    fn the_template_is_named_only_when_nothing_else_explains_it() {
        let found = reasons(&print("a", "x", "1", "r1"), &print("a", "x", "1", "r2"));
        assert_eq!(found[0].to_string(), "pod template r1 becomes r2");
    }
}
