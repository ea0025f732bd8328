//! Our server as a program: alone, beside a real Redis or Valkey that shows what is right, and with clients that
//! applications use.
//!
//! One program, so that the tests are compiled and linked once, and a slow one waits for none. What is too much for one test
//! beside others is its own business: `replication::with_peers` copies and compares much data, and `tests/run.sh` tells it
//! from the others by its name.

/// What cannot be right: the server says so, and goes on serving.
mod bad_input {
    mod clients;
    mod files;
    mod master;
}
mod client_libraries;
/// Commands, answered by us and by a real Redis.
mod diff {
    mod clients;
    mod commands;
    mod config;
    mod hash;
    mod list;
    mod number;
    mod set;
    mod sorted_set;
    mod string;
}
mod managed_roles;
/// Replication both ways with real Redis and Valkey.
mod replication {
    mod announced;
    mod credentials;
    mod expiry;
    mod guide;
    mod info_fields;
    mod late;
    mod links;
    mod propagation;
    mod timeouts;
    mod with_peers;
}
/// What clients see of a server: the protocol, its limits, its ports, its end.
mod wire {
    mod connection;
    mod gates;
    mod maxmemory;
    mod process;
    mod server;
    mod shutdown;
}
