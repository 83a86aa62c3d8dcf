//! The network of CAKE's own example, for a first look: link 301 "Finance Rotator - US" of affiliate 67890.
//!
//! A visitor whose country is not known, such as one from loopback, reaches one of three offers, 60/30/10; a phone in
//! Great Britain meets a rule in front of them. It is written through the calls of the API, in one transaction.

use rusqlite::Transaction;
use serde_json::{Value, json};

use super::answer::Refusal;
use super::parameters::Parameters;
use super::store::{Store, begin_ids_at, next_id};
use super::{Options, attachments, geo_targets, links, offers, rules};

/// Writes the example unless link 301 is there; says whether it did.
pub fn seed(store: &Store, options: &Options) -> Result<bool, Refusal> {
    store.write(|transaction| {
        // Links are never deleted: where a later id is next, 301 was given.
        if next_id(transaction, "smart_links")? > LINK {
            return Ok(false);
        }
        begin_ids_at(transaction, "smart_links", LINK)?;
        begin_ids_at(transaction, "offers", FIRST_OFFER)?;
        plant(transaction, options)?;
        Ok(true)
    })
}

fn plant(transaction: &Transaction<'_>, options: &Options) -> Result<(), Refusal> {
    let link = json!({
        "smart_link_name": "Finance Rotator - US", "affiliate_id": 67890, "smart_link_status": "active",
        "rotation_type": "weighted", "fallback_url": "https://www.example.com/finance?link={smart_link_id}",
    });
    links::create(transaction, options, &parameters(link))?;
    for (name, url, payout, weight) in THREE_OFFERS {
        let offer = next_id(transaction, "offers")?;
        let fields = json!({"offer_name": name, "offer_url": url, "payout": payout});
        offers::create(transaction, options, &parameters(fields))?;
        let attachment =
            json!({"smart_link_id": LINK, "offer_id": offer, "offer_weight": weight, "priority": 2});
        attachments::attach(transaction, options, &parameters(attachment))?;
    }
    let offer = next_id(transaction, "offers")?;
    let fields = json!({
        "offer_name": "Mobile Banking App", "offer_url": "https://app.example.co.uk/install?sub={sub_id}&r=#reqid#",
        "payout": 12.5,
    });
    offers::create(transaction, options, &parameters(fields))?;
    let targets = json!({"offer_id": offer, "countries": "GB", "action": "allow"});
    geo_targets::update(transaction, options, &parameters(targets))?;
    let rule = json!({
        "smart_link_id": LINK, "offer_id": offer, "priority": 1, "offer_weight": 100,
        "conditions": {"country": {"in": ["GB"]}, "device": {"in": ["mobile"]}},
    });
    rules::create(transaction, options, &parameters(rule))?;
    Ok(())
}

fn parameters(fields: Value) -> Parameters {
    Parameters::from(fields.as_object().cloned().unwrap_or_default())
}

/// The link of CAKE's example.
const LINK: i64 = 301;

const FIRST_OFFER: i64 = 1042;

/// Name, URL, payout and weight.
const THREE_OFFERS: [(&str, &str, f64, i64); 3] = [
    ("Premium Credit Card Signup", "https://card.example.com/apply?sub={sub_id}&r=#reqid#", 45.0, 60),
    ("Personal Loan Quote", "https://loan.example.net/quote?sub={sub_id}&r=#reqid#", 30.0, 30),
    ("Car Insurance Lead", "https://insure.example.org/start?sub={sub_id}&r=#reqid#", 22.0, 10),
];
