//! `smartlink health`: whether the node on this machine is well, for whoever supervises it and has no HTTP client at hand, as a
//! container without a shell.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, ValueHint};

use super::one_line::OneLine;
use super::{in_one_line, node, reachable};
use crate::config::{self, Flags};

/// Which node, and what of it.
#[derive(Clone, Debug, Args)]
pub struct HealthArgs {
    /// The admin listener of the node [default: that of the configuration, or 127.0.0.1:9180]
    #[arg(long, value_name = "ADDR", env = "SMARTLINK_ADMIN")]
    admin: Option<String>,
    /// Configuration file (TOML), whose admin.listen is asked [default: none]
    #[arg(long, value_name = "FILE", env = "SMARTLINK_CONFIG", value_hint = ValueHint::FilePath)]
    config: Option<PathBuf>,
    /// Whether the process lives, and not whether clicks should be sent to it
    #[arg(long)]
    live: bool,
    /// Seconds in which it must answer
    #[arg(long, value_name = "SECONDS", default_value_t = 2.0)]
    timeout: f64,
}

/// Asks, tells, and gives the exit code: 0 if it is well, and otherwise 1, whatever is wrong, as container runtimes expect it.
pub fn run(args: &HealthArgs) -> ExitCode {
    match ask(args) {
        Ok((is_well, said)) => {
            // Whoever reads no more has the exit code.
            let _ = writeln!(io::stdout(), "{}", OneLine(said.trim_end()));
            if is_well { ExitCode::SUCCESS } else { ExitCode::from(1) }
        }
        Err(error) => {
            eprintln!("smartlink: {}", in_one_line(&error));
            ExitCode::from(1)
        }
    }
}

fn ask(args: &HealthArgs) -> anyhow::Result<(bool, String)> {
    let flags = Flags { config: args.config.clone(), admin: args.admin.clone(), ..Flags::default() };
    let address = reachable(config::admin_address(&flags)?);
    let url = node::url(&address.to_string(), if args.live { "/livez" } else { "/readyz" })?;
    let patience = Duration::try_from_secs_f64(args.timeout)
        .map_err(|_| anyhow::anyhow!("--timeout is {}; expected seconds from 0", args.timeout))?;
    let (status, body) = node::ask(&url, patience)?;
    Ok((status.is_success(), String::from_utf8_lossy(&body).into_owned()))
}

pub const EXAMPLES: &str = "\
Exit code: 0 if the node is ready (with --live: alive), 1 if it is not, or if none answers.

Examples:
  smartlink health
  smartlink health --admin 127.0.0.1:9180 --live
  smartlink health --config /etc/smartlink/smartlink.toml --timeout 0.5";
