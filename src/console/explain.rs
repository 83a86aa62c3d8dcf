//! Why a click goes where it goes: a form that describes one, and its path through the tiers of the link. By GET, so that
//! an answer can be sent to somebody else.
//!
//! The answer is [`Question`]'s, on what is live: nothing is spent, and nothing is counted.

use askama::Template;
use axum::Extension;
use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::response::Response;

use super::Console;
use super::form::{Field, Form, Input};
use super::frame::{self, Frame, Section};
use super::guard::Visitor;
use super::names::Names;
use super::posted::Fields;
use crate::routing::{EntryStory, Failure, Outcome, TierStory, describe};
use crate::state::{Explained, Looked, Question, now};
use crate::types::{COUNTRIES, LinkId};

#[derive(Template)]
#[template(path = "explain.html")]
struct ExplainPage {
    frame: Frame,
    form: Form,
    told: Option<Told>,
}

/// The answer.
struct Told {
    link: String,
    affiliate: String,
    visitor: Vec<(&'static str, String)>,
    /// The place is what somebody typed, and not what a database says of an address.
    is_assumed: bool,
    /// What kept the click from the tiers, if something did.
    before: Option<String>,
    tiers: Vec<Tier>,
    verdict: Mark,
    /// What became of it, in a sentence.
    ending: String,
    destination: Option<String>,
    /// For the same answer once more: where the moment and the draw are fixed.
    replay: String,
    at: String,
    draw: String,
    generation: u64,
}

struct Tier {
    priority: u32,
    reached: Mark,
    entries: Vec<Entry>,
}

struct Entry {
    offer: u32,
    offer_name: String,
    rule: Option<u32>,
    weight: u8,
    mark: Mark,
    reason: String,
    closed: Vec<String>,
}

/// A state by word and shape.
struct Mark {
    class: &'static str,
    word: &'static str,
}

/// `GET /console/explain`
pub async fn page(
    State(console): State<Console>,
    Extension(visitor): Extension<Visitor>,
    RawQuery(query): RawQuery,
) -> Response {
    let asked = Fields::read(query.unwrap_or_default().as_bytes());
    let names = console.names().look(&console).await.names;
    let is_asked = asked.is_set("id");
    let form = form(&console, asked.text("id")).prefilled(&asked);
    let (status, form, told) = match is_asked {
        false => (StatusCode::OK, form, None),
        true => match told(&console, &names, &asked) {
            Ok(told) => (StatusCode::OK, form, Some(told)),
            Err(wrong) => (StatusCode::BAD_REQUEST, wrong(form), None),
        },
    };
    let frame = Frame::new(&console, &visitor, Section::Explain, "Explain a click");
    frame::page_with(status, &ExplainPage { frame, form, told })
}

fn form(console: &Console, id: &str) -> Form {
    // Whoever comes from a link's page has its affiliate filled in.
    let live = console.parts().table.current();
    let link = LinkId::parse(id.as_bytes());
    let affiliate = link.and_then(|link| Some(describe(&live.table, link)?.affiliate));
    let countries = COUNTRIES.iter().map(|(code, name)| ((*code).to_owned(), (*name).to_owned()));
    let agents = AGENTS.iter().map(|(name, _)| ((*name).to_owned(), (*name).to_owned()));
    let subs = [("s1", "s1"), ("s2", "s2"), ("s3", "s3"), ("s4", "s4"), ("s5", "s5")];
    Form::new(vec![
        Field::new("id", "Link").hint("Its number: id of the click."),
        Field::new("aff_id", "Affiliate")
            .hint("aff_id of the click.")
            .value(affiliate.map_or_else(String::new, |affiliate| affiliate.to_string())),
    ])
    .part(
        "Visitor",
        "The place comes from the address, or is assumed: give one of the two.",
        vec![
            Field::new("ip", "Address")
                .hint("Its place is looked up. Empty: 127.0.0.1, of which none is known."),
            Field::new("country", "Country instead")
                .hint("Assumed: two letters, such as US. Region, city and network are then unknown.")
                .input(Input::Suggested(countries.collect())),
            Field::new("device", "Device")
                .hint("A typical User-Agent of it.")
                .input(Input::Choice(agents.collect())),
            Field::new("ua", "User-Agent instead").hint("Pasted as it came; it counts before the device."),
            Field::new("language", "Accept-Language").hint("Such as en-US,en;q=0.9."),
            Field::new("referrer", "Referer").hint("Such as https://news.example.com/story."),
        ],
    )
    .part(
        "More of the click",
        "",
        subs.iter()
            .map(|(name, label)| Field::new(name, label))
            .chain([
                Field::new("at", "Time").hint("RFC 3339, such as 2026-11-22T14:30:00Z. Empty: now."),
                Field::new("draw", "Draw").hint("As in the click log: 0x… Empty: a random one."),
            ])
            .collect(),
    )
}

/// The answer; or how to show in the form what cannot be read.
fn told(console: &Console, names: &Names, asked: &Fields) -> Result<Told, impl FnOnce(Form) -> Form + use<>> {
    let typed = |name: &str| Some(asked.text(name).trim()).filter(|text| !text.is_empty());
    let device = AGENTS.iter().find(|(name, _)| *name == asked.text("device")).map(|(_, agent)| *agent);
    let question = Question {
        id: typed("id"),
        aff_id: typed("aff_id"),
        ip: typed("ip"),
        country: typed("country"),
        ua: typed("ua").or(device).filter(|agent| !agent.is_empty()),
        language: typed("language"),
        referrer: typed("referrer"),
        at: typed("at"),
        draw: typed("draw"),
        subs: ["s1", "s2", "s3", "s4", "s5"].map(typed),
    };
    let (published, geo) = (console.parts().table.current(), console.parts().geo.current());
    match question.answer(&published, &geo) {
        Ok(explained) => Ok(tell(asked, names, &explained, question.country.is_some())),
        Err(errors) => Err(move |form: Form| {
            errors
                .0
                .iter()
                .fold(form, |form, error| form.wrong(error.parameter, &error.problem, &error.to_string()))
        }),
    }
}

fn tell(asked: &Fields, names: &Names, told: &Explained, is_assumed: bool) -> Told {
    let chosen = told.choice.map(|choice| choice.priority);
    let is_tried = !matches!(
        told.outcome,
        Outcome::UnknownLink | Outcome::InactiveLink | Outcome::AffiliateMismatch | Outcome::Bot
    );
    let tier = |tier: &TierStory| Tier {
        priority: tier.priority,
        reached: match chosen {
            _ if !is_tried => Mark { class: "off", word: "not tried" },
            Some(priority) if priority < tier.priority => Mark { class: "off", word: "not reached" },
            Some(priority) if priority == tier.priority => Mark { class: "well", word: "took the click" },
            _ => Mark { class: "note", word: "passed over" },
        },
        entries: tier.entries.iter().map(|entry| story(entry, names, is_tried)).collect(),
    };
    let at = jiff::Timestamp::from_millisecond(told.at.0).map(|at| at.to_string()).unwrap_or_default();
    let draw = format!("{:#018x}", told.draw.0);
    let mut replay = url::form_urlencoded::Serializer::new(String::from("?"));
    replay.extend_pairs(
        asked.each().filter(|(name, value)| !value.is_empty() && !["at", "draw"].contains(name)),
    );
    replay.append_pair("at", &at).append_pair("draw", &draw);
    Told {
        link: asked.text("id").trim().to_owned(),
        affiliate: asked.text("aff_id").trim().to_owned(),
        visitor: visitor(&told.visitor, is_assumed),
        is_assumed,
        before: before(told),
        tiers: told.tiers.iter().map(tier).collect(),
        verdict: match told.outcome {
            Outcome::Offer => Mark { class: "well", word: "offer" },
            outcome => Mark { class: "note", word: outcome.as_str() },
        },
        ending: ending(told, names),
        destination: told.destination.clone(),
        replay: replay.finish(),
        at: if told.at.0 > now().0 { format!("{at}, which is yet to come") } else { at },
        draw,
        generation: told.generation,
    }
}

fn visitor(looked: &Looked, is_assumed: bool) -> Vec<(&'static str, String)> {
    fn known(value: Option<impl ToString>) -> String {
        value.map_or_else(|| "unknown".to_owned(), |value| value.to_string())
    }
    let address = if is_assumed { "not asked".to_owned() } else { looked.address.to_string() };
    let device = looked.device;
    vec![
        ("Address", address),
        ("Country", known(looked.country) + if is_assumed { ", assumed" } else { "" }),
        ("Region", known(looked.region)),
        ("City", known(looked.city.as_ref())),
        ("Network", looked.asn.map_or_else(|| "unknown".to_owned(), |asn| format!("AS{asn}"))),
        ("Device", format!("{}, {}, {}", device.kind, device.os, device.browser)),
        ("Bot", if device.bot { "yes" } else { "no" }.to_owned()),
        ("Language", known(looked.language)),
        ("Referrer", known(looked.referrer_host.as_ref())),
    ]
}

fn story(entry: &EntryStory, names: &Names, is_tried: bool) -> Entry {
    let mark = match (entry.chosen, &entry.failed) {
        (true, _) => Mark { class: "well", word: "drawn" },
        (false, None) if is_tried => Mark { class: "open", word: "open" },
        (false, None) => Mark { class: "open", word: "would be open" },
        (false, Some(Failure::Capped { .. })) => Mark { class: "ill", word: "capped" },
        (false, Some(Failure::Condition { .. })) => Mark { class: "off", word: "does not match" },
        (false, Some(Failure::OfferNotActive | Failure::NoWeight)) => Mark { class: "off", word: "off" },
    };
    let reason = match &entry.failed {
        // The caps are told one by one.
        Some(Failure::Capped { .. }) => "every condition holds, and caps close it".to_owned(),
        Some(failed) => failed.to_string(),
        None => "every condition holds".to_owned(),
    };
    let offer = entry.offer.value();
    Entry {
        offer,
        offer_name: names.offer(offer).map_or_else(String::new, |offer| offer.name.to_string()),
        rule: entry.rule.map(|rule| rule.value()),
        weight: entry.weight,
        mark,
        reason,
        closed: entry.closed_caps.iter().map(ToString::to_string).collect(),
    }
}

/// Why the tiers are not tried.
fn before(told: &Explained) -> Option<String> {
    let why = match told.outcome {
        Outcome::UnknownLink => "The live table has no such link.",
        Outcome::InactiveLink => "The link is inactive.",
        Outcome::AffiliateMismatch => {
            let whose =
                told.affiliate.map(|affiliate| format!(": affiliate {affiliate}")).unwrap_or_default();
            return Some(format!("The link belongs to another affiliate{whose}."));
        }
        Outcome::Bot => "The visitor is a bot, and bots are not routed.",
        Outcome::Offer | Outcome::NoOffers | Outcome::NoMatch | Outcome::Capped => return None,
    };
    Some(why.to_owned())
}

fn ending(told: &Explained, names: &Names) -> String {
    let outcome = match (told.outcome, told.choice) {
        (Outcome::Offer, Some(choice)) => {
            let name = names.offer(choice.offer.value()).map(|offer| offer.name.as_ref());
            let name = name.filter(|name| !name.is_empty()).map(|name| format!(" “{name}”"));
            let rule = choice.rule.map(|rule| format!(" by rule {rule}")).unwrap_or_default();
            let (offer, name) = (choice.offer, name.unwrap_or_default());
            format!("The click goes to offer {offer}{name}{rule}, in priority {}.", choice.priority)
        }
        (Outcome::NoOffers, _) => "Nothing is attached to the link: the fallback.".to_owned(),
        (Outcome::NoMatch, _) => "No entry is for this visitor: the fallback.".to_owned(),
        (Outcome::Capped, _) => "Every entry for this visitor is closed by a cap: the fallback.".to_owned(),
        (_, _) => "The fallback.".to_owned(),
    };
    match told.destination {
        Some(_) => outcome,
        None if told.outcome == Outcome::Bot => format!("{outcome} There is none for it: it is refused."),
        None => format!("{outcome} There is none, or its address is too long: 404."),
    }
}

/// What people hold, and what it says of itself. As of the time of writing; the page shows what is made of it.
const AGENTS: [(&str, &str); 7] = [
    ("unknown", ""),
    (
        "desktop: Windows, Chrome",
        "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 Safari/537.36",
    ),
    (
        "desktop: macOS, Safari",
        "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.1 \
         Safari/605.1.15",
    ),
    (
        "mobile: iPhone, Safari",
        "Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.1 \
         Mobile/15E148 Safari/604.1",
    ),
    (
        "mobile: Android, Chrome",
        "Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 Mobile Safari/537.36",
    ),
    (
        "tablet: iPad, Safari",
        "Mozilla/5.0 (iPad; CPU OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.5 \
         Mobile/15E148 Safari/604.1",
    ),
    ("bot: curl", "curl/8.11.0"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lookup::{Hints, device};

    #[test]
    fn each_device_of_the_form_is_what_it_is_called() {
        for (name, agent) in &AGENTS[1..] {
            let found = device(&Hints { user_agent: Some(agent), ..Hints::default() });
            let kind = if found.bot { "bot".to_owned() } else { found.kind.to_string() };
            assert!(name.starts_with(&format!("{kind}: ")), "{name}: {found:?}");
        }
    }
}
