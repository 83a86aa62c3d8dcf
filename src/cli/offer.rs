//! `smartlink offer`: offers.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde::Serialize;
use serde_json::Value;

use super::api::{
    ApiArgs, Column, JsonArg, LimitArg, cell, number, number_or_text, parameters, print_rows_json,
    print_table, text, values,
};

#[derive(Debug, Args)]
pub struct OfferArgs {
    #[command(subcommand)]
    action: OfferAction,
    #[command(flatten)]
    api: ApiArgs,
    #[command(flatten)]
    output: JsonArg,
}

#[derive(Debug, Subcommand)]
enum OfferAction {
    /// List offers.
    List(List),
    /// Create an offer.
    #[command(after_help = CREATE_EXAMPLES)]
    Create(Create),
    /// Change an offer; what is not given stays as it is.
    #[command(after_help = SET_EXAMPLES)]
    Set(Set),
}

#[derive(Debug, Args, Serialize)]
struct List {
    /// Only this offer
    #[arg(long, value_name = "ID")]
    offer_id: Option<i64>,
    /// Only offers of this status
    #[arg(long, value_name = "STATUS")]
    offer_status: Option<String>,
    /// Only offers of this advertiser
    #[arg(long, value_name = "ID")]
    advertiser_id: Option<i64>,
    /// Only offers of this vertical
    #[arg(long, value_name = "ID")]
    vertical_id: Option<i64>,
    /// Sort by offer_id or offer_name [default: offer_id]
    #[arg(long, value_name = "FIELD")]
    sort_field: Option<String>,
    /// The last first: true or false
    #[arg(long, value_name = "BOOL")]
    sort_descending: Option<bool>,
    #[command(flatten)]
    #[serde(skip)]
    limit: LimitArg,
}

#[derive(Debug, Args, Serialize)]
struct Create {
    /// Its name
    #[arg(long, value_name = "TEXT")]
    offer_name: String,
    /// Where its clicks go: https, with tokens such as #reqid# or {click_id}
    #[arg(long, value_name = "URL")]
    offer_url: String,
    #[command(flatten)]
    #[serde(flatten)]
    further: OfferFields,
}

#[derive(Debug, Args, Serialize)]
struct Set {
    /// The offer
    #[arg(long, value_name = "ID")]
    offer_id: i64,
    /// Its name
    #[arg(long, value_name = "TEXT")]
    offer_name: Option<String>,
    /// Where its clicks go: https, with tokens such as #reqid# or {click_id}
    #[arg(long, value_name = "URL")]
    offer_url: Option<String>,
    #[command(flatten)]
    #[serde(flatten)]
    further: OfferFields,
}

#[derive(Debug, Args, Serialize)]
struct OfferFields {
    /// active, inactive, paused, pending or expired; a new offer is active
    #[arg(long, value_name = "STATUS")]
    offer_status: Option<String>,
    /// What a conversion pays; '' takes it away
    #[arg(long, value_name = "AMOUNT", value_parser = number_or_text)]
    payout: Option<Value>,
    /// Its last second, 'YYYY-MM-DD HH:MM:SS' in the network's time zone; '' takes it away
    #[arg(long, value_name = "DATE")]
    expiration_date: Option<String>,
    // What CAKE documents and routing does not need: kept, and answered again.
    #[arg(long, value_name = "ID", value_parser = number_or_text, help_heading = KEPT)]
    advertiser_id: Option<Value>,
    #[arg(long, value_name = "ID", value_parser = number_or_text, help_heading = KEPT)]
    vertical_id: Option<Value>,
    #[arg(long, value_name = "TYPE", help_heading = KEPT)]
    payout_type: Option<String>,
    #[arg(long, value_name = "AMOUNT", value_parser = number_or_text, help_heading = KEPT)]
    revenue: Option<Value>,
    #[arg(long, value_name = "TYPE", help_heading = KEPT)]
    revenue_type: Option<String>,
    #[arg(long, value_name = "ID", value_parser = number_or_text, help_heading = KEPT)]
    currency_id: Option<Value>,
    #[arg(long, value_name = "HOURS", value_parser = number_or_text, help_heading = KEPT)]
    session_hours: Option<Value>,
    #[arg(long, value_name = "URL", help_heading = KEPT)]
    preview_url: Option<String>,
    #[arg(long, value_name = "TEXT", help_heading = KEPT)]
    offer_description: Option<String>,
}

/// Makes the call and prints what came of it.
pub fn run(args: &OfferArgs) -> anyhow::Result<ExitCode> {
    let api = args.api.open()?;
    let (call, fields) = match &args.action {
        OfferAction::List(list) => {
            let rows = api.rows("offers.json", "offers", &parameters(list)?, list.limit)?;
            if args.output.json {
                print_rows_json("offers", &rows)?;
            } else {
                let offers: Vec<Value> = values(&rows)?.iter().map(|row| row["offer"].clone()).collect();
                print_table(COLUMNS, &offers, cell)?;
            }
            return Ok(ExitCode::SUCCESS);
        }
        OfferAction::Create(fields) => ("offer.json", parameters(fields)?),
        OfferAction::Set(fields) => ("update_offer.json", parameters(fields)?),
    };
    let answer = api.write(call, fields)?;
    if args.output.json {
        println!("{}", answer.text);
    } else {
        print_table(COLUMNS, &[answer.value()["offer"].take()], cell)?;
    }
    Ok(ExitCode::SUCCESS)
}

const COLUMNS: &[Column] = &[
    number("offer_id"),
    text("offer_name"),
    text("offer_status"),
    number("payout"),
    text("expiration_date"),
    text("offer_url"),
];

const KEPT: &str = "Kept for CAKE's other tools; routing does not use them";

pub const EXAMPLES: &str = "\
Examples:
  smartlink offer list --offer-status active
  smartlink offer create --offer-name 'Card US' --offer-url 'https://shop.example.com/a?r=#reqid#' --payout 45
  smartlink offer set --offer-id 1042 --offer-status paused
  smartlink offer list --json | jq '.offers[].offer.offer_url'";

const CREATE_EXAMPLES: &str = "\
Examples:
  smartlink offer create --offer-name 'Card US' --payout 45 \\
    --offer-url 'https://shop.example.com/a?sub={sub_id}&r=#reqid#' \\
    --expiration-date '2027-01-31 23:59:59'";

const SET_EXAMPLES: &str = "\
Examples:
  smartlink offer set --offer-id 1042 --offer-status paused
  smartlink offer set --offer-id 1042 --expiration-date ''";
