//! `redfleet-server`: reads the configuration, starts the server, waits for its end.

use std::process::ExitCode;

use redfleet_server::{
    config::{self, Startup, parse},
    logging,
    server::Server,
};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let loaded = match config::parse::from_args(&args) {
        Ok(Startup::Run(loaded)) => loaded,
        Ok(Startup::Help) => return print(&parse::help()),
        Ok(Startup::Version) => return print(&parse::version()),
        Err(error) => return fail(&error),
    };
    if let Err(error) = logging::start(&loaded.config) {
        return fail(&error);
    }
    match Server::start(*loaded).and_then(Server::run_until_shutdown) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

fn print(text: &str) -> ExitCode {
    println!("{text}");
    ExitCode::SUCCESS
}

fn fail(error: &dyn std::error::Error) -> ExitCode {
    tracing::error!(%error, "the server ends");
    eprintln!("redfleet-server: {error}");
    ExitCode::FAILURE
}
