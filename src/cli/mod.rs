//! The commands. They compose: every room is known here, and nothing is decided here.

mod admin_side;
mod api;
mod cap;
mod check;
mod click_id;
mod explain;
mod export;
mod geo_target;
mod health;
mod import;
mod key;
mod link;
mod log;
mod logging;
mod network_file;
mod node;
mod offer;
mod one_line;
mod reload;
mod repeats;
mod report;
mod rule;
mod serve;
mod source;
mod supervisor;
mod takeover;
mod when;

use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, CommandFactory, Parser, Subcommand, ValueHint};
use clap_complete::Shell;

use self::one_line::OneLine;
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
    Serve {
        #[command(flatten)]
        args: ServeArgs,
        /// Take over from the process that uses the data directory, if there is one: no connection is refused or reset
        #[arg(long)]
        takeover: bool,
    },
    /// Check what serve would be given, or a snapshot, without serving.
    #[command(after_help = CHECK_EXAMPLES)]
    Check(check::CheckArgs),
    /// Tell whether the node on this machine is ready for clicks.
    #[command(after_help = health::EXAMPLES)]
    Health(health::HealthArgs),
    /// Tell why a click goes where it goes.
    #[command(after_help = EXPLAIN_EXAMPLES)]
    Explain(explain::ExplainArgs),
    /// List, create and change links, and attach offers to them.
    #[command(after_help = link::EXAMPLES)]
    Link(link::LinkArgs),
    /// List, create and change offers.
    #[command(after_help = offer::EXAMPLES)]
    Offer(offer::OfferArgs),
    /// List, create, change and remove routing rules.
    #[command(after_help = rule::EXAMPLES)]
    Rule(rule::RuleArgs),
    /// List, set and remove the countries that offers allow or block.
    #[command(after_help = geo_target::EXAMPLES)]
    GeoTarget(geo_target::GeoTargetArgs),
    /// Set, list, watch and remove caps.
    #[command(after_help = cap::EXAMPLES)]
    Cap(cap::CapArgs),
    /// Write a whole network into a file.
    #[command(after_help = export::EXAMPLES)]
    Export(export::ExportArgs),
    /// Put a whole network from a file into a node, all of it or nothing.
    #[command(after_help = import::EXAMPLES)]
    Import(import::ImportArgs),
    /// Create, list and revoke keys of the embedded API.
    #[command(after_help = KEY_EXAMPLES)]
    Key(key::KeyArgs),
    /// Look into click ids, and tell whether they are genuine.
    #[command(after_help = click_id::EXAMPLES)]
    ClickId(click_id::ClickIdArgs),
    /// Read the click log: print, verify, count.
    #[command(after_help = log::EXAMPLES)]
    Log(log::LogArgs),
    /// Print a completion script for a shell.
    #[command(after_help = "Examples:\n  smartlink completions bash > /etc/bash_completion.d/smartlink")]
    Completions {
        /// The shell to complete for.
        shell: Shell,
    },
    /// Print a manual page, in roff.
    #[command(after_help = MAN_EXAMPLES)]
    Man {
        /// The command that the page is about [default: smartlink itself]
        command: Option<String>,
    },
}

// No doc comment: where the arguments are flattened into another command, it would replace that command's own.
#[derive(Clone, Debug, Default, Args)]
pub struct ServeArgs {
    /// Configuration file (TOML); config/smartlink.toml shows every key [default: none]
    #[arg(long, value_name = "FILE", env = "SMARTLINK_CONFIG", value_hint = ValueHint::FilePath)]
    config: Option<PathBuf>,
    /// Where the last good snapshot, the embedded API's database, and keys are kept [default: ./smartlink-data]
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
    /// PEM file of certificate authorities to trust besides the system's, for an https upstream [default: none]
    #[arg(long, value_name = "FILE", env = "SMARTLINK_CA_FILE", value_hint = ValueHint::FilePath)]
    ca_file: Option<PathBuf>,
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
    /// How the log is written: pretty, for people, or json, an object a line [default: pretty]
    #[arg(long, value_name = "FORMAT", env = "SMARTLINK_LOG_FORMAT")]
    log_format: Option<String>,
    /// From where on it is written: error, warn, info, debug or trace; RUST_LOG wins [default: info]
    #[arg(long, value_name = "LEVEL", env = "SMARTLINK_LOG_LEVEL")]
    log_level: Option<String>,
    /// Write the log into this file, which SIGUSR1 has opened anew [default: to standard error]
    #[arg(long, value_name = "FILE", env = "SMARTLINK_LOG_FILE", value_hint = ValueHint::FilePath)]
    log_file: Option<PathBuf>,
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
            ca_file: args.ca_file,
            geo: args.geo,
            asn: args.asn,
            trust_proxy: args.trust_proxy,
            threads: args.threads,
            log_format: args.log_format,
            log_level: args.log_level,
            log_file: args.log_file,
            demo: args.demo,
        }
    }
}

/// Runs a command to its end. A reader who has seen enough, such as `head`, is no failure.
pub fn run(command: Command) -> anyhow::Result<ExitCode> {
    dispatch(command).or_else(|error| match error.downcast_ref::<io::Error>() {
        Some(cause) if cause.kind() == io::ErrorKind::BrokenPipe => Ok(ExitCode::SUCCESS),
        _ => Err(error),
    })
}

fn dispatch(command: Command) -> anyhow::Result<ExitCode> {
    match command.action {
        Action::Serve { args, takeover } => serve::run(&args.into(), takeover),
        Action::Check(args) => Ok(check::run(&args)),
        Action::Health(args) => Ok(health::run(&args)),
        Action::Explain(args) => explain::run(&args),
        Action::Link(args) => link::run(&args),
        Action::Offer(args) => offer::run(&args),
        Action::Rule(args) => rule::run(&args),
        Action::GeoTarget(args) => geo_target::run(&args),
        Action::Cap(args) => cap::run(&args),
        Action::Export(args) => export::run(&args),
        Action::Import(args) => import::run(&args),
        Action::Key(args) => key::run(&args),
        Action::ClickId(args) => click_id::run(&args),
        Action::Log(args) => log::run(&args),
        Action::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Command::command(), "smartlink", &mut script);
            print(&script)
        }
        Action::Man { command } => print(&manual(command.as_deref())?),
    }
}

/// An error on one line: what failed, then each cause that has not been told yet. Some of our errors tell theirs.
pub fn in_one_line(error: &anyhow::Error) -> String {
    let mut line = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if line.is_empty() {
            line = cause;
        } else if !line.contains(&cause) {
            line.push_str(": ");
            line.push_str(&cause);
        }
    }
    OneLine(line).to_string()
}

/// Where a process on this machine reaches what listens there.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    address
}

/// Writes to standard output. A reader that has seen enough, such as `head`, is no failure.
fn print(text: &[u8]) -> anyhow::Result<ExitCode> {
    match io::stdout().write_all(text).and_then(|()| io::stdout().flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(error).context("cannot write to standard output")
        }
        _ => Ok(ExitCode::SUCCESS),
    }
}

/// The page of a command, or of the whole.
fn manual(command: Option<&str>) -> anyhow::Result<Vec<u8>> {
    let mut whole = Command::command();
    // Gives each command its full name, under which its page goes.
    whole.build();
    let page = match command {
        None => whole,
        Some(name) => whole
            .find_subcommand(name)
            .with_context(|| format!("there is no command {name:?}; smartlink --help lists them"))?
            .clone(),
    };
    let mut roff = Vec::new();
    clap_mangen::Man::new(page).render(&mut roff)?;
    Ok(roff)
}

// Prose is one line a paragraph, which clap wraps; lines of examples keep within 80 columns, so that it need not.

const EXAMPLES: &str = "\
Examples:
  smartlink serve --demo
      try it: embedded API, demonstration network
  curl -si 'http://127.0.0.1:8080/sl?id=301&aff_id=67890'
  smartlink explain --id 301 --aff-id 67890
      why that click goes where it goes
  smartlink check --config smartlink.toml
      before a deployment

`smartlink COMMAND --help` tells more about each.";

const SERVE_EXAMPLES: &str = "\
Flags win over the environment, the environment over the file, the file over the defaults. RUST_LOG wins over \
--log-level, and can say more: RUST_LOG=warn,smartlink::sync=debug.

The API key comes from SMARTLINK_API_KEY, or from the file that SMARTLINK_API_KEY_FILE or upstream.api_key_file \
names; without either, the embedded API makes one at its first start and keeps it in the data directory.

The token of the admin listener comes from SMARTLINK_ADMIN_TOKEN, or from the file that SMARTLINK_ADMIN_TOKEN_FILE or \
admin.token_file names.

Click ids are signed with the key in the file that SMARTLINK_CLICK_ID_KEY_FILE or edge.click_id_key_file names, the same \
on all nodes of a network; without either, with one that the node makes at its first start.

Signals:
  SIGTERM, SIGINT   drain and exit; a second one exits at once
  SIGHUP            take up the configuration, certificates, geo databases, token and key, and refresh the snapshot
  SIGUSR1           open the file of the log anew, after it was renamed (--log-file)
  SIGUSR2           start the program anew, with the same arguments, to take over from this process

Exit code: 0 when it drained, 2 when it could not start, 3 when a second signal cut the drain short, 4 when a part of it \
panicked and it drained for that.

Examples:
  smartlink serve --demo
  smartlink serve --config smartlink.toml --geo GeoLite2-City.mmdb
  smartlink serve --listen 0.0.0.0:80 --listen '[::]:80' --trust-proxy 10.0.0.0/8
  SMARTLINK_API_KEY_FILE=cake.key smartlink serve --upstream https://cake.example";

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
Takes the flags and the environment of serve, shows what they come to, and binds nothing. Exit code: 0 if all is \
well, 1 if there are warnings and --strict is given, 2 on errors.

Examples:
  smartlink check --config smartlink.toml
  smartlink check --geo GeoLite2-City.mmdb
  smartlink check --snapshot smartlink-data/snapshot.last-good --strict
  smartlink check --overlay routing.toml --snapshot smartlink-data/snapshot.last-good
      whether its links and offers are there";

const MAN_EXAMPLES: &str = "\
Examples:
  smartlink man | man -l -
  smartlink man serve > smartlink-serve.1";

const EXPLAIN_EXAMPLES: &str = "\
Examples:
  smartlink explain --id 301 --aff-id 67890 --ip 198.51.100.7
  smartlink explain --id 301 --aff-id 67890 --user-agent curl/8.5.0 --language de
  smartlink explain --id 301 --aff-id 67890 --at 2026-12-24T18:00:00Z --draw 0x80
  smartlink explain --id 301 --aff-id 67890 --json | jq .tiers
  smartlink explain --id 301 --aff-id 67890 \\
      --snapshot smartlink-data/snapshot.last-good";
