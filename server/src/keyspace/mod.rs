//! The data. Knows values and time, nothing of clients.

pub mod types;
