//! The spine: observe → validate → plan → apply → report.

pub mod validate;
