//! `smartlink check`: what would be wrong, before it is.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, ValueHint};

use crate::config::{Config, Flags};
use crate::routing::compile;
use crate::sync::read_last_good;

/// A configuration, a snapshot, or both.
#[derive(Clone, Debug, Args)]
pub struct CheckArgs {
    /// Configuration file; also gives the rules by which a snapshot is compiled
    #[arg(long, value_name = "FILE", env = "SMARTLINK_CONFIG", value_hint = ValueHint::FilePath)]
    config: Option<PathBuf>,
    /// Snapshot file: a last good file of some data directory
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    snapshot: Option<PathBuf>,
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
    let config = findings.config(args.config.as_deref());
    if let (Some(config), Some(path)) = (&config, &args.snapshot) {
        findings.snapshot(path, config);
    }
    println!("{} errors, {} warnings", findings.errors, findings.warnings);
    match (findings.errors, findings.warnings) {
        (1.., _) => ExitCode::from(super::FAILURE),
        (0, 1..) if args.strict => ExitCode::from(1),
        _ => ExitCode::SUCCESS,
    }
}

impl Findings {
    fn config(&mut self, path: Option<&Path>) -> Option<Config> {
        let name = path.map_or("defaults".to_owned(), |path| path.display().to_string());
        let config = match Config::load(&Flags { config: path.map(Path::to_owned), ..Flags::default() }) {
            Ok(config) => config,
            Err(error) => {
                self.error(error);
                return None;
            }
        };
        match config.geo.load() {
            Ok(geo) => {
                let places = geo.places.as_ref().map_or("none", |places| places.database_type());
                println!("configuration {name}: valid; geo database {places}");
            }
            Err(error) => self.error(error),
        }
        if config.geo.places.is_none() {
            self.warning("geo.database is not set: the demonstration database knows no real visitor");
        }
        if config.refresh.compile.network_fallback.is_none() {
            self.warning("network.default_fallback_url is not set: clicks without a fallback get 404");
        }
        Some(config)
    }

    fn snapshot(&mut self, path: &Path, config: &Config) {
        let (network, name) = match read_last_good(path) {
            Ok(Some(read)) => read,
            Ok(None) => return self.error(format_args!("there is no snapshot {}", path.display())),
            Err(error) => return self.error(error),
        };
        let (snapshot, mut warnings) = network.to_snapshot(&config.refresh.zone);
        let (table, more) = compile(&snapshot, &config.refresh.compile);
        warnings.extend(more);
        println!(
            "snapshot {name}: {} links, {} entries, {} offers",
            table.links(),
            table.entries(),
            table.offers()
        );
        for warning in warnings {
            self.warning(warning);
        }
    }

    fn warning(&mut self, problem: impl std::fmt::Display) {
        self.warnings += 1;
        println!("warning: {problem}");
    }

    fn error(&mut self, problem: impl std::fmt::Display) {
        self.errors += 1;
        println!("error: {problem}");
    }
}
