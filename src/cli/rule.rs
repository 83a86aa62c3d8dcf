//! `smartlink rule`: routing rules, which are attachments with conditions.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde::Serialize;
use serde_json::Value;

use super::api::{
    ApiArgs, Column, JsonArg, LimitArg, cell, number, parameters, print_rows_json, print_table, text, values,
};
use super::when;

#[derive(Debug, Args)]
pub struct RuleArgs {
    #[command(subcommand)]
    action: RuleAction,
    #[command(flatten)]
    api: ApiArgs,
    #[command(flatten)]
    output: JsonArg,
}

#[derive(Debug, Subcommand)]
enum RuleAction {
    /// List rules.
    List(List),
    /// Create a rule.
    #[command(after_help = CREATE_EXAMPLES)]
    Create(Create),
    /// Change a rule; what is not given stays as it is, conditions are replaced as a whole.
    #[command(after_help = SET_EXAMPLES)]
    Set(Set),
    /// Remove a rule.
    Remove(Remove),
}

#[derive(Debug, Args, Serialize)]
struct List {
    /// Only this rule
    #[arg(long, value_name = "ID")]
    rule_id: Option<i64>,
    /// Only on this link
    #[arg(long, value_name = "ID")]
    smart_link_id: Option<i64>,
    /// Only to this offer
    #[arg(long, value_name = "ID")]
    offer_id: Option<i64>,
    #[command(flatten)]
    #[serde(skip)]
    limit: LimitArg,
}

#[derive(Debug, Args, Serialize)]
struct Create {
    /// The link whose clicks it routes
    #[arg(long, value_name = "ID")]
    smart_link_id: i64,
    /// The offer to which it routes them
    #[arg(long, value_name = "ID")]
    offer_id: i64,
    #[command(flatten)]
    #[serde(flatten)]
    further: RuleFields,
}

#[derive(Debug, Args, Serialize)]
struct Set {
    /// The rule
    #[arg(long, value_name = "ID")]
    rule_id: i64,
    /// The link whose clicks it routes
    #[arg(long, value_name = "ID")]
    smart_link_id: Option<i64>,
    /// The offer to which it routes them
    #[arg(long, value_name = "ID")]
    offer_id: Option<i64>,
    #[command(flatten)]
    #[serde(flatten)]
    further: RuleFields,
}

#[derive(Debug, Args, Serialize)]
struct RuleFields {
    /// Its share in its tier, 1 to 100; 0 for no traffic; a new rule has 1
    #[arg(long, value_name = "N")]
    offer_weight: Option<i64>,
    /// Its tier; lower ones are tried first; a new rule has 1
    #[arg(long, value_name = "N")]
    priority: Option<i64>,
    /// A condition; may be given several times, and all must hold: see below
    #[arg(long, value_name = "CONDITION")]
    #[serde(skip)]
    when: Vec<String>,
    /// All conditions, as the API's JSON; '{}' is a rule that always holds
    #[arg(long, value_name = "JSON", conflicts_with = "when")]
    #[serde(skip)]
    conditions: Option<String>,
}

#[derive(Debug, Args, Serialize)]
struct Remove {
    /// The rule
    #[arg(long, value_name = "ID")]
    rule_id: i64,
}

impl RuleFields {
    /// `None` where nothing was said.
    fn conditions(&self) -> anyhow::Result<Option<Value>> {
        match &self.conditions {
            Some(text) => when::read_json(text).map(Some),
            None if self.when.is_empty() => Ok(None),
            None => when::read(&self.when).map(Some),
        }
    }
}

/// Makes the call and prints what came of it.
pub fn run(args: &RuleArgs) -> anyhow::Result<ExitCode> {
    // What was typed is read before anyone is asked for anything.
    let (call, fields) = match &args.action {
        RuleAction::List(list) => ("routing_rules.json", parameters(list)?),
        RuleAction::Create(rule) => {
            let Some(conditions) = rule.further.conditions()? else {
                anyhow::bail!(
                    "a rule needs --when or --conditions; --conditions '{{}}' makes one that always holds"
                );
            };
            let mut fields = parameters(rule)?;
            fields.insert("conditions".to_owned(), conditions);
            ("routing_rule.json", fields)
        }
        RuleAction::Set(rule) => {
            let mut fields = parameters(rule)?;
            fields.extend(rule.further.conditions()?.map(|all| ("conditions".to_owned(), all)));
            ("update_routing_rule.json", fields)
        }
        RuleAction::Remove(rule) => ("remove_routing_rule.json", parameters(rule)?),
    };
    let api = args.api.open()?;
    if let RuleAction::List(list) = &args.action {
        let rows = api.rows(call, "routing_rules", &fields, list.limit)?;
        if args.output.json {
            print_rows_json("routing_rules", &rows)?;
        } else {
            print_table(COLUMNS, &values(&rows)?, show)?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let answer = api.write(call, fields)?;
    if args.output.json {
        println!("{}", answer.text);
    } else if let RuleAction::Remove(rule) = &args.action {
        println!("rule {} removed", rule.rule_id);
    } else {
        print_table(COLUMNS, &[answer.value()["response"].take()], show)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn show(rule: &Value, name: &str) -> String {
    if name == WHEN { when::write(&rule["conditions"]) } else { cell(rule, name) }
}

const WHEN: &str = "when";

const COLUMNS: &[Column] = &[
    number("rule_id"),
    number("smart_link_id"),
    number("offer_id"),
    number("priority"),
    number("offer_weight"),
    text(WHEN),
];

pub const EXAMPLES: &str = "\
Examples:
  smartlink rule list --smart-link-id 301
  smartlink rule create --smart-link-id 301 --offer-id 1042 --when 'country in US,CA' --when 'device not_in tablet'
  smartlink rule set --rule-id 7 --offer-weight 20
  smartlink rule remove --rule-id 7";

const CREATE_EXAMPLES: &str = "\
Conditions, each with `in` or `not_in` and values with commas between them:
  country, region, city, asn, device, os, browser, language, s1 … s5, referrer_host, ip
  hours DAYS FROM-TO TIME-ZONE, where DAYS is mon-fri or sat,sun, and may be left out

A value that has a comma in it stands in double quotes: --when 'city in \"Washington, D.C.\"'

Examples:
  smartlink rule create --smart-link-id 301 --offer-id 1042 --priority 1 --offer-weight 10 \\
    --when 'country in US,CA' --when 'device not_in tablet' \\
    --when 'hours mon-fri 09:00-17:30 America/New_York'
  smartlink rule create --smart-link-id 301 --offer-id 1042 --conditions '{\"country\":{\"in\":[\"US\"]}}'";

const SET_EXAMPLES: &str = "\
Conditions are written as for `rule create`.

Examples:
  smartlink rule set --rule-id 7 --offer-weight 20
  smartlink rule set --rule-id 7 --when 'country in US,CA,MX'    # instead of all it had";
