//! Geo targets: the countries that an offer allows or blocks. Both calls are CAKE's; ours are the list over all
//! offers, which spares the sync a call for each, and the action `remove`.

use std::collections::BTreeMap;

use rusqlite::{Connection, Transaction};
use serde::Serialize;
use serde_json::Value;

use super::answer::{Answer, Refusal, Rows, Under};
use super::call::{Call, Verb};
use super::contract::{Given, Kind, Parameter, ROW_LIMIT, START_AT_ROW, Shape};
use super::faults::Faults;
use super::links::LIST_ROWS_DEFAULT;
use super::offers::OFFER_ID;
use super::parameters::{Parameters, required};
use super::store::{Listing, Put};
use super::{Options, offers};
use crate::cake::wire::{
    FieldError, GeoTarget, OfferGeoTargets, expected, read_country, read_geo_targets, read_id,
};
use crate::types::{Country, OfferId};

/// `GET offer_geo_targets.json`: of one offer, beside the status; without `offer_id`, of every offer that has some.
pub fn list(transaction: &Transaction<'_>, _: &Options, asked: &Parameters) -> Result<Answer, Refusal> {
    if asked.raw("offer_id").is_some() {
        let offer = offers::existing(transaction, asked)?;
        return Answer::new(targets_of(transaction, offer)?);
    }
    let page = asked.page(LIST_ROWS_DEFAULT)?;
    let targeted = "(SELECT DISTINCT offer_id FROM offer_geo_targets)";
    let (offers, total_rows) =
        Listing::new(targeted, "offer_id", "offer_id").page(transaction, page, |row| row.get::<_, i64>(0))?;
    let rows =
        offers.into_iter().map(|offer| targets_of(transaction, offer)).collect::<Result<Vec<_>, _>>()?;
    Answer::new(Under { response: Rows { noun: "offer_geo_targets", rows, total_rows } })
}

/// `POST update_offer_geo_targets.json`: a country that has the other action changes to this one.
pub fn update(transaction: &Transaction<'_>, _: &Options, asked: &Parameters) -> Result<Answer, Refusal> {
    let mut faults = Faults::default();
    let offer = faults.read(offers::existing(transaction, asked))?;
    let countries = faults.read(countries(asked))?;
    let action = faults.read(action(asked))?;
    faults.end()?;
    // Each is there, or it would be a fault.
    let (offer, countries, action) =
        (offer.unwrap_or_default(), countries.unwrap_or_default(), action.unwrap_or_default());
    let before = targets_of(transaction, offer)?;
    for country in &countries {
        if action == "remove" {
            transaction
                .prepare_cached("DELETE FROM offer_geo_targets WHERE offer_id = ? AND country_code = ?")?
                .execute((offer, country.as_str()))?;
        } else {
            transaction
                .prepare_cached(
                    "INSERT INTO offer_geo_targets (offer_id, country_code, action) VALUES (?, ?, ?)
                     ON CONFLICT (offer_id, country_code) DO UPDATE SET action = excluded.action",
                )?
                .execute((offer, country.as_str(), &action))?;
        }
    }
    // Read back as the sync will read them: what it would refuse is undone.
    let after = targets_of(transaction, offer)?;
    read_geo_targets(&after.geo_targets)?;
    let updated_countries = countries.iter().map(|country| country.as_str()).collect();
    let answer = Answer::new(Updated { offer_id: offer, updated_countries, action })?;
    Ok(answer.idle_if(after == before))
}

fn countries(asked: &Parameters) -> Result<Vec<Country>, Refusal> {
    read_countries(required("countries", asked.text("countries")?, COUNTRIES_WANTED)?)
}

fn action(asked: &Parameters) -> Result<String, Refusal> {
    let action = required("action", asked.text("action")?, ACTIONS_WANTED)?.to_ascii_lowercase();
    if ["allow", "block", "remove"].contains(&action.as_str()) {
        Ok(action)
    } else {
        Err(expected("action", action.as_str(), ACTIONS_WANTED).into())
    }
}

/// One action of an offer in an import, and the countries that have it, as a list or with commas between them.
pub fn item(_: &Options, asked: &Parameters) -> Result<Targets, Refusal> {
    let offer = required("offer_id", asked.whole_number("offer_id")?, "a whole number")?;
    read_id("offer_id", offer, OfferId::new)?;
    let action = required("action", asked.text("action")?, IMPORTED_ACTIONS)?;
    let action = ["allow", "block"]
        .into_iter()
        .find(|known| known.eq_ignore_ascii_case(action))
        .ok_or_else(|| expected("action", action, IMPORTED_ACTIONS))?;
    let countries = match required("countries", asked.raw("countries"), COUNTRIES_WANTED)? {
        Value::Array(codes) => {
            let codes: Option<Vec<&str>> = codes.iter().map(Value::as_str).collect();
            let joined = codes.map(|codes| codes.join(","));
            read_countries(&joined.ok_or_else(|| FieldError::new("countries", "is no list of texts"))?)?
        }
        _ => read_countries(required("countries", asked.text("countries")?, COUNTRIES_WANTED)?)?,
    };
    Ok(Targets { offer, action, countries })
}

/// Makes these the geo targets of the offer, instead of what it had.
pub fn put(transaction: &Transaction<'_>, offer: i64, all: &BTreeMap<Country, &str>) -> Result<Put, Refusal> {
    let before = targets_of(transaction, offer)?.geo_targets;
    let before: BTreeMap<&str, &str> =
        before.iter().map(|target| (target.country_code.as_str(), target.action.as_str())).collect();
    let after: BTreeMap<&str, &str> =
        all.iter().map(|(country, action)| (country.as_str(), *action)).collect();
    let put = if before.is_empty() { Put::Created } else { Put::of(Some(&before), &after) };
    if put != Put::Unchanged {
        transaction.prepare_cached("DELETE FROM offer_geo_targets WHERE offer_id = ?")?.execute([offer])?;
        for (country, action) in after {
            transaction
                .prepare_cached(
                    "INSERT INTO offer_geo_targets (offer_id, country_code, action) VALUES (?, ?, ?)",
                )?
                .execute((offer, country, action))?;
        }
    }
    Ok(put)
}

/// An item of an import.
pub struct Targets {
    pub offer: i64,
    pub action: &'static str,
    pub countries: Vec<Country>,
}

#[derive(Serialize)]
struct Updated {
    offer_id: i64,
    updated_countries: Vec<&'static str>,
    action: String,
}

/// Reads `US,CA,GB`, each country once, in the order given.
fn read_countries(text: &str) -> Result<Vec<Country>, Refusal> {
    if text.trim().is_empty() {
        return Err(expected("countries", text, COUNTRIES_WANTED).into());
    }
    let mut countries = Vec::new();
    for code in text.split(',') {
        let country = read_country("countries", code.trim())?;
        if !countries.contains(&country) {
            countries.push(country);
        }
    }
    Ok(countries)
}

pub fn targets_of(transaction: &Connection, offer: i64) -> rusqlite::Result<OfferGeoTargets> {
    let mut statement = transaction
        .prepare_cached("SELECT country_code, action FROM offer_geo_targets WHERE offer_id = ?")?;
    let mut geo_targets = statement
        .query_map([offer], |row| {
            let code: String = row.get(0)?;
            let country = Country::parse(&code);
            Ok(GeoTarget {
                country_id: country.map(|country| country.cake_id().into()),
                country_code: code,
                country_name: country.map(|country| country.name().to_owned()),
                action: row.get(1)?,
            })
        })?
        .collect::<Result<Vec<_>, _>>()?;
    // In the order of CAKE's own sample, in which the United States, 1, come before Canada, 39.
    geo_targets.sort_by_key(|target| target.country_id);
    Ok(OfferGeoTargets { offer_id: offer, geo_targets })
}

/// `GET offer_geo_targets.json`
pub const LIST: Call = Call {
    verb: Verb::Read,
    name: "offer_geo_targets.json",
    about: "Lists the countries that an offer allows or blocks; without `offer_id`, of every offer that has some.",
    parameters: &[OFFER_ID, START_AT_ROW, ROW_LIMIT.default(Given::Number(LIST_ROWS_DEFAULT))],
    example: r##"{"offer_id": 1045, "start_at_row": 0, "row_limit": 100}"##,
    answer: Shape::Either(
        &Shape::Open { item: "OfferGeoTargets" },
        &Shape::Page { noun: "offer_geo_targets", item: "OfferGeoTargets" },
    ),
    run: list,
};

/// `POST update_offer_geo_targets.json`
pub const UPDATE: Call = Call {
    verb: Verb::Write,
    name: "update_offer_geo_targets.json",
    about: "Allows or blocks countries of an offer, or forgets them.",
    parameters: &[
        OFFER_ID.required(),
        Parameter::new("countries", Kind::Countries, "ISO 3166-1 alpha-2 codes with commas between them.")
            .required(),
        Parameter::new("action", Kind::OneOf(&["allow", "block", "remove"]), "What to do with them.")
            .required(),
    ],
    example: r##"{"offer_id": 1042, "countries": "US,CA", "action": "allow"}"##,
    answer: Shape::Open { item: "UpdatedGeoTargets" },
    run: update,
};

/// What an item of an import has.
pub const IMPORTED: &[Parameter] = &[
    OFFER_ID.required(),
    Parameter::new("countries", Kind::CountryList, "ISO 3166-1 alpha-2 codes.").required(),
    Parameter::new("action", Kind::OneOf(&["allow", "block"]), "What the offer does with them.").required(),
];

const COUNTRIES_WANTED: &str = "country codes with commas between them, such as US,CA,GB";

const IMPORTED_ACTIONS: &str = "allow or block";

const ACTIONS_WANTED: &str = "allow, block or remove";
