//! Links: CAKE's list and creation, and our change.

use rusqlite::{OptionalExtension, Row, Transaction};

use super::Options;
use super::answer::{Answer, Refusal, Rows, Under};
use super::call::{Call, Verb};
use super::contract::{Given, Kind, Parameter, ROW_LIMIT, START_AT_ROW, Shape};
use super::faults::Faults;
use super::parameters::{Parameters, required};
use super::store::{Listing, Put, next_id};
use crate::cake::wire::{ACTIVE, LINK_STATUSES, SmartLink, read_status};
use crate::routing::Rotation;

/// `GET smart_links.json`
pub fn list(transaction: &Transaction<'_>, options: &Options, asked: &Parameters) -> Result<Answer, Refusal> {
    let status = asked
        .text("smart_link_status")?
        .map(|status| read_status("smart_link_status", status, LINK_STATUSES))
        .transpose()?;
    let listing = Listing::new("smart_links", COLUMNS, "smart_link_id")
        .filter("smart_link_id", asked.whole_number("smart_link_id")?)
        .filter("affiliate_id", asked.whole_number("affiliate_id")?)
        .filter("smart_link_status", status.map(str::to_owned));
    let page = asked.page(LIST_ROWS_DEFAULT)?;
    let (rows, total_rows) = listing.page(transaction, page, |row| read_row(row, options))?;
    Answer::new(Under { response: Rows { noun: "smart_links", rows, total_rows } })
}

/// `POST smart_link.json`
pub fn create(
    transaction: &Transaction<'_>,
    options: &Options,
    asked: &Parameters,
) -> Result<Answer, Refusal> {
    let link = fresh(next_id(transaction, "smart_links")?, options, asked)?;
    save(transaction, &link)?;
    Answer::new(Under { response: link })
}

/// A whole link of an import, with its own id: what it does not name has the value of a new link.
pub fn item(options: &Options, asked: &Parameters) -> Result<SmartLink, Refusal> {
    let id = required("smart_link_id", asked.whole_number("smart_link_id")?, "a whole number")?;
    fresh(id, options, asked)
}

/// Puts a link of an import in its place.
pub fn put(transaction: &Transaction<'_>, options: &Options, link: &SmartLink) -> Result<Put, Refusal> {
    let put = Put::of(find(transaction, options, link.smart_link_id)?.as_ref(), link);
    if put != Put::Unchanged {
        save(transaction, link)?;
    }
    Ok(put)
}

/// `POST update_smart_link.json`: what is left out stays as it is.
pub fn update(
    transaction: &Transaction<'_>,
    options: &Options,
    asked: &Parameters,
) -> Result<Answer, Refusal> {
    let id = required("smart_link_id", asked.whole_number("smart_link_id")?, "a whole number")?;
    let before = find(transaction, options, id)?.ok_or_else(|| Refusal::unknown("smart_link_id", id))?;
    let mut link = before.clone();
    change(&mut link, options, asked, Faults::default())?;
    save(transaction, &link)?;
    let is_idle = link == before;
    Ok(Answer::new(Under { response: link })?.idle_if(is_idle))
}

/// The id of a link that is there.
pub fn existing(transaction: &Transaction<'_>, asked: &Parameters) -> Result<i64, Refusal> {
    let id = required("smart_link_id", asked.whole_number("smart_link_id")?, "a whole number")?;
    let found =
        transaction.prepare_cached("SELECT 1 FROM smart_links WHERE smart_link_id = ?")?.exists([id])?;
    if found { Ok(id) } else { Err(Refusal::unknown("smart_link_id", id)) }
}

fn find(transaction: &Transaction<'_>, options: &Options, id: i64) -> rusqlite::Result<Option<SmartLink>> {
    transaction
        .prepare_cached(&format!("SELECT {COLUMNS} FROM smart_links WHERE smart_link_id = ?"))?
        .query_row([id], |row| read_row(row, options))
        .optional()
}

/// A new link with what was sent in it.
fn fresh(id: i64, options: &Options, asked: &Parameters) -> Result<SmartLink, Refusal> {
    let mut faults = Faults::default();
    faults.read(required("smart_link_name", asked.raw("smart_link_name"), "a name"))?;
    faults.read(required("affiliate_id", asked.raw("affiliate_id"), "a whole number"))?;
    let mut link = SmartLink {
        smart_link_id: id,
        smart_link_name: String::new(),
        affiliate_id: 0,
        smart_link_status: ACTIVE.to_owned(),
        rotation_type: Rotation::default().as_str().to_owned(),
        cap_aware: true,
        fallback_url: None,
        tracking_url: None,
    };
    change(&mut link, options, asked, faults)?;
    Ok(link)
}

/// Puts what was sent into the link, and refuses a link that the sync would not read.
fn change(
    link: &mut SmartLink,
    options: &Options,
    asked: &Parameters,
    mut faults: Faults,
) -> Result<(), Refusal> {
    if let Some(name) = faults.sent(asked.title("smart_link_name"))? {
        link.smart_link_name = name.to_owned();
    }
    if let Some(affiliate) = faults.sent(asked.whole_number("affiliate_id"))? {
        link.affiliate_id = affiliate;
    }
    if let Some(status) = faults.sent(asked.text("smart_link_status"))? {
        link.smart_link_status = status.to_owned();
    }
    if let Some(rotation) = faults.sent(asked.text("rotation_type"))? {
        link.rotation_type = rotation.to_owned();
    }
    if let Some(cap_aware) = faults.sent(asked.truth("cap_aware"))? {
        link.cap_aware = cap_aware;
    }
    if let Some(url) = faults.sent(asked.removable_text("fallback_url"))? {
        // Checked only where it is sent: an older one may stand against a policy that was tightened since, and
        // that must not keep anyone from switching the link off.
        let url = url.map(|url| options.destination("fallback_url", url)).transpose();
        link.fallback_url = faults.read(url.map_err(Refusal::Value))?.flatten();
    }
    faults.extend(link.wrong());
    faults.end()?;
    let read = link.read()?;
    link.smart_link_status =
        read_status("smart_link_status", &link.smart_link_status, LINK_STATUSES)?.to_owned();
    link.rotation_type = read.rotation.as_str().to_owned();
    link.tracking_url = Some(tracking_url(options, link.smart_link_id, link.affiliate_id));
    Ok(())
}

fn save(transaction: &Transaction<'_>, link: &SmartLink) -> rusqlite::Result<()> {
    transaction
        .prepare_cached(&format!(
            "INSERT INTO smart_links ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)
             ON CONFLICT (smart_link_id) DO UPDATE SET
                 smart_link_name = excluded.smart_link_name, affiliate_id = excluded.affiliate_id,
                 smart_link_status = excluded.smart_link_status, rotation_type = excluded.rotation_type,
                 cap_aware = excluded.cap_aware, fallback_url = excluded.fallback_url"
        ))?
        .execute((
            link.smart_link_id,
            &link.smart_link_name,
            link.affiliate_id,
            &link.smart_link_status,
            &link.rotation_type,
            link.cap_aware,
            &link.fallback_url,
        ))?;
    Ok(())
}

/// A row of [`COLUMNS`].
fn read_row(row: &Row<'_>, options: &Options) -> rusqlite::Result<SmartLink> {
    let link = read_line(row)?;
    let tracking_url = Some(tracking_url(options, link.smart_link_id, link.affiliate_id));
    Ok(SmartLink { smart_link_name: row.get(1)?, tracking_url, ..link })
}

/// The same row without what is for people, and for those who bring clicks.
pub fn read_line(row: &Row<'_>) -> rusqlite::Result<SmartLink> {
    Ok(SmartLink {
        smart_link_id: row.get(0)?,
        smart_link_name: String::new(),
        affiliate_id: row.get(2)?,
        smart_link_status: row.get(3)?,
        rotation_type: row.get(4)?,
        cap_aware: row.get(5)?,
        fallback_url: row.get(6)?,
        tracking_url: None,
    })
}

fn tracking_url(options: &Options, link: i64, affiliate: i64) -> String {
    format!("{}/sl?id={link}&aff_id={affiliate}", options.public_base_url.trim_end_matches('/'))
}

/// `GET smart_links.json`
pub const LIST: Call = Call {
    verb: Verb::Read,
    name: "smart_links.json",
    about: "Lists smart links.",
    parameters: &[
        LINK_ID.sought(),
        AFFILIATE_ID.sought(),
        STATUS,
        START_AT_ROW,
        ROW_LIMIT.default(Given::Number(LIST_ROWS_DEFAULT)),
    ],
    example: r##"{"smart_link_id": 301, "affiliate_id": 67890, "smart_link_status": "active", "start_at_row": 0, "row_limit": 100}"##,
    answer: Shape::Page { noun: "smart_links", item: "SmartLink" },
    run: list,
};

/// `POST smart_link.json`
pub const CREATE: Call = Call {
    verb: Verb::Write,
    name: "smart_link.json",
    about: "Creates a smart link.",
    parameters: &[
        NAME.required(),
        AFFILIATE_ID.required(),
        STATUS.default(Given::Text(ACTIVE)),
        ROTATION.default(Given::Text(Rotation::Weighted.as_str())),
        CAP_AWARE.default(Given::Truth(true)),
        FALLBACK_URL,
    ],
    example: r##"{"smart_link_name": "Finance Rotator - CA", "affiliate_id": 67890, "smart_link_status": "active", "rotation_type": "weighted", "cap_aware": true, "fallback_url": "https://www.example.com/finance?link={smart_link_id}"}"##,
    answer: Shape::Under { item: "SmartLink" },
    run: create,
};

/// `POST update_smart_link.json`
pub const UPDATE: Call = Call {
    verb: Verb::Write,
    name: "update_smart_link.json",
    about: "Changes a smart link. What is left out stays as it is.",
    parameters: &[LINK_ID.required(), NAME, AFFILIATE_ID, STATUS, ROTATION, CAP_AWARE, FALLBACK_URL],
    example: r##"{"smart_link_id": 301, "smart_link_name": "Finance Rotator - US", "affiliate_id": 67890, "smart_link_status": "active", "rotation_type": "even", "cap_aware": true, "fallback_url": null}"##,
    answer: Shape::Under { item: "SmartLink" },
    run: update,
};

/// Which link.
pub const LINK_ID: Parameter = Parameter::new("smart_link_id", Kind::Id, "The smart link.");

const AFFILIATE_ID: Parameter = Parameter::new("affiliate_id", Kind::Id, "Whose link it is.");

const STATUS: Parameter =
    Parameter::new("smart_link_status", Kind::OneOf(LINK_STATUSES), "Whether it sends clicks to offers.");

const NAME: Parameter = Parameter::new("smart_link_name", Kind::Title, "What people call it.");

const ROTATION: Parameter = Parameter::new(
    "rotation_type",
    Kind::OneOf(&["weighted", "even", "priority"]),
    "How one of a tier's offers is chosen: by weight, by equal weights, or the one with the lowest id.",
);

const CAP_AWARE: Parameter =
    Parameter::new("cap_aware", Kind::Truth, "Whether offers whose caps are full are passed over.");

const FALLBACK_URL: Parameter = Parameter::new(
    "fallback_url",
    Kind::Text,
    "Where clicks go that reach no offer: an https URL, with tokens such as {s1}.",
)
.removable();

/// CAKE's default for the lists of its Smart Links calls, and ours.
pub const LIST_ROWS_DEFAULT: i64 = 100;

/// Columns for [`read_line`], table and order, for a reader of all of it.
pub const ALL: (&str, &str, &str) = (COLUMNS, "smart_links", "smart_link_id");

const COLUMNS: &str =
    "smart_link_id, smart_link_name, affiliate_id, smart_link_status, rotation_type, cap_aware, fallback_url";
