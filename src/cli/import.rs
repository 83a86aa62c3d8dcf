//! `smartlink import`: a whole network from a file, all of it or nothing.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use bytes::Bytes;
use clap::{Args, ValueHint};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Map, Value};

use super::api::{ApiArgs, Column, JsonArg, cell, number, print_table, text};
use super::network_file::{self, LISTS, NetworkFile};

/// Where the network comes from.
#[derive(Debug, Args)]
pub struct ImportArgs {
    /// The file to read, TOML or JSON; `-` is standard input
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    file: PathBuf,
    /// Remove what the file does not name: the file is the whole network
    #[arg(long)]
    replace: bool,
    #[command(flatten)]
    api: ApiArgs,
    #[command(flatten)]
    output: JsonArg,
}

/// Reads, checks, sends, and prints what changed.
pub fn run(args: &ImportArgs) -> anyhow::Result<ExitCode> {
    let name =
        if args.file == Path::new("-") { "standard input".into() } else { args.file.display().to_string() };
    // A wrong key or address is found before a long file is read.
    let one_row = Map::from_iter([("row_limit".to_owned(), Value::from(1))]);
    args.api.open()?.read("smart_links.json", &one_row)?;

    let progress = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
    let content = read_file(&args.file, &progress).with_context(|| format!("cannot read {name}"))?;
    spin(&progress, "checking")?;
    let file = network_file::read(&content).with_context(|| name.clone())?;
    drop(content);
    if args.replace && file.items() == 0 {
        bail!("{name} names nothing; with --replace that would remove the whole network");
    }
    let body = Bytes::from(file.body(args.replace));

    measure(&progress, "sending", body.len() as u64)?;
    let api = args.api.open_within(IMPORT_TIMEOUT)?;
    let sent = {
        let progress = progress.clone();
        Arc::new(move |bytes: usize| {
            progress.inc(bytes as u64);
            if progress.length() == Some(progress.position()) {
                // Whoever looks sees that it goes on, at the other end.
                let _ = spin(&progress, "sent; the API checks and writes");
            }
        })
    };
    let answer = api.wait(api.client.send("import_network.json", body, sent));
    progress.finish_and_clear();
    let answer = answer.map_err(|error| place(&error.to_string(), &name, &file))?;
    if args.output.json {
        println!("{}", answer.text);
    } else {
        print_counts(&answer.value()["response"])?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Says on which line the item is that the API refuses.
fn place(message: &str, name: &str, file: &NetworkFile) -> anyhow::Error {
    match file.line_of(message) {
        Some(line) => anyhow!("{name}, line {line}: {message}; nothing was changed"),
        None => anyhow!("{message}"),
    }
}

fn read_file(path: &Path, progress: &ProgressBar) -> anyhow::Result<String> {
    let mut text = String::new();
    if path == Path::new("-") {
        spin(progress, "reading")?;
        progress.wrap_read(io::stdin().lock()).read_to_string(&mut text)?;
    } else {
        let file = File::open(path)?;
        measure(progress, "reading", file.metadata()?.len())?;
        progress.wrap_read(file).read_to_string(&mut text)?;
    }
    Ok(text)
}

fn measure(progress: &ProgressBar, message: &'static str, bytes: u64) -> anyhow::Result<()> {
    let style = ProgressStyle::with_template("{msg:10} {bar:40} {bytes}/{total_bytes} ({eta})")?;
    progress.disable_steady_tick();
    progress.set_style(style);
    progress.reset();
    progress.set_message(message);
    progress.set_length(bytes);
    Ok(())
}

fn spin(progress: &ProgressBar, message: &'static str) -> anyhow::Result<()> {
    progress.set_style(ProgressStyle::with_template("{spinner} {msg} ({elapsed})")?);
    progress.set_message(message);
    progress.enable_steady_tick(TICK);
    Ok(())
}

fn print_counts(response: &Value) -> anyhow::Result<()> {
    let rows: Vec<Value> = LISTS
        .iter()
        .map(|list| {
            let mut row = response[list.name].clone();
            if let Some(members) = row.as_object_mut() {
                members.insert("list".to_owned(), list.name.into());
            }
            row
        })
        .collect();
    print_table(COLUMNS, &rows, cell)
}

const COLUMNS: &[Column] =
    &[text("list"), number("created"), number("changed"), number("unchanged"), number("removed")];

/// A million links take minutes; a node that is gone is noticed by the connection.
const IMPORT_TIMEOUT: Duration = Duration::from_secs(30 * 60);

const TICK: Duration = Duration::from_millis(100);

pub const EXAMPLES: &str = "\
An item stands whole, under the id that the file gives it: what it leaves out has the value of a new one. \
What the file does not name stays as it is, or with --replace is removed. \
A file with one bad item changes nothing.

Needs a call of smartlink's own API, which another CAKE lacks.

Examples:
  smartlink import network.toml
  smartlink import network.json --replace
  SMARTLINK_API_KEY_FILE=b.key smartlink import network.toml --api http://node-b:9180";
