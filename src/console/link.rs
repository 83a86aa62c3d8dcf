//! One link as the live table has it: its tiers in the order in which they are tried, what each entry asks for, what it
//! would take by its weight, and what its offer has taken.

use askama::Template;
use axum::Extension;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;

use super::caps::{self, Bar};
use super::frame::{self, Frame, Section};
use super::guard::Visitor;
use super::names::{Names, Seen};
use super::shares::shares;
use super::{Console, show};
use crate::routing::{CapView, ConditionFace, EntryFace, LinkFace, Rotation, TierFace, describe};
use crate::state::{Caps, ClickCounts, OfferTotals, now};
use crate::types::{AffiliateId, LinkId, OfferId};

#[derive(Template)]
#[template(path = "link.html")]
struct LinkPage {
    frame: Frame,
    id: u32,
    name: String,
    affiliate: u32,
    /// What the affiliate sends visitors to: in either of its forms.
    tracking_urls: [String; 2],
    /// `None`: the upstream has it, and the table has not.
    live: Option<Live>,
    over: String,
    clicks: String,
    fill_rate: String,
    outcomes: Vec<Outcome>,
    tiers: Vec<Tier>,
    /// Offers that took clicks and hang on the link no more.
    gone: Vec<(u32, String)>,
    bars: Vec<Bar>,
    problem: Option<String>,
    can_be_changed: bool,
}

/// What the table knows of the link itself.
struct Live {
    active: bool,
    cap_aware: bool,
    has_fallback: bool,
}

struct Outcome {
    name: &'static str,
    count: String,
    part: String,
}

struct Tier {
    priority: u32,
    /// How one of its entries is chosen.
    rotation: &'static str,
    entries: Vec<Entry>,
}

struct Entry {
    offer: u32,
    offer_name: String,
    rule: Option<u32>,
    weight: u8,
    by_weight: String,
    /// Of its tier, if the offer is counted here.
    taken: String,
    taken_count: String,
    conditions: Vec<ConditionFace>,
    standing: Standing,
}

/// Whether an entry could take a click at the moment.
struct Standing {
    class: &'static str,
    word: &'static str,
    note: String,
}

/// `GET /console/links/{id}`
pub async fn page(
    State(console): State<Console>,
    Extension(visitor): Extension<Visitor>,
    Path(id): Path<String>,
) -> Response {
    let Some(link) = LinkId::parse(id.as_bytes()) else { return not_found(&console, &id) };
    let seen = console.names().look(&console).await;
    frame::in_turn(&console, move |console| write(console, &visitor, link, seen)).await
}

fn not_found(console: &Console, id: &str) -> Response {
    let text = format!("No link has the number {id}, neither live nor at the upstream.");
    frame::told(console, StatusCode::NOT_FOUND, "There is no such link", &text)
}

fn write(console: &Console, visitor: &Visitor, link: LinkId, seen: Seen) -> Response {
    let published = console.parts().table.current();
    let (face, named) = (describe(&published.table, link), seen.names.link(link.value()));
    let affiliate = face.as_ref().map(|face| face.affiliate.value()).or(named.map(|named| named.affiliate));
    let Some(affiliate) = affiliate else { return not_found(console, &link.to_string()) };

    let totals = console.parts().metrics.totals_of(&[link]);
    let recent = console.link_history().recent(now(), &totals);
    let taken = console.parts().metrics.offers_of(&[link]).pop().unwrap_or_default();
    let caps = Caps::looking(&published.caps);
    let tiers = face.as_ref().map_or_else(Vec::new, |face| tiers(face, &taken, &caps, &seen.names));
    let is_there = |offer: u32| tiers.iter().flat_map(|tier| &tier.entries).any(|entry| entry.offer == offer);
    let gone = taken.iter().filter(|(offer, _)| !is_there(offer.value()));
    let gone = gone.map(|(offer, &count)| (offer.value(), show::count(count))).collect();
    let name = named.map_or_else(String::new, |named| named.name.to_string());
    let title = if name.is_empty() { format!("Link {link}") } else { format!("{name} · link {link}") };
    let bars = caps::bars(console, &seen.names, |cap| {
        is_there(cap.offer.value()) && cap.affiliate.is_none_or(|of| of.value() == affiliate)
    });
    let filled = recent.of(link);
    frame::page(&LinkPage {
        frame: Frame::new(console, visitor, Section::Links, title),
        id: link.value(),
        name,
        affiliate,
        tracking_urls: tracking_urls(&console.parts().public_base_url, link, affiliate),
        live: face.as_ref().map(|face| Live {
            active: face.active,
            cap_aware: face.cap_aware,
            has_fallback: face.has_fallback,
        }),
        over: show::duration(recent.over),
        clicks: show::count(filled.clicks()),
        fill_rate: show::percent(filled.rate()),
        outcomes: totals.get(&link).map_or_else(Vec::new, outcomes),
        bars,
        tiers,
        gone,
        problem: seen.problem,
        can_be_changed: seen.names.can_be_changed(),
    })
}

fn tracking_urls(base: &str, link: LinkId, affiliate: u32) -> [String; 2] {
    let base = base.trim_end_matches('/');
    [format!("{base}/sl?id={link}&aff_id={affiliate}"), format!("{base}/sl/{link}?aff_id={affiliate}")]
}

fn outcomes(counts: &ClickCounts) -> Vec<Outcome> {
    let all = counts.all();
    let counted = counts.each().filter(|(_, count)| *count > 0);
    let outcome = |(outcome, count): (crate::state::ClickCount, u64)| Outcome {
        name: outcome.as_str(),
        count: show::count(count),
        part: show::percent(Some(count as f64 / all as f64)),
    };
    counted.map(outcome).collect()
}

fn tiers(face: &LinkFace, taken: &OfferTotals, caps: &Caps<'_>, names: &Names) -> Vec<Tier> {
    let shares = shares(face, taken);
    let entry = |index: usize, entry: &EntryFace| {
        let share = shares.get(&entry.offer).filter(|share| share.tier == index);
        Entry {
            offer: entry.offer.value(),
            offer_name: names
                .offer(entry.offer.value())
                .map_or_else(String::new, |offer| offer.name.to_string()),
            rule: entry.rule.map(|rule| rule.value()),
            weight: entry.weight,
            by_weight: show::percent(Some(entry.share)),
            taken: show::percent(share.and_then(|share| share.taken)),
            taken_count: share.map_or_else(|| "above".to_owned(), |share| show::count(share.count)),
            conditions: entry.conditions.clone(),
            standing: standing(entry, face, caps, face.affiliate, entry.offer),
        }
    };
    let tier = |(index, tier): (usize, &TierFace)| Tier {
        priority: tier.priority,
        rotation: match tier.rotation {
            Rotation::Weighted => "one is drawn by weight",
            Rotation::Even => "one is drawn, each as likely",
            Rotation::Priority => "the one with the lowest offer number takes all",
        },
        entries: tier.entries.iter().map(|of_tier| entry(index, of_tier)).collect(),
    };
    face.tiers.iter().enumerate().map(tier).collect()
}

fn standing(
    entry: &EntryFace,
    face: &LinkFace,
    caps: &Caps<'_>,
    affiliate: AffiliateId,
    offer: OfferId,
) -> Standing {
    let standing = |class, word, note: &str| Standing { class, word, note: note.to_owned() };
    if !entry.offer_active {
        return standing("off", "offer inactive", "");
    }
    if entry.weight == 0 {
        return standing("off", "no traffic", "its weight is 0");
    }
    let closed = caps.closed_caps(offer, affiliate);
    if closed.is_empty() {
        return standing("well", "open", "");
    }
    let note = closed.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
    match face.cap_aware {
        true => standing("ill", "closed", &note),
        false => standing("note", "open", &format!("though the link looks at no caps: {note}")),
    }
}
