//! A large network, written straight into a node's store: as one import would write it, but faster.

use std::path::Path;

/// A network of links with four entries each, spread over all offers.
#[derive(Clone, Copy)]
pub struct Rows {
    pub links: u64,
    pub offers: u64,
    /// How many of a link's entries are rules.
    pub rules: u64,
}

pub const ENTRIES: u64 = 4;

impl Rows {
    /// Fills the empty store of a node that does not run.
    pub fn fill(&self, path: &Path) {
        let mut store = rusqlite::Connection::open(path).expect("the store opens");
        let filling = store.transaction().expect("nobody else has the store");
        self.write(&filling).expect("the network is written");
        filling.commit().expect("the network is kept");
    }

    /// Four that differ, spread over all.
    pub fn offer_of(&self, link: u64, nth: u64) -> u64 {
        1 + (link * 13 + nth * (self.offers / ENTRIES)) % self.offers
    }

    fn write(&self, filling: &rusqlite::Transaction<'_>) -> rusqlite::Result<()> {
        let mut offer = filling.prepare(
            "INSERT INTO offers (offer_id, offer_name, offer_status, offer_url, further) VALUES (?, ?, 'active', ?, '{}')",
        )?;
        for id in 1..=self.offers as i64 {
            let url = format!("https://shop{id}.example.com/landing?aff=#affid#&r=#reqid#&sub={{s1}}");
            offer.execute((id, format!("Offer {id}"), url))?;
        }
        let mut link = filling.prepare(
            "INSERT INTO smart_links (smart_link_id, smart_link_name, affiliate_id, smart_link_status, rotation_type, cap_aware)
             VALUES (?, ?, 7, 'active', 'weighted', 1)",
        )?;
        let mut entry = filling.prepare("INSERT INTO smart_link_offers VALUES (?, ?, ?, ?)")?;
        let mut rule = filling.prepare(
            "INSERT INTO routing_rules (smart_link_id, offer_id, priority, offer_weight, conditions) VALUES (?, ?, ?, ?, ?)",
        )?;
        for id in 1..=self.links {
            let row = id as i64;
            link.execute((row, format!("Link {id}")))?;
            for nth in 0..ENTRIES {
                let (offer, weight) = (self.offer_of(id, nth), 1 + (id * 31 + nth * 17) % 100);
                let (offer, weight, priority) = (offer as i64, weight as i64, 1 + nth as i64 / 2);
                if nth < self.rules {
                    rule.execute((row, offer, priority, weight, conditions(id)))?;
                } else {
                    entry.execute((row, offer, weight, priority))?;
                }
            }
        }
        // As after an import, which is too much to be told as a difference.
        filling.execute_batch("DELETE FROM touched_links; DELETE FROM touched_offers")
    }
}

/// Some country and some sub id: people write the same few hundred over and over.
fn conditions(link: u64) -> String {
    let countries = ["US", "CA", "GB", "DE", "FR", "BR"][link as usize % 6];
    format!(r#"{{"country":{{"in":["{countries}"]}},"s1":{{"in":["campaign-{}"]}}}}"#, link % 50)
}
