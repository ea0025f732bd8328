//! Why a pod must be replaced: ordered checks, first the ones people recognise.

use std::fmt;

/// What of a pod's specification can only change by replacing the pod.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Fingerprint {
    /// Image of the server container.
    pub image: String,
    /// Resources of the server container, rendered in one canonical form.
    pub resources: String,
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
    /// Directives changed that the server reads at start only.
    StartConfig {
        /// Their names; none if the configuration as a whole keeps it from starting.
        directives: Vec<String>,
    },
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
            Self::StartConfig { directives } if directives.is_empty() => {
                f.write_str("the configuration that it cannot start with changed")
            }
            Self::StartConfig { directives } => {
                write!(f, "{} is read at start only", directives.join(", "))
            }
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

    fn print(image: &str, resources: &str, revision: &str) -> Fingerprint {
        Fingerprint {
            image: image.into(),
            resources: resources.into(),
            revision: revision.into(),
        }
    }

    #[test]
    fn an_equal_revision_is_no_reason_whatever_else_differs() {
        let found = reasons(&print("a", "x", "r1"), &print("b", "y", "r1"));
        assert_eq!(found, vec![]);
    }

    #[test]
    fn reasons_come_in_fixed_order() {
        let found = reasons(&print("a", "x", "r1"), &print("b", "y", "r2"));
        let words: Vec<String> = found.iter().map(ToString::to_string).collect();
        assert_eq!(words, ["image a becomes b", "its resources changed"]);
    }

    #[test]
    fn the_template_is_named_only_when_nothing_else_explains_it() {
        let found = reasons(&print("a", "x", "r1"), &print("a", "x", "r2"));
        assert_eq!(found[0].to_string(), "pod template r1 becomes r2");
    }
}
