//! What users do to a set that works, and what they get wrong. All of it beside each other: nothing here breaks a node, the
//! network or the operators.

mod changes;
mod mistakes;
mod passwords;

const SPEC: &str = "  replicas: 3\n  storage: {size: 100Mi}\n";
