//! The text of a `routing.toml`, read into the API's items.
//!
//! The words are the API's, and so is the judgement: what the embedded API would refuse is refused here, with its line.

use std::borrow::Cow;
use std::collections::HashMap;
use std::hash::Hash;

use serde_json::Value;
use toml::Spanned;
use toml::de::{DeInteger, DeTable, DeValue};

use crate::cake::wire::{
    CAP_INTERVALS, CAP_TYPES, FieldError, OfferCap, RoutingRule, SmartLinkOffer, expected, read_zone,
};

use crate::cake::rule_id;
use crate::routing::{Attachment, Entry};

use super::overlay::{Overlay, OverlayProblem, Placed};

/// Answers everything that is wrong, in the order of the lines; at least one thing.
pub fn read(text: &str) -> Result<Overlay, Vec<OverlayProblem>> {
    let newlines = text.match_indices('\n').map(|(offset, _)| offset).collect();
    let mut reading = Reading { newlines, problems: Vec::new() };
    let mut overlay = Overlay::default();
    match DeTable::parse(text) {
        Ok(file) => reading.file(file.get_ref(), &mut overlay),
        Err(error) => {
            let start = error.span().map_or(0, |span| span.start);
            reading.problem(start, error.message().replace('\n', ", "));
        }
    }
    reading.problems.sort_by_key(|problem| problem.line);
    if reading.problems.is_empty() { Ok(overlay) } else { Err(reading.problems) }
}

/// What is needed while a file is read: where its lines end, and what was wrong so far.
struct Reading {
    newlines: Vec<usize>,
    problems: Vec<OverlayProblem>,
}

/// One table of a list, and where it begins.
struct Item<'t> {
    start: usize,
    table: &'t DeTable<'t>,
}

impl Reading {
    fn file(&mut self, file: &DeTable<'_>, overlay: &mut Overlay) {
        for (key, list) in file {
            let start = key.span().start;
            match key.get_ref().as_ref() {
                ENTRIES => {
                    overlay.smart_link_offers =
                        self.list(ENTRIES, ENTRY_KEYS, start, list.get_ref(), read_entry)
                }
                RULES => {
                    overlay.routing_rules = self.list(RULES, RULE_KEYS, start, list.get_ref(), read_rule)
                }
                CAPS => overlay.offer_caps = self.list(CAPS, CAP_KEYS, start, list.get_ref(), read_cap),
                name @ ("offers" | "smart_links" | "offer_geo_targets") => {
                    self.problem(start, format!("`{name}` come from the upstream; remove them here"));
                }
                name => self.problem(
                    start,
                    format!("unknown key `{name}`; there are [[{ENTRIES}]], [[{RULES}]] and [[{CAPS}]]"),
                ),
            }
        }
        self.twice(
            &overlay.smart_link_offers,
            |entry| (entry.link, entry.offer),
            |entry| format!("offer {} is already attached to smart link {}", entry.offer, entry.link),
        );
        self.twice(&overlay.routing_rules, rule_id, |rule| {
            format!("`rule_id` {} is already taken", rule_id(rule))
        });
        self.twice(&overlay.offer_caps, OfferCap::id, |cap| format!("the {} is already set", cap.label()));
    }

    fn list<T>(
        &mut self,
        name: &str,
        keys: &[&str],
        start: usize,
        list: &DeValue<'_>,
        read: impl Fn(&DeTable<'_>) -> Result<T, FieldError>,
    ) -> Vec<Placed<T>> {
        let tables = list.as_array().and_then(|list| {
            let item = |item: &Spanned<DeValue<'_>>| item.get_ref().is_table();
            list.iter().all(item).then_some(list)
        });
        let Some(tables) = tables else {
            self.problem(start, format!("`{name}` must be a list of tables; begin each with [[{name}]]"));
            return Vec::new();
        };
        let mut placed = Vec::new();
        for value in tables {
            let Some(table) = value.get_ref().as_table() else { continue };
            let item = Item { start: value.span().start, table };
            let before = self.problems.len();
            for key in table.keys().filter(|key| !keys.contains(&key.get_ref().as_ref())) {
                let problem = format!("unknown key `{}`; there are {}", key.get_ref(), keys.join(", "));
                self.problem(key.span().start, problem);
            }
            match read(table) {
                Ok(read) if self.problems.len() == before => {
                    placed.push(Placed { line: self.line(item.start), item: read });
                }
                Ok(_) => {}
                Err(error) => self.problem(item.place_of(&error.parameter), error.to_string()),
            }
        }
        placed
    }

    /// Finds items of one id: the API would have changed the first, and here nobody knows which is meant.
    fn twice<T, K: Eq + Hash>(
        &mut self,
        items: &[Placed<T>],
        id: impl Fn(&T) -> K,
        said: impl Fn(&T) -> String,
    ) {
        let mut first: HashMap<K, usize> = HashMap::new();
        for Placed { line, item } in items {
            if let Some(first) = first.get(&id(item)) {
                let problem = format!("{} in line {first}; keep one of the two", said(item));
                self.problems.push(OverlayProblem { line: *line, problem });
            } else {
                first.insert(id(item), *line);
            }
        }
    }

    fn problem(&mut self, start: usize, problem: String) {
        let line = self.line(start);
        self.problems.push(OverlayProblem { line, problem });
    }

    fn line(&self, offset: usize) -> usize {
        self.newlines.partition_point(|&newline| newline < offset) + 1
    }
}

impl Item<'_> {
    /// Where a parameter in the words of the API, `conditions.country.in`, stands; the nearest that is there.
    fn place_of(&self, parameter: &str) -> usize {
        let (mut table, mut place) = (Some(self.table), self.start);
        for name in parameter.split('.') {
            let Some((key, value)) = table.and_then(|table| find(table, name)) else { break };
            place = key.span().start;
            table = value.as_table();
        }
        place
    }
}

fn read_entry(table: &DeTable<'_>) -> Result<Attachment, FieldError> {
    let entry = SmartLinkOffer {
        smart_link_id: needed(table, "smart_link_id")?,
        offer_id: needed(table, "offer_id")?,
        offer_weight: whole_number(table, "offer_weight")?.unwrap_or(1),
        priority: whole_number(table, "priority")?.unwrap_or(1),
    };
    entry.read()
}

fn read_rule(table: &DeTable<'_>) -> Result<Entry, FieldError> {
    let wanted = "conditions.country = { in = [\"US\"] }, or conditions = {} for a rule that always holds";
    // Conditions must be there, be they empty: a rule that lost them would take every click.
    let conditions = match find(table, "conditions") {
        None => return Err(FieldError::new("conditions", format!("is missing; write {wanted}"))),
        Some((_, value)) => match json_of(value) {
            Value::Object(conditions) => conditions.into_iter().collect(),
            other => return Err(expected("conditions", other, wanted)),
        },
    };
    let rule = RoutingRule {
        rule_id: needed(table, "rule_id")?,
        smart_link_id: needed(table, "smart_link_id")?,
        offer_id: needed(table, "offer_id")?,
        priority: whole_number(table, "priority")?.unwrap_or(1),
        offer_weight: whole_number(table, "offer_weight")?.unwrap_or(1),
        conditions,
    };
    rule.read()
}

fn read_cap(table: &DeTable<'_>) -> Result<OfferCap, FieldError> {
    let cap = OfferCap {
        offer_id: needed(table, "offer_id")?,
        affiliate_id: whole_number(table, "affiliate_id")?,
        cap_type: needed_text(table, "cap_type", CAP_TYPES)?,
        cap_interval: needed_text(table, "cap_interval", CAP_INTERVALS)?,
        cap_amount: needed(table, "cap_amount")?,
        time_zone: text(table, "time_zone", "an IANA name such as \"America/New_York\"")?,
        send_alert_only: match find(table, "send_alert_only") {
            None => false,
            Some((_, value)) => value.as_bool().ok_or_else(|| {
                expected("send_alert_only", json_of(value), "true or false, without quotes")
            })?,
        },
    };
    // The network's zone is known to be one, and is taken when the snapshot is made.
    let zone = read_zone(cap.time_zone.as_deref().unwrap_or("UTC"))?;
    cap.read(&zone)?;
    Ok(cap)
}

fn needed_text(table: &DeTable<'_>, name: &str, known: &[&str]) -> Result<String, FieldError> {
    let wanted = format!("one of {}, in quotes", known.join(", "));
    text(table, name, &wanted)?.ok_or_else(|| FieldError::new(name, format!("is missing; write {wanted}")))
}

fn text(table: &DeTable<'_>, name: &str, wanted: &str) -> Result<Option<String>, FieldError> {
    let Some((_, value)) = find(table, name) else { return Ok(None) };
    let text = value.as_str().map(str::to_owned);
    text.map(Some).ok_or_else(|| expected(name, json_of(value), wanted))
}

fn needed(table: &DeTable<'_>, name: &str) -> Result<i64, FieldError> {
    whole_number(table, name)?.ok_or_else(|| FieldError::new(name, "is missing; write a whole number"))
}

fn whole_number(table: &DeTable<'_>, name: &str) -> Result<Option<i64>, FieldError> {
    let Some((_, value)) = find(table, name) else { return Ok(None) };
    let number = value.as_integer().and_then(number_of);
    number.map(Some).ok_or_else(|| expected(name, json_of(value), "a whole number, without quotes"))
}

fn find<'t, 'i>(table: &'t DeTable<'i>, name: &str) -> Option<(&'t Spanned<Cow<'i, str>>, &'t DeValue<'i>)> {
    table.iter().find(|(key, _)| key.get_ref() == name).map(|(key, value)| (key, value.get_ref()))
}

fn number_of(number: &DeInteger<'_>) -> Option<i64> {
    i64::from_str_radix(number.as_str(), number.radix()).ok()
}

/// What is no value of a condition becomes its text, which the condition then refuses with it.
fn json_of(value: &DeValue<'_>) -> Value {
    match value {
        DeValue::String(text) => text.as_ref().into(),
        DeValue::Boolean(truth) => (*truth).into(),
        DeValue::Integer(number) => number_of(number).map_or_else(|| number.to_string().into(), Value::from),
        DeValue::Float(number) => match number.as_str().parse::<f64>() {
            Ok(number) => number.into(),
            Err(_) => number.as_str().into(),
        },
        DeValue::Datetime(date) => date.to_string().into(),
        DeValue::Array(list) => list.iter().map(|value| json_of(value.get_ref())).collect(),
        DeValue::Table(table) => {
            let member = |(name, value): (&Spanned<Cow<'_, str>>, &Spanned<DeValue<'_>>)| {
                (name.get_ref().to_string(), json_of(value.get_ref()))
            };
            Value::Object(table.iter().map(member).collect())
        }
    }
}

const ENTRIES: &str = "smart_link_offers";

const RULES: &str = "routing_rules";

const CAPS: &str = "offer_caps";

const ENTRY_KEYS: &[&str] = &["smart_link_id", "offer_id", "offer_weight", "priority"];

const RULE_KEYS: &[&str] =
    &["rule_id", "smart_link_id", "offer_id", "priority", "offer_weight", "conditions"];

const CAP_KEYS: &[&str] =
    &["offer_id", "affiliate_id", "cap_type", "cap_interval", "cap_amount", "time_zone", "send_alert_only"];

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cake::Routing;
    use crate::cake::wire::write_conditions;

    fn problems(text: &str) -> Vec<String> {
        read(text).unwrap_err().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn reads_what_a_person_writes() {
        let overlay = read(
            r#"
            [[smart_link_offers]]
            smart_link_id = 301
            offer_id = 1042
            offer_weight = 60

            [[routing_rules]]
            rule_id = 7
            smart_link_id = 301
            offer_id = 1_045
            priority = 0
            conditions.country = { in = ["US", "CA"] }
            conditions.hours = { days = ["mon"], from = "09:00", to = "17:30", time_zone = "UTC" }

            [[routing_rules]]
            rule_id = 8
            smart_link_id = 301
            offer_id = 1046
            [routing_rules.conditions]
            asn.in = [64496]
            device = { not_in = ["tablet"] }

            [[routing_rules]]
            rule_id = 9
            smart_link_id = 301
            offer_id = 1046
            conditions = {}

            [[offer_caps]]
            offer_id = 1042
            affiliate_id = 67_890
            cap_type = "click"
            cap_interval = "daily"
            cap_amount = 1_000
            time_zone = "America/New_York"

            [[offer_caps]]
            offer_id = 1042
            cap_type = "conversion"
            cap_interval = "lifetime"
            cap_amount = 0
            send_alert_only = true
            "#,
        );
        let Routing { smart_link_offers, routing_rules, offer_caps } = overlay.unwrap().into_routing();
        let written: Vec<_> = smart_link_offers.iter().map(SmartLinkOffer::from).collect();
        assert_eq!(
            json!(written),
            json!([{"smart_link_id": 301, "offer_id": 1042, "offer_weight": 60, "priority": 1}])
        );
        let rules = |rule: &Entry| {
            let (link, offer, weight) = (rule.link.value(), rule.offer.value(), rule.weight.value());
            json!([rule_id(rule), link, offer, weight, rule.priority, write_conditions(&rule.conditions)])
        };
        assert_eq!(
            routing_rules.iter().map(rules).collect::<Vec<_>>(),
            [
                json!([7, 301, 1045, 1, 0, {
                    "country": {"in": ["US", "CA"]},
                    "hours": {"days": ["mon"], "from": "09:00", "to": "17:30", "time_zone": "UTC"}}]),
                json!([8, 301, 1046, 1, 1, {"asn": {"in": [64496]}, "device": {"not_in": ["tablet"]}}]),
                json!([9, 301, 1046, 1, 1, {}]),
            ]
        );
        assert_eq!(
            json!(offer_caps),
            json!([
                {"offer_id": 1042, "affiliate_id": 67890, "cap_type": "click", "cap_interval": "daily",
                 "cap_amount": 1000, "time_zone": "America/New_York", "send_alert_only": false},
                {"offer_id": 1042, "affiliate_id": null, "cap_type": "conversion", "cap_interval": "lifetime",
                 "cap_amount": 0, "send_alert_only": true},
            ])
        );
        let none = read("").unwrap();
        assert_eq!((none.entries(), none.rules(), none.caps()), (0, 0, 0));
    }

    #[test]
    fn names_the_line_of_what_is_wrong() {
        let entry = "[[smart_link_offers]]\nsmart_link_id = 1\noffer_id = 2\n";
        let rule = "[[routing_rules]]\nrule_id = 1\nsmart_link_id = 1\noffer_id = 2\n";
        let cap = "[[offer_caps]]\noffer_id = 1\ncap_type = \"click\"\ncap_interval = \"daily\"\n";
        for (text, said) in [
            ("[[smart_link_offers]\n".to_owned(), "line 1: "),
            ("\n\nx = \n".to_owned(), "line 3: "),
            ("\n[[smart_link_ofers]]\n".to_owned(), "line 2: unknown key `smart_link_ofers`; there are [["),
            ("[[offer_caps]]\noffer_id = 1\n".to_owned(), "line 1: `cap_type` is missing; write one of click,"),
            (format!("{cap}cap_amount = -1\n"), "line 5: `cap_amount` is -1; expected a whole number from 0"),
            (cap.to_owned(), "line 1: `cap_amount` is missing"),
            (format!("{cap}cap_amount = 1\ntime_zone = \"Mars\"\n"), "line 6: `time_zone` is \"Mars\""),
            (format!("{cap}cap_amount = 1\naffiliate_id = 0\n"), "line 6: `affiliate_id` is 0"),
            (format!("{cap}cap_amount = 1\nsend_alert_only = 1\n"), "line 6: `send_alert_only` is 1"),
            (format!("{cap}cap_amount = 1\nused = 1\n"), "line 6: unknown key `used`; there are offer_id"),
            (
                format!("{cap}cap_amount = 1\n{cap}cap_amount = 2\n"),
                "line 6: the daily click cap of offer 1 is already set in line 1; keep one",
            ),
            (
                "[[offer_caps]]\noffer_id = 1\ncap_type = \"view\"\ncap_interval = \"daily\"\ncap_amount = 1\n"
                    .to_owned(),
                "line 3: `cap_type` is \"view\"; expected one of click, conversion",
            ),
            ("[[offers]]\noffer_id = 1\n".to_owned(), "line 1: `offers` come from the upstream"),
            ("\nrouting_rules = 1\n".to_owned(), "line 2: `routing_rules` must be a list of tables"),
            ("[routing_rules]\nrule_id = 1\n".to_owned(), "line 1: `routing_rules` must be a list of tables"),
            ("smart_link_offers = [1]\n".to_owned(), "line 1: `smart_link_offers` must be a list of tables"),
            (
                format!("{entry}wieght = 1\n"),
                "line 4: unknown key `wieght`; there are smart_link_id, offer_id",
            ),
            (format!("{entry}rule_id = 1\n"), "line 4: unknown key `rule_id`"),
            (
                format!("{entry}offer_weight = 101\n"),
                "line 4: `offer_weight` is 101; expected a whole number from",
            ),
            (
                format!("{entry}offer_weight = \"60\"\n"),
                "line 4: `offer_weight` is \"60\"; expected a whole number,",
            ),
            (format!("{entry}priority = 1.0\n"), "line 4: `priority` is 1.0; expected a whole number"),
            (format!("{entry}priority = -1\n"), "line 4: `priority` is -1"),
            (
                format!("{entry}priority = 99999999999999999999\n"),
                "line 4: `priority` is \"99999999999999999999\"",
            ),
            (format!("{entry}offer_id = 3\n"), "line 4: duplicate key"),
            ("\n[[smart_link_offers]]\noffer_id = 2\n".to_owned(), "line 2: `smart_link_id` is missing"),
            (
                "[[smart_link_offers]]\nsmart_link_id = 0\noffer_id = 2\n".to_owned(),
                "line 2: `smart_link_id` is 0",
            ),
            (format!("{entry}\n{entry}"), "line 5: offer 2 is already attached to smart link 1 in line 1"),
            (rule.to_owned(), "line 1: `conditions` is missing; write conditions.country"),
            (format!("{rule}conditions = []\n"), "line 5: `conditions` is []; expected"),
            (
                format!("{rule}conditions.planet = {{ in = [\"Mars\"] }}\n"),
                "line 5: `conditions.planet` is not a",
            ),
            (
                format!(
                    "{rule}conditions.device = {{ in = [\"mobile\"] }}\nconditions.country = {{ in = [\"ZZ\"] }}\n"
                ),
                "line 6: `conditions.country.in` is \"ZZ\"; expected an ISO 3166-1",
            ),
            (
                format!("{rule}[routing_rules.conditions.country]\n\nin = [\"us\"]\n"),
                "line 7: `conditions.country.in`",
            ),
            (
                format!("{rule}conditions.country = {{ in = [] }}\n"),
                "line 5: `conditions.country.in` is empty",
            ),
            (
                format!(
                    "{rule}conditions.hours = {{ from = 09:00:00, to = \"17:00\", time_zone = \"UTC\" }}\n"
                ),
                "line 5: `conditions.hours.from` is \"09:00:00\"; expected HH:MM",
            ),
            (
                format!("{rule}conditions = {{}}\n{rule}conditions = {{}}\n"),
                "line 6: `rule_id` 1 is already taken in line 1",
            ),
        ] {
            let told = problems(&text);
            assert_eq!(told.len(), 1, "{text:?}: {told:?}");
            assert!(told[0].starts_with(said) && !told[0].contains('\n'), "{text:?}: {told:?}");
        }
    }

    #[test]
    fn tells_everything_that_is_wrong_in_the_order_of_its_lines() {
        let text = "[[smart_link_offers]]\nsmart_link_id = 1\noffer_id = 2\noffer_weight = 101\n\
                    [[routing_rules]]\nrule_id = true\n[[offer_caps]]\n[[smart_link_offers]]\n";
        let told = problems(text);
        let lines: Vec<&str> = told.iter().filter_map(|line| line.split(':').next()).collect();
        assert_eq!(lines, ["line 4", "line 5", "line 7", "line 8"], "{told:?}");
    }
}
