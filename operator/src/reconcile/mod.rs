//! The spine: observe → validate → plan → apply → report.

pub mod diff;
pub mod validate;
