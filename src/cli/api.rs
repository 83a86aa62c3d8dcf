//! What the commands over a CAKE API share: where it is, the key for it, one call, and a list of rows for people or
//! for programs.

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, ValueHint};
use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;
use serde_json::{Map, Value};
use url::{Host, Url};

use super::one_line::OneLine;
use crate::cake::{Client, ClientOptions, Envelope, KeySource, ROWS_MAX, Rows, parse_upstream};
use crate::config::{API_KEY, API_KEY_FILE, KEY_FILE};

/// Which API is spoken to, and for whom the answer is.
#[derive(Clone, Debug, Args)]
pub struct ApiArgs {
    /// The CAKE API: of a node (its admin address), or another
    // It was --upstream, and is so in scripts. The variable was that of serve, whose upstream is another API than the one that a
    // person on the same machine means: the node's.
    #[arg(long, alias = "upstream", global = true, value_name = "URL", env = "SMARTLINK_API_URL")]
    #[arg(default_value = "http://127.0.0.1:9180", value_hint = ValueHint::Url, help_heading = "Which API")]
    api: String,
    /// PEM file of certificate authorities to trust besides the system's, for an https API [default: none]
    #[arg(long, global = true, value_name = "FILE", env = "SMARTLINK_CA_FILE", value_hint = ValueHint::FilePath)]
    #[arg(help_heading = "Which API")]
    ca_file: Option<PathBuf>,
    /// The node's data directory: its api-key is used where neither SMARTLINK_API_KEY nor SMARTLINK_API_KEY_FILE is set
    #[arg(long, global = true, value_name = "DIR", env = "SMARTLINK_DATA_DIR", value_hint = ValueHint::DirPath)]
    #[arg(default_value = "./smartlink-data", help_heading = "Which API")]
    data_dir: PathBuf,
}

/// For programs instead of for people.
#[derive(Clone, Copy, Debug, Args)]
pub struct JsonArg {
    /// Print the API's own JSON
    #[arg(long, global = true)]
    pub json: bool,
}

/// How much of a list.
#[derive(Clone, Copy, Debug, Default, Args)]
pub struct LimitArg {
    /// At most so many rows [default: all]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,
}

/// An API that can be called, from a command that has nothing else to do meanwhile.
pub struct Api {
    pub client: Client,
    runtime: tokio::runtime::Runtime,
}

/// A column of a table: its heading, which is the API's name, and whether numbers stand in it.
pub struct Column {
    pub name: &'static str,
    pub is_number: bool,
}

impl ApiArgs {
    /// With the time that a call of a person may take.
    pub fn open(&self) -> anyhow::Result<Api> {
        self.open_within(CALL_TIMEOUT)
    }

    /// With another time for each call.
    pub fn open_within(&self, call_timeout: Duration) -> anyhow::Result<Api> {
        let Some(upstream) = parse_upstream(&self.api) else {
            // Not as it was typed: it may hold a key.
            bail!(
                "--api (SMARTLINK_API_URL) is no scheme, host and path of an API, such as http://127.0.0.1:9180; a user, a query or a \
                 password does not belong there"
            );
        };
        let key = self.key(&upstream)?;
        let options = ClientOptions {
            upstream,
            key,
            call_timeout,
            body_bytes_max: BODY_BYTES_MAX,
            rows_max: ROWS_MAX,
            ca_file: self.ca_file.clone(),
        };
        Ok(Api {
            client: Client::new(options).context("cannot prepare TLS for the upstream")?,
            runtime: tokio::runtime::Builder::new_current_thread().enable_all().build()?,
        })
    }

    /// The first of the places where a key is kept. One that is set but unusable is an error, never passed over.
    fn key(&self, upstream: &Url) -> anyhow::Result<KeySource> {
        let set = |name: &str| std::env::var(name).ok().filter(|text| !text.is_empty());
        let source = if set(API_KEY).is_some() {
            KeySource::Environment(API_KEY.to_owned())
        } else if let Some(path) = set(API_KEY_FILE) {
            KeySource::File(path.into())
        } else if !is_on_this_machine(upstream) {
            bail!(
                "no API key for {upstream}: set {API_KEY} or {API_KEY_FILE}; the key in the data directory is the key \
                 of the node on this machine, and is sent to no other"
            );
        } else {
            let path = self.data_dir.join(KEY_FILE);
            if let Err(error) = std::fs::metadata(&path) {
                bail!(
                    "no API key: {API_KEY} and {API_KEY_FILE} are not set, and {} cannot be read ({error}); set one of \
                     them, or give --data-dir, the data directory of the node",
                    path.display()
                );
            }
            KeySource::File(path)
        };
        source.read()?;
        Ok(source)
    }
}

fn is_on_this_machine(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(host)) => host == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.to_canonical().is_loopback(),
        None => false,
    }
}

impl Api {
    pub fn read(&self, call: &str, parameters: &Map<String, Value>) -> anyhow::Result<Envelope> {
        Ok(self.runtime.block_on(self.client.read(call, parameters))?)
    }

    pub fn write(&self, call: &str, parameters: Map<String, Value>) -> anyhow::Result<Envelope> {
        Ok(self.runtime.block_on(self.client.write(call, parameters))?)
    }

    pub fn rows(
        &self,
        call: &str,
        list: &str,
        parameters: &Map<String, Value>,
        limit: LimitArg,
    ) -> anyhow::Result<Rows> {
        let limit = limit.limit.map(|limit| limit as usize);
        Ok(self.wait(self.client.rows(call, list, parameters, limit, |_| ()))?)
    }

    pub fn wait<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }
}

/// What was typed, as the API's parameters: options bear the API's names, and those not given are left out.
pub fn parameters(typed: &impl Serialize) -> anyhow::Result<Map<String, Value>> {
    let Value::Object(fields) = serde_json::to_value(typed)? else { bail!("parameters are an object") };
    Ok(fields.into_iter().filter(|(_, value)| !value.is_null()).collect())
}

/// An amount or an id of a field that routing does not need. A number is sent as one; an empty text takes it away.
pub fn number_or_text(typed: &str) -> Result<Value, std::convert::Infallible> {
    let whole = typed.parse::<i64>().ok().map(Value::from);
    let number = || typed.parse::<f64>().ok().and_then(serde_json::Number::from_f64).map(Value::Number);
    Ok(whole.or_else(number).unwrap_or_else(|| typed.into()))
}

/// Prints a list as the API answers it, in one envelope over all pages, a row on each line.
pub fn print_rows_json(list: &str, rows: &Rows) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    let (open, close) = if rows.nested { ("\"response\":{", "}") } else { ("", "") };
    write!(out, "{{\"request_status\":\"Success\",{open}\"{list}\":[")?;
    for (index, row) in rows.rows.iter().enumerate() {
        write!(out, "{}\n{}", if index == 0 { "" } else { "," }, row.get())?;
    }
    writeln!(out, "\n],\"total_rows\":{}{close}}}", rows.total_rows.unwrap_or(rows.rows.len() as u64))?;
    Ok(())
}

/// Prints rows in columns, for people. `show` gives the text of a cell.
pub fn print_table<T>(
    columns: &[Column],
    rows: &[T],
    show: impl Fn(&T, &str) -> String,
) -> anyhow::Result<()> {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(columns.iter().map(|column| column.name));
    for row in rows {
        // A blank takes less of a column than a spelling does.
        let cell =
            |column: &Column| OneLine(show(row, column.name).replace(char::is_control, " ")).to_string();
        table.add_row(columns.iter().map(cell));
    }
    for (column, shown) in columns.iter().zip(table.column_iter_mut()) {
        shown.set_padding((0, 2));
        if column.is_number {
            shown.set_cell_alignment(CellAlignment::Right);
        }
    }
    let mut out = io::stdout().lock();
    for line in table.to_string().lines() {
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

/// The rows of a list as values, for a table.
pub fn values(rows: &Rows) -> anyhow::Result<Vec<Value>> {
    Ok(rows.rows.iter().map(|row| serde_json::from_str(row.get())).collect::<Result<_, _>>()?)
}

/// A cell: text as it is, everything else as JSON, what is absent as a dash.
pub fn cell(row: &Value, name: &str) -> String {
    match &row[name] {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        value => value.to_string(),
    }
}

pub const fn text(name: &'static str) -> Column {
    Column { name, is_number: false }
}

pub const fn number(name: &'static str) -> Column {
    Column { name, is_number: true }
}

/// A person waits no longer.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// As the sync's default: a page of the longest rules is far below.
const BODY_BYTES_MAX: usize = 64 * 1024 * 1024;
