//! What must hold of any snapshot, click and draw: the fast path against a naive router, frequencies against weights,
//! `compile` against nonsense, templates against hostile values.
//!
//! Every failure prints the seed it came from; `PROPTEST_RNG_SEED=<seed> cargo test --test properties` runs it again.
//! Frequencies are drawn from a fixed seed, so that they fail always or never.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, RandomState};

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{FileFailurePersistence, RngSeed};
use rand::{RngExt, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;
use smartlink::routing::{
    Attachment, BotPolicy, CapView, Choice, ClosedCap, ClosedReason, CompileOptions, Condition,
    DestinationPolicy, Entry, Flags, HostSet, Hours, LayeredTable, Link, LinkIds, MinuteOfDay, Mode, NameSet,
    NetSet, NoCaps, Offer, Outcome, Rotation, Snapshot, TEMPLATE_BYTES_MAX, Table, Template, TextSet,
    ValueSet, Values, Weight, Zone, compile, decide, explain,
};
use smartlink::types::{
    AffiliateId, Browser, CapInterval, CapKey, CapKind, Click, Country, CountrySet, Device, DeviceKind, Draw,
    Language, LinkId, OfferId, Os, Place, Region, RuleId, SUB_BYTES_MAX, UnixMillis,
};
use url::Url;

// ---- the fast path and the naive router -----------------------------------------------------------------------------

/// What the naive router says: the outcome, and every entry that may be chosen with its weight.
struct Verdict<'s> {
    outcome: Outcome,
    entries: Vec<(&'s Entry, u32)>,
    /// Where the click goes if no entry takes it.
    fallback: Option<Template>,
}

/// The decision as SPEC 3 words it, over the snapshot itself: no table, no alias slots, no draw. Items are unique.
fn naive<'s>(
    snapshot: &'s Snapshot<'_>,
    options: &CompileOptions,
    closed: &Closed,
    click: &Click<'_>,
) -> Verdict<'s> {
    let network = options.network_fallback.clone();
    let without_entry = |outcome, fallback| Verdict { outcome, entries: Vec::new(), fallback };
    let Some(link) = snapshot.links.iter().find(|link| link.id == click.link) else {
        return without_entry(Outcome::UnknownLink, network);
    };
    let own = link.fallback_url.as_deref().and_then(|url| template(url, options)).or(network.clone());
    if !link.active {
        return without_entry(Outcome::InactiveLink, own);
    }
    if link.affiliate != click.affiliate {
        return without_entry(Outcome::AffiliateMismatch, network);
    }
    match (click.device.bot, options.bots) {
        (true, BotPolicy::Fallback) => return without_entry(Outcome::Bot, own),
        (true, BotPolicy::Block) => return without_entry(Outcome::Bot, None),
        _ => {}
    }
    let mut tiers: BTreeMap<u32, Vec<(&Entry, &Offer)>> = BTreeMap::new();
    for entry in snapshot.entries.iter().filter(|entry| entry.link == link.id) {
        let offer = snapshot.offers.iter().find(|offer| offer.id == entry.offer);
        if let Some(offer) = offer.filter(|offer| template(&offer.url, options).is_some()) {
            tiers.entry(entry.priority).or_default().push((entry, offer));
        }
    }
    let mut no_entry = if tiers.is_empty() { Outcome::NoOffers } else { Outcome::NoMatch };
    for tier in tiers.into_values() {
        let mut open: Vec<(&Entry, u32)> = Vec::new();
        for (entry, offer) in tier {
            let holds =
                entry.conditions.iter().chain(&offer.targeting).all(|condition| condition.holds(click));
            let alive = offer.active && offer.expires_at.is_none_or(|moment| click.at < moment);
            let weight = entry.weight.value().into();
            let eligible = holds && alive && weight > 0;
            let capped = link.cap_aware && closed.closes(entry.offer, link.affiliate);
            if eligible && capped {
                no_entry = Outcome::Capped;
            }
            if eligible && !capped {
                open.push((entry, if link.rotation == Rotation::Weighted { weight } else { 1 }));
            }
        }
        if link.rotation == Rotation::Priority {
            open.sort_by_key(|(entry, _)| (entry.offer, entry.rule));
            open.truncate(1);
        }
        if !open.is_empty() {
            return Verdict { outcome: Outcome::Offer, entries: open, fallback: own };
        }
    }
    without_entry(no_entry, own)
}

/// Offers that a cap closes, for everybody or for one affiliate.
#[derive(Clone, Debug, Default)]
struct Closed(BTreeSet<(u32, Option<u32>)>);

impl Closed {
    fn closes(&self, offer: OfferId, affiliate: AffiliateId) -> bool {
        [None, Some(affiliate.value())].into_iter().any(|own| self.0.contains(&(offer.value(), own)))
    }
}

impl CapView for Closed {
    fn is_open(&self, offer: OfferId, affiliate: AffiliateId) -> bool {
        !self.closes(offer, affiliate)
    }

    fn closed_caps(&self, offer: OfferId, affiliate: AffiliateId) -> Vec<ClosedCap> {
        let (kind, interval) = (CapKind::Click, CapInterval::Daily);
        let key = CapKey { offer, affiliate: Some(affiliate), kind, interval };
        let cap = ClosedCap { key, reason: ClosedReason::Full };
        self.closes(offer, affiliate).then_some(cap).into_iter().collect()
    }
}

/// Answers each question anew, as caps do that fill and are leased while it is decided.
struct Fickle(RefCell<Xoshiro256PlusPlus>);

impl CapView for Fickle {
    fn is_open(&self, _: OfferId, _: AffiliateId) -> bool {
        self.0.borrow_mut().random_bool(0.3)
    }

    fn closed_caps(&self, _: OfferId, _: AffiliateId) -> Vec<ClosedCap> {
        Vec::new()
    }
}

fn template(url: &str, options: &CompileOptions) -> Option<Template> {
    Template::parse(url, &options.policy).ok().map(|(template, _)| template)
}

proptest! {
    #![proptest_config(config(400))]

    #[test]
    fn the_fast_path_chooses_what_the_naive_router_allows(
        snapshot in snapshots().prop_map(unique),
        options in options(),
        closed in closed(),
        clicks in vec(clicks(), 1..20),
        draws in vec(any::<u64>(), 4),
    ) {
        let (table, _) = compile(&snapshot, &options);
        for click in &clicks {
            agree(&table, &snapshot, &options, &closed, &click.borrowed(), &draws)?;
        }
    }

    /// It ends, and chooses nothing that is not eligible; where nothing is, no cap is to blame.
    #[test]
    fn caps_that_change_under_a_decision_do_no_harm(
        snapshot in snapshots().prop_map(unique),
        options in options(),
        clicks in vec(clicks(), 1..20),
        draws in vec(any::<u64>(), 4),
        seed in any::<u64>(),
    ) {
        let (table, _) = compile(&snapshot, &options);
        let caps = Fickle(RefCell::new(Xoshiro256PlusPlus::seed_from_u64(seed)));
        for (click, draw) in clicks.iter().flat_map(|click| draws.iter().map(move |draw| (click, draw))) {
            let (click, draw) = (click.borrowed(), Draw(*draw));
            let decision = decide(&table, &caps, &click, draw);
            let without = explain(&table, &NoCaps, &click, draw);
            match decision.choice {
                None if decision.outcome == Outcome::Capped =>
                    prop_assert_eq!(without.decision.outcome, Outcome::Offer),
                None => prop_assert_eq!(decision, without.decision),
                Some(choice) => {
                    // Perhaps of a later tier than without caps.
                    let tier = without.tiers.iter().find(|tier| tier.priority == choice.priority).unwrap();
                    prop_assert!(tier.entries.iter().any(|entry| (entry.offer, entry.rule)
                        == (choice.offer, choice.rule) && entry.eligible && entry.weight > 0));
                }
            }
        }
    }

    /// However many links changed, a patch over the old table decides as the new snapshot says.
    #[test]
    fn a_patched_table_chooses_what_the_naive_router_allows(
        before in snapshots().prop_map(unique),
        after in snapshots().prop_map(unique),
        changed in vec(1u32..6, 0..4),
        options in options(),
        closed in closed(),
        clicks in vec(clicks(), 1..20),
        draws in vec(any::<u64>(), 4),
    ) {
        let changed: LinkIds = changed.into_iter().filter_map(LinkId::new).collect();
        let only = |snapshot: &Snapshot<'static>, are_changed: bool| Snapshot {
            links: snapshot.links.iter().filter(|link| changed.contains(&link.id) == are_changed).cloned().collect(),
            offers: before.offers.clone(),
            entries: (snapshot.entries.iter())
                .filter(|entry| changed.contains(&entry.link) == are_changed).cloned().collect(),
            ..Snapshot::default()
        };
        let (mut now, patch) = (only(&before, false), only(&after, true));
        let table = LayeredTable::from(compile(&before, &options).0);
        let table = table.patched(changed.clone(), compile(&patch, &options).0);
        now.links.to_mut().extend(patch.links.into_owned());
        now.entries.to_mut().extend(patch.entries.into_owned());
        for click in &clicks {
            let click = click.borrowed();
            agree(table.of(click.link), &now, &options, &closed, &click, &draws)?;
        }
        // Not only one that is allowed, but the very same: a draw can be replayed on a table that was compiled at once.
        let whole = compile(&now, &options).0;
        for (click, draw) in clicks.iter().zip(draws.iter().cycle()) {
            let click = click.borrowed();
            prop_assert_eq!(
                decide(table.of(click.link), &closed, &click, Draw(*draw)),
                decide(&whole, &closed, &click, Draw(*draw)));
        }
        prop_assert_eq!((table.links(), table.entries(), table.offers()),
            (whole.links(), whole.entries(), whole.offers()));
    }

    #[test]
    fn the_story_fits_the_decision(
        snapshot in snapshots(),
        options in options(),
        closed in closed(),
        click in clicks(),
        draw in any::<u64>(),
    ) {
        let (table, _) = compile(&snapshot, &options);
        let (click, draw) = (click.borrowed(), Draw(draw));
        let explanation = explain(&table, &closed, &click, draw);
        prop_assert_eq!(&explanation.decision, &decide(&table, &closed, &click, draw));
        let mut chosen = Vec::new();
        for tier in &explanation.tiers {
            for entry in &tier.entries {
                if entry.chosen {
                    prop_assert!(entry.open && entry.failed.is_none(), "{:?}", entry);
                    chosen.push(Choice { offer: entry.offer, rule: entry.rule, priority: tier.priority });
                }
                prop_assert!(entry.eligible || !entry.open);
                prop_assert_eq!(entry.failed.is_none(), entry.open && entry.weight > 0);
            }
        }
        prop_assert_eq!(chosen, Vec::from_iter(explanation.decision.choice));
    }

    #[test]
    fn compile_takes_anything_in_any_order(
        (snapshot, shuffled) in snapshots().prop_flat_map(|snapshot| (Just(snapshot.clone()), shuffled(snapshot))),
        options in options(),
        click in clicks(),
        draw in any::<u64>(),
    ) {
        let (table, warnings) = compile(&snapshot, &options);
        let (other, other_warnings) = compile(&compacted(shuffled), &options);
        prop_assert_eq!(format!("{table:?}"), format!("{other:?}"));
        prop_assert_eq!(warnings, other_warnings);
        let click = click.borrowed();
        prop_assert_eq!(decide(&table, &NoCaps, &click, Draw(draw)), decide(&other, &NoCaps, &click, Draw(draw)));
        prop_assert!(table.heap_bytes() > 0);
    }
}

/// Whether the table decides the click as the naive router allows, whatever is drawn.
fn agree(
    table: &Table,
    snapshot: &Snapshot<'_>,
    options: &CompileOptions,
    closed: &Closed,
    click: &Click<'_>,
    draws: &[u64],
) -> Result<(), TestCaseError> {
    let verdict = naive(snapshot, options, closed, click);
    for &draw in draws.iter().chain(&[0, u64::MAX]) {
        let decision = decide(table, closed, click, Draw(draw));
        prop_assert_eq!(decision.outcome, verdict.outcome);
        prop_assert_eq!(decision.choice.is_some(), !verdict.entries.is_empty());
        match decision.choice {
            None => prop_assert_eq!(decision.destination, verdict.fallback.as_ref()),
            Some(choice) => {
                let link = snapshot.links.iter().find(|link| link.id == click.link).unwrap();
                prop_assert_eq!(decision.charges, link.cap_aware);
                let allowed = |entry: &Entry| choice == choice_of(entry);
                prop_assert!(verdict.entries.iter().any(|(entry, _)| allowed(entry)), "{:?}", choice);
                let offer = snapshot.offers.iter().find(|offer| offer.id == choice.offer).unwrap();
                let destination = template(&offer.url, options);
                prop_assert_eq!(decision.destination, destination.as_ref());
            }
        }
    }
    Ok(())
}

fn choice_of(entry: &Entry) -> Choice {
    Choice { offer: entry.offer, rule: entry.rule, priority: entry.priority }
}

// ---- frequencies ----------------------------------------------------------------------------------------------------

/// 31 chi-square tests, each at p < 1e-8: a right router fails one of them with p < 1e-6. The seed is fixed.
#[test]
fn shares_are_the_weights_of_the_open() {
    let mut tests = 0;
    let mut random = Xoshiro256PlusPlus::seed_from_u64(SEED);
    let all: Vec<u8> = (1..=100).collect();
    let plain: [&[u8]; 5] = [&[60, 30, 10], &[1, 1], &[100, 1], &[3, 0, 7, 0, 90], &all];
    for weights in plain {
        for rotation in [Rotation::Weighted, Rotation::Even] {
            let entries = weights.iter().map(|&weight| (weight, true));
            check_shares(rotation, entries.collect(), Sharing::Own, 100_000, &mut random);
            tests += 1;
        }
    }
    for (size, open_one_in, sharing) in [
        (10, 10, Sharing::Own),
        (100, 10, Sharing::Own),
        (100, 10, Sharing::Common),
        (400, 100, Sharing::Own),
        (400, 100, Sharing::Common),
        // One run of equal targeting holds all that is open, so that a draw has to be made inside it.
        (64, 4, Sharing::Common),
    ] {
        let entries: Vec<(u8, bool)> =
            (0..size).map(|index| ((index * 37 % 100 + 1) as u8, index % open_one_in == 0)).collect();
        check_shares(Rotation::Weighted, entries.clone(), sharing, 30_000, &mut random);
        tests += 1;
        if sharing == Sharing::Common {
            check_shares(Rotation::Even, entries, sharing, 30_000, &mut random);
            tests += 1;
        }
    }
    // Closed by caps, alone or beside those that are not eligible.
    for (size, open_one_in) in [(10, 2), (10, 10), (100, 10), (400, 100)] {
        for (rotation, sharing) in [
            (Rotation::Weighted, Sharing::Always),
            (Rotation::Weighted, Sharing::Capped),
            (Rotation::Even, Sharing::Capped),
        ] {
            let entries =
                (0..size).map(|index| ((index * 37 % 100 + 1) as u8, index % open_one_in == 0)).collect();
            check_shares(rotation, entries, sharing, 30_000, &mut random);
            tests += 1;
        }
    }
    assert_eq!(tests, 31);
}

#[test]
fn by_priority_the_lowest_eligible_offer_takes_all() {
    let entries: Vec<(u8, bool)> = (0..100).map(|index| (1 + index % 100, index % 10 == 9)).collect();
    let table = tier(Rotation::Priority, &entries, Sharing::Own);
    let mut random = Xoshiro256PlusPlus::seed_from_u64(SEED);
    for _ in 0..10_000 {
        assert_eq!(chosen(&table, &NoCaps, random.random()), 9);
    }
}

/// Evenly spaced draws leave no room for chance. Every entry owns a part of its own slot and of those that it is the
/// alias of, at most 2n intervals over all n entries; an evenly spaced grid misses each by less than one draw. The
/// slots themselves are exact to 2⁻³², less than one draw each here.
#[test]
fn shares_are_exact_over_a_grid_of_draws() {
    const DRAWS: u64 = 1 << 16;
    let rising: Vec<u8> = (1..=100).collect();
    let tiers: [&[u8]; 6] = [&[1], &[60, 30, 10], &[1, 100], &[1; 7], &[99, 1, 1, 1, 1, 1, 1], &rising];
    for weights in tiers {
        for offset in [0, 1, (1 << 47) + 12_345] {
            let entries: Vec<(u8, bool)> = weights.iter().map(|&weight| (weight, true)).collect();
            let table = tier(Rotation::Weighted, &entries, Sharing::Own);
            let mut counts = vec![0u64; weights.len()];
            for step in 0..DRAWS {
                counts[chosen(&table, &NoCaps, step * (1 << 48) + offset)] += 1;
            }
            let total: u64 = weights.iter().map(|&weight| u64::from(weight)).sum();
            let expected = |weight: u8| (u64::from(weight) * DRAWS) as f64 / total as f64;
            let error: f64 = counts.iter().zip(weights).map(|(&n, &w)| (n as f64 - expected(w)).abs()).sum();
            assert!(error <= (3 * weights.len()) as f64, "{weights:?}: {error} draws off in sum");
        }
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Sharing {
    /// Every entry has a targeting of its own.
    Own,
    /// There are two targetings, the open and the closed.
    Common,
    /// Every entry has a targeting that holds; caps close those that are not open.
    Always,
    /// As `Common`, but half of those that are not open are eligible, and closed by caps.
    Capped,
}

impl Sharing {
    /// Whether the entry's targeting holds.
    fn holds(self, index: usize, open: bool) -> bool {
        match self {
            Sharing::Own | Sharing::Common => open,
            Sharing::Always => true,
            Sharing::Capped => open || index % 2 == 1,
        }
    }

    /// What closes the entries that are not open and whose targeting holds.
    fn caps(self, entries: &[(u8, bool)]) -> Closed {
        let closed = |(index, &(_, open)): (usize, &(u8, bool))| {
            (!open && self.holds(index, open)).then_some((index as u32 + 1, None))
        };
        Closed(entries.iter().enumerate().filter_map(closed).collect())
    }
}

fn check_shares(
    rotation: Rotation,
    entries: Vec<(u8, bool)>,
    sharing: Sharing,
    draws: u32,
    random: &mut Xoshiro256PlusPlus,
) {
    let table = tier(rotation, &entries, sharing);
    let caps = sharing.caps(&entries);
    let mut counts = vec![0u32; entries.len()];
    for _ in 0..draws {
        counts[chosen(&table, &caps, random.random())] += 1;
    }
    let share = |&(weight, open): &(u8, bool)| match rotation {
        _ if !open => 0.0,
        Rotation::Even => f64::from(weight.min(1)),
        _ => f64::from(weight),
    };
    let total: f64 = entries.iter().map(share).sum();
    let (mut chi_square, mut cells) = (0.0, 0);
    for (entry, count) in entries.iter().zip(counts) {
        let expected = share(entry) / total * f64::from(draws);
        if expected == 0.0 {
            assert_eq!(count, 0, "an entry that is closed or without weight was chosen");
            continue;
        }
        assert!(expected >= 5.0, "too few draws for the test to mean anything");
        chi_square += (f64::from(count) - expected).powi(2) / expected;
        cells += 1;
    }
    let limit = chi_square_limit(cells - 1);
    assert!(chi_square <= limit, "χ² is {chi_square:.1}, over {limit:.1}, for {entries:?}");
}

/// The value that χ² exceeds with p = 1e-8, by Wilson and Hilferty (1931), which is a little generous so far out.
fn chi_square_limit(degrees_of_freedom: u32) -> f64 {
    const Z: f64 = 5.612;
    let n = f64::from(degrees_of_freedom.max(1));
    n * (1.0 - 2.0 / (9.0 * n) + Z * (2.0 / (9.0 * n)).sqrt()).powi(3)
}

/// A link with one tier of `(weight, open)` entries, offer n + 1 being entry n.
fn tier(rotation: Rotation, entries: &[(u8, bool)], sharing: Sharing) -> Table {
    let id = LinkId::new(1).unwrap();
    let affiliate = AffiliateId::new(1).unwrap();
    let link = Link { id, affiliate, active: true, rotation, cap_aware: true, fallback_url: None };
    let mut snapshot = Snapshot { links: vec![link].into(), ..Snapshot::default() };
    for (index, &(weight, open)) in entries.iter().enumerate() {
        let number = index as u32 + 1;
        let value = if sharing == Sharing::Own { number.to_string() } else { "common".to_owned() };
        let texts = if sharing.holds(index, open) { vec![value, "click".to_owned()] } else { vec![value] };
        snapshot.offers.push(Offer {
            id: OfferId::new(number).unwrap(),
            active: true,
            expires_at: None,
            url: "https://a.example/".to_owned(),
            targeting: Vec::new(),
        });
        snapshot.entries.to_mut().push(Entry {
            link: id,
            offer: OfferId::new(number).unwrap(),
            weight: Weight::new(weight).unwrap(),
            priority: 1,
            rule: RuleId::new(number),
            conditions: vec![Condition::Value { mode: Mode::In, set: ValueSet::Sub(0, TextSet::new(texts)) }]
                .into(),
        });
    }
    compile(&snapshot, &CompileOptions::default()).0
}

/// Which entry of such a tier a draw falls on.
fn chosen(table: &Table, caps: &impl CapView, draw: u64) -> usize {
    let mut click = ClickParts::plain();
    click.subs[0] = Some("click".to_owned());
    decide(table, caps, &click.borrowed(), Draw(draw)).choice.unwrap().offer.value() as usize - 1
}

// ---- templates ------------------------------------------------------------------------------------------------------

proptest! {
    #![proptest_config(config(1500))]

    #[test]
    fn any_text_is_a_template_or_an_error(text in any::<String>(), policy in policies()) {
        let _ = Template::parse(&text, &policy);
    }

    /// Made of the pieces that parsers trip over. If it is taken, no value moves it: scheme, host and port are those that
    /// were written, and there is no user, for whoever reads it.
    #[test]
    fn a_template_that_is_taken_keeps_its_origin(
        scheme in select(&["https://", "HTTPS://", "http://", "hTTp://"][..]),
        // Most are taken as far as the host goes, or the pieces behind it would never be looked at.
        host in prop_oneof![3 => select(HOSTS_WRITTEN), 1 => Just("")],
        pieces in vec(select(TROUBLE), 0..12),
        policy in policies(),
        click in clicks(),
    ) {
        let text = format!("{scheme}{host}{}", pieces.concat());
        if let Ok((template, _)) = Template::parse(&text, &policy)
            && let Some(finished) = filled(&template, &click)
        {
            // Up to here a template has no tokens, and is the operator's own.
            let authority = text[scheme.len()..].split(['/', '?', '#']).next().unwrap();
            let written = Url::parse(&format!("{scheme}{authority}/")).unwrap();
            let as_browsers_do = Url::parse(&finished).unwrap();
            prop_assert_eq!(as_browsers_do.origin(), written.origin());
            prop_assert_eq!((as_browsers_do.username(), as_browsers_do.password()), ("", None));
            prop_assert!(as_browsers_do.scheme() == "https" || policy.allow_http);
            prop_assert!(
                policy.allow_internal_hosts || as_browsers_do.domain().is_some_and(|name| name.contains('.'))
            );
            for reading in simple_readings(&finished) {
                let port = written.port().map(|port| format!(":{port}")).unwrap_or_default();
                let authority = format!("{}{port}", written.host_str().unwrap());
                prop_assert_eq!(reading, (written.scheme(), None, &*authority));
            }
        }
    }

    #[test]
    fn whatever_the_values_scheme_host_port_and_path_are_the_templates(
        host in "[a-z]{1,8}(\\.[a-z]{2,6}){1,2}",
        port in option::of(1u16..),
        path in "(/[a-zA-Z0-9._~!$&'()*+,;=:@%-]{0,12}){0,3}",
        query in vec(prop_oneof!["[a-z0-9=&/?:@.+-]{0,6}", select(TOKENS).prop_map(str::to_owned)], 0..8),
        click in clicks(),
    ) {
        let port = port.map_or(String::new(), |port| format!(":{port}"));
        let fixed = format!("https://{host}{port}{path}");
        let text = format!("{fixed}?{}", query.concat());
        prop_assume!(text.len() <= TEMPLATE_BYTES_MAX);
        let (template, _) = Template::parse(&text, &DestinationPolicy::default()).unwrap();
        let finished = Url::parse(&filled(&template, &click).unwrap()).unwrap();
        let fixed = Url::parse(&fixed).unwrap();
        prop_assert_eq!(finished.origin(), fixed.origin());
        prop_assert_eq!(finished.path(), fixed.path());
    }
}

/// Scheme, user, and host with port, as simple readers find them: one that follows RFC 3986 to the letter (appendix B), and one
/// that takes a backslash for a slash, as browsers do, and stops at whatever no host may have.
fn simple_readings(url: &str) -> [(&str, Option<&str>, &str); 2] {
    let (scheme, rest) = url.split_once("://").unwrap();
    [&['/', '?', '#'][..], &['/', '?', '#', '\\', '%', ';', '&', '=']].map(|ends| {
        let authority = &rest[..rest.find(ends).unwrap_or(rest.len())];
        match authority.rsplit_once('@') {
            Some((user, host)) => (scheme, Some(user), host),
            None => (scheme, None, authority),
        }
    })
}

fn filled(template: &Template, click: &ClickParts) -> Option<String> {
    let mut url = Vec::new();
    let values = Values { click: &click.borrowed(), click_id: "c-1", offer: OfferId::new(7) };
    template.fill(&values, &mut url).ok()?;
    assert!(url.iter().all(u8::is_ascii_graphic), "{:?}", String::from_utf8_lossy(&url));
    String::from_utf8(url).ok()
}

// ---- what is random -------------------------------------------------------------------------------------------------

/// Any snapshot: few ids, so that they meet; duplicates, dangling ids and URLs of any kind.
fn snapshots() -> impl Strategy<Value = Snapshot<'static>> {
    (vec(links(), 0..6), vec(offers(), 0..10), vec(entries(), 0..40)).prop_map(|(links, offers, entries)| {
        Snapshot { links: links.into(), offers, entries: entries.into(), ..Snapshot::default() }
    })
}

fn shuffled(snapshot: Snapshot<'static>) -> impl Strategy<Value = Snapshot<'static>> {
    (
        Just(snapshot.links.into_owned()).prop_shuffle(),
        Just(snapshot.offers).prop_shuffle(),
        Just(snapshot.entries.into_owned()).prop_shuffle(),
    )
        .prop_map(|(links, offers, entries)| Snapshot {
            links: links.into(),
            offers,
            entries: entries.into(),
            ..Snapshot::default()
        })
}

/// The snapshot with every plain attachment among the attachments.
fn compacted(mut snapshot: Snapshot<'static>) -> Snapshot<'static> {
    let is_plain = |entry: &Entry| entry.rule.is_none() && entry.conditions.is_empty();
    let (plain, entries): (Vec<Entry>, Vec<Entry>) =
        snapshot.entries.into_owned().into_iter().partition(is_plain);
    let attachment =
        |Entry { link, offer, weight, priority, .. }| Attachment { link, offer, priority, weight };
    snapshot.attachments = plain.into_iter().map(attachment).collect();
    Snapshot { entries: entries.into(), ..snapshot }
}

/// The snapshot without duplicates, of which the naive router knows nothing.
fn unique(mut snapshot: Snapshot<'static>) -> Snapshot<'static> {
    snapshot.links.to_mut().sort();
    snapshot.links.to_mut().dedup_by_key(|link| link.id);
    snapshot.offers.sort();
    snapshot.offers.dedup_by_key(|offer| offer.id);
    let key = |entry: &Entry| (entry.link, entry.priority, entry.offer, entry.rule);
    snapshot.entries.to_mut().sort_by_key(key);
    snapshot.entries.to_mut().dedup_by_key(|entry| key(entry));
    snapshot
}

fn links() -> impl Strategy<Value = Link> {
    let flags = (prop::bool::weighted(0.9), prop::bool::weighted(0.8));
    (1u32..4, 1u32..3, flags, select(&Rotation::ALL[..]), option::of(urls())).prop_map(
        |(id, affiliate, (active, cap_aware), rotation, fallback_url)| Link {
            id: LinkId::new(id).unwrap(),
            affiliate: AffiliateId::new(affiliate).unwrap(),
            active,
            rotation,
            cap_aware,
            fallback_url: fallback_url.map(String::into_boxed_str),
        },
    )
}

fn offers() -> impl Strategy<Value = Offer> {
    (1u32..8, prop::bool::weighted(0.9), option::weighted(0.2, moments()), urls(), vec(conditions(), 0..2))
        .prop_map(|(id, active, expires_at, url, targeting)| Offer {
            id: OfferId::new(id).unwrap(),
            active,
            expires_at,
            url,
            targeting,
        })
}

fn closed() -> impl Strategy<Value = Closed> {
    vec((1u32..9, option::of(1u32..3)), 0..10).prop_map(|closed| Closed(closed.into_iter().collect()))
}

fn entries() -> impl Strategy<Value = Entry> {
    let weights = prop_oneof![Just(0u8), 1u8..=3, 0u8..=100];
    (1u32..5, 1u32..9, weights, 0u32..3, option::of(1u32..4), vec(conditions(), 0..3)).prop_map(
        |(link, offer, weight, priority, rule, conditions)| Entry {
            link: LinkId::new(link).unwrap(),
            offer: OfferId::new(offer).unwrap(),
            weight: Weight::new(weight).unwrap(),
            priority,
            rule: rule.and_then(RuleId::new),
            conditions: conditions.into(),
        },
    )
}

fn urls() -> impl Strategy<Value = String> {
    prop_oneof![
        6 => "https://[a-c]\\.example/\\?r=\\{click_id\\}",
        1 => Just("https://a.example/{typo}".to_owned()),
        1 => select(&["", "http://a.example/", "nonsense", "https://a.example/{s1}"][..]).prop_map(str::to_owned),
    ]
}

fn conditions() -> impl Strategy<Value = Condition> {
    let value = (select(&[Mode::In, Mode::NotIn][..]), sets());
    prop_oneof![
        8 => value.prop_map(|(mode, set)| Condition::Value { mode, set }),
        1 => hours().prop_map(Condition::Hours),
        1 => moments().prop_map(Condition::Before),
    ]
}

fn sets() -> impl Strategy<Value = ValueSet> {
    prop_oneof![
        4 => vec(countries(), 0..4).prop_map(|all| ValueSet::Country(CountrySet::from_iter(all))),
        1 => vec(regions(), 0..3).prop_map(|all| ValueSet::Region(all.into_iter().collect())),
        1 => vec(words(), 0..3).prop_map(|all| ValueSet::City(NameSet::new(all))),
        1 => vec(0u32..4, 0..3).prop_map(|all| ValueSet::Asn(all.into_iter().collect())),
        1 => vec(select(DeviceKind::ALL), 0..4).prop_map(|all| ValueSet::Device(Flags::from_iter(all))),
        1 => vec(select(Os::ALL), 0..4).prop_map(|all| ValueSet::Os(Flags::from_iter(all))),
        1 => vec(select(Browser::ALL), 0..4).prop_map(|all| ValueSet::Browser(Flags::from_iter(all))),
        1 => vec(languages(), 0..3).prop_map(|all| ValueSet::Language(all.into_iter().collect())),
        1 => (0usize..5, vec(words(), 0..3)).prop_map(|(sub, all)| ValueSet::Sub(sub, TextSet::new(all))),
        1 => vec(select(HOSTS), 0..3).prop_map(|all| ValueSet::ReferrerHost(HostSet::new(all))),
        1 => vec(select(NETS), 0..3)
            .prop_map(|all| ValueSet::Ip(NetSet::new(all.iter().map(|net| net.parse().unwrap())))),
    ]
}

fn hours() -> impl Strategy<Value = Hours> {
    let zone = select(&["UTC", "America/New_York", "Asia/Kathmandu"][..]);
    (0u16..24, 0u16..24, 0i8..7, zone).prop_filter_map("empty hours", |(from, to, day, zone)| {
        let minute = |hour: u16| MinuteOfDay::parse(&format!("{hour:02}:30")).unwrap();
        let day = jiff::civil::Weekday::from_monday_zero_offset(day).unwrap();
        Hours::new([day, day.next()], minute(from), minute(to), Zone::parse(zone).unwrap())
    })
}

fn options() -> impl Strategy<Value = CompileOptions> {
    (option::of(Just("https://network.example/")), select(&BotPolicy::ALL[..])).prop_map(|(url, bots)| {
        let policy = DestinationPolicy::default();
        let network_fallback = url.map(|url| Template::parse(url, &policy).unwrap().0);
        CompileOptions { policy, network_fallback, bots }
    })
}

fn policies() -> impl Strategy<Value = DestinationPolicy> {
    any::<(bool, bool)>().prop_map(|(allow_http, allow_internal_hosts)| DestinationPolicy {
        allow_http,
        allow_internal_hosts,
        ..DestinationPolicy::default()
    })
}

/// A click that owns its texts.
#[derive(Clone, Debug)]
struct ClickParts {
    click: Click<'static>,
    city: Option<String>,
    referrer_host: Option<String>,
    subs: [Option<String>; 5],
}

impl ClickParts {
    fn plain() -> Self {
        let click = Click {
            link: LinkId::new(1).unwrap(),
            affiliate: AffiliateId::new(1).unwrap(),
            at: UnixMillis(0),
            address: [192, 0, 2, 7].into(),
            place: Place::default(),
            device: Device::UNKNOWN,
            language: None,
            referrer_host: None,
            subs: [None; 5],
        };
        Self { click, city: None, referrer_host: None, subs: Default::default() }
    }

    fn borrowed(&self) -> Click<'_> {
        Click {
            place: Place { city: self.city.as_deref(), ..self.click.place },
            referrer_host: self.referrer_host.as_deref(),
            subs: self.subs.each_ref().map(|sub| sub.as_deref()),
            ..self.click
        }
    }
}

fn clicks() -> impl Strategy<Value = ClickParts> {
    let ids = (1u32..5, prop_oneof![4 => Just(1u32), 1 => Just(2)]);
    let place = (option::of(countries()), option::of(regions()), option::of(texts()), option::of(0u32..4));
    let device = (
        select(DeviceKind::ALL),
        select(Os::ALL),
        select(Browser::ALL),
        prop::bool::weighted(0.1),
        option::of(languages()),
    );
    let free =
        (option::of(select(HOSTS)), prop::array::uniform5(option::of(texts())), any::<std::net::IpAddr>());
    (ids, moments(), place, device, free).prop_map(|(ids, at, place, device, free)| ClickParts {
        click: Click {
            link: LinkId::new(ids.0).unwrap(),
            affiliate: AffiliateId::new(ids.1).unwrap(),
            at,
            address: free.2,
            place: Place { country: place.0, region: place.1, city: None, asn: place.3 },
            device: Device { kind: device.0, os: device.1, browser: device.2, bot: device.3 },
            language: device.4,
            referrer_host: None,
            subs: [None; 5],
        },
        city: place.2,
        referrer_host: free.0.map(|host| host.replace('*', "www")),
        subs: free.1,
    })
}

fn countries() -> impl Strategy<Value = Country> {
    select(&["US", "CA", "DE"][..]).prop_map(|code| Country::parse(code).unwrap())
}

fn regions() -> impl Strategy<Value = Region> {
    select(&["US-CA", "US-NY", "DE-BE"][..]).prop_map(|code| Region::parse(code).unwrap())
}

fn languages() -> impl Strategy<Value = Language> {
    select(&["en", "de", "fil"][..]).prop_map(|code| Language::parse(code).unwrap())
}

/// A few weeks around a change of clocks.
fn moments() -> impl Strategy<Value = UnixMillis> {
    (0i64..3_000_000_000).prop_map(|millis| UnixMillis(1_793_000_000_000 + millis))
}

fn words() -> impl Strategy<Value = String> {
    select(&["a", "b", "A", ""][..]).prop_map(str::to_owned)
}

/// What a visitor can send: words that conditions list, and anything.
fn texts() -> impl Strategy<Value = String> {
    let anything = any::<String>().prop_map(|mut text| {
        while text.len() > SUB_BYTES_MAX {
            text.pop();
        }
        text
    });
    prop_oneof![words(), anything, select(TROUBLE).prop_map(str::to_owned)]
}

/// Prints the seed, which the harness shows beside a failure.
fn config(cases: u32) -> ProptestConfig {
    let mut config = ProptestConfig::with_cases(cases);
    if let RngSeed::Random = config.rng_seed {
        config.rng_seed = RngSeed::Fixed(RandomState::new().hash_one(cases));
    }
    config.failure_persistence = Some(Box::new(FileFailurePersistence::Off));
    println!("PROPTEST_RNG_SEED={}", config.rng_seed);
    config
}

const HOSTS: &[&str] = &["a.example", "*.a.example", "b.example", "*.example"];

/// As an operator may write them.
const HOSTS_WRITTEN: &[&str] = &[
    "a.example",
    "A.Example.:443",
    "b.example:8443",
    "bücher.example",
    "10.1",
    "[2001:DB8::1]:80",
    "localhost",
    "user@a.example",
];

const NETS: &[&str] = &["0.0.0.0/1", "192.0.2.0/24", "::/1", "2001:db8::/32"];

const TOKENS: &[&str] = &[
    "#affid#",
    "#oid#",
    "#reqid#",
    "#s1#",
    "#s2#",
    "#ip#",
    "#utcunixtime#",
    "{affiliate_id}",
    "{sub_id}",
    "{s3}",
    "{s4}",
    "{s5}",
    "{city}",
    "{country}",
    "{region}",
    "{device}",
    "{typo}",
];

const TROUBLE: &[&str] = &[
    "a.example",
    "evil.com",
    ".",
    "..",
    "/",
    "//",
    "\\",
    "@",
    ":",
    "?",
    "#",
    "{",
    "}",
    "%",
    "%2f",
    "%00",
    "[",
    "]",
    "::1",
    "127.0.0.1",
    "0x7f",
    "localhost",
    "8443",
    "{s1}",
    "#s2#",
    "{city}",
    "{country}",
    "#affid#",
    "{typo}",
    "\t",
    "\r\n",
    " ",
    "é",
    "／",
    "。",
    "\u{ad}",
    "\u{202e}",
    "xn--",
    "*",
    "|",
    "^",
    "\"",
    "<",
    "=",
    "&",
];

const SEED: u64 = 20_261_122;
