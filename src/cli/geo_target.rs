//! `smartlink geo-target`: the countries that an offer allows or blocks.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde::Serialize;
use serde_json::{Value, json};

use super::api::{
    ApiArgs, Column, JsonArg, LimitArg, cell, number, parameters, print_rows_json, print_table, text, values,
};
use super::one_line::OneLine;

#[derive(Debug, Args)]
pub struct GeoTargetArgs {
    #[command(subcommand)]
    action: GeoTargetAction,
    #[command(flatten)]
    api: ApiArgs,
    #[command(flatten)]
    output: JsonArg,
}

#[derive(Debug, Subcommand)]
enum GeoTargetAction {
    /// List the geo targets of an offer, or of all offers that have some.
    List(List),
    /// Allow or block countries; a country that has the other action changes to this one.
    Set(Set),
    /// Take countries out of an offer's geo targets.
    Remove(Remove),
}

#[derive(Debug, Args, Serialize)]
struct List {
    /// Only of this offer
    #[arg(long, value_name = "ID")]
    offer_id: Option<i64>,
    #[command(flatten)]
    #[serde(skip)]
    limit: LimitArg,
}

#[derive(Debug, Args, Serialize)]
struct Set {
    /// The offer
    #[arg(long, value_name = "ID")]
    offer_id: i64,
    /// ISO 3166-1 codes with commas between them, such as US,CA
    #[arg(long, value_name = "CODES")]
    countries: String,
    /// allow: these countries alone; block: all but these
    #[arg(long, value_name = "ACTION", value_parser = ["allow", "block"])]
    action: String,
}

#[derive(Debug, Args, Serialize)]
struct Remove {
    /// The offer
    #[arg(long, value_name = "ID")]
    offer_id: i64,
    /// ISO 3166-1 codes with commas between them, such as US,CA
    #[arg(long, value_name = "CODES")]
    countries: String,
}

/// Makes the call and prints what came of it.
pub fn run(args: &GeoTargetArgs) -> anyhow::Result<ExitCode> {
    let api = args.api.open()?;
    let json = args.output.json;
    let (fields, done) = match &args.action {
        GeoTargetAction::List(list) if list.offer_id.is_some() => {
            let answer = api.read("offer_geo_targets.json", &parameters(list)?)?;
            if json {
                println!("{}", answer.text);
            } else {
                print_targets(&[answer.value()])?;
            }
            return Ok(ExitCode::SUCCESS);
        }
        GeoTargetAction::List(list) => {
            let rows =
                api.rows("offer_geo_targets.json", "offer_geo_targets", &parameters(list)?, list.limit)?;
            if json {
                print_rows_json("offer_geo_targets", &rows)?;
            } else {
                print_targets(&values(&rows)?)?;
            }
            return Ok(ExitCode::SUCCESS);
        }
        GeoTargetAction::Set(fields) if fields.action == "allow" => (parameters(fields)?, "allows"),
        GeoTargetAction::Set(fields) => (parameters(fields)?, "blocks"),
        GeoTargetAction::Remove(fields) => {
            let mut fields = parameters(fields)?;
            fields.insert("action".to_owned(), "remove".into());
            (fields, "no longer names")
        }
    };
    let answer = api.write("update_offer_geo_targets.json", fields)?;
    if json {
        println!("{}", answer.text);
    } else {
        let answer = answer.value();
        let countries: Vec<&str> =
            answer["updated_countries"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let offer = cell(&answer, "offer_id");
        println!("{}", OneLine(format_args!("offer {offer} {done} {}", countries.join(", "))));
    }
    Ok(ExitCode::SUCCESS)
}

/// A row for each country.
fn print_targets(offers: &[Value]) -> anyhow::Result<()> {
    let mut rows = Vec::new();
    for offer in offers {
        for target in offer["geo_targets"].as_array().into_iter().flatten() {
            rows.push(json!({
                "offer_id": offer["offer_id"], "country_code": target["country_code"],
                "country_name": target["country_name"], "action": target["action"],
            }));
        }
    }
    print_table(COLUMNS, &rows, cell)
}

const COLUMNS: &[Column] = &[number("offer_id"), text("country_code"), text("country_name"), text("action")];

pub const EXAMPLES: &str = "\
Examples:
  smartlink geo-target list --offer-id 1042
  smartlink geo-target set --offer-id 1042 --countries US,CA --action allow
  smartlink geo-target remove --offer-id 1042 --countries CA";
