//! What users do to a set that works, and what they get wrong. All of it beside each other: nothing here breaks a node, the
//! network or the operators.
//!
//! Tests run in the order of their names: the longest are in `auth`, and `zones` has the cluster to itself.

mod auth;
mod changes;
mod mistakes;
mod zones;
