//! Routing rules: attachments with conditions. CAKE describes them and documents no call for them; these are ours.

use rusqlite::types::Type;
use rusqlite::{OptionalExtension, Row, Transaction};
use serde_json::value::RawValue;

use super::answer::{Answer, Refusal, Rows, Under};
use super::attachments::{PRIORITY, WEIGHT};
use super::call::{Call, Verb};
use super::contract::{Given, Kind, Parameter, ROW_LIMIT, START_AT_ROW, Shape};
use super::faults::Faults;
use super::links::{LINK_ID, LIST_ROWS_DEFAULT};
use super::offers::OFFER_ID;
use super::parameters::{Parameters, required};
use super::store::{Listing, Put, next_id};
use super::{Options, links, offers};
use crate::cake::RuleRow;
use crate::cake::wire::{Conditions, RoutingRule};

/// `GET routing_rules.json`
pub fn list(transaction: &Transaction<'_>, _: &Options, asked: &Parameters) -> Result<Answer, Refusal> {
    let listing = Listing::new("routing_rules", COLUMNS, "rule_id")
        .filter("rule_id", asked.whole_number("rule_id")?)
        .filter("smart_link_id", asked.whole_number("smart_link_id")?)
        .filter("offer_id", asked.whole_number("offer_id")?);
    let (rows, total_rows) = listing.page(transaction, asked.page(LIST_ROWS_DEFAULT)?, read_row)?;
    Answer::new(Under { response: Rows { noun: "routing_rules", rows, total_rows } })
}

/// `POST routing_rule.json`. Conditions must be sent, be they `{}`: a rule that lost them would take every click.
pub fn create(transaction: &Transaction<'_>, _: &Options, asked: &Parameters) -> Result<Answer, Refusal> {
    let mut faults = Faults::default();
    faults.read(required("conditions", asked.raw("conditions"), CONDITIONS_WANTED))?;
    let mut rule = RoutingRule {
        rule_id: next_id(transaction, "routing_rules")?,
        // Without a link or an offer, which is told then, the rest is still looked at.
        smart_link_id: faults.read(links::existing(transaction, asked))?.unwrap_or_default(),
        offer_id: faults.read(offers::existing(transaction, asked))?.unwrap_or_default(),
        priority: 1,
        offer_weight: 1,
        conditions: Conditions::new(),
    };
    change(&mut rule, asked, faults)?;
    save(transaction, &rule)?;
    Answer::new(Under { response: rule })
}

/// `POST update_routing_rule.json`: what is left out stays as it is; conditions are replaced as a whole.
pub fn update(transaction: &Transaction<'_>, _: &Options, asked: &Parameters) -> Result<Answer, Refusal> {
    let before = existing(transaction, asked)?;
    let mut rule = before.clone();
    let mut faults = Faults::default();
    if asked.raw("smart_link_id").is_some() {
        rule.smart_link_id = faults.read(links::existing(transaction, asked))?.unwrap_or_default();
    }
    if asked.raw("offer_id").is_some() {
        rule.offer_id = faults.read(offers::existing(transaction, asked))?.unwrap_or_default();
    }
    change(&mut rule, asked, faults)?;
    save(transaction, &rule)?;
    let is_idle = rule == before;
    Ok(Answer::new(Under { response: rule })?.idle_if(is_idle))
}

/// `POST remove_routing_rule.json`: answers the rule that was.
pub fn remove(transaction: &Transaction<'_>, _: &Options, asked: &Parameters) -> Result<Answer, Refusal> {
    let rule = existing(transaction, asked)?;
    transaction.prepare_cached("DELETE FROM routing_rules WHERE rule_id = ?")?.execute([rule.rule_id])?;
    Answer::with_message("removed", Under { response: rule })
}

/// A whole rule of an import, with its own id.
pub fn item(_: &Options, asked: &Parameters) -> Result<RoutingRule, Refusal> {
    required("conditions", asked.raw("conditions"), CONDITIONS_WANTED)?;
    let mut rule = RoutingRule {
        rule_id: required("rule_id", asked.whole_number("rule_id")?, "a whole number")?,
        smart_link_id: required("smart_link_id", asked.whole_number("smart_link_id")?, "a whole number")?,
        offer_id: required("offer_id", asked.whole_number("offer_id")?, "a whole number")?,
        priority: 1,
        offer_weight: 1,
        conditions: Conditions::new(),
    };
    change(&mut rule, asked, Faults::default())?;
    Ok(rule)
}

/// Puts a rule of an import in its place.
pub fn put(transaction: &Transaction<'_>, rule: &RoutingRule) -> Result<Put, Refusal> {
    let put = Put::of(find(transaction, rule.rule_id)?.as_ref(), rule);
    if put != Put::Unchanged {
        save(transaction, rule)?;
    }
    Ok(put)
}

fn existing(transaction: &Transaction<'_>, asked: &Parameters) -> Result<RoutingRule, Refusal> {
    let id = required("rule_id", asked.whole_number("rule_id")?, "a whole number")?;
    find(transaction, id)?.ok_or_else(|| Refusal::unknown("rule_id", id))
}

fn find(transaction: &Transaction<'_>, id: i64) -> rusqlite::Result<Option<RoutingRule>> {
    transaction
        .prepare_cached(&format!("SELECT {COLUMNS} FROM routing_rules WHERE rule_id = ?"))?
        .query_row([id], read_row)
        .optional()
}

/// Puts what was sent into the rule, and refuses a rule that the sync would not read.
fn change(rule: &mut RoutingRule, asked: &Parameters, mut faults: Faults) -> Result<(), Refusal> {
    if let Some(priority) = faults.sent(asked.whole_number("priority"))? {
        rule.priority = priority;
    }
    if let Some(weight) = faults.sent(asked.whole_number("offer_weight"))? {
        rule.offer_weight = weight;
    }
    if let Some(conditions) = faults.sent(asked.object("conditions"))? {
        rule.conditions = conditions.into_iter().collect();
    }
    faults.extend(rule.wrong());
    faults.end()
}

fn save(transaction: &Transaction<'_>, rule: &RoutingRule) -> Result<(), Refusal> {
    let conditions =
        serde_json::to_string(&rule.conditions).map_err(|error| Refusal::Broken(error.to_string()))?;
    transaction
        .prepare_cached(&format!(
            "INSERT INTO routing_rules ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?)
             ON CONFLICT (rule_id) DO UPDATE SET
                 smart_link_id = excluded.smart_link_id, offer_id = excluded.offer_id,
                 priority = excluded.priority, offer_weight = excluded.offer_weight,
                 conditions = excluded.conditions"
        ))?
        .execute((
            rule.rule_id,
            rule.smart_link_id,
            rule.offer_id,
            rule.priority,
            rule.offer_weight,
            conditions,
        ))?;
    Ok(())
}

/// A row of [`COLUMNS`].
fn read_row(row: &Row<'_>) -> rusqlite::Result<RoutingRule> {
    let conditions: String = row.get(5)?;
    Ok(RoutingRule {
        rule_id: row.get(0)?,
        smart_link_id: row.get(1)?,
        offer_id: row.get(2)?,
        priority: row.get(3)?,
        offer_weight: row.get(4)?,
        conditions: serde_json::from_str(&conditions)
            .map_err(|error| rusqlite::Error::FromSqlConversionFailure(5, Type::Text, error.into()))?,
    })
}

/// The same row with its conditions as they stand, which nobody looks into on the way to an edge.
pub fn read_line(row: &Row<'_>) -> rusqlite::Result<RuleRow> {
    Ok(RuleRow {
        rule_id: row.get(0)?,
        smart_link_id: row.get(1)?,
        offer_id: row.get(2)?,
        priority: row.get(3)?,
        offer_weight: row.get(4)?,
        conditions: RawValue::from_string(row.get(5)?)
            .map_err(|error| rusqlite::Error::FromSqlConversionFailure(5, Type::Text, error.into()))?,
    })
}

/// `GET routing_rules.json`
pub const LIST: Call = Call {
    verb: Verb::Read,
    name: "routing_rules.json",
    about: "Lists routing rules.",
    parameters: &[
        RULE_ID.sought(),
        LINK_ID.sought(),
        OFFER_ID.sought(),
        START_AT_ROW,
        ROW_LIMIT.default(Given::Number(LIST_ROWS_DEFAULT)),
    ],
    example: r##"{"rule_id": 1, "smart_link_id": 301, "offer_id": 1045, "start_at_row": 0, "row_limit": 100}"##,
    answer: Shape::Page { noun: "routing_rules", item: "RoutingRule" },
    run: list,
};

/// `POST routing_rule.json`
pub const CREATE: Call = Call {
    verb: Verb::Write,
    name: "routing_rule.json",
    about: "Creates a rule: an offer on a link, under conditions.",
    parameters: &[
        LINK_ID.required(),
        OFFER_ID.required(),
        PRIORITY.default(Given::Number(1)),
        WEIGHT.default(Given::Number(1)),
        CONDITIONS.required(),
    ],
    example: r##"{"smart_link_id": 301, "offer_id": 1042, "priority": 1, "offer_weight": 10, "conditions": {"country": {"in": ["US", "CA"]}, "device": {"not_in": ["tablet"]}, "hours": {"days": ["mon", "fri"], "from": "09:00", "to": "17:30", "time_zone": "America/New_York"}}}"##,
    answer: Shape::Under { item: "RoutingRule" },
    run: create,
};

/// `POST update_routing_rule.json`
pub const UPDATE: Call = Call {
    verb: Verb::Write,
    name: "update_routing_rule.json",
    about: "Changes a rule. What is left out stays as it is; conditions are replaced as a whole.",
    parameters: &[RULE_ID.required(), LINK_ID, OFFER_ID, PRIORITY, WEIGHT, CONDITIONS],
    example: r##"{"rule_id": 1, "smart_link_id": 301, "offer_id": 1045, "priority": 1, "offer_weight": 100, "conditions": {"country": {"in": ["GB"]}}}"##,
    answer: Shape::Under { item: "RoutingRule" },
    run: update,
};

/// `POST remove_routing_rule.json`
pub const REMOVE: Call = Call {
    verb: Verb::Write,
    name: "remove_routing_rule.json",
    about: "Removes a rule.",
    parameters: &[RULE_ID.required()],
    example: r##"{"rule_id": 1}"##,
    answer: Shape::Told { item: "RoutingRule", messages: &["removed"] },
    run: remove,
};

const CONDITIONS_WANTED: &str = "an object; {} is a rule that always holds";

const RULE_ID: Parameter = Parameter::new("rule_id", Kind::Id, "The rule.");

const CONDITIONS: Parameter = Parameter::new(
    "conditions",
    Kind::Conditions,
    "Which clicks it takes: those for which all of them hold.",
);

/// Columns for [`read_line`], table and order, for a reader of all of it.
pub const ALL: (&str, &str, &str) = (COLUMNS, "routing_rules", "rule_id");

const COLUMNS: &str = "rule_id, smart_link_id, offer_id, priority, offer_weight, conditions";
