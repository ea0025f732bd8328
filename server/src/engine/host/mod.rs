//! The engine's side of `command::host`: each concern in a file of its own.

mod auth;
mod clients;
mod config;
mod replication;
mod saving;
mod server;
