//! A click in, a redirect out: the whole path, top to bottom, each line once. A plain function; it waits for nothing.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use http::{Method, StatusCode};

use crate::click_id::ClickId;
use crate::clicklog::Record;
use crate::routing::{BotPolicy, Decision, Outcome, Table, Template, TooLong, Values, decide};
use crate::state::{Caps, Charge, ClickCount};
use crate::types::{Click, Draw, Language, OfferId, UnixMillis, referrer_host};

use super::client_ip::client_ip;
use super::query::{self, QueryError};
use super::reply::{Answer, Sentence};
use super::request::Request;
use super::request_line::Refusal;
use super::worker::{WhenLogIsFull, Worker};

/// Answers one request of the click listener, at this moment.
pub fn handle<'w>(worker: &'w mut Worker, request: &Request<'_>, peer: IpAddr, at: UnixMillis) -> Answer<'w> {
    #[cfg(test)]
    super::panics::on_request(request.path);
    let measured = worker.measures_this_click().then(|| (Instant::now(), Arc::clone(&worker.counters)));
    let answer = match refuse(request) {
        Some(refusal) => {
            if query::is_click_path(request.path) {
                worker.counters.click(ClickCount::Invalid, None, None);
            }
            refusal.into()
        }
        None => answer(worker, request, peer, at),
    };
    if let Some((begun, counters)) = measured {
        counters.took(begun.elapsed());
    }
    answer
}

fn answer<'w>(worker: &'w mut Worker, request: &Request<'_>, peer: IpAddr, at: UnixMillis) -> Answer<'w> {
    let head = &request.head;
    let query = match query::parse(request.path, request.query) {
        Ok(query) => query,
        Err(error @ QueryError::OtherPath) => {
            return Sentence::new(StatusCode::NOT_FOUND, error.sentence()).into();
        }
        Err(error) => {
            worker.counters.click(ClickCount::Invalid, None, None);
            return Sentence::bad_request(error.sentence()).into();
        }
    };
    for _ in 0..query.subs_cut {
        worker.counters.sub_id_cut();
    }
    if worker.options.when_log_is_full == WhenLogIsFull::Refuse
        && worker.log.as_mut().is_some_and(|log| !log.has_room())
    {
        worker.counters.click(ClickCount::Unrecorded, None, None);
        return Sentence::NOT_RECORDED.into();
    }
    let draw = worker.draw();
    let address = client_ip(peer, head.forwarded_for(), &worker.options.trusted_proxies);
    let (geo_count, place) = worker.geo.load().place(address);
    worker.counters.geo(geo_count);
    let click = Click {
        link: query.link,
        affiliate: query.affiliate,
        at,
        address,
        place,
        device: worker.devices.device(&head.hints()),
        language: head.accept_language.and_then(Language::from_accept_language),
        referrer_host: head.referrer.and_then(referrer_host),
        subs: query.subs.each_ref().map(Option::as_deref),
    };
    let probe = request.method == Method::HEAD || head.says_probe();
    let published = worker.table.load();
    let table = published.table.of(click.link);
    let spends = !probe && !click.device.bot;
    let caps = if spends { Caps::spending(&published.caps) } else { Caps::looking(&published.caps) };
    let (decision, charge) = decide_and_charge(table, &caps, &click, draw);

    let offer = decision.choice.map(|choice| choice.offer);
    let mut click_id = worker.click_ids.next(click.at, click.link, click.affiliate, offer);
    let mut filled = fill(decision.destination, &click, &click_id, offer, &mut worker.scratch);
    let too_long = filled.is_err();
    if too_long {
        // Nothing else is given back: whether an answer that was made arrives, nobody knows.
        charge.give_back();
        // No id of the offer: a postback with it would be a conversion of an offer that nobody was sent to.
        click_id = worker.click_ids.next(click.at, click.link, click.affiliate, None);
        filled = fill(table.fallback(click.link), &click, &click_id, None, &mut worker.scratch);
    }
    let is_filled = filled.unwrap_or(false);

    if let Some(log) = &mut worker.log {
        let chosen = decision.choice.filter(|_| !too_long);
        let record = Record {
            click_id: click_id.as_str(),
            at: click.at,
            outcome: if too_long { ClickCount::LocationTooLong.as_str() } else { decision.outcome.as_str() },
            link: click.link,
            affiliate: click.affiliate,
            offer: chosen.map(|choice| choice.offer),
            rule: chosen.and_then(|choice| choice.rule),
            priority: chosen.map(|choice| choice.priority),
            draw,
            snapshot: &published.snapshot,
            address: click.address,
            country: click.place.country,
            region: click.place.region,
            device: click.device,
            user_agent: head.user_agent,
            referrer: head.referrer,
            subs: click.subs,
            probe,
        };
        worker.counters.recorded(log.append(&record).is_ok());
    }
    let count = count(&decision, &click, too_long, probe);
    let link = (decision.outcome != Outcome::UnknownLink).then_some(click.link);
    let counted_offer = offer.filter(|_| count == ClickCount::Decided(Outcome::Offer));
    worker.counters.click(count, link, counted_offer);

    if decision.outcome == Outcome::Bot && table.bots() == BotPolicy::Block {
        return Sentence::FORBIDDEN.into();
    }
    is_filled
        .then(|| Answer::redirect(&worker.scratch, &worker.options.referrer_policy))
        .flatten()
        .unwrap_or(Answer::Sentence(Sentence::NO_DESTINATION))
}

/// Decides, and charges the click to the caps of what was chosen. If they closed in between, it is decided anew, a bounded
/// number of times.
pub fn decide_and_charge<'p>(
    table: &'p Table,
    caps: &Caps<'p>,
    click: &Click<'_>,
    draw: Draw,
) -> (Decision<'p>, Charge<'p>) {
    let charge = |decision: &Decision<'_>| match decision.choice {
        Some(choice) if decision.charges => caps.charge(choice.offer, click.affiliate),
        _ => Some(Charge::NOTHING),
    };
    for _ in 0..DECISIONS_MAX {
        let decision = decide(table, caps, click, draw);
        if let Some(charge) = charge(&decision) {
            return (decision, charge);
        }
    }
    // Only offers that no cap can close are left, so that there is nothing more to wait for.
    let decision = decide(table, &caps.shut(), click, draw);
    let charge = charge(&decision).unwrap_or(Charge::NOTHING);
    (decision, charge)
}

/// The requests that are never clicks, whatever their path: a broken request line, wrong method, a body, a doubtful
/// `Host`.
fn refuse(request: &Request<'_>) -> Option<Sentence> {
    let head = &request.head;
    if let Some(refusal) = Refusal::from_path(request.path) {
        return Some(Sentence::new(refusal.status(), refusal.sentence()).closing());
    }
    if request.method != Method::GET && request.method != Method::HEAD {
        let refusal = Sentence::METHOD_NOT_ALLOWED;
        // What follows it may be meant for a tunnel that there is not.
        let is_last = head.has_body || request.method == Method::CONNECT;
        return Some(if is_last { refusal.closing() } else { refusal });
    }
    if head.has_body {
        return Some(Sentence::bad_request("A click has no body and no Transfer-Encoding.\n").closing());
    }
    head.doubt_of_host(request.version).map(|doubt| Sentence::bad_request(doubt).closing())
}

/// Under which outcome the click is counted: a probe or a bot is no person's click, whatever was decided for it.
fn count(decision: &Decision<'_>, click: &Click<'_>, too_long: bool, probe: bool) -> ClickCount {
    if probe {
        ClickCount::Probe
    } else if click.device.bot {
        ClickCount::Decided(Outcome::Bot)
    } else if too_long {
        ClickCount::LocationTooLong
    } else {
        ClickCount::Decided(decision.outcome)
    }
}

/// Whether there is a destination; it is in `out` then.
fn fill(
    template: Option<&Template>,
    click: &Click<'_>,
    click_id: &ClickId,
    offer: Option<OfferId>,
    out: &mut Vec<u8>,
) -> Result<bool, TooLong> {
    out.clear();
    let Some(template) = template else { return Ok(false) };
    template.fill(&Values { click, click_id: click_id.as_str(), offer }, out)?;
    Ok(true)
}

/// Each of them lost a race for the last click of a cap: rare once, and next to impossible so often.
const DECISIONS_MAX: usize = 4;
