//! `smartlink check`: what would be wrong, before it is.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, ValueHint};

use super::ServeArgs;
use super::one_line::OneLine;
use crate::cake::{Client, Network};
use crate::config::{ClickIdKeyFile, Config, Flags, LogOptions, Upstream};
use crate::routing::compile;
use crate::sync::{Kept, Overlay, read_last_good};

/// What serve would be given, and perhaps a snapshot.
#[derive(Clone, Debug, Args)]
pub struct CheckArgs {
    #[command(flatten)]
    serve: ServeArgs,
    /// Snapshot file, a last good file of some data directory; it is compiled by the configuration
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    snapshot: Option<PathBuf>,
    /// File of entries, rules and caps for a real CAKE [default: upstream.overlay of the configuration]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    overlay: Option<PathBuf>,
    /// Exit with 1 if there are warnings
    #[arg(long)]
    strict: bool,
}

/// What a check found. Printed as it is found, counted for the exit code.
#[derive(Default)]
struct Findings {
    warnings: usize,
    errors: usize,
}

/// Checks, prints, and gives the exit code.
pub fn run(args: &CheckArgs) -> ExitCode {
    let mut findings = Findings::default();
    let config = findings.config(&args.serve.clone().into());
    let network = match (&config, &args.snapshot) {
        (Some(config), Some(path)) => findings.snapshot(path, config),
        _ => None,
    };
    let configured = config.as_ref().and_then(|config| config.refresh.overlay.as_ref());
    if let Some(path) = args.overlay.as_ref().or(configured) {
        findings.overlay(path, network.as_ref());
    }
    let Findings { errors, warnings } = findings;
    say(format_args!("{}, {}", counted(errors, "error"), counted(warnings, "warning")));
    match (errors, warnings) {
        (1.., _) => ExitCode::from(super::FAILURE),
        (0, 1..) if args.strict => ExitCode::from(1),
        _ => ExitCode::SUCCESS,
    }
}

impl Findings {
    fn config(&mut self, flags: &Flags) -> Option<Config> {
        let config = match Config::load(flags) {
            Ok(config) => config,
            Err(error) => {
                self.error(error);
                return None;
            }
        };
        let name = flags.config.as_ref().map_or("defaults".to_owned(), |path| path.display().to_string());
        say(format_args!("configuration    {name}"));
        show(&config);
        if let Some(error) = config.certificate.as_ref().and_then(|files| files.load().err()) {
            self.error(error);
        }
        match config.geo.load() {
            Ok(geo) => {
                let places = geo.places.as_ref().map_or("none", |places| places.database_type());
                say(format_args!("geo database     {places}"));
                let networks = geo.networks.as_ref().map_or("none", |networks| networks.database_type());
                say(format_args!("ASN database     {networks}"));
            }
            Err(error) => self.error(error),
        }
        let key = match &config.upstream {
            Upstream::Remote { key, .. } => Some(key),
            Upstream::Embedded { key } => key.as_ref(),
        };
        if let Some(Err(error)) = key.map(|key| key.read()) {
            self.error(error);
        }
        if let Upstream::Remote { url, key } = &config.upstream
            && let Err(error) = Client::new(config.client(url.clone(), key.clone()))
        {
            self.error(error);
        }
        match config.click_id_keys.read() {
            Ok(kept) => {
                kept.and_then(|kept| kept.warning).into_iter().for_each(|warning| self.warning(warning))
            }
            Err(error) => self.error(error),
        }
        if config.geo.places.is_none() {
            self.warning(
                "geo.database is not set: real visitors have no country in the demonstration database",
            );
        }
        if config.refresh.compile.network_fallback.is_none() {
            self.warning("network.default_fallback_url is not set: clicks without a fallback get 404");
        }
        Some(config)
    }

    /// Gives the network, if it can be read.
    fn snapshot(&mut self, path: &Path, config: &Config) -> Option<Network> {
        let Kept { network, name, unread_changes, .. } = match read_last_good(path) {
            Ok(Some(kept)) => kept,
            Ok(None) => {
                self.error(format_args!("there is no snapshot {}", path.display()));
                return None;
            }
            Err(error) => {
                self.error(error);
                return None;
            }
        };
        if let Some(problem) = unread_changes {
            self.warning(problem);
        }
        let (snapshot, mut warnings) = network.to_snapshot(&config.refresh.zone);
        let (table, more) = compile(&snapshot, &config.refresh.compile);
        warnings.extend(more);
        say(format_args!(
            "snapshot         {name}: {}, {}, {}",
            counted(table.links(), "link"),
            counted(table.entries(), "entry"),
            counted(table.offers(), "offer")
        ));
        for warning in warnings {
            self.warning(warning);
        }
        Some(network)
    }

    /// With a network, also whether it has what the overlay names.
    fn overlay(&mut self, path: &Path, network: Option<&Network>) {
        let overlay = match Overlay::read(path) {
            Ok(overlay) => overlay,
            Err(error) => return error.sentences().iter().for_each(|sentence| self.error(sentence)),
        };
        let name = path.display();
        let (entries, rules) = (counted(overlay.entries(), "entry"), counted(overlay.rules(), "rule"));
        let caps = counted(overlay.caps(), "cap");
        say(format_args!("overlay          {name}: {entries}, {rules}, {caps}"));
        for unknown in network.map(|network| overlay.unknown_to(network)).unwrap_or_default() {
            self.warning(format_args!("the overlay {name}, {unknown}"));
        }
    }

    fn warning(&mut self, problem: impl std::fmt::Display) {
        self.warnings += 1;
        say(format_args!("warning: {problem}"));
    }

    fn error(&mut self, problem: impl std::fmt::Display) {
        self.errors += 1;
        say(format_args!("error: {problem}"));
    }
}

/// What flags, environment, file and defaults come to, in the things that differ between machines.
fn show(config: &Config) {
    say(format_args!("data directory   {}", config.data_dir.display()));
    let threads = counted(config.edge.threads, "thread");
    for address in &config.edge.listen {
        say(format_args!("clicks on        {address}{}, {threads}", address.remark()));
    }
    let proxies: Vec<String> =
        config.edge.settings.click.trusted_proxies.iter().map(ToString::to_string).collect();
    say(format_args!(
        "trusted proxies  {}",
        if proxies.is_empty() { "none".to_owned() } else { proxies.join(", ") }
    ));
    let of_keys = match &config.click_id_keys {
        ClickIdKeyFile::Named(path) => format!("the key in {}", path.display()),
        ClickIdKeyFile::Own(path) if path.exists() => format!("this node's own key in {}", path.display()),
        ClickIdKeyFile::Own(_) => "a key that the first start makes".to_owned(),
    };
    say(format_args!("click ids        signed with {of_keys}"));
    let token = if config.admin.token.is_some() { "with a token" } else { "without a token" };
    say(format_args!("admin on         {}, {token}", config.admin.listen));
    match &config.upstream {
        Upstream::Embedded { key: None } => {
            say(format_args!("upstream         the embedded API, with a key of its own"));
        }
        Upstream::Embedded { key: Some(key) } => {
            say(format_args!("upstream         the embedded API, with the key in {key}"));
        }
        Upstream::Remote { url, key } => say(format_args!("upstream         {url}, with the key in {key}")),
    }
    let LogOptions { format, level, file } = &config.log;
    let place = file.as_ref().map_or("standard error".to_owned(), |path| path.display().to_string());
    say(format_args!("log              {}, from {} on, to {place}", format.name(), level.name()));
}

/// `1 link`, `2 links`, `2 entries`.
fn counted(count: usize, noun: &str) -> String {
    match (count, noun.strip_suffix('y')) {
        (1, _) => format!("1 {noun}"),
        (_, Some(stem)) => format!("{count} {stem}ies"),
        (_, None) => format!("{count} {noun}s"),
    }
}

/// A reader that has seen enough, such as `grep -q`, is no failure, and does not change the exit code.
fn say(line: std::fmt::Arguments<'_>) {
    let _ = writeln!(io::stdout(), "{}", OneLine(line));
}
