//! The commands. They compose: every room is known here, and nothing is decided here.

mod check;
mod explain;
mod key;
mod serve;

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory, Parser, Subcommand, ValueHint};
use clap_complete::Shell;

use crate::config::Flags;

/// The exit code of a command that failed.
pub const FAILURE: u8 = 2;

/// One affiliate link in, the best offer out: the click-routing edge of networks that run on CAKE.
#[derive(Debug, Parser)]
#[command(name = "smartlink", version, max_term_width = 100, after_help = EXAMPLES)]
pub struct Command {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Take clicks and redirect them.
    #[command(after_help = SERVE_EXAMPLES)]
    Serve(ServeArgs),
    /// Check a configuration or a snapshot, without serving.
    #[command(after_help = CHECK_EXAMPLES)]
    Check(check::CheckArgs),
    /// Tell why a click goes where it goes.
    #[command(after_help = EXPLAIN_EXAMPLES)]
    Explain(explain::ExplainArgs),
    /// Create, list and revoke keys of the embedded API.
    #[command(after_help = KEY_EXAMPLES)]
    Key(key::KeyArgs),
    /// Print a completion script for a shell.
    #[command(after_help = "Examples:\n  smartlink completions bash > /etc/bash_completion.d/smartlink")]
    Completions {
        /// The shell to complete for.
        shell: Shell,
    },
    /// Print the manual page, in roff.
    #[command(after_help = "Examples:\n  smartlink man | man -l -")]
    Man,
}

/// Flags win over the environment, the environment over the file, the file over the defaults.
#[derive(Clone, Debug, Default, Args)]
pub struct ServeArgs {
    /// Configuration file (TOML); config/smartlink.toml shows every key.
    #[arg(long, value_name = "FILE", env = "SMARTLINK_CONFIG", value_hint = ValueHint::FilePath)]
    config: Option<PathBuf>,
    /// Where the last good snapshot, and the embedded API's database and key are kept [default: ./smartlink-data]
    #[arg(long, value_name = "DIR", env = "SMARTLINK_DATA_DIR", value_hint = ValueHint::DirPath)]
    data_dir: Option<PathBuf>,
    /// Address for clicks; may be given several times [default: 0.0.0.0:8080]
    #[arg(long, value_name = "ADDR", env = "SMARTLINK_LISTEN", value_delimiter = ',')]
    listen: Vec<String>,
    /// Address for metrics, health, explain and the embedded API [default: 127.0.0.1:9180]
    #[arg(long, value_name = "ADDR", env = "SMARTLINK_ADMIN")]
    admin: Option<String>,
    /// The CAKE API to fetch the snapshot from [default: the embedded one]
    #[arg(long, value_name = "URL", env = "SMARTLINK_UPSTREAM", value_hint = ValueHint::Url)]
    upstream: Option<String>,
    /// GeoLite2/GeoIP2 Country or City database (.mmdb) [default: a small demonstration database]
    #[arg(long, value_name = "FILE", env = "SMARTLINK_GEO", value_hint = ValueHint::FilePath)]
    geo: Option<PathBuf>,
    /// GeoLite2/GeoIP2 ASN or ISP database (.mmdb) [default: none]
    #[arg(long, value_name = "FILE", env = "SMARTLINK_ASN", value_hint = ValueHint::FilePath)]
    asn: Option<PathBuf>,
    /// Believe X-Forwarded-For from this network; may be given several times [default: nobody]
    #[arg(long, value_name = "CIDR", env = "SMARTLINK_TRUST_PROXY", value_delimiter = ',')]
    trust_proxy: Vec<String>,
    /// Threads that take clicks [default: one a core]
    #[arg(long, value_name = "N", env = "SMARTLINK_THREADS")]
    threads: Option<usize>,
    /// Seed the embedded API with a demonstration network, and route bots, so that curl sees offers
    #[arg(long)]
    demo: bool,
}

impl From<ServeArgs> for Flags {
    fn from(args: ServeArgs) -> Self {
        Flags {
            config: args.config,
            data_dir: args.data_dir,
            listen: args.listen,
            admin: args.admin,
            upstream: args.upstream,
            geo: args.geo,
            asn: args.asn,
            trust_proxy: args.trust_proxy,
            threads: args.threads,
            demo: args.demo,
        }
    }
}

/// Runs a command to its end.
pub fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command.action {
        Action::Serve(args) => serve::run(&args.into()),
        Action::Check(args) => Ok(check::run(&args)),
        Action::Explain(args) => explain::run(&args),
        Action::Key(args) => key::run(&args),
        Action::Completions { shell } => {
            clap_complete::generate(shell, &mut Command::command(), "smartlink", &mut io::stdout());
            Ok(ExitCode::SUCCESS)
        }
        Action::Man => {
            clap_mangen::Man::new(Command::command()).render(&mut io::stdout())?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

const EXAMPLES: &str = "\
Examples:
  smartlink serve --demo                          try it: embedded API, demonstration network
  curl -si 'http://127.0.0.1:8080/sl?id=301&aff_id=67890'
  smartlink explain --id 301 --aff-id 67890       why that click goes where it goes
  smartlink check --config smartlink.toml         before a deployment";

const SERVE_EXAMPLES: &str = "\
The API key comes from SMARTLINK_API_KEY, or from the file that SMARTLINK_API_KEY_FILE or upstream.api_key_file
names; without either, the embedded API makes one at its first start and keeps it in the data directory.

Signals:
  SIGTERM, SIGINT   drain and exit; a second one exits at once
  SIGHUP            refresh the snapshot and the geo databases now

Examples:
  smartlink serve --demo
  smartlink serve --config smartlink.toml --geo GeoLite2-City.mmdb
  SMARTLINK_API_KEY_FILE=/run/secrets/cake smartlink serve --upstream https://example.cakemarketing.com
  smartlink serve --listen 0.0.0.0:80 --listen '[::]:80' --trust-proxy 10.0.0.0/8";

const KEY_EXAMPLES: &str = "\
A node may run meanwhile: a new key is valid, and a revoked one refused, from its next call on. The node's own key, by
which its edge refreshes, is none of these: it is in the data directory, or where SMARTLINK_API_KEY_FILE says.

To rotate a key: create a second one, give it to its user, look whether the first is still used, revoke the first.

Examples:
  smartlink key create billing
  smartlink key list --data-dir /var/lib/smartlink
  smartlink key list --json | jq -r '.[] | select(.last_used_on == null) | .name'
  smartlink key revoke billing";

const CHECK_EXAMPLES: &str = "\
Exit code: 0 if all is well, 1 if there are warnings and --strict is given, 2 on errors.

Examples:
  smartlink check --config smartlink.toml
  smartlink check --snapshot smartlink-data/snapshot.last-good --strict";

const EXPLAIN_EXAMPLES: &str = "\
Examples:
  smartlink explain --id 301 --aff-id 67890 --ip 203.0.113.7 --user-agent 'Mozilla/5.0 (iPhone; …)'
  smartlink explain --id 301 --aff-id 67890 --at 2026-12-24T18:00:00Z --draw 0x8000000000000000
  smartlink explain --id 301 --aff-id 67890 --snapshot smartlink-data/snapshot.last-good
  smartlink explain --id 301 --aff-id 67890 --json | jq .tiers";
