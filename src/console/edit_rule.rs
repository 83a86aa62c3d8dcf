//! Forms for a rule: an offer on a link for some visitors alone, with a field for each condition.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use serde_json::{Map, Value, json};

use super::change::{self, ChangePage, Removal, Sent};
use super::form::{Field, Form, Input};
use super::frame::Section;
use super::guard::Visitor;
use super::names::Names;
use super::posted::{Fields, Posted};
use super::preview::NEW_RULE;
use super::reading::WholeLink;
use super::{Console, reading};
use crate::cake::wire::{FieldError, RoutingRule};
use crate::cake::{read_value_list, write_value_list};
use crate::routing::{DAY_NAMES, describe};
use crate::types::{LinkId, RuleId};

/// `GET /console/links/{id}/rules/new`, perhaps with the offer.
pub async fn new(
    State(console): State<Console>,
    Extension(visitor): Extension<Visitor>,
    Path(id): Path<String>,
    RawQuery(asked): RawQuery,
) -> Response {
    let asked = Fields::read(asked.unwrap_or_default().as_bytes());
    match begin_new(&console, &id).await {
        Ok((names, link)) => {
            new_page(&names, link).fresh(&console, &visitor, form(&names, None).prefilled(&asked))
        }
        Err(told) => told,
    }
}

/// `POST /console/links/{id}/rules/new`
pub async fn create(
    State(console): State<Console>,
    Extension(visitor): Extension<Visitor>,
    Path(id): Path<String>,
    Posted(posted): Posted,
) -> Response {
    let (names, link) = match begin_new(&console, &id).await {
        Ok(begun) => begun,
        Err(told) => return told,
    };
    let (page, form) = (new_page(&names, link), form(&names, None).typed(&posted));
    let (conditions, unreadable) = conditions(&form);
    let mut parameters = Map::from_iter([
        ("smart_link_id".to_owned(), link.value().into()),
        (CONDITIONS.to_owned(), conditions.into()),
    ]);
    let plain = form.filled_in().into_iter().filter(|(name, _)| PLAIN.contains(&name.as_str()));
    parameters.extend(plain);
    if !unreadable.is_empty() || change::wants_preview(&posted) {
        let sent = Sent { names: &names, link, page, form, call: CREATE, parameters };
        if !unreadable.is_empty() {
            return sent.unreadable(&console, &visitor, &unreadable).await;
        }
        // By the time it is saved, another may have its number.
        let put_new = |whole: &mut WholeLink, rule: RoutingRule| {
            put(whole, RoutingRule { rule_id: NEW_RULE.into(), ..rule });
        };
        return sent.preview(&console, &visitor, put_new, |rule| Some(rule.offer_id)).await;
    }
    match change::send(&console, CREATE, parameters).await {
        Ok((answer, is_live)) => {
            let rule = &answer.value()["response"];
            let what = format!(
                "Rule {} was created: offer {} on link {link}, with weight {} in priority {}.",
                rule["rule_id"], rule["offer_id"], rule["offer_weight"], rule["priority"]
            );
            change::done(&console, &format!("/console/links/{link}"), change::sentence(&what, is_live))
        }
        Err(error) => page.refused(&console, &visitor, form, &error),
    }
}

/// `GET /console/links/{id}/rules/{rule}`
pub async fn edit(
    State(console): State<Console>,
    Extension(visitor): Extension<Visitor>,
    Path(path): Path<(String, String)>,
) -> Response {
    match begin(&console, &path).await {
        Ok(begun) => {
            let form = form(&begun.names, Some(&begun.item));
            begun.page(&console).fresh(&console, &visitor, form)
        }
        Err(told) => told,
    }
}

/// `POST /console/links/{id}/rules/{rule}`
pub async fn save(
    State(console): State<Console>,
    Extension(visitor): Extension<Visitor>,
    Path(path): Path<(String, String)>,
    Posted(posted): Posted,
) -> Response {
    for _ in 0..change::ATTEMPTS {
        if let Some(response) = try_to_save(&console, &visitor, &path, &posted).await {
            return response;
        }
    }
    change::too_busy(&console)
}

/// `None`: the network was changed in between.
async fn try_to_save(
    console: &Console,
    visitor: &Visitor,
    path: &(String, String),
    posted: &Fields,
) -> Option<Response> {
    let begun = match begin(console, path).await {
        Ok(begun) => begun,
        Err(told) => return Some(told),
    };
    let (link, rule, page) = (begun.link, begun.rule, begun.page(console));
    let present = form(&begun.names, Some(&begun.item));
    let form = form(&begun.names, Some(&begun.item)).typed(posted).meeting(&present);
    if form.is_overtaken() {
        return Some(page.overtaken(console, visitor, form));
    }
    let (conditions, unreadable) = conditions(&form);
    let to = format!("/console/links/{link}");
    let changed = form.changed();
    let is_idle = changed.is_empty();
    let (mut parameters, of_conditions): (Map<_, _>, Map<_, _>) =
        changed.into_iter().partition(|(name, _)| PLAIN.contains(&name.as_str()));
    // They are replaced as a whole.
    if !of_conditions.is_empty() {
        parameters.insert(CONDITIONS.to_owned(), conditions.into());
    }
    parameters.insert("rule_id".to_owned(), rule.value().into());
    if !unreadable.is_empty() || change::wants_preview(posted) {
        let sent = Sent { names: &begun.names, link, page, form, call: UPDATE, parameters };
        return Some(match unreadable.is_empty() {
            true => sent.preview(console, visitor, put, |rule| Some(rule.offer_id)).await,
            false => sent.unreadable(console, visitor, &unreadable).await,
        });
    }
    if is_idle {
        return Some(change::done(console, &to, format!("Rule {rule}: nothing was changed.")));
    }
    match change::send_in(console, begun.state.as_ref(), UPDATE, parameters).await {
        Ok((_, is_live)) => {
            let what = format!("Rule {rule} was changed: {}.", form.changes());
            Some(change::done(console, &to, change::sentence(&what, is_live)))
        }
        Err(error) if error.is_outdated() => None,
        Err(error) => Some(page.refused(console, visitor, form, &error)),
    }
}

/// `GET /console/links/{id}/rules/{rule}/remove`
pub async fn ask(
    State(console): State<Console>,
    Extension(visitor): Extension<Visitor>,
    Path(path): Path<(String, String)>,
) -> Response {
    let begun = match begin(&console, &path).await {
        Ok(begun) => begun,
        Err(told) => return told,
    };
    let rule = i64::from(begun.rule.value());
    let preview = change::preview(&console, &begun.names, begun.link, None, |whole| {
        whole.rules.retain(|other| other.rule_id != rule);
        Ok(())
    });
    match preview.await {
        Ok(preview) => begun.remove_page().ask(
            &console,
            &visitor,
            StatusCode::OK,
            form(&begun.names, Some(&begun.item)),
            preview.ok(),
        ),
        Err(error) => change::failed(&console, &error),
    }
}

/// `POST /console/links/{id}/rules/{rule}/remove`
pub async fn remove(
    State(console): State<Console>,
    Extension(visitor): Extension<Visitor>,
    Path(path): Path<(String, String)>,
    Posted(posted): Posted,
) -> Response {
    for _ in 0..change::ATTEMPTS {
        let begun = match begin(&console, &path).await {
            Ok(begun) => begun,
            Err(told) => return told,
        };
        let removal = Removal {
            page: begun.remove_page(),
            form: form(&begun.names, Some(&begun.item)),
            state: begun.state.as_ref(),
            call: "remove_routing_rule.json",
            named: Map::from_iter([("rule_id".to_owned(), begun.rule.value().into())]),
            to: &format!("/console/links/{}", begun.link),
            done: format!("Rule {} was removed from link {}.", begun.rule, begun.link),
        };
        if let Some(response) = removal.run(&console, &visitor, &posted).await {
            return response;
        }
    }
    change::too_busy(&console)
}

/// A rule that is there.
struct Begun {
    names: Arc<Names>,
    link: LinkId,
    rule: RuleId,
    item: RoutingRule,
    state: Option<HeaderValue>,
}

impl Begun {
    fn page(&self, console: &Console) -> ChangePage {
        let (link, rule) = (self.link, self.rule);
        let page = new_page(&self.names, link);
        let about = match of_offer(console, link, rule) {
            Some(conditions) => format!(
                "{} Beside those below, the offer has conditions of its own, which hold on every link: {conditions}.",
                page.about
            ),
            None => page.about.clone(),
        };
        ChangePage {
            title: format!("Rule {rule} on link {link}"),
            about,
            action: format!("/console/links/{link}/rules/{rule}"),
            verb: "Save",
            further: vec![
                (format!("/console/links/{link}/rules/{rule}/remove"), "Remove …".to_owned()),
                (
                    format!("/console/offers/{}?link={link}", self.item.offer_id),
                    "Edit the offer itself".to_owned(),
                ),
            ],
            ..page
        }
    }

    fn remove_page(&self) -> ChangePage {
        let (link, rule) = (self.link, self.rule);
        ChangePage {
            title: format!("Remove rule {rule} from link {link}?"),
            about: format!("It routes to offer {}, which itself stays.", self.item.offer_id),
            action: format!("/console/links/{link}/rules/{rule}/remove"),
            verb: "Remove it",
            can_preview: false,
            further: vec![(format!("/console/links/{link}"), "Keep it".to_owned())],
            ..new_page(&self.names, link)
        }
    }
}

/// The conditions that the rule's offer brings, as they are live; `None`: none, or the rule is not live.
fn of_offer(console: &Console, link: LinkId, rule: RuleId) -> Option<String> {
    let face = describe(&console.parts().table.current().table, link)?;
    let mut entries = face.tiers.iter().flat_map(|tier| &tier.entries);
    let entry = entries.find(|entry| entry.rule == Some(rule))?;
    let brought = entry.conditions.iter().filter(|condition| condition.of_offer);
    let said: Vec<String> =
        brought.map(|condition| format!("{} {}", condition.name, condition.wanted)).collect();
    (!said.is_empty()).then(|| said.join("; "))
}

async fn begin(console: &Console, (id, rule): &(String, String)) -> Result<Begun, Response> {
    let names = change::names(console).await?;
    let missing = || change::not_found(console, &format!("rule {rule} on link {id}"));
    let link = LinkId::parse(id.as_bytes()).ok_or_else(missing)?;
    let rule = rule.parse().ok().and_then(RuleId::new).ok_or_else(missing)?;
    let found = reading::rule(&console.parts().client, link.value(), rule.value()).await;
    let found = found.map_err(|error| change::failed(console, &error))?.ok_or_else(missing)?;
    Ok(Begun { names, link, rule, item: found.item, state: found.state })
}

async fn begin_new(console: &Console, id: &str) -> Result<(Arc<Names>, LinkId), Response> {
    let names = change::names(console).await?;
    let missing = || change::not_found(console, &format!("link {id}"));
    let link = LinkId::parse(id.as_bytes()).ok_or_else(missing)?;
    let found = reading::link(&console.parts().client, link.value()).await;
    found.map_err(|error| change::failed(console, &error))?.ok_or_else(missing)?;
    Ok((names, link))
}

fn new_page(names: &Names, link: LinkId) -> ChangePage {
    ChangePage {
        section: Section::Links,
        title: format!("Add a rule to link {link}"),
        trail: change::link_trail(names, link),
        about: "An offer for those visitors for whom every condition holds.".to_owned(),
        action: format!("/console/links/{link}/rules/new"),
        verb: "Add",
        can_preview: true,
        further: vec![(format!("/console/offers/new?link={link}"), "Create a new offer first".to_owned())],
    }
}

fn form(names: &Names, rule: Option<&RoutingRule>) -> Form {
    // Of a rule that is there, each field knows what it was.
    let filled = |field: Field, value: String| match rule {
        Some(_) => field.is(value),
        None => field.value(value),
    };
    let is = |field: Field, fresh: &str, of: fn(&RoutingRule) -> i64| match rule {
        Some(rule) => field.is(of(rule).to_string()),
        None => field.value(fresh),
    };
    let condition = |name: &str| rule.and_then(|rule| rule.conditions.get(name));
    let listed = LISTED.iter().map(|(name, label, hint)| {
        let (mode, list) = match condition(name).and_then(Value::as_object).and_then(|all| all.iter().next())
        {
            Some((mode, list)) => (mode.clone(), write_value_list(list)),
            None => ("in".to_owned(), String::new()),
        };
        filled(Field::new(name, label).hint(*hint).input(Input::Listed { mode }), list)
    });
    let hours = condition("hours");
    let hour = |key: &str| {
        let value = hours.map(|hours| &hours[key]);
        match value {
            Some(Value::String(text)) => text.clone(),
            Some(list @ Value::Array(_)) => write_value_list(list),
            _ => String::new(),
        }
    };
    Form::new(vec![
        is(change::offer_field(names), "", |rule| rule.offer_id),
        is(change::weight_field(), "1", |rule| rule.offer_weight),
        is(change::priority_field(), "1", |rule| rule.priority),
    ])
    .part(
        "Conditions",
        "All of them must hold. Lists have commas, and a value that has a comma in it stands in double quotes. What is \
         empty does not matter.",
        listed.collect(),
    )
    .part(
        "Hours",
        "A span that ends before it begins goes over midnight. No day: every day.",
        vec![
            filled(Field::new("hours.days", "Days").input(Input::Ticks(&DAY_NAMES)), hour("days")),
            filled(Field::new("hours.from", "From").hint("HH:MM, such as 09:00."), hour("from")),
            filled(Field::new("hours.to", "To").hint("HH:MM, such as 17:30; 24:00 is midnight."), hour("to")),
            filled(
                Field::new("hours.time_zone", "Time zone").hint("Such as America/New_York."),
                hour("time_zone"),
            ),
        ],
    )
}

/// Puts a rule in its place.
fn put(whole: &mut WholeLink, rule: RoutingRule) {
    whole.rules.retain(|other| other.rule_id != rule.rule_id);
    whole.rules.push(rule);
}

/// What was typed of conditions, as the API's JSON, and what of it cannot be read. Whether it is right, the API says.
fn conditions(form: &Form) -> (Map<String, Value>, Vec<FieldError>) {
    let (mut conditions, mut unreadable) = (Map::new(), Vec::new());
    for field in form.each() {
        let Input::Listed { mode } = &field.input else { continue };
        if field.value.is_empty() {
            continue;
        }
        match read_value_list(field.name, &field.value) {
            Ok(list) => {
                let mode = if mode == "not_in" { mode } else { "in" };
                conditions.insert(field.name.to_owned(), json!({ mode: list }));
            }
            Err(error) => {
                unreadable.push(FieldError::new(format!("conditions.{}", field.name), error.to_string()));
            }
        }
    }
    let mut hours = Map::new();
    for key in ["from", "to", "time_zone"] {
        let text = form.text(&format!("hours.{key}"));
        if !text.is_empty() {
            hours.insert(key.to_owned(), text.into());
        }
    }
    let days = form.text("hours.days");
    if !days.is_empty() {
        hours.insert("days".to_owned(), days.split(',').collect());
    }
    if !hours.is_empty() {
        conditions.insert("hours".to_owned(), hours.into());
    }
    (conditions, unreadable)
}

/// The parameters that are no conditions.
const PLAIN: [&str; 3] = ["offer_id", "offer_weight", "priority"];

const CONDITIONS: &str = "conditions";

const CREATE: &str = "routing_rule.json";

const UPDATE: &str = "update_routing_rule.json";

/// Conditions that are lists: name, what people call it, and what stands in the list.
const LISTED: [(&str, &str, &str); 15] = [
    ("country", "Country", "Two letters: US, CA"),
    ("region", "Region", "ISO 3166-2: US-CA, GB-ENG"),
    ("city", "City", "In English: New York, \"Washington, D.C.\""),
    ("asn", "Network", "Autonomous system numbers: 64496"),
    ("device", "Device", "desktop, mobile, tablet, tv, console, other"),
    ("os", "System", "windows, macos, ios, android, linux, chromeos, other"),
    ("browser", "Browser", "chrome, safari, firefox, edge, opera, samsung, webview, other"),
    ("language", "Language", "Lower case: en, de"),
    ("referrer_host", "Referrer", "Hosts: example.com, *.example.com"),
    ("ip", "Address", "Networks: 192.0.2.0/24, 2001:db8::/32"),
    ("s1", "s1", "Sub ids, as they come"),
    ("s2", "s2", ""),
    ("s3", "s3", ""),
    ("s4", "s4", ""),
    ("s5", "s5", ""),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cake::wire::{CONDITION_NAMES, Conditions};

    #[test]
    fn there_is_a_field_for_every_condition() {
        let mut named: Vec<&str> = LISTED.iter().map(|(name, _, _)| *name).chain(["hours"]).collect();
        let mut known = CONDITION_NAMES.to_vec();
        named.sort_unstable();
        known.sort_unstable();
        assert_eq!(named, known);
    }

    #[test]
    fn a_rule_that_is_shown_and_sent_back_is_the_same() {
        let item: RoutingRule = serde_json::from_value(json!({
            "rule_id": 7, "smart_link_id": 301, "offer_id": 1042, "priority": 2, "offer_weight": 10,
            "conditions": {
                "country": {"in": ["US", "CA"]}, "city": {"not_in": ["Washington, D.C.", "\"x\""]}, "asn": {"in": [64496]},
                "hours": {"days": ["mon", "fri"], "from": "09:00", "to": "17:30", "time_zone": "America/New_York"},
            },
        }))
        .unwrap();
        let form = form(&Names::default(), Some(&item));
        assert_eq!(Conditions::from_iter(conditions(&form).0), item.conditions);
        assert_eq!(
            (form.text("offer_id"), form.text("offer_weight"), form.text("priority")),
            ("1042", "10", "2")
        );
        assert!(form.changed().is_empty());
    }

    #[test]
    fn what_was_not_typed_is_no_condition() {
        let form = form(&Names::default(), None);
        assert!(conditions(&form).0.is_empty());
        let typed = form.typed(&Fields::read(b"city=%22New+York&country="));
        assert_eq!(conditions(&typed).1[0].parameter, "conditions.city");
    }
}
