//! What can be seen: INFO and the HTTP port with `/metrics`, `/livez` and `/readyz`.
//!
//! Owns: the list of figures ([`Facts`]) and their two forms, so that INFO and `/metrics` cannot disagree.
//! Called by: the engine (fills a `Facts` for INFO), the server (starts the HTTP port with a [`Source`]).
//! Invariants: nothing here counts; a figure that is not known is left out, never invented. Figures that Redis
//! shows and that are zero by design here (forks, append-only file) are shown as such where monitors ask for them.
//! Not done here: taking the engine's lock; the source does.
//!
//! Read next: `facts.rs`, `info.rs`, `prometheus.rs`, `http.rs`.

pub mod facts;
pub mod http;
pub mod info;
pub mod process;
mod prometheus;
pub mod rates;

pub use facts::Facts;
pub use http::{Health, Source};
