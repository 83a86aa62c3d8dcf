//! Snapshot → table. Total: whatever the snapshot says, there is a table, and a warning for each item that is not in
//! it as written.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use crate::types::{LinkId, OfferId, RuleId};

use super::alias::{self, Slot};
use super::destination::{DestinationPolicy, Template};
use super::snapshot::{Attachment, Entry, Link, Offer, Rotation, Snapshot, Warning, Weight};
use super::table::{ALWAYS, BotPolicy, EntryRow, LinkRow, OfferRow, Table, Tier};
use super::targeting::Condition;

/// What an operator decides for the whole network.
#[derive(Clone, Debug, Default)]
pub struct CompileOptions {
    pub policy: DestinationPolicy,
    /// Where clicks go that no link's fallback takes.
    pub network_fallback: Option<Template>,
    pub bots: BotPolicy,
}

/// Compiles a snapshot. The same snapshot, in whatever order, gives the same table: a draw recorded with it can be
/// replayed.
pub fn compile(snapshot: &Snapshot<'_>, options: &CompileOptions) -> (Table, Vec<Warning>) {
    let mut compiler = Compiler {
        policy: &options.policy,
        table: Table::empty(options.network_fallback.clone(), options.bots),
        offers: HashMap::with_capacity(snapshot.offers.len()),
        refused: HashSet::new(),
        templates: HashMap::new(),
        joined: HashMap::new(),
        targetings: HashMap::new(),
        warnings: Vec::new(),
    };
    compiler.offers(&snapshot.offers);
    compiler.links(snapshot);
    compiler.finish()
}

struct Compiler<'s> {
    policy: &'s DestinationPolicy,
    table: Table,
    /// Offer → its row and the targeting that it brings to every entry.
    offers: HashMap<OfferId, (u32, u32)>,
    /// Offers left out with a warning of their own, so that their entries need none.
    refused: HashSet<OfferId>,
    /// Each template with what is to be said of every item that uses it.
    templates: HashMap<&'s str, (u32, Vec<String>)>,
    /// Targeting of the offer, conditions of the entry → targeting of the two together.
    joined: HashMap<(u32, &'s [Condition]), u32>,
    /// Hash of its conditions → targeting. Where two have the same hash, the second is one further on.
    targetings: HashMap<u64, u32>,
    warnings: Vec<Warning>,
}

/// An entry of the link at hand.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Own<'s> {
    offer: OfferId,
    weight: Weight,
    priority: u32,
    rule: Option<RuleId>,
    conditions: &'s [Condition],
}

impl Own<'_> {
    /// The order of a link's entries.
    fn key(&self) -> (u32, OfferId, Option<RuleId>) {
        (self.priority, self.offer, self.rule)
    }

    fn name(&self, link: LinkId) -> String {
        match self.rule {
            Some(rule) => format!("rule {rule} of smart link {link} for offer {}", self.offer),
            None => format!("offer {} on smart link {link}", self.offer),
        }
    }
}

impl From<&Attachment> for Own<'_> {
    fn from(&Attachment { offer, priority, weight, .. }: &Attachment) -> Self {
        Self { offer, weight, priority, rule: None, conditions: &[] }
    }
}

impl<'s> From<&'s Entry> for Own<'s> {
    fn from(entry: &'s Entry) -> Self {
        let &Entry { offer, weight, priority, rule, ref conditions, .. } = entry;
        Self { offer, weight, priority, rule, conditions }
    }
}

impl<'s> Compiler<'s> {
    fn offers(&mut self, offers: &'s [Offer]) {
        let mut offers: Vec<&Offer> = offers.iter().collect();
        offers.sort();
        for offer in offers {
            let item = format_args!("offer {}", offer.id).to_string();
            if self.offers.contains_key(&offer.id) {
                self.warn(item, REPEATED);
                continue;
            }
            let Some(url) =
                self.template(&item, "offer_url", &offer.url, "the offer and its entries are left out")
            else {
                self.refused.insert(offer.id);
                continue;
            };
            let expiry = offer.expires_at.map(Condition::Before);
            let targeting =
                self.targeting(expiry.into_iter().chain(offer.targeting.iter().cloned()).collect());
            let row = self.table.offers.len() as u32;
            self.table.offers.push(OfferRow { id: offer.id, active: offer.active, url, targeting });
            self.offers.insert(offer.id, (row, targeting));
            self.refused.remove(&offer.id);
        }
    }

    fn links(&mut self, snapshot: &'s Snapshot<'_>) {
        let mut links: Vec<&Link> = snapshot.links.iter().collect();
        links.sort();
        let attachments = by_link(&snapshot.attachments);
        let mut entries: Vec<&Entry> = snapshot.entries.iter().collect();
        entries.sort_by_key(|entry| entry.link);
        let count = attachments.len() + entries.len();
        self.table.links.reserve(links.len());
        self.table.rows.reserve_exact(links.len());
        self.table.tiers.reserve_exact(count_tiers(&attachments, &entries));
        self.table.entries.reserve_exact(count);

        let (mut attachments, mut entries) = (&attachments[..], &entries[..]);
        let mut own = Vec::new();
        for link in links {
            self.without_link(&mut attachments, &mut entries, |id| id < link.id);
            if self.table.links.contains_key(&link.id) {
                self.warn(format!("smart link {}", link.id), REPEATED);
                continue;
            }
            own.clear();
            own.extend(taken(&mut attachments, |entry| entry.link == link.id).iter().map(Own::from));
            own.extend(
                taken(&mut entries, |entry| entry.link == link.id).iter().map(|&entry| Own::from(entry)),
            );
            // What has the same key is compared whole, so that it does not matter which of two came first.
            own.sort_by(|a, b| a.key().cmp(&b.key()).then_with(|| a.cmp(b)));
            self.link(link, &own);
        }
        self.without_link(&mut attachments, &mut entries, |_| true);
    }

    fn finish(mut self) -> (Table, Vec<Warning>) {
        self.table.tiers.shrink_to_fit();
        self.table.entries.shrink_to_fit();
        self.table.offers.shrink_to_fit();
        self.table.targetings.shrink_to_fit();
        self.table.conditions.shrink_to_fit();
        self.table.templates.shrink_to_fit();
        (self.table, self.warnings)
    }

    fn link(&mut self, link: &'s Link, entries: &[Own<'s>]) {
        let fallback = link.fallback_url.as_deref().and_then(|url| {
            let item = format!("smart link {}", link.id);
            self.template(&item, "fallback_url", url, "the network's fallback is used")
        });
        let first_tier = self.table.tiers.len() as u32;
        for tier in entries.chunk_by(|a, b| a.priority == b.priority) {
            self.tier(link, tier);
        }
        let tiers = first_tier..self.table.tiers.len() as u32;
        self.table.links.insert(link.id, self.table.rows.len() as u32);
        let &Link { affiliate, active, cap_aware, .. } = link;
        self.table.rows.push(LinkRow { affiliate, active, cap_aware, fallback, tiers });
    }

    /// One tier. `entries` share link and priority and are sorted by offer and rule.
    fn tier(&mut self, link: &Link, entries: &[Own<'s>]) {
        let (mut drawable, mut others) = (Vec::with_capacity(entries.len()), Vec::new());
        let mut last = None;
        for entry in entries {
            if last.replace((entry.offer, entry.rule)) == Some((entry.offer, entry.rule)) {
                self.warn(entry.name(link.id), REPEATED);
                continue;
            }
            let Some(&(offer, offer_targeting)) = self.offers.get(&entry.offer) else {
                if !self.refused.contains(&entry.offer) {
                    self.warn(entry.name(link.id), "the offer is unknown; the entry is left out");
                }
                continue;
            };
            let targeting = self.join(offer_targeting, entry.conditions);
            let weight = entry.weight.value();
            let row = EntryRow { offer, rule: entry.rule, targeting, weight, run: 1, slot: Slot::default() };
            let takes_traffic = weight > 0 && self.table.offers[offer as usize].active;
            if takes_traffic { drawable.push(row) } else { others.push(row) }
        }
        if drawable.is_empty() && others.is_empty() {
            return;
        }
        // By priority, the lowest offer id goes first: the order in which the entries came.
        if link.rotation != Rotation::Priority {
            // By what the targetings say and not by their numbers, which depend on the rest of the network: a draw falls
            // on the same entry in every table in which the link is the same.
            drawable.sort_by(|a, b| self.table.compare_targetings(a.targeting, b.targeting));
            let weights: Vec<u8> = drawable.iter().map(|row| link.rotation.share(row.weight)).collect();
            for (row, slot) in drawable.iter_mut().zip(alias::build(&weights)) {
                row.slot = slot;
            }
        }
        self.table.tiers.push(Tier {
            priority: entries[0].priority,
            rotation: link.rotation,
            start: self.table.entries.len() as u32,
            drawable: drawable.len() as u32,
            count: (drawable.len() + others.len()) as u32,
            runs: mark_runs(&mut drawable),
        });
        self.table.entries.append(&mut drawable);
        self.table.entries.append(&mut others);
    }

    /// Passes over the entries of links that are not there, with one warning a link: a lost link may have had
    /// thousands.
    fn without_link(
        &mut self,
        attachments: &mut &[Attachment],
        entries: &mut &[&'s Entry],
        is_lost: impl Fn(LinkId) -> bool,
    ) {
        let attachments = taken(attachments, |entry| is_lost(entry.link)).iter();
        let entries = taken(entries, |entry| is_lost(entry.link)).iter();
        let entries = entries.map(|&entry| (entry.link, Own::from(entry)));
        let mut lost: BTreeMap<LinkId, Own<'_>> = BTreeMap::new();
        for (link, entry) in entries.chain(attachments.map(|entry| (entry.link, Own::from(entry)))) {
            let first = lost.entry(link).or_insert(entry);
            if (entry.key(), entry) < (first.key(), *first) {
                *first = entry;
            }
        }
        for (link, entry) in lost {
            self.warn(entry.name(link), "the smart link is unknown; all its entries are left out");
        }
    }

    /// Interns a template. `None`, with a warning that ends in `consequence`, if it cannot be parsed.
    fn template(&mut self, item: &str, field: &str, url: &'s str, consequence: &str) -> Option<u32> {
        if !self.templates.contains_key(url) {
            match Template::parse(url, self.policy) {
                Ok((template, warnings)) => {
                    let index = self.table.templates.len() as u32;
                    self.table.templates.push(template);
                    self.templates.insert(url, (index, warnings));
                }
                Err(error) => self.warn(item.to_owned(), format!("`{field}` {error}; {consequence}")),
            }
        }
        let (index, warnings) = self.templates.get(url)?;
        let warnings = warnings
            .iter()
            .map(|warning| Warning::new(item, format!("`{field}`: {warning}, nothing is put in its place")));
        self.warnings.extend(warnings);
        Some(*index)
    }

    /// The targeting of an entry: that of its offer, and its own conditions.
    fn join(&mut self, of_offer: u32, own: &'s [Condition]) -> u32 {
        if own.is_empty() {
            return of_offer;
        }
        // Rules repeat each other; most are found here, without a copy.
        if let Some(&index) = self.joined.get(&(of_offer, own)) {
            return index;
        }
        let index = self.targeting([self.table.conditions_of(of_offer), own].concat());
        self.joined.insert((of_offer, own), index);
        index
    }

    /// Interns a conjunction, cheapest condition first, each once.
    fn targeting(&mut self, mut conditions: Vec<Condition>) -> u32 {
        conditions.sort_unstable_by(|a, b| a.cost().cmp(&b.cost()).then_with(|| a.cmp(b)));
        conditions.dedup();
        if conditions.is_empty() {
            return ALWAYS;
        }
        let mut hasher = DefaultHasher::new();
        conditions.hash(&mut hasher);
        let mut key = hasher.finish();
        while let Some(&index) = self.targetings.get(&key) {
            if self.table.conditions_of(index) == conditions {
                return index;
            }
            key = key.wrapping_add(1);
        }
        let index = self.table.targetings.len() as u32;
        let first = self.table.conditions.len() as u32;
        self.table.conditions.append(&mut conditions);
        self.table.targetings.push(first..self.table.conditions.len() as u32);
        self.targetings.insert(key, index);
        index
    }

    fn warn(&mut self, item: String, problem: impl std::fmt::Display) {
        self.warnings.push(Warning::new(item, problem));
    }
}

/// Writes into every entry how many of its targeting follow, itself included. Answers how many runs there are.
fn mark_runs(drawable: &mut [EntryRow]) -> u32 {
    let mut runs = 0;
    for run in drawable.chunk_by_mut(|a, b| a.targeting == b.targeting) {
        runs += 1;
        for (left, row) in run.iter_mut().rev().enumerate() {
            row.run = u16::try_from(left + 1).unwrap_or(u16::MAX);
        }
    }
    runs
}

/// How many tiers there will be, at least where no link has both rules and attachments of one priority: a table that is
/// reserved exactly never needs room for two.
fn count_tiers(attachments: &[Attachment], entries: &[&Entry]) -> usize {
    let mut priorities: Vec<u32> = Vec::new();
    let mut distinct = |of_link: &mut dyn Iterator<Item = u32>| {
        priorities.clear();
        priorities.extend(of_link);
        priorities.sort_unstable();
        priorities.dedup();
        priorities.len()
    };
    let plain = attachments.chunk_by(|a, b| a.link == b.link);
    let ruled = entries.chunk_by(|a, b| a.link == b.link);
    plain.map(|own| distinct(&mut own.iter().map(|entry| entry.priority))).sum::<usize>()
        + ruled.map(|own| distinct(&mut own.iter().map(|entry| entry.priority))).sum::<usize>()
}

/// In the order of their links. What comes from an upstream is so already.
fn by_link(attachments: &[Attachment]) -> Cow<'_, [Attachment]> {
    if attachments.is_sorted_by_key(|attachment| attachment.link) {
        return attachments.into();
    }
    let mut sorted = attachments.to_vec();
    sorted.sort();
    sorted.into()
}

/// Takes from the front as long as it belongs there.
fn taken<'a, T>(rest: &mut &'a [T], belongs: impl Fn(&T) -> bool) -> &'a [T] {
    let count = rest.iter().take_while(|item| belongs(item)).count();
    let (front, others) = rest.split_at(count);
    *rest = others;
    front
}

/// Which of two is kept depends on what they say, never on which came first.
const REPEATED: &str = "is there more than once; one is kept, the others are left out";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routing::{Mode, TextSet, ValueSet, Weight};
    use crate::types::{AffiliateId, RuleId, UnixMillis};

    fn link(id: u32, rotation: Rotation) -> Link {
        let affiliate = AffiliateId::new(1).unwrap();
        Link {
            id: LinkId::new(id).unwrap(),
            affiliate,
            active: true,
            rotation,
            cap_aware: true,
            fallback_url: None,
        }
    }

    fn offer(id: u32, active: bool) -> Offer {
        let url = format!("https://o{id}.example/");
        Offer { id: OfferId::new(id).unwrap(), active, expires_at: None, url, targeting: Vec::new() }
    }

    fn entry(link: u32, offer: u32, weight: u8, priority: u32, conditions: Vec<Condition>) -> Entry {
        Entry {
            link: LinkId::new(link).unwrap(),
            offer: OfferId::new(offer).unwrap(),
            weight: Weight::new(weight).unwrap(),
            priority,
            rule: RuleId::new(1),
            conditions: conditions.into(),
        }
    }

    fn sub(text: &str) -> Condition {
        Condition::Value { mode: Mode::In, set: ValueSet::Sub(0, TextSet::new([text])) }
    }

    /// Three links over all rotations, thirty entries each in four tiers, with weights of 0, inactive offers and
    /// targetings that interleave.
    fn snapshot() -> Snapshot<'static> {
        let mut snapshot = Snapshot::default();
        for id in 1..=30 {
            snapshot.offers.push(offer(id, id % 7 != 0));
        }
        for (id, rotation) in (1..).zip(Rotation::ALL) {
            snapshot.links.to_mut().push(link(id, rotation));
            for nth in 0..30 {
                let conditions = if nth % 3 == 0 { vec![] } else { vec![sub(&format!("{}", nth % 5))] };
                snapshot.entries.to_mut().push(entry(id, 30 - nth, (nth % 4) as u8, 9 - nth % 4, conditions));
            }
        }
        snapshot
    }

    /// What `decide` takes for granted, as the head of `table.rs` lists it.
    #[test]
    fn the_table_keeps_what_decide_assumes() {
        let (table, warnings) = compile(&snapshot(), &CompileOptions::default());
        assert_eq!(warnings, []);
        assert!(table.conditions_of(ALWAYS).is_empty());
        assert_eq!((table.links(), table.tiers.len(), table.entries()), (3, 12, 90));
        for row in &table.rows {
            let tiers = table.tiers_of(row);
            assert!(tiers.is_sorted_by(|a, b| a.priority < b.priority));
            for tier in tiers {
                let (all, drawable) = (table.all_entries(tier), table.drawable(tier));
                let can_be_drawn =
                    |entry: &&EntryRow| entry.weight > 0 && table.offers[entry.offer as usize].active;
                assert_eq!(all.iter().take_while(can_be_drawn).count(), drawable.len());
                assert_eq!(all.iter().filter(can_be_drawn).count(), drawable.len());
                assert!(drawable.iter().all(|entry| (entry.slot.alias as usize) < drawable.len()));
                assert!(all.iter().all(|entry| (entry.targeting as usize) < table.targetings.len()));

                let runs: Vec<_> = table.runs(tier).collect();
                assert_eq!(runs.len(), tier.runs as usize);
                assert_eq!(runs.iter().map(|run| run.len()).sum::<usize>(), drawable.len());
                for run in &runs {
                    assert!(run.iter().all(|entry| entry.targeting == run[0].targeting));
                }
                if tier.rotation != Rotation::Priority {
                    let targetings: HashSet<u32> = runs.iter().map(|run| run[0].targeting).collect();
                    assert_eq!(targetings.len(), runs.len(), "one run a targeting");
                }
            }
        }
    }

    #[test]
    fn a_run_too_long_for_its_field_is_cut() {
        let entries = 100_000;
        let snapshot = Snapshot {
            links: vec![link(1, Rotation::Even)].into(),
            offers: (1..=entries).map(|id| offer(id, true)).collect(),
            entries: (1..=entries).map(|id| entry(1, id, 1, 1, vec![])).collect(),
            ..Snapshot::default()
        };
        let (table, _) = compile(&snapshot, &CompileOptions::default());
        let runs: Vec<usize> = table.runs(&table.tiers[0]).map(<[EntryRow]>::len).collect();
        assert_eq!(runs, [u16::MAX as usize, entries as usize - u16::MAX as usize]);
    }

    #[test]
    fn equal_targetings_are_kept_once() {
        let mut snapshot =
            Snapshot { links: vec![link(1, Rotation::Weighted)].into(), ..Snapshot::default() };
        let expires_at = Some(UnixMillis(1));
        let of_offer = Offer { expires_at, targeting: vec![sub("a")], ..offer(1, true) };
        snapshot.offers = vec![of_offer, Offer { expires_at, ..offer(2, true) }];
        snapshot.entries = vec![
            // Said twice, in another order, or half by the offer: the same conjunction.
            entry(1, 1, 1, 1, vec![sub("a"), sub("b"), sub("a")]),
            entry(1, 1, 1, 2, vec![sub("b")]),
            entry(1, 2, 1, 1, vec![sub("b"), sub("a")]),
        ]
        .into();
        let (table, _) = compile(&snapshot, &CompileOptions::default());
        assert_eq!(table.entries[0].targeting, table.entries[1].targeting);
        assert_eq!(table.entries[1].targeting, table.entries[2].targeting);
        let conditions = table.conditions_of(table.entries[0].targeting);
        assert_eq!(conditions, [Condition::Before(UnixMillis(1)), sub("a"), sub("b")]);
    }

    #[test]
    fn of_offers_with_one_id_a_readable_one_is_kept() {
        let entries = vec![entry(1, 1, 1, 1, vec![])];
        let mut snapshot = Snapshot {
            links: vec![link(1, Rotation::Weighted)].into(),
            entries: entries.into(),
            ..Snapshot::default()
        };
        let bad = |url: &str| Offer { url: url.to_owned(), ..offer(1, true) };
        snapshot.offers = vec![bad("a"), bad("z")];
        let (table, warnings) = compile(&snapshot, &CompileOptions::default());
        // The entry goes unnamed: its offer was.
        let items = |warnings: &[Warning]| warnings.iter().map(|w| w.item.clone()).collect::<Vec<_>>();
        assert_eq!((table.offers(), table.entries()), (0, 0));
        assert_eq!(items(&warnings), ["offer 1", "offer 1"]);

        snapshot.offers.push(offer(1, true));
        let (table, warnings) = compile(&snapshot, &CompileOptions::default());
        assert_eq!((table.offers(), table.entries()), (1, 1));
        assert_eq!(items(&warnings), ["offer 1", "offer 1"]);
    }
}
