//! `smartlink export`: a whole network into a file.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::{Args, ValueHint};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Map, Value, json};

use super::api::{Api, ApiArgs, values};
use super::network_file::{self, CAPS, Format, Items, LISTS};
use crate::cake::{CallError, Rows};

/// Where the network goes.
#[derive(Debug, Args)]
pub struct ExportArgs {
    /// The file to write; `-` is standard output
    #[arg(value_name = "FILE", default_value = "-", value_hint = ValueHint::FilePath)]
    file: PathBuf,
    /// [default: json if FILE ends in .json, else toml]
    #[arg(long)]
    format: Option<Format>,
    #[command(flatten)]
    api: ApiArgs,
}

/// Reads the network and writes it.
pub fn run(args: &ExportArgs) -> anyhow::Result<ExitCode> {
    let is_json = args.file.extension().is_some_and(|extension| extension == "json");
    let format = args.format.unwrap_or(if is_json { Format::Json } else { Format::Toml });
    let api = args.api.open()?;
    let progress = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr())
        .with_style(ProgressStyle::with_template("{spinner} {msg} {pos} rows ({per_sec})")?);
    let lists = read(&api, &progress)?;
    progress.finish_and_clear();
    let text = network_file::write(format, &lists);
    if args.file == Path::new("-") {
        io::stdout().lock().write_all(text.as_bytes())?;
    } else {
        replace_file(&args.file, &text).with_context(|| format!("cannot write {}", args.file.display()))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Reads every list; again if the network was changed meanwhile, where the API tells so.
fn read(api: &Api, progress: &ProgressBar) -> anyhow::Result<Vec<Items>> {
    for _ in 0..READS {
        if let Some(lists) = read_once(api, progress)? {
            return Ok(lists);
        }
    }
    bail!("the network was changed {READS} times while it was read; its lists do not fit together; try again")
}

/// `None` if the network was changed meanwhile.
fn read_once(api: &Api, progress: &ProgressBar) -> anyhow::Result<Option<Vec<Items>>> {
    progress.set_position(0);
    let mut state = None;
    let mut lists = Vec::new();
    for list in &LISTS {
        progress.set_message(format!("reading {}:", list.name));
        let call = format!("{}.json", list.name);
        let told = |rows| progress.inc(rows as u64);
        let rows = match api.wait(api.client.rows(&call, list.name, &Map::new(), None, told)) {
            Err(CallError::NotThere { .. }) if list.name == CAPS => Rows::default(),
            rows => rows?,
        };
        let other = state.is_some() && rows.state.is_some() && state != rows.state;
        if rows.changed_in_between || other {
            return Ok(None);
        }
        let items = values(&rows)?;
        state = state.or(rows.state);
        let items: Vec<Value> = match list.name {
            "offers" => items.into_iter().map(|mut row| row["offer"].take()).collect(),
            "offer_geo_targets" => items.iter().flat_map(by_action).collect(),
            _ => items,
        };
        let items = items.into_iter().filter_map(|item| match item {
            Value::Object(members) => Some(members),
            _ => None,
        });
        lists.push(network_file::arrange(list, items.collect()));
    }
    Ok(Some(lists))
}

/// The countries of an offer, those of each action in an item of its own: as `update_offer_geo_targets.json` takes them.
fn by_action(row: &Value) -> Vec<Value> {
    let mut actions: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for target in row["geo_targets"].as_array().into_iter().flatten() {
        if let (Some(action), Some(country)) = (target["action"].as_str(), target["country_code"].as_str()) {
            actions.entry(action.to_ascii_lowercase()).or_default().push(country);
        }
    }
    let item = |(action, mut countries): (String, Vec<&str>)| {
        countries.sort_unstable();
        json!({ "offer_id": row["offer_id"], "action": action, "countries": countries })
    };
    actions.into_iter().map(item).collect()
}

/// Through a temporary file beside it: a reader sees the old network or the new one.
pub(super) fn replace_file(path: &Path, text: &str) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".tmp");
    let temporary = path.with_file_name(name);
    let mut file = File::create(&temporary)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&temporary, path)
}

/// How often a network that changes in between is read.
const READS: usize = 5;

pub const EXAMPLES: &str = "\
The file holds offers, links, geo targets, attachments, rules and caps, sorted by their ids; \
two exports of the same network are the same, byte for byte.

Examples:
  smartlink export network.toml
  smartlink export --format json | jq '.smart_links | length'
  SMARTLINK_API_KEY_FILE=a.key smartlink export network.toml --api http://node-a:9180";
