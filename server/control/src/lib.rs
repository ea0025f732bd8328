//! The control port between operator, masters and members: one `.proto` file, the code generated
//! from it, the conversions to [`replset`]'s types and the bearer-token check.
//!
//! **Owns** what is said on the wire, and which directives are the operator's ([`directives`]).
//! **Called by** the server (hosts [`proto::member_server`], sends heartbeats by
//! [`proto::member_client`]) and the operator (a client). **Invariants**: fields
//! are only added; unknown fields and enum values fall back to the careful reading; secrets never
//! appear in `Debug` output of requests. **Does not** decide anything: `replset` does.
//!
//! # A client
//!
//! ```no_run
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! use control::{auth::BearerToken, proto, proto::member_client::MemberClient};
//! let channel = tonic::transport::Endpoint::from_static("http://orders-0.orders-headless:6381")
//!     .connect_timeout(std::time::Duration::from_millis(300))
//!     .connect_lazy();
//! let mut member = MemberClient::with_interceptor(channel, BearerToken::new("secret")?);
//! let mut call = tonic::Request::new(proto::GetStateRequest {});
//! call.set_timeout(std::time::Duration::from_millis(500));
//! let state = member.get_state(call).await?.into_inner();
//! println!("{:?}", state.position);
//! # Ok(())
//! # }
//! ```
//!
//! `replset` requests become wire requests by `From` (`PrepareRequest::from(&prepare)`), wire answers
//! become `replset` results by the functions in [`convert`].
//!
//! # The operator's calls, in the order of their use
//!
//! * `WatchState` on every member, always open: roles, positions, who misses the master, revisions.
//! * Failover: `Prepare` → `Promote` → `Follow` (see `replset`'s crate page), `Handover` before a
//!   planned one.
//! * `SetVoters` at the master after the status recorded a new generation.
//! * `SetCredentials`, `SetConfig` with a revision that grows.

#![forbid(unsafe_code)]

pub mod auth;
pub mod convert;
pub mod directives;

/// The generated messages, client and server.
#[allow(
    missing_docs,
    reason = "generated code; the comments are in control.proto"
)]
#[allow(
    clippy::all,
    clippy::allow_attributes_without_reason,
    clippy::too_many_lines,
    reason = "generated code"
)]
pub mod proto {
    tonic::include_proto!("redfleet.control.v1");
}

/// What operator and servers of different versions must agree on, one line for each name and number of
/// `control.proto`. A test compares it with the committed `contract.txt`.
pub const CONTRACT: &str = include_str!(concat!(env!("OUT_DIR"), "/contract.txt"));

/// Port of the control listener unless configured otherwise.
pub const DEFAULT_PORT: u16 = 6381;

impl std::fmt::Debug for proto::AcceptedPassword {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AcceptedPassword").finish_non_exhaustive()
    }
}

impl std::fmt::Debug for proto::ReplicationCredential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            user,
            since_revision,
            ..
        } = self;
        write!(
            f,
            "ReplicationCredential {{ user: {user:?}, since_revision: {since_revision} }}"
        )
    }
}
