//! All offers, searched and sorted here, a page at a time: what they are called and where they lead from the upstream, and
//! on how many links they are from the live table.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use askama::Template;
use axum::Extension;
use axum::extract::{Query, State};
use axum::response::Response;
use serde::Deserialize;

use super::frame::{self, Frame, Section};
use super::guard::Visitor;
use super::names::{NamedOffer, Names, Seen, fold};
use super::paging::{Page, query};
use super::{Console, show};
use crate::cake::wire::ACTIVE;
use crate::state::Published;
use crate::types::OfferId;

#[derive(Template)]
#[template(path = "offers.html")]
struct Offers {
    frame: Frame,
    asked: String,
    sort: Sort,
    descending: bool,
    columns: Vec<Column>,
    rows: Vec<Row>,
    page: Page,
    previous: Option<String>,
    next: Option<String>,
    found: String,
    total: String,
    took: String,
    problem: Option<String>,
    can_be_changed: bool,
}

/// The head of a column that the list can be sorted by.
struct Column {
    name: &'static str,
    is_number: bool,
    /// Where it is sorted by this column, or the other way round.
    href: String,
    /// `aria-sort`, if the list is sorted by it.
    sorted: Option<&'static str>,
}

struct Row {
    id: i64,
    name: String,
    /// `None`: the upstream does not name it.
    status: Option<(&'static str, String)>,
    links: String,
    caps: String,
    has_caps: bool,
    url: String,
}

/// On how many links each offer is, counted once a generation: with a million links it takes some milliseconds.
#[derive(Debug, Default)]
pub struct OfferLinks(Mutex<Option<(u64, Arc<LinksByOffer>)>>);

type LinksByOffer = HashMap<OfferId, usize>;

impl OfferLinks {
    fn of(&self, live: &Published) -> Arc<LinksByOffer> {
        let mut counted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &*counted {
            Some((generation, links)) if *generation == live.generation => Arc::clone(links),
            _ => {
                let links = Arc::new(live.table.links_by_offer());
                *counted = Some((live.generation, Arc::clone(&links)));
                links
            }
        }
    }
}

/// What the list is sorted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sort {
    Id,
    Name,
    Status,
    Links,
    Caps,
}

impl Sort {
    const ALL: [Sort; 5] = [Sort::Id, Sort::Name, Sort::Status, Sort::Links, Sort::Caps];

    fn as_str(self) -> &'static str {
        match self {
            Sort::Id => "id",
            Sort::Name => "name",
            Sort::Status => "status",
            Sort::Links => "links",
            Sort::Caps => "caps",
        }
    }

    fn heading(self) -> &'static str {
        match self {
            Sort::Id => "Offer",
            Sort::Name => "Name",
            Sort::Status => "Status",
            Sort::Links => "Links",
            Sort::Caps => "Caps",
        }
    }

    /// Which way round it is at first: the most used first.
    fn begins_descending(self) -> bool {
        matches!(self, Sort::Links | Sort::Caps)
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Asked {
    q: String,
    sort: String,
    dir: String,
    page: String,
}

/// `GET /console/offers`
pub async fn page(
    State(console): State<Console>,
    Extension(visitor): Extension<Visitor>,
    Query(asked): Query<Asked>,
) -> Response {
    let seen = console.names().look(&console).await;
    frame::in_turn(&console, move |console| write(console, &visitor, &asked, seen)).await
}

fn write(console: &Console, visitor: &Visitor, asked: &Asked, seen: Seen) -> Response {
    let begun = Instant::now();
    let sort = Sort::ALL.into_iter().find(|sort| sort.as_str() == asked.sort).unwrap_or(Sort::Id);
    let descending = match asked.dir.as_str() {
        "asc" => false,
        "desc" => true,
        _ => sort.begins_descending(),
    };
    let links = console.0.offer_links.of(&console.parts().table.current());
    let mut caps: HashMap<i64, usize> = HashMap::new();
    // Who tells of new caps does not wait for this.
    let known = console.parts().caps.borrow().all().clone();
    for cap in known.iter() {
        *caps.entry(cap.key.offer.value().into()).or_default() += 1;
    }
    let all = offers(&seen.names, &links, &caps);
    let typed = asked.q.trim();
    let found = arranged(&all, typed, sort, descending);
    let page = Page::of(found.len(), asked.page.parse().ok());
    let href = |sort: Sort, descending: bool, page: usize| {
        let number = if page > 1 { page.to_string() } else { String::new() };
        let direction = if descending { "desc" } else { "asc" };
        query(&[("q", typed), ("sort", sort.as_str()), ("dir", direction), ("page", &number)])
    };
    let column = |other: Sort| Column {
        name: other.heading(),
        is_number: matches!(other, Sort::Id | Sort::Links | Sort::Caps),
        href: href(other, if other == sort { !descending } else { other.begins_descending() }, 1),
        sorted: (other == sort).then_some(if descending { "descending" } else { "ascending" }),
    };
    frame::page(&Offers {
        frame: Frame::new(console, visitor, Section::Offers, "Offers"),
        asked: typed.to_owned(),
        sort,
        descending,
        columns: Sort::ALL.map(column).into(),
        rows: found[page.range()].iter().map(|offer| row(offer)).collect(),
        previous: page.previous().map(|number| href(sort, descending, number)),
        next: page.next().map(|number| href(sort, descending, number)),
        found: show::count(found.len() as u64),
        total: show::count(all.len() as u64),
        took: format!("{:.1}", begun.elapsed().as_secs_f64() * 1000.0),
        page,
        problem: seen.problem,
        can_be_changed: seen.names.can_be_changed(),
    })
}

/// An offer, and what is known of it here.
#[derive(Clone, Copy)]
struct Known<'n> {
    id: i64,
    /// `None`: the upstream could not be asked yet, or has it no more.
    named: Option<&'n NamedOffer>,
    links: usize,
    caps: usize,
}

/// Those of the upstream and those that are live, in the order of their ids.
fn offers<'n>(names: &'n Names, links: &LinksByOffer, caps: &HashMap<i64, usize>) -> Vec<Known<'n>> {
    let of_table = |id: i64| u32::try_from(id).ok().and_then(OfferId::new).and_then(|id| links.get(&id));
    let known = |id: i64, named: Option<&'n NamedOffer>| Known {
        id,
        named,
        links: of_table(id).copied().unwrap_or_default(),
        caps: caps.get(&id).copied().unwrap_or_default(),
    };
    let mut all: Vec<Known<'n>> = names.offers().map(|(id, named)| known(id, Some(named))).collect();
    let unnamed = links.keys().filter(|id| names.offer(id.value()).is_none());
    all.extend(unnamed.map(|id| known(id.value().into(), None)));
    all.sort_unstable_by_key(|offer| offer.id);
    all
}

/// Those that are meant, in order; equals by their ids.
fn arranged<'o, 'n>(
    offers: &'o [Known<'n>],
    typed: &str,
    sort: Sort,
    descending: bool,
) -> Vec<&'o Known<'n>> {
    let (folded, number) = (fold(typed), typed.parse().ok());
    let is_meant = |offer: &&Known<'_>| {
        typed.is_empty()
            || number == Some(offer.id)
            || offer.named.is_some_and(|named| named.is_meant(&folded))
    };
    let mut found: Vec<&Known<'_>> = offers.iter().filter(is_meant).collect();
    let turned = |order: Ordering| if descending { order.reverse() } else { order };
    let name = |offer: &Known<'n>| offer.named.map_or("", |named| named.folded());
    let status = |offer: &Known<'n>| offer.named.map_or("", |named| named.status.as_ref());
    match sort {
        // They are in this order.
        Sort::Id if descending => found.reverse(),
        Sort::Id => {}
        Sort::Name => found.sort_by(|a, b| turned(name(a).cmp(name(b)))),
        Sort::Status => found.sort_by(|a, b| turned(status(a).cmp(status(b)))),
        Sort::Links => found.sort_by(|a, b| turned(a.links.cmp(&b.links))),
        Sort::Caps => found.sort_by(|a, b| turned(a.caps.cmp(&b.caps))),
    }
    found
}

fn row(offer: &Known<'_>) -> Row {
    Row {
        id: offer.id,
        name: offer.named.map_or_else(String::new, |named| named.name.to_string()),
        status: offer.named.map(|named| {
            let class = if named.status.as_ref() == ACTIVE { "well" } else { "off" };
            (class, named.status.to_string())
        }),
        links: show::count(offer.links as u64),
        caps: show::count(offer.caps as u64),
        has_caps: offer.caps > 0,
        url: offer.named.map_or_else(String::new, |named| named.url.to_string()),
    }
}
