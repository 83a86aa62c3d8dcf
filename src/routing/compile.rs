//! Snapshot → table. Total: whatever the snapshot says, there is a table, and a warning for each item that is not in
//! it as written.

use std::collections::{HashMap, HashSet};

use crate::types::{LinkId, OfferId};

use super::alias::{self, Slot};
use super::destination::{DestinationPolicy, Template};
use super::snapshot::{Entry, Link, Offer, Rotation, Snapshot, Warning};
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
pub fn compile(snapshot: &Snapshot, options: &CompileOptions) -> (Table, Vec<Warning>) {
    let mut compiler = Compiler {
        policy: &options.policy,
        table: Table::empty(options.network_fallback.clone(), options.bots),
        offers: HashMap::with_capacity(snapshot.offers.len()),
        refused: HashSet::new(),
        templates: HashMap::new(),
        targetings: HashMap::from([(Box::default(), ALWAYS)]),
        warnings: Vec::new(),
    };
    compiler.offers(&snapshot.offers);
    compiler.links(&snapshot.links, &snapshot.entries);
    (compiler.table, compiler.warnings)
}

struct Compiler<'s> {
    policy: &'s DestinationPolicy,
    table: Table,
    /// Offer → its row and the targeting that it brings to every entry.
    offers: HashMap<OfferId, (u32, u32)>,
    /// Offers left out with a warning of their own, so that their entries need none.
    refused: HashSet<OfferId>,
    templates: HashMap<&'s str, u32>,
    targetings: HashMap<Box<[Condition]>, u32>,
    warnings: Vec<Warning>,
}

impl<'s> Compiler<'s> {
    fn offers(&mut self, offers: &'s [Offer]) {
        let mut offers: Vec<&Offer> = offers.iter().collect();
        offers.sort_by_key(|offer| offer.id);
        for offer in offers {
            let item = format_args!("offer {}", offer.id).to_string();
            if self.offers.contains_key(&offer.id) || self.refused.contains(&offer.id) {
                self.warn(item, "is there twice; the first is kept");
                continue;
            }
            let Some(url) =
                self.template(&item, "offer_url", &offer.url, "the offer and its entries are left out")
            else {
                self.refused.insert(offer.id);
                continue;
            };
            let expiry = offer.expires_at.map(Condition::Before);
            let targeting = self.targeting(expiry.iter().chain(&offer.targeting));
            let row = self.table.offers.len() as u32;
            self.table.offers.push(OfferRow { id: offer.id, active: offer.active, url });
            self.offers.insert(offer.id, (row, targeting));
        }
    }

    fn links(&mut self, links: &'s [Link], entries: &'s [Entry]) {
        let mut links: Vec<&Link> = links.iter().collect();
        links.sort_by_key(|link| link.id);
        let mut entries: Vec<&Entry> = entries.iter().collect();
        // Stable sorts notice runs: a snapshot that comes in order costs one pass.
        entries.sort_by_key(|entry| (entry.link, entry.priority, entry.offer, entry.rule));
        self.table.links.reserve(links.len());
        self.table.rows.reserve_exact(links.len());
        self.table.tiers.reserve(links.len());
        self.table.entries.reserve_exact(entries.len());

        let mut rest = &entries[..];
        for link in links {
            let unknown = rest.iter().take_while(|entry| entry.link < link.id).count();
            self.entries_without_link(&rest[..unknown]);
            rest = &rest[unknown..];
            if self.table.links.contains_key(&link.id) {
                self.warn(format!("smart link {}", link.id), "is there twice; the first is kept");
                continue;
            }
            let own = rest.iter().take_while(|entry| entry.link == link.id).count();
            self.link(link, &rest[..own]);
            rest = &rest[own..];
        }
        self.entries_without_link(rest);
        self.table.tiers.shrink_to_fit();
        self.table.entries.shrink_to_fit();
    }

    fn link(&mut self, link: &'s Link, entries: &[&'s Entry]) {
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
        self.table.rows.push(LinkRow { affiliate: link.affiliate, active: link.active, fallback, tiers });
    }

    /// One tier. `entries` share link and priority and are sorted by offer and rule.
    fn tier(&mut self, link: &Link, entries: &[&Entry]) {
        let (mut drawable, mut others) = (Vec::with_capacity(entries.len()), Vec::new());
        let mut last = None;
        for entry in entries {
            if last.replace((entry.offer, entry.rule)) == Some((entry.offer, entry.rule)) {
                self.warn(name(entry), "is there twice; the first is kept");
                continue;
            }
            let Some(&(offer, offer_targeting)) = self.offers.get(&entry.offer) else {
                if !self.refused.contains(&entry.offer) {
                    self.warn(name(entry), "the offer is unknown; the entry is left out");
                }
                continue;
            };
            let targeting = if entry.conditions.is_empty() {
                offer_targeting
            } else {
                let of_offer = self.table.targetings[offer_targeting as usize].clone();
                self.targeting(of_offer.iter().chain(&entry.conditions))
            };
            let weight = entry.weight.value();
            let row = EntryRow { offer, rule: entry.rule, targeting, weight, slot: Slot::default() };
            let takes_traffic = weight > 0 && self.table.offers[offer as usize].active;
            if takes_traffic { drawable.push(row) } else { others.push(row) }
        }
        if drawable.is_empty() && others.is_empty() {
            return;
        }
        match link.rotation {
            // The lowest offer id goes first: the order in which the entries came.
            Rotation::Priority => {}
            rotation => {
                drawable.sort_by_key(|row| row.targeting);
                let even = rotation == Rotation::Even;
                let weights: Vec<u8> = drawable.iter().map(|row| if even { 1 } else { row.weight }).collect();
                for (row, slot) in drawable.iter_mut().zip(alias::build(&weights)) {
                    row.slot = slot;
                }
            }
        }
        self.table.tiers.push(Tier {
            priority: entries[0].priority,
            rotation: link.rotation,
            start: self.table.entries.len() as u32,
            drawable: drawable.len() as u32,
            count: (drawable.len() + others.len()) as u32,
        });
        self.table.entries.append(&mut drawable);
        self.table.entries.append(&mut others);
    }

    fn entries_without_link(&mut self, entries: &[&Entry]) {
        let mut last: Option<LinkId> = None;
        for entry in entries {
            // One warning a link: a lost link may have had thousands of entries.
            if last.replace(entry.link) != Some(entry.link) {
                self.warn(name(entry), "the smart link is unknown; all its entries are left out");
            }
        }
    }

    /// Interns a template. `None`, with a warning that ends in `consequence`, if it cannot be parsed.
    fn template(&mut self, item: &str, field: &str, url: &'s str, consequence: &str) -> Option<u32> {
        if let Some(&index) = self.templates.get(url) {
            return Some(index);
        }
        match Template::parse(url, self.policy) {
            Ok((template, warnings)) => {
                for warning in warnings {
                    self.warn(item.to_owned(), format!("`{field}`: {warning}"));
                }
                let index = self.table.templates.len() as u32;
                self.table.templates.push(template);
                self.templates.insert(url, index);
                Some(index)
            }
            Err(error) => {
                self.warn(item.to_owned(), format!("`{field}` {error}; {consequence}"));
                None
            }
        }
    }

    /// Interns a conjunction, cheapest condition first.
    fn targeting<'c>(&mut self, conditions: impl Iterator<Item = &'c Condition>) -> u32 {
        let mut conditions: Vec<Condition> = conditions.cloned().collect();
        conditions.sort_by_key(Condition::cost);
        let conditions: Box<[Condition]> = conditions.into();
        if let Some(&index) = self.targetings.get(&conditions) {
            return index;
        }
        let index = self.table.targetings.len() as u32;
        self.table.targetings.push(conditions.clone());
        self.targetings.insert(conditions, index);
        index
    }

    fn warn(&mut self, item: String, problem: impl std::fmt::Display) {
        self.warnings.push(Warning::new(item, problem));
    }
}

fn name(entry: &Entry) -> String {
    match entry.rule {
        Some(rule) => format!("rule {rule} of smart link {} for offer {}", entry.link, entry.offer),
        None => format!("offer {} on smart link {}", entry.offer, entry.link),
    }
}
