//! `smartlink cap`: how many clicks or conversions an offer may take, and how many it has taken.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use anyhow::bail;
use clap::{ArgAction, Args, Subcommand};
use serde::Serialize;
use serde_json::{Map, Value};

use super::api::{
    Api, ApiArgs, Column, JsonArg, LimitArg, cell, number, parameters, print_rows_json, print_table, text,
    values,
};
use super::one_line::OneLine;
use crate::cake::wire::{CAP_AMOUNT_MAX, CAP_INTERVALS, CAP_TYPES};

#[derive(Debug, Args)]
pub struct CapArgs {
    #[command(subcommand)]
    action: CapAction,
    #[command(flatten)]
    api: ApiArgs,
    #[command(flatten)]
    output: JsonArg,
}

#[derive(Debug, Subcommand)]
enum CapAction {
    /// Set a cap, or change the one of that name; what is not given then stays as it is.
    #[command(after_help = SET_EXAMPLES)]
    Set(Set),
    /// List caps, and how full they are.
    List(List),
    /// Remove a cap: by its number alone, or by its offer, type and interval, and affiliate if it has one.
    #[command(after_help = REMOVE_EXAMPLES, override_usage = REMOVE_USAGE)]
    Remove(Remove),
    /// Show how full caps are, each second anew, until interrupted.
    #[command(after_help = WATCH_EXAMPLES)]
    Watch(Sought),
}

#[derive(Debug, Args, Serialize)]
struct Set {
    /// The offer
    #[arg(long, value_name = "ID")]
    offer_id: i64,
    /// Count the traffic of this affiliate alone [default: of all together]
    #[arg(long, value_name = "ID")]
    affiliate_id: Option<i64>,
    /// What it counts
    #[arg(long, value_name = "TYPE", value_parser = clap::builder::PossibleValuesParser::new(CAP_TYPES))]
    cap_type: String,
    /// How often it begins anew: never, each day, each ISO week, each month
    #[arg(long, value_name = "INTERVAL", value_parser = clap::builder::PossibleValuesParser::new(CAP_INTERVALS))]
    cap_interval: String,
    /// How many it lets through in a window; 0 is none
    #[arg(long, value_name = "N", value_parser = amount, allow_negative_numbers = true)]
    cap_amount: i64,
    /// In which days, weeks and months begin, such as America/New_York; a new cap has the network's
    #[arg(long, value_name = "ZONE")]
    time_zone: Option<String>,
    /// true: it never closes the offer, and only tells; a new cap has false
    #[arg(long, value_name = "BOOL", action = ArgAction::Set)]
    send_alert_only: Option<bool>,
}

#[derive(Debug, Args, Serialize)]
struct List {
    #[command(flatten)]
    #[serde(flatten)]
    sought: Sought,
    #[command(flatten)]
    #[serde(skip)]
    limit: LimitArg,
}

#[derive(Debug, Args, Serialize)]
struct Sought {
    /// Only this cap
    #[arg(long, value_name = "ID")]
    cap_id: Option<i64>,
    /// Only of this offer
    #[arg(long, value_name = "ID")]
    offer_id: Option<i64>,
    /// Only of this affiliate's traffic
    #[arg(long, value_name = "ID")]
    affiliate_id: Option<i64>,
    /// Only those that count this
    #[arg(long, value_name = "TYPE", value_parser = clap::builder::PossibleValuesParser::new(CAP_TYPES))]
    cap_type: Option<String>,
    /// Only those that begin anew so often
    #[arg(long, value_name = "INTERVAL", value_parser = clap::builder::PossibleValuesParser::new(CAP_INTERVALS))]
    cap_interval: Option<String>,
}

#[derive(Debug, Args, Serialize)]
struct Remove {
    /// The cap; then nothing else is needed
    #[arg(long, value_name = "ID", conflicts_with_all = ["offer_id", "affiliate_id", "cap_type", "cap_interval"])]
    cap_id: Option<i64>,
    /// Its offer
    #[arg(long, value_name = "ID")]
    offer_id: Option<i64>,
    /// The affiliate whose traffic it counts
    #[arg(long, value_name = "ID")]
    affiliate_id: Option<i64>,
    /// What it counts
    #[arg(long, value_name = "TYPE", value_parser = clap::builder::PossibleValuesParser::new(CAP_TYPES))]
    cap_type: Option<String>,
    /// How often it begins anew
    #[arg(long, value_name = "INTERVAL", value_parser = clap::builder::PossibleValuesParser::new(CAP_INTERVALS))]
    cap_interval: Option<String>,
}

impl Remove {
    /// Whether it says which cap, in one of the two ways.
    fn check(&self) -> anyhow::Result<()> {
        let of_name = [
            ("--offer-id", self.offer_id.is_some()),
            ("--cap-type", self.cap_type.is_some()),
            ("--cap-interval", self.cap_interval.is_some()),
        ];
        let missing: Vec<&str> =
            of_name.into_iter().filter(|(_, is_given)| !is_given).map(|(name, _)| name).collect();
        if self.cap_id.is_some() || missing.is_empty() {
            return Ok(());
        }
        let wanted = match missing.len() {
            1 => format!("{} is not given; name the cap", missing[0]),
            2 => format!("{} are not given; name the cap", missing.join(" and ")),
            _ => "no cap is named; name it".to_owned(),
        };
        bail!(
            "{wanted} by --cap-id alone, or by --offer-id, --cap-type, --cap-interval and, if it counts the traffic of \
             one affiliate, --affiliate-id"
        )
    }
}

/// Reads `--cap-amount`.
fn amount(typed: &str) -> Result<i64, String> {
    let amount = typed.parse().ok().filter(|amount| (0..=CAP_AMOUNT_MAX).contains(amount));
    amount.ok_or_else(|| format!("expected a whole number from 0 to {CAP_AMOUNT_MAX}"))
}

/// Makes the call and prints what came of it.
pub fn run(args: &CapArgs) -> anyhow::Result<ExitCode> {
    let (call, fields) = match &args.action {
        CapAction::Set(cap) => ("offer_cap.json", parameters(cap)?),
        CapAction::Remove(cap) => {
            cap.check()?;
            ("remove_offer_cap.json", parameters(cap)?)
        }
        CapAction::List(list) => {
            let rows = args.api.open()?.rows(LIST_CALL, LIST, &parameters(list)?, list.limit)?;
            if args.output.json {
                print_rows_json(LIST, &rows)?;
            } else {
                let rows = values(&rows)?;
                print_table(FILLED, &rows, cell)?;
                if let Some(note) = note(&rows, &list.sought) {
                    writeln!(io::stderr(), "smartlink: {note}")?;
                }
            }
            return Ok(ExitCode::SUCCESS);
        }
        CapAction::Watch(sought) => return watch(&args.api.open()?, &parameters(sought)?, args.output.json),
    };
    let answer = args.api.open()?.write(call, fields)?;
    if args.output.json {
        println!("{}", answer.text);
        return Ok(ExitCode::SUCCESS);
    }
    let answer = answer.value();
    let cap = &answer["response"];
    let whose = match &cap["affiliate_id"] {
        Value::Null => String::new(),
        id => format!(" for affiliate {id}"),
    };
    let told = format!(
        "cap {} {}: {} {} cap of offer {}{whose}, {} in {}{}",
        cell(cap, "cap_id"),
        cell(&answer, "message"),
        cell(cap, "cap_interval"),
        cell(cap, "cap_type"),
        cell(cap, "offer_id"),
        cell(cap, "cap_amount"),
        cell(cap, "time_zone"),
        if cap["send_alert_only"] == true { ", only alerts" } else { "" },
    );
    println!("{}", OneLine(told));
    Ok(ExitCode::SUCCESS)
}

/// What a person may wonder about in a table of these rows.
fn note(rows: &[Value], sought: &Sought) -> Option<String> {
    if rows.iter().any(|row| row["used"].is_null()) {
        return Some(
            "where there is a dash instead of a count, the node cannot ask its ledger of caps at the moment; its log \
             says why and what to do, and smartlink_ledger_reachable of its metrics is 0 until then"
                .to_owned(),
        );
    }
    match sought {
        _ if !rows.is_empty() => None,
        Sought {
            offer_id: Some(offer),
            cap_id: None,
            affiliate_id: None,
            cap_type: None,
            cap_interval: None,
        } => Some(format!(
            "offer {offer} has no cap; `smartlink offer list --offer-id {offer}` tells whether there is such an offer"
        )),
        Sought { offer_id: None, cap_id: None, affiliate_id: None, cap_type: None, cap_interval: None } => {
            Some("there is no cap; `smartlink cap set` sets one".to_owned())
        }
        _ => Some("there is no such cap; `smartlink cap list` shows all there are".to_owned()),
    }
}

/// Ends when it is interrupted, or nobody reads on. A node that is away for a while is waited for.
fn watch(api: &Api, sought: &Map<String, Value>, json: bool) -> anyhow::Result<ExitCode> {
    let mut before = rows_by_id(api, sought)?;
    let mut trouble = String::new();
    tell_changes(&BTreeMap::new(), &before, json)?;
    loop {
        thread::sleep(EVERY);
        match rows_by_id(api, sought) {
            Ok(now) => {
                trouble.clear();
                tell_changes(&before, &now, json)?;
                before = now;
            }
            Err(error) => {
                let error = OneLine(format!("{error:#}")).to_string();
                if error != trouble {
                    writeln!(io::stderr(), "smartlink: {error}; it is asked again")?;
                    trouble = error;
                }
            }
        }
    }
}

/// For programs a line for each cap that is new, changed or gone; for people all of them, on a fresh screen.
fn tell_changes(before: &Caps, now: &Caps, json: bool) -> anyhow::Result<()> {
    if !json {
        let rows: Vec<&Value> = now.values().collect();
        if io::stdout().is_terminal() {
            write!(io::stdout(), "{CLEAR}")?;
        } else if before == now {
            // A file or a pipe keeps what was written.
            return Ok(());
        }
        return print_table(FILLED, &rows, |row, name| cell(row, name));
    }
    let mut out = io::stdout().lock();
    for (_, row) in now.iter().filter(|(id, row)| before.get(id) != Some(row)) {
        writeln!(out, "{row}")?;
    }
    for (_, row) in before.iter().filter(|(id, _)| !now.contains_key(id)) {
        let mut row = row.clone();
        row["removed"] = true.into();
        writeln!(out, "{row}")?;
    }
    Ok(out.flush()?)
}

/// Rows of the list by their numbers.
type Caps = BTreeMap<i64, Value>;

fn rows_by_id(api: &Api, sought: &Map<String, Value>) -> anyhow::Result<Caps> {
    let rows = values(&api.rows(LIST_CALL, LIST, sought, LimitArg::default())?)?;
    let mut caps = Caps::new();
    for row in rows {
        let Some(id) = row["cap_id"].as_i64() else { bail!("a row of {LIST_CALL} has no `cap_id`: {row}") };
        caps.insert(id, row);
    }
    Ok(caps)
}

const LIST_CALL: &str = "offer_caps.json";

const LIST: &str = "offer_caps";

const FILLED: &[Column] = &[
    number("cap_id"),
    number("offer_id"),
    number("affiliate_id"),
    text("cap_type"),
    text("cap_interval"),
    number("cap_amount"),
    number("used"),
    number("leased"),
    number("remaining"),
    text("window_ends_at"),
    text("time_zone"),
    text("send_alert_only"),
];

const EVERY: Duration = Duration::from_secs(1);

/// Empties a terminal, and begins at its top.
const CLEAR: &str = "\x1b[H\x1b[2J\x1b[3J";

pub const EXAMPLES: &str = "\
A cap is known by its name: offer, affiliate, type and interval. An offer is open while all its caps are.

Needs calls of smartlink's own API, which another CAKE lacks.

Examples:
  smartlink cap set --offer-id 1042 --cap-type click --cap-interval daily \\
      --cap-amount 1000 --time-zone America/New_York
  smartlink cap list --offer-id 1042
  smartlink cap watch
  smartlink cap remove --cap-id 3";

const SET_EXAMPLES: &str = "\
Examples:
  smartlink cap set --offer-id 1042 --cap-type click --cap-interval daily \\
      --cap-amount 1000 --time-zone America/New_York
  smartlink cap set --offer-id 1042 --affiliate-id 67890 \\
      --cap-type conversion --cap-interval lifetime --cap-amount 50
      what one affiliate may bring";

/// Two ways, which clap would write as one.
const REMOVE_USAGE: &str = "\
smartlink cap remove [OPTIONS] --cap-id <ID>
       smartlink cap remove [OPTIONS] --offer-id <ID> --cap-type <TYPE> --cap-interval <INTERVAL> [--affiliate-id <ID>]";

const REMOVE_EXAMPLES: &str = "\
Examples:
  smartlink cap remove --cap-id 3
  smartlink cap remove --offer-id 1042 --cap-type click --cap-interval daily";

const WATCH_EXAMPLES: &str = "\
With --json, a line for each cap at first, and then one for each that was changed; one that was removed has \
\"removed\": true.

Examples:
  smartlink cap watch --offer-id 1042
  smartlink cap watch --json | jq -c 'select(.remaining == 0) | .offer_id'";
