//! The closed lists of conditions and of their reasons, so that alerts and scripts can rely on them.

use std::fmt;

/// The conditions of a set. All but Paused and Stalled are healthy when true.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ConditionType {
    /// The set is what its spec asks for, and serves.
    Ready,
    /// A master takes reads and writes.
    Available,
    /// The set is on its way to what the spec asks for.
    Progressing,
    /// Enough voters hold the data that any one may be lost.
    QuorumHealthy,
    /// Members are spread as `placement` asks.
    PlacementSatisfied,
    /// All members use the current credentials, and no rotation runs.
    SecretsCurrent,
    /// `spec.paused` is set.
    Paused,
    /// The operator cannot go on without the user; absent otherwise (kstatus).
    Stalled,
}

impl ConditionType {
    /// All conditions, in the order in which they are shown.
    pub const ALL: [Self; 8] = [
        Self::Ready,
        Self::Available,
        Self::Progressing,
        Self::QuorumHealthy,
        Self::PlacementSatisfied,
        Self::SecretsCurrent,
        Self::Paused,
        Self::Stalled,
    ];

    /// The name in the status.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "Ready",
            Self::Available => "Available",
            Self::Progressing => "Progressing",
            Self::QuorumHealthy => "QuorumHealthy",
            Self::PlacementSatisfied => "PlacementSatisfied",
            Self::SecretsCurrent => "SecretsCurrent",
            Self::Paused => "Paused",
            Self::Stalled => "Stalled",
        }
    }
}

impl fmt::Display for ConditionType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a condition has its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// All is as the spec asks.
    AsSpecified,
    /// The set has not had a master yet.
    Bootstrapping,
    /// Members are missing or not ready.
    MembersNotReady,
    /// Members are being added or removed.
    Scaling,
    /// Members are being replaced.
    RollingOut,
    /// Configuration is being applied.
    ApplyingConfig,
    /// The server does not accept a directive of `config`.
    DirectiveRefused,
    /// A master serves.
    MasterServing,
    /// No master serves.
    NoMaster,
    /// A new master is being chosen.
    FailingOver,
    /// More voters than a majority are there.
    MajorityPresent,
    /// Too few voters are there to choose a master safely.
    MajorityMissing,
    /// One or two voters have no majority that survives a loss.
    TooFewForMajority,
    /// No member has the data any more.
    AllDataLost,
    /// Members are spread as asked.
    Spread,
    /// Members share a failure domain.
    DomainsShared,
    /// A pod cannot be placed.
    Unschedulable,
    /// The credentials are current.
    Current,
    /// A rotation runs.
    Rotating,
    /// A referenced Secret does not exist.
    SecretMissing,
    /// A referenced Secret has no usable password.
    SecretInvalid,
    /// `spec.paused` is set.
    PausedByUser,
    /// `spec.paused` is not set.
    NotPaused,
    /// The spec cannot be followed.
    InvalidSpec,
    /// An object with the name of a child belongs to somebody else.
    NameTaken,
    /// The API server refused a change.
    ApplyFailed,
    /// It cannot be told at present.
    Unknown,
}

impl Reason {
    /// The word in the status.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AsSpecified => "AsSpecified",
            Self::Bootstrapping => "Bootstrapping",
            Self::MembersNotReady => "MembersNotReady",
            Self::Scaling => "Scaling",
            Self::RollingOut => "RollingOut",
            Self::ApplyingConfig => "ApplyingConfig",
            Self::DirectiveRefused => "DirectiveRefused",
            Self::MasterServing => "MasterServing",
            Self::NoMaster => "NoMaster",
            Self::FailingOver => "FailingOver",
            Self::MajorityPresent => "MajorityPresent",
            Self::MajorityMissing => "MajorityMissing",
            Self::TooFewForMajority => "TooFewForMajority",
            Self::AllDataLost => "AllDataLost",
            Self::Spread => "Spread",
            Self::DomainsShared => "DomainsShared",
            Self::Unschedulable => "Unschedulable",
            Self::Current => "Current",
            Self::Rotating => "Rotating",
            Self::SecretMissing => "SecretMissing",
            Self::SecretInvalid => "SecretInvalid",
            Self::PausedByUser => "PausedByUser",
            Self::NotPaused => "NotPaused",
            Self::InvalidSpec => "InvalidSpec",
            Self::NameTaken => "NameTaken",
            Self::ApplyFailed => "ApplyFailed",
            Self::Unknown => "Unknown",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
