//! The command line of the operator.
//!
//! Every option of `run` is also an environment variable, so that the Deployment can fill it from the pod's
//! own fields.

use std::net::SocketAddr;

use clap::{Args, Parser, Subcommand};

use crate::{api::crd::Form, telemetry::logging::LogFormat};

/// Runs replicated Redis on Kubernetes.
#[derive(Debug, Parser)]
#[command(name = "redfleet-operator", version, about, propagate_version = true)]
pub struct Options {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the operator until it is told to stop.
    Run(RunOptions),
    /// Print the custom resource definition.
    Crd(CrdOptions),
}

/// Options of `crd`.
#[derive(Debug, Args)]
pub struct CrdOptions {
    /// For whom: kubectl, the chart, or people.
    #[arg(long, value_enum, default_value_t)]
    pub form: Form,
}

/// Options of `run`.
#[derive(Debug, Clone, Args)]
pub struct RunOptions {
    /// Image of servers whose spec names none.
    #[arg(long, env = "REDFLEET_SERVER_IMAGE")]
    pub server_image: String,
    /// Namespace of the operator, where its Lease is.
    #[arg(long, env = "POD_NAMESPACE", default_value = "redfleet-system")]
    pub namespace: String,
    /// Name that this operator signs with: its pod's name. Must differ between operators.
    #[arg(long, env = "POD_NAME")]
    pub identity: String,
    /// Name of the Lease that decides which operator reconciles.
    #[arg(long, env = "REDFLEET_LEASE_NAME", default_value = "redfleet-operator")]
    pub lease_name: String,
    /// Address of `/metrics`, `/livez` and `/readyz`.
    #[arg(long, env = "REDFLEET_HTTP_ADDRESS", default_value = "[::]:8080")]
    pub http_address: SocketAddr,
    /// What is logged, in the syntax of tracing's EnvFilter.
    #[arg(long, env = "REDFLEET_LOG", default_value = "info")]
    pub log: String,
    /// How log lines look.
    #[arg(long, env = "REDFLEET_LOG_FORMAT", value_enum, default_value_t)]
    pub log_format: LogFormat,
}
