//! `smartlink link`: links, and the offers attached to them.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde::Serialize;
use serde_json::Value;

use super::api::{
    ApiArgs, Column, JsonArg, LimitArg, cell, number, parameters, print_rows_json, print_table, text, values,
};

#[derive(Debug, Args)]
pub struct LinkArgs {
    #[command(subcommand)]
    action: LinkAction,
    #[command(flatten)]
    api: ApiArgs,
    #[command(flatten)]
    output: JsonArg,
}

#[derive(Debug, Subcommand)]
enum LinkAction {
    /// List links.
    List(List),
    /// List the offers that are attached to links.
    Offers(Offers),
    /// Create a link.
    #[command(after_help = CREATE_EXAMPLES)]
    Create(Create),
    /// Attach an offer to a link, or change its weight or priority there.
    #[command(after_help = ATTACH_EXAMPLES)]
    Attach(Attach),
    /// Detach an offer from a link.
    Detach(Detach),
    /// Change a link; what is not given stays as it is.
    #[command(after_help = SET_EXAMPLES)]
    Set(Set),
}

#[derive(Debug, Args, Serialize)]
struct List {
    /// Only this link
    #[arg(long, value_name = "ID")]
    smart_link_id: Option<i64>,
    /// Only links of this affiliate
    #[arg(long, value_name = "ID")]
    affiliate_id: Option<i64>,
    /// Only links of this status: active or inactive
    #[arg(long, value_name = "STATUS")]
    smart_link_status: Option<String>,
    #[command(flatten)]
    #[serde(skip)]
    limit: LimitArg,
}

#[derive(Debug, Args, Serialize)]
struct Offers {
    /// Only on this link
    #[arg(long, value_name = "ID")]
    smart_link_id: Option<i64>,
    /// Only this offer
    #[arg(long, value_name = "ID")]
    offer_id: Option<i64>,
    #[command(flatten)]
    #[serde(skip)]
    limit: LimitArg,
}

#[derive(Debug, Args, Serialize)]
struct Create {
    /// Its name
    #[arg(long, value_name = "TEXT")]
    smart_link_name: String,
    /// Whose link it is
    #[arg(long, value_name = "ID")]
    affiliate_id: i64,
    #[command(flatten)]
    #[serde(flatten)]
    further: LinkFields,
}

#[derive(Debug, Args, Serialize)]
struct Set {
    /// The link
    #[arg(long, value_name = "ID")]
    smart_link_id: i64,
    /// Its name
    #[arg(long, value_name = "TEXT")]
    smart_link_name: Option<String>,
    /// Whose link it is
    #[arg(long, value_name = "ID")]
    affiliate_id: Option<i64>,
    #[command(flatten)]
    #[serde(flatten)]
    further: LinkFields,
}

#[derive(Debug, Args, Serialize)]
struct LinkFields {
    /// active or inactive; a new link is active
    #[arg(long, value_name = "STATUS")]
    smart_link_status: Option<String>,
    /// How one offer of a tier is chosen: weighted, even or priority; a new link is weighted
    #[arg(long, value_name = "TYPE")]
    rotation_type: Option<String>,
    /// Whether offers whose caps are full are passed over: true or false; a new link is true
    #[arg(long, value_name = "BOOL")]
    cap_aware: Option<bool>,
    /// Where clicks go that no offer takes; '' takes it away, so that the network's is used
    #[arg(long, value_name = "URL")]
    fallback_url: Option<String>,
}

#[derive(Debug, Args, Serialize)]
struct Attach {
    /// The link
    #[arg(long, value_name = "ID")]
    smart_link_id: i64,
    /// The offer
    #[arg(long, value_name = "ID")]
    offer_id: i64,
    /// Its share in its tier, 1 to 100; 0 for no traffic [default: 1, or as it is]
    #[arg(long, value_name = "N")]
    offer_weight: Option<i64>,
    /// Its tier; lower ones are tried first [default: 1, or as it is]
    #[arg(long, value_name = "N")]
    priority: Option<i64>,
}

#[derive(Debug, Args, Serialize)]
struct Detach {
    /// The link
    #[arg(long, value_name = "ID")]
    smart_link_id: i64,
    /// The offer
    #[arg(long, value_name = "ID")]
    offer_id: i64,
}

/// Makes the call and prints what came of it.
pub fn run(args: &LinkArgs) -> anyhow::Result<ExitCode> {
    let api = args.api.open()?;
    let json = args.output.json;
    let (call, fields) = match &args.action {
        LinkAction::List(list) => {
            let rows = api.rows("smart_links.json", "smart_links", &parameters(list)?, list.limit)?;
            if json {
                print_rows_json("smart_links", &rows)?;
            } else {
                print_table(LINK_COLUMNS, &values(&rows)?, cell)?;
            }
            return Ok(ExitCode::SUCCESS);
        }
        LinkAction::Offers(list) => {
            let rows =
                api.rows("smart_link_offers.json", "smart_link_offers", &parameters(list)?, list.limit)?;
            if json {
                print_rows_json("smart_link_offers", &rows)?;
            } else {
                print_table(ENTRY_COLUMNS, &values(&rows)?, cell)?;
            }
            return Ok(ExitCode::SUCCESS);
        }
        LinkAction::Create(fields) => ("smart_link.json", parameters(fields)?),
        LinkAction::Set(fields) => ("update_smart_link.json", parameters(fields)?),
        LinkAction::Attach(fields) => ("smart_link_offer.json", parameters(fields)?),
        LinkAction::Detach(fields) => ("remove_smart_link_offer.json", parameters(fields)?),
    };
    let answer = api.write(call, fields)?;
    if json {
        println!("{}", answer.text);
        return Ok(ExitCode::SUCCESS);
    }
    let value = answer.value();
    // CAKE publishes both places for a created link.
    let item = if value["response"].is_object() { &value["response"] } else { &value["smart_link"] };
    match &args.action {
        LinkAction::Create(_) | LinkAction::Set(_) => {
            print_table(LINK_COLUMNS, std::slice::from_ref(item), cell)?;
        }
        LinkAction::Attach(of) => {
            tell_entry(&value, item, "attached", "to", of.offer_id, of.smart_link_id);
        }
        LinkAction::Detach(of) => {
            tell_entry(&value, item, "removed", "from", of.offer_id, of.smart_link_id);
        }
        LinkAction::List(_) | LinkAction::Offers(_) => {}
    }
    Ok(ExitCode::SUCCESS)
}

/// `offer 1042 attached to link 301: weight 60, priority 1`
fn tell_entry(answer: &Value, entry: &Value, done: &str, joint: &str, offer: i64, link: i64) {
    let done = answer["message"].as_str().unwrap_or(done);
    let joint = if ["changed", "unchanged"].contains(&done) { "on" } else { joint };
    let weight = if entry["offer_weight"].is_null() {
        String::new()
    } else {
        format!(": weight {}, priority {}", cell(entry, "offer_weight"), cell(entry, "priority"))
    };
    println!("offer {offer} {} {joint} link {link}{weight}", done.replace(char::is_control, " "));
}

const LINK_COLUMNS: &[Column] = &[
    number("smart_link_id"),
    text("smart_link_name"),
    number("affiliate_id"),
    text("smart_link_status"),
    text("rotation_type"),
    text("cap_aware"),
    text("fallback_url"),
    text("tracking_url"),
];

const ENTRY_COLUMNS: &[Column] =
    &[number("smart_link_id"), number("offer_id"), number("offer_weight"), number("priority")];

pub const EXAMPLES: &str = "\
Examples:
  smartlink link list --affiliate-id 67890
  smartlink link create --smart-link-name 'Finance - US' --affiliate-id 67890
  smartlink link attach --smart-link-id 301 --offer-id 1042 --offer-weight 60
  smartlink link offers --smart-link-id 301
  smartlink link list --json | jq '.response.smart_links[].tracking_url'";

const CREATE_EXAMPLES: &str = "\
Examples:
  smartlink link create --smart-link-name 'Finance - US' --affiliate-id 67890
  smartlink link create --smart-link-name 'Apps' --affiliate-id 7 --rotation-type even \\
    --fallback-url 'https://www.example.com/apps?link={smart_link_id}'";

const ATTACH_EXAMPLES: &str = "\
Examples:
  smartlink link attach --smart-link-id 301 --offer-id 1042 --offer-weight 60 --priority 1
  smartlink link attach --smart-link-id 301 --offer-id 1042 --priority 2    # its weight stays";

const SET_EXAMPLES: &str = "\
Examples:
  smartlink link set --smart-link-id 301 --smart-link-status inactive
  smartlink link set --smart-link-id 301 --fallback-url ''";
