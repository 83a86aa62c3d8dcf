//! The smartlink command: parse, dispatch, exit code.

use std::process::ExitCode;

use clap::Parser;
use smartlink::cli::{self, Command};

/// The click path allocates little, but what it does allocate is cheaper here than in glibc.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match cli::run(Command::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("smartlink: {}", cli::in_one_line(&error));
            ExitCode::from(cli::FAILURE)
        }
    }
}
