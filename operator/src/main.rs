//! `redfleet-operator`: see `redfleet-operator --help`.

#![forbid(unsafe_code)]

use std::io::Write;

use anyhow::Context;
use clap::Parser;
use redfleet_operator::{
    api::crd,
    options::{Command, Options},
};

mod run;

fn main() -> anyhow::Result<()> {
    match Options::parse().command {
        Command::Crd(options) => {
            let text = crd::text(options.form);
            std::io::stdout()
                .write_all(text.as_bytes())
                .context("writing the definition")
        }
        Command::Run(options) => run::run(options),
    }
}
