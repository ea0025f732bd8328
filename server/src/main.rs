//! `redfleet-server`: reads the configuration, starts the server, waits for its end.

use std::process::ExitCode;

use redfleet_server::{
    config::{self, Startup, parse},
    engine::huge_pages,
    logging,
    server::{self, Server},
};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// What jemalloc reads when it starts: it asks for huge pages, which it gets when `engine::huge_pages` permits them.
#[allow(
    unsafe_code,
    reason = "the allocator finds its configuration by this symbol; it is only read"
)]
#[unsafe(export_name = "_rjem_malloc_conf")]
pub static MALLOC_CONF: &[u8; 11] = b"thp:always\0";

fn main() -> ExitCode {
    huge_pages::forbid();
    let args: Vec<String> = std::env::args().skip(1).collect();
    let loaded = match config::parse::from_args(&args) {
        Ok(Startup::Run(loaded)) => loaded,
        Ok(Startup::Help) => return print(&parse::help()),
        Ok(Startup::Version) => return print(&parse::version()),
        Err(error) => return fail(&error),
    };
    if let Err(error) = server::enter_dir(&loaded.config) {
        return fail(&error);
    }
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
