//! What a fuzzer throws bytes at: a function for each room that reads what strangers wrote.
//!
//! Each reads its input as text of some lines, calls the one function that is meant, and panics where a promise of that
//! function does not hold. `fuzz_targets/` hands them to libFuzzer; `tests/fuzz_corpora.rs` of smartlink includes this very
//! file and replays `corpus/` through it in every `cargo test`. A crash becomes a file of the corpus.
//!
//! What needs a socket, a disk or a clock is not here.

use std::borrow::Cow;
use std::cell::RefCell;
use std::io::{self, Read};
use std::net::{IpAddr, SocketAddr};
use std::ops::ControlFlow;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use smartlink::cake::wire::{OfferCap, OfferGeoTargets, OfferItem};
use smartlink::cake::{Lines, List, Network, ReadAttachment, ReadLink, RuleReader, RuleRow, read_page};
use smartlink::click_id::{ClickIdKeys, Contents, NodeIdentity, Refused, SEQUENCES, Signer, WorkerIndex};
use smartlink::clicklog::{Entry, lines_in};
use smartlink::edge::{
    HeadLimits, ProxyHeader, QueryError, RequestLines, client_ip, is_click_path, parse_proxy_header,
    parse_query,
};
use smartlink::lookup::{DeviceCache, Hints, device as read_device};
use smartlink::routing::{
    CompileOptions, DestinationPolicy, LOCATION_BYTES_MAX, NetSet, Template, Values, Zone, compile, parse_net,
};
use smartlink::sync::Overlay;
use smartlink::types::{
    AffiliateId, Click, Country, Device, LinkId, OfferId, Place, Region, SUB_BYTES_MAX, SUBS, UnixMillis,
};
use tokio::io::{AsyncRead, ReadBuf};
use url::{Url, form_urlencoded};

/// A function that is fuzzed, under the name of its file in `fuzz_targets/` and of its directory in `corpus/`.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const TARGETS: &[Target] = &[
    ("click_id", click_id),
    ("click_query", click_query),
    ("click_record", click_record),
    ("destination", destination),
    ("device", device),
    ("forwarded_for", forwarded_for),
    ("network_lines", network_lines),
    ("proxy_header", proxy_header),
    ("request_lines", request_lines),
    ("routing_toml", routing_toml),
    ("upstream_pages", upstream_pages),
];

/// A request target, as it stands on the request line: ids are strict, sub ids are what any decoder of forms makes of them.
pub fn click_query(data: &[u8]) {
    let Ok(target) = std::str::from_utf8(data) else { return };
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (target, None),
    };
    let parsed = parse_query(path, query);
    assert_eq!(parsed.as_ref().err() == Some(&QueryError::OtherPath), !is_click_path(path));
    let read = match parsed {
        Ok(read) => read,
        Err(error) => return assert!(error.sentence().ends_with(".\n")),
    };
    let pairs: Vec<(&str, &str)> =
        query.unwrap_or_default().split('&').map(|pair| pair.split_once('=').unwrap_or((pair, ""))).collect();
    let given = |wanted: &str| -> Vec<&str> {
        pairs.iter().filter(|(name, _)| *name == wanted).map(|(_, value)| *value).collect()
    };
    let in_path = path.strip_prefix("/sl/").filter(|id| !id.is_empty());
    let links: Vec<&str> = in_path.into_iter().chain(given("id")).collect();
    assert_eq!(links, [read.link.value().to_string()]);
    assert_eq!(given("aff_id"), [read.affiliate.value().to_string()]);
    let mut cut = 0;
    for (number, sub) in (1..).zip(&read.subs) {
        let raw = given(&format!("s{number}")).first().copied();
        let pair = raw.map(|raw| format!("x={raw}"));
        let decoded: Option<Cow<'_, str>> =
            pair.as_ref().and_then(|pair| form_urlencoded::parse(pair.as_bytes()).next()).map(|pair| pair.1);
        cut += usize::from(decoded.as_ref().is_some_and(|text| text.len() > SUB_BYTES_MAX));
        let decoded = decoded.as_ref().map(|text| &text[..text.floor_char_boundary(SUB_BYTES_MAX)]);
        assert_eq!(sub.as_deref(), decoded);
    }
    assert_eq!(read.subs_cut, cut);
}

/// A template on the first line; below it `s1` to `s5` and the city. Whatever they are, the finished URL goes where the
/// template was written to go, for a strict reader and for a lenient one.
pub fn destination(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut lines = text.split('\n');
    let written = lines.next().unwrap_or_default();
    let subs: [Option<&str>; SUBS] = std::array::from_fn(|_| lines.next());
    let city = lines.next();
    for (allow_http, allow_internal_hosts) in [(false, false), (false, true), (true, false), (true, true)] {
        let policy = DestinationPolicy { allow_http, allow_internal_hosts, allowed_hosts: None };
        let Ok((template, _)) = Template::parse(written, &policy) else {
            assert!(Template::normalized(written, &policy).is_err() || has_sub_before_query(written));
            continue;
        };
        if let Ok(normalized) = Template::normalized(written, &policy) {
            let again = Template::parse(&normalized, &policy).map(|(again, _)| again);
            assert_eq!(again.as_ref(), Ok(&template), "what is kept is not what was written");
        }
        let blank = finished(&template, [None; SUBS], None);
        let Some(blank) = blank else { continue };
        goes_where_it_was_written(written, &blank, &policy);
        let Some(filled) = finished(&template, subs, city) else { continue };
        goes_where_it_was_written(written, &filled, &policy);
        assert_eq!(shape(&filled), shape(&blank), "a value added a path segment, a parameter or a fragment");
    }
}

fn has_sub_before_query(written: &str) -> bool {
    let policy = DestinationPolicy { allow_http: true, allow_internal_hosts: true, allowed_hosts: None };
    let error = Template::parse(written, &policy).err();
    matches!(error, Some(smartlink::routing::TemplateError::SubBeforeQuery(_)))
}

fn finished(template: &Template, subs: [Option<&str>; SUBS], city: Option<&str>) -> Option<String> {
    let click = Click {
        link: LinkId::new(301)?,
        affiliate: AffiliateId::new(67890)?,
        at: UnixMillis(1_795_305_600_999),
        address: "2001:db8::1".parse().ok()?,
        place: Place {
            country: Country::parse("US"),
            region: Region::parse("US-CA"),
            city,
            asn: Some(64496),
        },
        device: Device::UNKNOWN,
        language: None,
        referrer_host: None,
        subs,
    };
    let mut out = b"before".to_vec();
    let values = Values { click: &click, click_id: "c-1_Z", offer: OfferId::new(1042) };
    if template.fill(&values, &mut out).is_err() {
        assert_eq!(out, b"before");
        return None;
    }
    assert!(out.starts_with(b"before"));
    let url = out.split_off(6);
    assert!(url.len() <= LOCATION_BYTES_MAX);
    assert!(url.iter().all(u8::is_ascii_graphic), "{:?}", String::from_utf8_lossy(&url));
    String::from_utf8(url).ok()
}

fn goes_where_it_was_written(written: &str, finished: &str, policy: &DestinationPolicy) {
    // No token stands before these, so that what stands there is the operator's own.
    let (scheme, rest) = written.split_once("://").expect("a template has a scheme");
    let authority = &rest[..rest.find(['/', '?', '#']).unwrap_or(rest.len())];
    let intended = Url::parse(&format!("{scheme}://{authority}/")).expect("a template has an origin");
    let url = Url::parse(finished).expect("a finished URL is one");
    assert_eq!(url.origin(), intended.origin(), "{finished}");
    assert_eq!((url.username(), url.password()), ("", None), "{finished}");
    assert!(url.scheme() == "https" || (url.scheme() == "http" && policy.allow_http), "{finished}");
    assert!(policy.allow_internal_hosts || url.domain().is_some_and(|name| name.contains('.')), "{finished}");
    // As a browser reads, which takes a backslash for a slash; and as those do that look for the first slash alone.
    assert!(!finished.contains('\\'));
    let origin = intended.origin().ascii_serialization();
    let after = finished.strip_prefix(&origin).expect("it begins with scheme, host and port");
    assert!(after.starts_with('/'), "{finished}");
}

/// How many segments the path has, whether there is a query, how many parameters, and whether there is a fragment.
fn shape(url: &str) -> (usize, bool, usize, bool) {
    let (before, fragment) = url.split_once('#').map_or((url, None), |(url, fragment)| (url, Some(fragment)));
    let (path, query) = before.split_once('?').map_or((before, None), |(path, query)| (path, Some(query)));
    let parameters = query.map_or(0, |query| query.matches('&').count() + query.matches('=').count());
    (path.matches('/').count(), query.is_some(), parameters, fragment.is_some())
}

/// The peer on the first line, trusted networks on the second, lines of `X-Forwarded-For` below: the rule once more, in the
/// words of a reader who may allocate.
pub fn forwarded_for(data: &[u8]) {
    let mut lines = data.split(|&byte| byte == b'\n');
    let text = |line: Option<&[u8]>| String::from_utf8_lossy(line.unwrap_or_default()).into_owned();
    let Ok(peer) = text(lines.next()).parse::<IpAddr>() else { return };
    let trusted = NetSet::new(text(lines.next()).split(',').filter_map(|net| parse_net(net.trim())));
    let headers: Vec<&[u8]> = lines.collect();
    let found = client_ip(peer, headers.iter().rev().copied(), &trusted);

    let mut expected = peer.to_canonical();
    if trusted.contains(expected) {
        let all = headers.join(&b","[..]);
        let hops = all.split(|&byte| byte == b',').rev().filter(|hop| !hop.trim_ascii().is_empty());
        for hop in hops.take(32) {
            let Some(address) = std::str::from_utf8(hop).ok().and_then(hop_address) else { break };
            expected = address;
            if !trusted.contains(address) {
                break;
            }
        }
    }
    assert_eq!(found, expected);
}

fn hop_address(hop: &str) -> Option<IpAddr> {
    let hop = hop.trim_matches([' ', '\t']);
    let bare = hop.trim_start_matches('[').trim_end_matches(']');
    let address = hop.parse().ok().or_else(|| hop.parse().ok().map(|with_port: SocketAddr| with_port.ip()));
    address.or_else(|| bare.parse().ok()).map(|address: IpAddr| address.to_canonical())
}

/// The beginning of a connection behind a proxy. Until a header is whole, every cut of it is unfinished; from then on, whatever
/// follows, it is that header, and one that is refused stays refused.
pub fn proxy_header(data: &[u8]) {
    let mut before = ProxyHeader::Unfinished;
    for bytes in 1..=data.len() {
        let found = parse_proxy_header(&data[..bytes]);
        match before {
            ProxyHeader::Unfinished => {
                if let ProxyHeader::Whole { bytes: of_header, .. } = found {
                    assert_eq!(of_header, bytes, "it was whole before, or is not yet");
                }
            }
            ProxyHeader::Whole { .. } => assert_eq!(found, before, "{bytes} bytes"),
            ProxyHeader::Refused(_) => assert!(matches!(found, ProxyHeader::Refused(_)), "{bytes} bytes"),
        }
        before = found;
    }
    let line = data.strip_prefix(b"PROXY TCP").and_then(|rest| rest.split(|&byte| byte == b'\r').next());
    if let (ProxyHeader::Whole { source, .. }, Some(line)) = (before, line) {
        let said = std::str::from_utf8(line).expect("the line is ASCII").split(' ').nth(1);
        assert_eq!(source, said.and_then(|address| address.parse().ok()));
    }
}

/// What a client sends. However it is cut into reads, the same comes out; and what comes out needs no mending.
pub fn request_lines(data: &[u8]) {
    let whole = mended(RequestLines::new(Pieces(data, usize::MAX)), 1 << 16);
    for bytes in [1, 2, 7, 64] {
        assert_eq!(mended(RequestLines::new(Pieces(data, bytes)), 1 << 16), whole, "in pieces of {bytes}");
        assert_eq!(
            mended(RequestLines::new(Pieces(data, usize::MAX)), bytes),
            whole,
            "with room for {bytes}"
        );
    }
    let (begun, rest) = data.split_at(data.len() / 2);
    assert_eq!(
        mended(RequestLines::after(Pieces(rest, usize::MAX), begun, HeadLimits::DEFAULT), 1 << 16),
        whole,
        "half read"
    );
    assert_eq!(mended(RequestLines::new(Pieces(&whole, usize::MAX)), 1 << 16), whole, "mended twice");
}

fn mended(lines: RequestLines<Pieces<'_>>, room: usize) -> Vec<u8> {
    let mut lines = pin!(lines);
    let mut context = Context::from_waker(Waker::noop());
    let (mut got, mut space) = (Vec::new(), vec![0; room]);
    loop {
        let mut buffer = ReadBuf::new(&mut space);
        match lines.as_mut().poll_read(&mut context, &mut buffer) {
            Poll::Ready(Ok(())) if buffer.filled().is_empty() => return got,
            Poll::Ready(Ok(())) => got.extend_from_slice(buffer.filled()),
            other => panic!("{other:?} of bytes that are all there"),
        }
    }
}

/// Answers of an upstream, between lines of `===`: links, offers, geo targets, attachments, rules, caps. What can be read of
/// them becomes a table; what a node keeps of that is read again as the same.
pub fn upstream_pages(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut bodies = text.split("\n===\n").map(str::as_bytes);
    let mut next = || bodies.next().unwrap_or_default();
    let links: Vec<ReadLink> = rows(List::SmartLinks, next());
    let offers: Vec<WrappedOffer> = rows(List::Offers, next());
    let offer_geo_targets: Vec<OfferGeoTargets> = rows(List::OfferGeoTargets, next());
    let attached: Vec<ReadAttachment> = rows(List::SmartLinkOffers, next());
    let rules: Vec<RuleRow> = rows(List::RoutingRules, next());
    let offer_caps: Vec<OfferCap> = rows(List::OfferCaps, next());
    let mut reader = RuleReader::default();
    kept_and_compiled(Network {
        smart_links: links.into_iter().map(|link| link.0).collect(),
        offers: offers.into_iter().map(|wrapped| wrapped.offer).collect(),
        offer_geo_targets,
        smart_link_offers: attached.into_iter().map(|attachment| attachment.0).collect(),
        routing_rules: rules.iter().filter_map(|row| reader.read(row).ok()).collect(),
        offer_caps,
    });
}

/// Each item of `offers.json` is wrapped.
#[derive(Deserialize)]
struct WrappedOffer {
    offer: OfferItem,
}

fn rows<T: DeserializeOwned>(list: List, body: &[u8]) -> Vec<T> {
    match read_page(list, 0, body) {
        Ok(page) => {
            assert_eq!(page.rows.len() + page.unreadable.len(), page.rows_count());
            for row in &page.unreadable {
                assert!(row.row <= page.rows_count() && !row.to_string().is_empty());
            }
            page.rows
        }
        Err(error) => {
            assert!(!error.to_string().is_empty());
            Vec::new()
        }
    }
}

/// Lines of `network.json`, or of a last good snapshot. Where they are cut makes no difference.
pub fn network_lines(data: &[u8]) {
    const LINE_BYTES_MAX: usize = 4096;
    let mut lines = Lines::bounded(LINE_BYTES_MAX);
    let whole = lines.push(data).map_err(|error| error.line);
    let cut = data.len() / 3;
    let mut piecewise = Lines::bounded(LINE_BYTES_MAX);
    let in_pieces = piecewise.push(&data[..cut]).and_then(|()| piecewise.push(&data[cut..]));
    assert_eq!(whole, in_pieces.map_err(|error| error.line));
    if whole.is_ok() {
        assert_eq!((lines.count(), lines.is_whole()), (piecewise.count(), piecewise.is_whole()));
        assert_eq!(lines.network, piecewise.network);
        kept_and_compiled(lines.network);
    }
}

fn kept_and_compiled(network: Network) {
    let zone = Zone::parse("America/New_York").expect("a zone");
    let network = network.canonical();
    assert_eq!(network, network.clone().canonical());
    let (snapshot, left_out) = network.to_snapshot(&zone);
    let (_table, warnings) = compile(&snapshot, &CompileOptions::default());
    for warning in left_out.iter().chain(&warnings) {
        assert!(!warning.item.is_empty() && !warning.problem.is_empty());
    }
    let mut kept = Vec::new();
    network.write(&mut kept).expect("a Vec takes whatever is written");
    let mut again = Lines::default();
    again.push(&kept).expect("what a node keeps, it can read");
    let mut kept_again = Vec::new();
    again.network.canonical().write(&mut kept_again).expect("a Vec takes whatever is written");
    assert_eq!(String::from_utf8_lossy(&kept), String::from_utf8_lossy(&kept_again));
}

/// A segment of a click log. The first byte says whether it is live, and in pieces of how many bytes it is read.
pub fn click_record(data: &[u8]) {
    let Some((&first, segment)) = data.split_first() else { return };
    let is_live = first & 1 == 1;
    let mut lines = Vec::new();
    let read = lines_in(Pieces(segment, usize::from(first >> 1) + 1), is_live, |number, line| {
        if let Ok(entry) = Entry::read(line) {
            assert!(
                line.starts_with(b"{") || line.trim_ascii_start().starts_with(b"{") || line.starts_with(b"[")
            );
            assert!(entry.click_id.len() <= line.len());
        }
        lines.push((number, line.to_vec()));
        ControlFlow::Continue(())
    });
    assert!(read.is_ok());
    let end = if is_live { segment.iter().position(|&byte| byte == 0) } else { None };
    let written = &segment[..end.unwrap_or(segment.len())];
    let mut expected: Vec<&[u8]> = written.split(|&byte| byte == b'\n').collect();
    // Behind the last newline: nothing, or a line that is being written, or a line without a newline.
    let rest = expected.pop().unwrap_or_default();
    if !is_live && !rest.is_empty() {
        expected.push(rest);
    }
    let expected: Vec<(u64, Vec<u8>)> = (1..).zip(expected.into_iter().map(<[u8]>::to_vec)).collect();
    assert_eq!(lines, expected);
}

/// Bytes that come some at a time.
struct Pieces<'a>(&'a [u8], usize);

impl Read for Pieces<'_> {
    fn read(&mut self, space: &mut [u8]) -> io::Result<usize> {
        let count = self.1.min(self.0.len()).min(space.len());
        let (piece, rest) = self.0.split_at(count);
        space[..count].copy_from_slice(piece);
        self.0 = rest;
        Ok(count)
    }
}

impl AsyncRead for Pieces<'_> {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let count = this.1.min(this.0.len()).min(buffer.remaining());
        let (piece, rest) = this.0.split_at(count);
        buffer.put_slice(piece);
        this.0 = rest;
        Poll::Ready(Ok(()))
    }
}

/// `User-Agent`, `Sec-CH-UA-Mobile` and `Sec-CH-UA-Platform`, a line each: the cache answers what the parser answers.
pub fn device(data: &[u8]) {
    thread_local! {
        static CACHE: RefCell<DeviceCache> = RefCell::new(DeviceCache::with_entries(7, 8));
    }
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut lines = text.split('\n');
    let hints = Hints { user_agent: lines.next(), ch_mobile: lines.next(), ch_platform: lines.next() };
    let parsed = read_device(&hints);
    let cached = CACHE.with_borrow_mut(|cache| [cache.device(&hints), cache.device(&hints)]);
    assert_eq!(cached, [parsed, parsed]);
}

/// The id of a postback. What is believed has one spelling; made of the same bytes, an id comes back, and with one bit of it
/// changed it does not. The bytes are also read as a file of keys.
pub fn click_id(data: &[u8]) {
    let keys = ClickIdKeys::from_text(KEYS.as_bytes()).expect("keys");
    let spelled = match keys.verify(data) {
        Ok((contents, Signer::First)) => Some(keys.sign(contents).as_str().to_owned()),
        Ok((contents, Signer::Second)) => {
            let second = KEYS.lines().nth(1).unwrap_or_default();
            let signed = ClickIdKeys::from_text(second.as_bytes()).expect("a key").sign(contents);
            Some(signed.as_str().to_owned())
        }
        Err(Refused::Forged) => {
            assert!(Contents::read_unverified(data).is_ok());
            None
        }
        Err(Refused::Malformed(_)) => {
            assert!(Contents::read_unverified(data).is_err());
            None
        }
    };
    if let Some(spelled) = spelled {
        assert_eq!(spelled.as_bytes(), data);
    }
    if let Some((contents, damaged)) = contents(data) {
        let id = keys.sign(contents);
        assert_eq!(keys.verify(id.as_str().as_bytes()), Ok((contents, Signer::First)));
        let mut text = id.as_str().as_bytes().to_vec();
        let place = usize::from(damaged >> 3) % text.len();
        text[place] ^= 1 << (damaged & 7);
        assert!(keys.verify(&text).is_err(), "a damaged id is believed");
    }
    let _ = ClickIdKeys::from_text(data);
}

/// From 34 bytes.
fn contents(data: &[u8]) -> Option<(Contents, u8)> {
    let number = |from: usize, to: usize| -> Option<u64> {
        Some(data.get(from..to)?.iter().fold(0, |number, &byte| number << 8 | u64::from(byte)))
    };
    let contents = Contents {
        at: UnixMillis((number(0, 8)? >> 20) as i64),
        node: NodeIdentity::new(number(8, 16)?),
        worker: WorkerIndex::new(number(16, 18)? as usize)?,
        sequence: number(18, 22)? as u32 % SEQUENCES,
        link: LinkId::new(number(22, 26)? as u32)?,
        affiliate: AffiliateId::new(number(26, 30)? as u32)?,
        offer: OfferId::new(number(30, 34)? as u32),
    };
    Some((contents, data.get(34).copied().unwrap_or_default()))
}

/// The text of a `routing.toml`: taken whole, or refused with the lines of what is wrong.
pub fn routing_toml(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match Overlay::from_text(text) {
        Ok(overlay) => {
            let routing = overlay.into_routing();
            kept_and_compiled(Network {
                smart_link_offers: routing.smart_link_offers,
                routing_rules: routing.routing_rules,
                offer_caps: routing.offer_caps,
                ..Network::default()
            });
        }
        Err(problems) => {
            let lines = text.matches('\n').count() + 1;
            assert!(!problems.is_empty());
            assert!(problems.iter().all(|problem| (1..=lines).contains(&problem.line)), "{problems:?}");
            assert!(problems.is_sorted_by_key(|problem| problem.line));
        }
    }
}

/// Of nobody: the ids in `corpus/click_id/` are signed with them.
const KEYS: &str = "0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a69788796a5b4c3d2e1f0\n\
                    00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff\n";
