//! A click in, a redirect out: the whole path, top to bottom, each line once. A plain function; it waits for nothing.

use std::net::IpAddr;
use std::time::Instant;

use http::header::{ACCEPT_LANGUAGE, REFERER, USER_AGENT};
use http::request::Parts;
use http::{HeaderMap, Method, header};

use crate::click_id::ClickId;
use crate::clicklog::Record;
use crate::lookup::Hints;
use crate::routing::{BotPolicy, Decision, Outcome, Table, Template, TooLong, Values, decide};
use crate::state::{Caps, Charge, ClickCount, now};
use crate::types::{Click, Draw, Language, OfferId, referrer_host};

use super::client_ip::client_ip;
use super::probe::is_probe;
use super::query::{self, QueryError};
use super::reply::{self, Reply};
use super::request_line::Refusal;
use super::worker::{WhenLogIsFull, Worker};

/// Answers one request of the click listener.
pub fn handle(worker: &mut Worker, parts: &Parts, peer: IpAddr) -> Reply {
    let begun = worker.measures_this_click().then(Instant::now);
    let reply = match refuse(parts) {
        Some(refusal) => {
            if query::is_click_path(parts.uri.path()) {
                worker.counters.click(ClickCount::Invalid, None, None);
            }
            refusal
        }
        None => answer(worker, parts, peer),
    };
    if let Some(begun) = begun {
        worker.counters.took(begun.elapsed());
    }
    reply
}

fn answer(worker: &mut Worker, parts: &Parts, peer: IpAddr) -> Reply {
    let query = match query::parse(parts.uri.path(), parts.uri.query()) {
        Ok(query) => query,
        Err(QueryError::OtherPath) => return reply::not_found(QueryError::OtherPath.sentence()),
        Err(error) => {
            worker.counters.click(ClickCount::Invalid, None, None);
            return reply::bad_request(error.sentence());
        }
    };
    for _ in 0..query.subs_cut {
        worker.counters.sub_id_cut();
    }
    if worker.options.when_log_is_full == WhenLogIsFull::Refuse
        && worker.log.as_mut().is_some_and(|log| !log.has_room())
    {
        worker.counters.click(ClickCount::Unrecorded, None, None);
        return reply::not_recorded();
    }
    let draw = worker.draw();
    let address = client_ip(peer, &parts.headers, &worker.options.trusted_proxies);
    let (geo_count, place) = worker.geo.load().place(address);
    worker.counters.geo(geo_count);
    let (user_agent, referrer) = (text(&parts.headers, USER_AGENT), text(&parts.headers, REFERER));
    let click = Click {
        link: query.link,
        affiliate: query.affiliate,
        at: now(),
        address,
        place,
        device: worker.devices.device(&hints(user_agent, &parts.headers)),
        language: text(&parts.headers, ACCEPT_LANGUAGE).and_then(Language::from_accept_language),
        referrer_host: referrer.and_then(referrer_host),
        subs: query.subs.each_ref().map(Option::as_deref),
    };
    let probe = is_probe(&parts.method, &parts.headers);
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
            user_agent,
            referrer,
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
        return reply::forbidden();
    }
    is_filled
        .then(|| reply::redirect(&worker.scratch, &worker.options.referrer_policy, &mut worker.headers))
        .flatten()
        .unwrap_or_else(reply::no_destination)
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
fn refuse(parts: &Parts) -> Option<Reply> {
    if let Some(refusal) = Refusal::from_path(parts.uri.path()) {
        return Some(reply::bad_framing(refusal.sentence()));
    }
    let has_body = has_body(&parts.headers);
    if parts.method != Method::GET && parts.method != Method::HEAD {
        let mut refusal = reply::method_not_allowed();
        if has_body {
            refusal.headers_mut().insert(header::CONNECTION, http::HeaderValue::from_static("close"));
        }
        return Some(refusal);
    }
    if has_body {
        return Some(reply::bad_framing("A click has no body and no Transfer-Encoding.\n"));
    }
    doubt_of_host(parts).map(reply::bad_framing)
}

/// Whether the head announces a body, however short.
pub(super) fn has_body(headers: &HeaderMap) -> bool {
    headers.contains_key(header::TRANSFER_ENCODING)
        || headers.get_all(header::CONTENT_LENGTH).iter().any(|length| length != "0")
}

/// What is wrong with `Host`, in a line.
pub(super) fn doubt_of_host(parts: &Parts) -> Option<&'static str> {
    let mut hosts = parts.headers.get_all(header::HOST).iter();
    match (hosts.next(), hosts.next()) {
        (None, _) if parts.version == http::Version::HTTP_11 => Some("The Host header is missing.\n"),
        (Some(_), Some(_)) => Some("The Host header is given more than once.\n"),
        (Some(host), None) if !is_host(host.as_bytes()) => {
            Some("The Host header is not a host name with an optional port.\n")
        }
        _ => None,
    }
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

fn hints<'h>(user_agent: Option<&'h str>, headers: &'h HeaderMap) -> Hints<'h> {
    Hints {
        user_agent,
        ch_mobile: text(headers, "sec-ch-ua-mobile"),
        ch_platform: text(headers, "sec-ch-ua-platform"),
    }
}

/// A header as text; some apps put UTF-8 into theirs, and anything else is as good as absent.
fn text(headers: &HeaderMap, name: impl header::AsHeaderName) -> Option<&str> {
    headers.get(name).and_then(|value| std::str::from_utf8(value.as_bytes()).ok())
}

/// `host`, `host:port` or `[v6]:port`, in the characters of RFC 3986. An empty host is none.
fn is_host(host: &[u8]) -> bool {
    let Ok(host) = std::str::from_utf8(host) else { return false };
    let (name, port) = match host.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((v6, port)) if v6.parse::<std::net::Ipv6Addr>().is_ok() => ("v6", port),
            _ => return false,
        },
        None => host.find(':').map_or((host, ""), |colon| host.split_at(colon)),
    };
    let port_is_valid = port.is_empty()
        || port.strip_prefix(':').is_some_and(|digits| digits.is_empty() || digits.parse::<u16>().is_ok());
    !name.is_empty()
        && port_is_valid
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=%".contains(&byte))
}

/// Each of them lost a race for the last click of a cap: rare once, and next to impossible so often.
const DECISIONS_MAX: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_headers() {
        for good in ["example.com", "example.com:8080", "127.0.0.1", "[::1]:80", "[::1]", "a_b:"] {
            assert!(is_host(good.as_bytes()), "{good}");
        }
        for bad in ["", ":80", "a b", "a/b", "a@b", "a:b", "a:99999", "[::1", "[zz]", "é"] {
            assert!(!is_host(bad.as_bytes()), "{bad}");
        }
    }
}
