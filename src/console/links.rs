//! All links, a page at a time: names from the upstream, figures from this process.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::time::Instant;

use askama::Template;
use axum::Extension;
use axum::extract::{Query, State};
use axum::response::Response;
use serde::Deserialize;

use super::frame::{self, Frame, Section};
use super::guard::Visitor;
use super::link_history::{Filled, Recent};
use super::link_list::{Sort, Wanted};
use super::names::{NamedLink, Names, Seen};
use super::paging::{Page, query};
use super::shares::shares;
use super::{Console, show};
use crate::routing::{LinkFace, describe};
use crate::state::{OfferTotals, Published, now};
use crate::types::LinkId;

#[derive(Template)]
#[template(path = "links.html")]
struct Links {
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
    over: String,
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
    id: u32,
    name: String,
    affiliate: u32,
    standing: Standing,
    clicks: String,
    fill_rate: String,
    shares: Vec<Share>,
    more_shares: usize,
}

/// Whether clicks on it can come to an offer.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Standing {
    Active,
    Inactive,
    NotLive,
}

impl Standing {
    fn class(self) -> &'static str {
        match self {
            Standing::Active => "well",
            Standing::Inactive => "off",
            Standing::NotLive => "ill",
        }
    }

    fn word(self) -> &'static str {
        match self {
            Standing::Active => "active",
            Standing::Inactive => "inactive",
            Standing::NotLive => "not live",
        }
    }
}

/// An offer's part of what its tier took.
struct Share {
    offer: u32,
    name: String,
    is: String,
    /// By the weights of the tier.
    by_weight: String,
}

/// Of its column.
fn heading(sort: Sort) -> &'static str {
    match sort {
        Sort::Id => "Link",
        Sort::Name => "Name",
        Sort::Affiliate => "Affiliate",
        Sort::Clicks => "Clicks",
        Sort::Fill => "Fill rate",
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

/// `GET /console/links`
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
    let (live, metrics) = (console.parts().table.current(), &console.parts().metrics);
    let typed = asked.q.trim();
    let wanted = Wanted { typed: typed.to_owned(), sort, descending };
    let recent = || console.link_history().recent(now(), &metrics.link_totals());
    let found = console.link_lists().find(seen.names.links(), &live, wanted, console.uptime(), recent);
    let page = Page::of(found.len(), asked.page.parse().ok());
    let shown = found.range(page.range());
    let ids: Vec<LinkId> = shown.clone().filter_map(|link| LinkId::new(link.id)).collect();
    let recent = console.link_history().recent(now(), &metrics.totals_of(&ids));
    let offers: HashMap<LinkId, OfferTotals> = ids.iter().copied().zip(metrics.offers_of(&ids)).collect();
    let rows = shown.map(|link| row(link, &live, &recent, &offers, &seen.names)).collect();
    let href = |sort: Sort, descending: bool, page: usize| {
        let number = if page > 1 { page.to_string() } else { String::new() };
        let direction = if descending { "desc" } else { "asc" };
        query(&[("q", typed), ("sort", sort.as_str()), ("dir", direction), ("page", &number)])
    };
    let column = |other: Sort| Column {
        name: heading(other),
        is_number: matches!(other, Sort::Id | Sort::Affiliate | Sort::Clicks | Sort::Fill),
        href: href(other, if other == sort { !descending } else { other.begins_descending() }, 1),
        sorted: (other == sort).then_some(if descending { "descending" } else { "ascending" }),
    };
    frame::page(&Links {
        frame: Frame::new(console, visitor, Section::Links, "Links"),
        asked: typed.to_owned(),
        sort,
        descending,
        columns: Sort::ALL.map(column).into(),
        rows,
        previous: page.previous().map(|number| href(sort, descending, number)),
        next: page.next().map(|number| href(sort, descending, number)),
        found: show::count(found.len() as u64),
        total: show::count(found.total() as u64),
        over: show::duration(recent.over),
        took: format!("{:.1}", begun.elapsed().as_secs_f64() * 1000.0),
        page,
        problem: seen.problem,
        can_be_changed: seen.names.can_be_changed(),
    })
}

fn row(
    link: &NamedLink,
    live: &Published,
    recent: &Recent,
    offers: &HashMap<LinkId, OfferTotals>,
    names: &Names,
) -> Row {
    let id = LinkId::new(link.id);
    let face = id.and_then(|id| describe(&live.table, id));
    let filled = id.map_or(Filled::default(), |id| recent.of(id));
    let taken = id.and_then(|id| offers.get(&id)).unwrap_or(const { &OfferTotals::new() });
    let mut shares = face.as_ref().map_or_else(Vec::new, |face| shares_of(face, taken, names));
    let more_shares = shares.len().saturating_sub(SHARES_SHOWN);
    shares.truncate(SHARES_SHOWN);
    Row {
        id: link.id,
        name: link.name.to_string(),
        affiliate: link.affiliate,
        standing: match &face {
            Some(face) if face.active => Standing::Active,
            Some(_) => Standing::Inactive,
            None => Standing::NotLive,
        },
        clicks: show::count(filled.clicks()),
        fill_rate: show::percent(filled.rate()),
        shares,
        more_shares,
    }
}

/// What each offer took in its tier, beside what its weight would give it there; the busiest first.
fn shares_of(face: &LinkFace, taken: &OfferTotals, names: &Names) -> Vec<Share> {
    let mut shares: Vec<_> = shares(face, taken).into_iter().collect();
    shares.sort_by_key(|(offer, share)| (Reverse(share.count), share.tier, *offer));
    let shown = shares.into_iter().map(|(offer, share)| Share {
        offer: offer.value(),
        name: names.offer(offer.value()).map_or_else(String::new, |offer| offer.name.to_string()),
        is: show::whole_percent(share.taken),
        by_weight: show::whole_percent(Some(share.by_weight)),
    });
    shown.collect()
}

/// In a row of the list.
const SHARES_SHOWN: usize = 4;
