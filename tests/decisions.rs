//! Decisions pinned by data: every `[[case]]` of `tests/decisions/*.toml` is a click on a network, and what must
//! become of it. Reads like a table, because the behaviour is one; a new case needs no line of Rust.
//!
//! A file has an `about`, and may have a `[network]`, `[options]` and `[click]` that its cases share. A case may bring
//! a network of its own instead, or `add` items to the shared one, and fields of options and click that override the
//! shared ones.
//!
//! - The network is CAKE's wire form in fewer words: [`ShortNetwork`].
//! - `draw` is a fraction of the range of draws, 0.61 being ⌊0.61 × 2⁶⁴⌋, or all 64 bits in hex, `"0x9c28…"`. Default 0.
//! - `at` is RFC 3339. The click id in destinations is `CLICK`.
//! - `expect.outcome` always; `offer` and `rule` are compared always, so that leaving one out says that there is none;
//!   `priority`, `destination` (the finished URL, or `"none"`) and `failed` only where given. `failed` says why an
//!   entry cannot be drawn, `"offer 1042: country must be"`, compared with the explanation.
//! - `closed` lists the caps that are full, `{ offer = 1042 }` for every affiliate or `{ offer = 1042, affiliate = 67890 }`; by
//!   default daily caps on clicks.
//! - `expect.warnings`: a part of each warning, in any order. All must be named; leaving it out says there is none.

use std::collections::HashSet;
use std::fmt::Display;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use smartlink::cake::Network;
use smartlink::cake::wire::{
    Conditions, GeoTarget, OfferGeoTargets, OfferItem, RoutingRule, SmartLink, SmartLinkOffer,
};
use smartlink::routing::{
    self, BotPolicy, CapView, ClosedReason, CompileOptions, DestinationPolicy, Explanation, HostSet, Outcome,
    Table, Template, Values, Warning, Zone, compile, decide, explain,
};
use smartlink::types::{
    AffiliateId, Browser, CapInterval, CapKey, CapKind, Click, Country, Device, DeviceKind, Draw, Language,
    LinkId, OfferId, Os, Place, Region, Subs, UnixMillis,
};

#[test]
fn every_decision_is_as_written() {
    let files = files();
    assert!(files.len() >= FILES_MIN, "only {} files in {FOLDER}", files.len());
    let (mut names, mut failures, mut cases) = (HashSet::new(), Vec::new(), 0);
    for path in files {
        let file_name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&path).unwrap();
        let file: File = match toml::from_str(&text) {
            Ok(file) => file,
            Err(error) => {
                failures.push(format!("{file_name}: {error}"));
                continue;
            }
        };
        if file.about.is_empty() || file.case.is_empty() {
            failures.push(format!("{file_name}: has no `about`, or no cases"));
        }
        for case in &file.case {
            cases += 1;
            if !names.insert(case.name.clone()) {
                failures.push(format!("{file_name}: two cases are named “{}”", case.name));
            }
            if let Err(failure) = check(&file, case) {
                failures.push(format!("{file_name}: {}\n    {failure}", case.name));
            }
        }
    }
    assert!(failures.is_empty(), "{} of {cases} cases fail:\n\n{}\n", failures.len(), failures.join("\n"));
    assert!(cases >= CASES_MIN, "only {cases} cases were found");
}

/// What the loop rests on: a misspelt key must not make a case say less than it seems to.
#[test]
fn unknown_keys_are_errors() {
    let good = "about = 'x'\n[[case]]\nname = 'x'\nclick = { id = 1 }\nexpect = { outcome = 'offer' }\n";
    assert!(toml::from_str::<File>(good).is_ok());
    for (part, misspelt) in [("about", "abuot"), ("name", "nmae"), ("id", "idd"), ("outcome", "outcmoe")] {
        assert!(toml::from_str::<File>(&good.replace(part, misspelt)).is_err(), "{misspelt}");
    }
    for extra in ["[options]\nbot = 1", "[network]\nlinks = []", "[click]\nsub1 = ''"] {
        assert!(toml::from_str::<File>(&format!("{good}\n{extra}\n")).is_err(), "{extra}");
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    about: String,
    #[serde(default)]
    network: ShortNetwork,
    #[serde(default)]
    options: Options,
    #[serde(default)]
    click: Fields,
    case: Vec<Case>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    /// The one idea of the case, in a sentence.
    name: String,
    network: Option<ShortNetwork>,
    #[serde(default)]
    add: ShortNetwork,
    #[serde(default)]
    options: Options,
    #[serde(default)]
    click: Fields,
    /// The caps that are full.
    #[serde(default)]
    closed: Vec<ClosedCap>,
    draw: Option<WrittenDraw>,
    expect: Expect,
}

/// A network: links, offers with their geo targets (`allow`, `block`), attachments (`entry`) and rules.
#[derive(Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ShortNetwork {
    #[serde(default)]
    link: Vec<ShortLink>,
    #[serde(default)]
    offer: Vec<ShortOffer>,
    #[serde(default)]
    entry: Vec<ShortEntry>,
    #[serde(default)]
    rule: Vec<ShortRule>,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct ShortLink {
    id: i64,
    aff_id: i64,
    #[serde(default = "active")]
    status: String,
    #[serde(default = "weighted")]
    rotation: String,
    fallback: Option<String>,
    #[serde(default = "yes")]
    cap_aware: bool,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct ShortOffer {
    id: i64,
    #[serde(default = "active")]
    status: String,
    /// Default: `https://o{id}.example/`.
    url: Option<String>,
    expires: Option<String>,
    #[serde(default)]
    allow: Vec<String>,
    #[serde(default)]
    block: Vec<String>,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct ShortEntry {
    link: i64,
    offer: i64,
    #[serde(default = "one")]
    weight: i64,
    #[serde(default = "one")]
    priority: i64,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct ShortRule {
    id: i64,
    link: i64,
    offer: i64,
    #[serde(default = "one")]
    weight: i64,
    #[serde(default = "one")]
    priority: i64,
    #[serde(default)]
    conditions: Conditions,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct ClosedCap {
    offer: u32,
    /// Left out, the cap counts every affiliate's clicks.
    affiliate: Option<u32>,
    #[serde(default = "click_cap")]
    kind: String,
    #[serde(default = "daily")]
    interval: String,
}

#[derive(Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Options {
    bots: Option<String>,
    /// The network's; `"none"` for none.
    fallback: Option<String>,
    /// The network's; default UTC.
    time_zone: Option<String>,
    allow_http: Option<bool>,
    allow_internal_hosts: Option<bool>,
    allowed_hosts: Option<Vec<String>>,
}

/// A click. What is left out is unknown, but for `id` 301, `aff_id` 67890, `ip` 192.0.2.7 and `at`
/// 2026-11-22T12:00:00Z, a Sunday.
#[derive(Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    id: Option<u32>,
    aff_id: Option<u32>,
    country: Option<String>,
    region: Option<String>,
    city: Option<String>,
    asn: Option<u32>,
    device: Option<String>,
    os: Option<String>,
    browser: Option<String>,
    bot: Option<bool>,
    language: Option<String>,
    referrer_host: Option<String>,
    s1: Option<String>,
    s2: Option<String>,
    s3: Option<String>,
    s4: Option<String>,
    s5: Option<String>,
    ip: Option<String>,
    at: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum WrittenDraw {
    Fraction(f64),
    Hex(String),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Expect {
    outcome: String,
    offer: Option<u32>,
    rule: Option<u32>,
    priority: Option<u32>,
    destination: Option<String>,
    #[serde(default)]
    failed: Vec<String>,
    #[serde(default)]
    warnings: Vec<String>,
}

/// Decides a case and says what is not as expected.
fn check(file: &File, case: &Case) -> Result<(), String> {
    let options = case.options.clone().or(&file.options);
    let network = case.network.as_ref().unwrap_or(&file.network).with(&case.add);
    let (table, warnings) = compiled(&network, &options)?;
    let fields = case.click.clone().or(&file.click);
    let click = fields.click()?;
    let draw = case.draw.as_ref().map_or(Ok(Draw(0)), WrittenDraw::read)?;
    let closed = case.closed.iter().map(ClosedCap::key).collect::<Option<Vec<_>>>();
    let caps = ClosedCaps(closed.ok_or("a closed cap is of no such offer, kind or interval")?);
    let decision = decide(&table, &caps, &click, draw);
    let explanation = explain(&table, &caps, &click, draw);

    let mut wrong = Vec::new();
    let mut compare = |what: &str, found: String, expected: String| {
        if found != expected {
            wrong.push(format!("{what} is {found}, expected {expected}"));
        }
    };
    let show = |value: Option<u32>| value.map_or("none".to_owned(), |value| value.to_string());
    let expect = &case.expect;
    if !Outcome::ALL.iter().any(|outcome| outcome.as_str() == expect.outcome) {
        return Err(format!("there is no outcome `{}`", expect.outcome));
    }
    compare("outcome", decision.outcome.as_str().to_owned(), expect.outcome.clone());
    compare("offer", show(decision.choice.map(|choice| choice.offer.value())), show(expect.offer));
    compare(
        "rule",
        show(decision.choice.and_then(|choice| choice.rule).map(|rule| rule.value())),
        show(expect.rule),
    );
    if expect.priority.is_some() {
        compare("priority", show(decision.choice.map(|choice| choice.priority)), show(expect.priority));
    }
    if let Some(expected) = &expect.destination {
        let offer = decision.choice.map(|choice| choice.offer);
        let destination = match decision.destination {
            None => "none".to_owned(),
            Some(template) => {
                let mut url = Vec::new();
                let values = Values { click: &click, click_id: "CLICK", offer };
                template.fill(&values, &mut url).map_err(|_| "the destination is too long".to_owned())?;
                String::from_utf8(url).map_err(text)?
            }
        };
        compare("destination", destination, expected.clone());
    }
    wrong.extend(warnings_differ(&warnings, &expect.warnings));
    wrong.extend(disagreements(&explanation, &decision));
    wrong.extend(expect.failed.iter().filter_map(|expected| not_told(&explanation, expected)));
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n    ")) }
}

fn compiled(network: &ShortNetwork, options: &Options) -> Result<(Table, Vec<Warning>), String> {
    let zone = options.time_zone.as_deref().unwrap_or("UTC");
    let zone = Zone::parse(zone).ok_or_else(|| format!("there is no time zone `{zone}`"))?;
    let policy = DestinationPolicy {
        allow_http: options.allow_http.unwrap_or_default(),
        allow_internal_hosts: options.allow_internal_hosts.unwrap_or_default(),
        allowed_hosts: options.allowed_hosts.as_ref().map(HostSet::new),
    };
    let network_fallback = match options.fallback.as_deref() {
        None | Some("none") => None,
        Some(url) => Some(Template::parse(url, &policy).map_err(text)?.0),
    };
    let bots = options.bots.as_deref().unwrap_or("fallback");
    let bots = BotPolicy::parse(bots).ok_or_else(|| format!("there is no policy `{bots}` for bots"))?;
    let (network, mut warnings) = network.wire();
    let (snapshot, more) = network.to_snapshot(&zone);
    warnings.extend(more);
    let (table, more) = compile(&snapshot, &CompileOptions { policy, network_fallback, bots });
    warnings.extend(more);
    Ok((table, warnings))
}

/// Caps of which these are full, and no others.
struct ClosedCaps(Vec<CapKey>);

impl CapView for ClosedCaps {
    fn is_open(&self, offer: OfferId, affiliate: AffiliateId) -> bool {
        self.closed_caps(offer, affiliate).is_empty()
    }

    fn closed_caps(&self, offer: OfferId, affiliate: AffiliateId) -> Vec<routing::ClosedCap> {
        let counts = |cap: &&CapKey| cap.offer == offer && cap.affiliate.is_none_or(|own| own == affiliate);
        let full = |&key: &CapKey| routing::ClosedCap { key, reason: ClosedReason::Full };
        self.0.iter().filter(counts).map(full).collect()
    }
}

impl ClosedCap {
    fn key(&self) -> Option<CapKey> {
        Some(CapKey {
            offer: OfferId::new(self.offer)?,
            affiliate: match self.affiliate {
                Some(affiliate) => Some(AffiliateId::new(affiliate)?),
                None => None,
            },
            kind: CapKind::parse(&self.kind)?,
            interval: CapInterval::parse(&self.interval)?,
        })
    }
}

/// Where the explanation does not fit the decision, or itself.
fn disagreements(explanation: &Explanation<'_>, decision: &smartlink::routing::Decision<'_>) -> Vec<String> {
    let mut wrong = Vec::new();
    if explanation.decision != *decision {
        wrong.push(format!("explain decides otherwise: {:?}", explanation.decision));
    }
    let mut chosen = Vec::new();
    for tier in &explanation.tiers {
        for entry in &tier.entries {
            let id = (entry.offer, entry.rule, tier.priority);
            if entry.chosen {
                chosen.push(id);
            }
            if entry.chosen && (!entry.open || entry.failed.is_some()) {
                wrong.push(format!("{id:?} is chosen, yet explain says {:?}", entry.failed));
            }
            if !entry.open && entry.failed.is_none() {
                wrong.push(format!("{id:?} is not open, and explain does not say why"));
            }
            if entry.open && !entry.eligible {
                wrong.push(format!("{id:?} is open, yet not eligible"));
            }
        }
    }
    let expected: Vec<_> =
        decision.choice.iter().map(|choice| (choice.offer, choice.rule, choice.priority)).collect();
    if chosen != expected {
        wrong.push(format!("explain marks {chosen:?} as chosen, decide chose {expected:?}"));
    }
    if !explanation.tiers.is_sorted_by_key(|tier| tier.priority) {
        wrong.push("explain tells tiers out of order".to_owned());
    }
    wrong
}

fn not_told(explanation: &Explanation<'_>, expected: &str) -> Option<String> {
    let entries = explanation.tiers.iter().flat_map(|tier| &tier.entries);
    let told: Vec<String> = entries
        .filter_map(|entry| entry.failed.as_ref().map(|failed| format!("offer {}: {failed}", entry.offer)))
        .collect();
    (!told.iter().any(|failure| failure.contains(expected)))
        .then(|| format!("explain does not say “{expected}”; it says {told:#?}"))
}

fn warnings_differ(found: &[Warning], expected: &[String]) -> Option<String> {
    let mut left: Vec<String> = found.iter().map(Warning::to_string).collect();
    let mut missing = Vec::new();
    for part in expected {
        match left.iter().position(|warning| warning.contains(part)) {
            Some(index) => drop(left.remove(index)),
            None => missing.push(part),
        }
    }
    (!left.is_empty() || !missing.is_empty())
        .then(|| format!("warnings: not expected {left:#?}, missing {missing:#?}"))
}

impl ShortNetwork {
    fn with(&self, more: &Self) -> Self {
        Self {
            link: [&*self.link, &*more.link].concat(),
            offer: [&*self.offer, &*more.offer].concat(),
            entry: [&*self.entry, &*more.entry].concat(),
            rule: [&*self.rule, &*more.rule].concat(),
        }
    }

    /// With a warning for each row that cannot be read, and is no part of a network.
    fn wire(&self) -> (Network, Vec<Warning>) {
        let mut warnings = Vec::new();
        let smart_links = self.link.iter().filter_map(|link| {
            let told = |error| warnings.push(Warning::new(format!("smart link {}", link.id), error));
            link.wire().read().map_err(told).ok()
        });
        let smart_links = smart_links.collect();
        let smart_link_offers = self.entry.iter().filter_map(|entry| {
            let name = format!("offer {} on smart link {}", entry.offer, entry.link);
            entry.wire().read().map_err(|error| warnings.push(Warning::new(name, error))).ok()
        });
        let smart_link_offers = smart_link_offers.collect();
        let routing_rules = self.rule.iter().filter_map(|rule| {
            let name = format!("rule {} of smart link {}", rule.id, rule.link);
            rule.wire().read().map_err(|error| warnings.push(Warning::new(name, error))).ok()
        });
        let routing_rules = routing_rules.collect();
        let network = Network {
            smart_links,
            offers: self.offer.iter().map(ShortOffer::wire).collect(),
            offer_geo_targets: self.offer.iter().filter_map(ShortOffer::wire_geo_targets).collect(),
            smart_link_offers,
            routing_rules,
            offer_caps: Vec::new(),
        };
        (network, warnings)
    }
}

impl ShortLink {
    fn wire(&self) -> SmartLink {
        SmartLink {
            smart_link_id: self.id,
            smart_link_name: String::new(),
            affiliate_id: self.aff_id,
            smart_link_status: self.status.clone(),
            rotation_type: self.rotation.clone(),
            cap_aware: self.cap_aware,
            fallback_url: self.fallback.clone(),
            tracking_url: None,
        }
    }
}

impl ShortOffer {
    fn wire(&self) -> OfferItem {
        OfferItem {
            offer_id: self.id,
            offer_name: String::new(),
            offer_status: self.status.clone(),
            offer_url: self.url.clone().unwrap_or_else(|| format!("https://o{}.example/", self.id)),
            payout: None,
            expiration_date: self.expires.clone(),
        }
    }

    fn wire_geo_targets(&self) -> Option<OfferGeoTargets> {
        let target = |action: &str, code: &String| GeoTarget {
            country_id: None,
            country_code: code.clone(),
            country_name: None,
            action: action.to_owned(),
        };
        let allowed = self.allow.iter().map(|code| target("allow", code));
        let geo_targets: Vec<_> =
            allowed.chain(self.block.iter().map(|code| target("block", code))).collect();
        (!geo_targets.is_empty()).then_some(OfferGeoTargets { offer_id: self.id, geo_targets })
    }
}

impl ShortEntry {
    fn wire(&self) -> SmartLinkOffer {
        SmartLinkOffer {
            smart_link_id: self.link,
            offer_id: self.offer,
            offer_weight: self.weight,
            priority: self.priority,
        }
    }
}

impl ShortRule {
    fn wire(&self) -> RoutingRule {
        RoutingRule {
            rule_id: self.id,
            smart_link_id: self.link,
            offer_id: self.offer,
            priority: self.priority,
            offer_weight: self.weight,
            conditions: self.conditions.clone(),
        }
    }
}

/// `case.or(file)`, field by field.
macro_rules! or_fields {
    ($name:ident { $($field:ident),+ $(,)? }) => {
        impl $name {
            fn or(self, shared: &Self) -> Self {
                Self { $($field: self.$field.or_else(|| shared.$field.clone())),+ }
            }
        }
    };
}

or_fields!(Options { bots, fallback, time_zone, allow_http, allow_internal_hosts, allowed_hosts });
or_fields!(Fields {
    id,
    aff_id,
    country,
    region,
    city,
    asn,
    device,
    os,
    browser,
    bot,
    language,
    referrer_host,
    s1,
    s2,
    s3,
    s4,
    s5,
    ip,
    at,
});

impl Fields {
    fn click(&self) -> Result<Click<'_>, String> {
        let at = self.at.as_deref().unwrap_or("2026-11-22T12:00:00Z");
        let subs: Subs<'_> = [&self.s1, &self.s2, &self.s3, &self.s4, &self.s5].map(|sub| sub.as_deref());
        Ok(Click {
            link: LinkId::new(self.id.unwrap_or(301)).ok_or("id is 0")?,
            affiliate: AffiliateId::new(self.aff_id.unwrap_or(67890)).ok_or("aff_id is 0")?,
            at: UnixMillis(at.parse::<jiff::Timestamp>().map_err(text)?.as_millisecond()),
            address: self.ip.as_deref().unwrap_or("192.0.2.7").parse().map_err(text)?,
            place: Place {
                country: read("country", &self.country, Country::parse)?,
                region: read("region", &self.region, Region::parse)?,
                city: self.city.as_deref(),
                asn: self.asn,
            },
            device: Device {
                kind: read("device", &self.device, DeviceKind::parse)?.unwrap_or(Device::UNKNOWN.kind),
                os: read("os", &self.os, Os::parse)?.unwrap_or(Device::UNKNOWN.os),
                browser: read("browser", &self.browser, Browser::parse)?.unwrap_or(Device::UNKNOWN.browser),
                bot: self.bot.unwrap_or_default(),
            },
            language: read("language", &self.language, Language::parse)?,
            referrer_host: self.referrer_host.as_deref(),
            subs,
        })
    }
}

impl WrittenDraw {
    fn read(&self) -> Result<Draw, String> {
        match self {
            WrittenDraw::Fraction(fraction) if (0.0..1.0).contains(fraction) => {
                Ok(Draw((fraction * 2f64.powi(64)) as u64))
            }
            WrittenDraw::Fraction(fraction) => Err(format!("a draw is a fraction below 1, not {fraction}")),
            WrittenDraw::Hex(hex) => {
                let digits = hex.strip_prefix("0x").filter(|digits| digits.len() == 16);
                let digits = digits.ok_or_else(|| format!("a draw is 0x and 16 digits, not {hex:?}"))?;
                u64::from_str_radix(digits, 16).map(Draw).map_err(text)
            }
        }
    }
}

fn read<T>(
    name: &str,
    value: &Option<String>,
    parse: impl Fn(&str) -> Option<T>,
) -> Result<Option<T>, String> {
    match value {
        None => Ok(None),
        Some(value) => parse(value).map(Some).ok_or_else(|| format!("there is no {name} `{value}`")),
    }
}

fn files() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(FOLDER);
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap()
        .map(|item| item.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .collect();
    files.sort();
    files
}

fn text(error: impl Display) -> String {
    error.to_string()
}

fn active() -> String {
    "active".to_owned()
}

fn weighted() -> String {
    "weighted".to_owned()
}

fn yes() -> bool {
    true
}

fn click_cap() -> String {
    "click".to_owned()
}

fn daily() -> String {
    "daily".to_owned()
}

fn one() -> i64 {
    1
}

const FOLDER: &str = "tests/decisions";

const FILES_MIN: usize = 10;

const CASES_MIN: usize = 90;
