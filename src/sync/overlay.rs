//! `routing.toml`: the entries, rules and caps of an upstream that has no calls to list them, as a real CAKE has none.
//!
//! Nothing is left out of a file that a person can correct: it is taken whole, or not at all. Whether its links and
//! offers exist is not known before the upstream has answered, and is a matter of the quarantine, as always.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::{fmt, fs, io};

use crate::cake::wire::OfferCap;
use crate::cake::{Network, Routing, rule_id};
use crate::routing::{Attachment, Entry};

use super::routing_file;

/// A file of entries, rules and caps, read and judged.
#[derive(Debug, Default)]
pub struct Overlay {
    pub(super) smart_link_offers: Vec<Placed<Attachment>>,
    pub(super) routing_rules: Vec<Placed<Entry>>,
    pub(super) offer_caps: Vec<Placed<OfferCap>>,
}

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OverlayError {
    #[error("cannot read the overlay {}: {source}", .path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("the overlay {}, {first}{}", .path.display(), more(.others.len()))]
    Form { path: PathBuf, first: OverlayProblem, others: Vec<OverlayProblem> },
}

/// One thing that is wrong with a file, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OverlayProblem {
    /// From 1.
    pub line: usize,
    pub problem: String,
}

/// An item, and the line on which it begins.
#[derive(Debug)]
pub struct Placed<T> {
    pub line: usize,
    pub item: T,
}

impl Overlay {
    pub fn read(path: &Path) -> Result<Self, OverlayError> {
        let text = fs::read_to_string(path)
            .map_err(|source| OverlayError::Read { path: path.to_owned(), source })?;
        Self::from_text(&text).map_err(|mut problems| {
            let others = problems.split_off(1);
            let first = problems.remove(0);
            OverlayError::Form { path: path.to_owned(), first, others }
        })
    }

    /// Reads what such a file holds. On `Err`, everything that is wrong, in the order of the lines; at least one thing.
    pub fn from_text(text: &str) -> Result<Self, Vec<OverlayProblem>> {
        routing_file::read(text)
    }

    /// How many offers are attached.
    pub fn entries(&self) -> usize {
        self.smart_link_offers.len()
    }

    pub fn rules(&self) -> usize {
        self.routing_rules.len()
    }

    pub fn caps(&self) -> usize {
        self.offer_caps.len()
    }

    /// Without the lines.
    pub fn into_routing(self) -> Routing {
        Routing {
            smart_link_offers: self.smart_link_offers.into_iter().map(|placed| placed.item).collect(),
            routing_rules: self.routing_rules.into_iter().map(|placed| placed.item).collect(),
            offer_caps: self.offer_caps.into_iter().map(|placed| placed.item).collect(),
        }
    }

    /// Every link and offer that is named here and that the network does not have, in the order of the lines.
    pub fn unknown_to(&self, network: &Network) -> Vec<OverlayProblem> {
        let links: HashSet<i64> = network.smart_links.iter().map(|link| link.id.value().into()).collect();
        let offers: HashSet<i64> = network.offers.iter().map(|offer| offer.offer_id).collect();
        let entries = self.smart_link_offers.iter().map(|Placed { line, item }| {
            let name = format!("offer {} on smart link {}", item.offer, item.link);
            (*line, name, i64::from(item.link.value()), i64::from(item.offer.value()))
        });
        let rules = self.routing_rules.iter().map(|Placed { line, item }| {
            let name = format!("rule {}", rule_id(item));
            (*line, name, i64::from(item.link.value()), i64::from(item.offer.value()))
        });
        let mut unknown = Vec::new();
        for Placed { line, item } in &self.offer_caps {
            if !offers.contains(&item.offer_id) {
                let problem = format!("{}: the upstream has no offer {}", item.label(), item.offer_id);
                unknown.push(OverlayProblem { line: *line, problem });
            }
        }
        for (line, name, link, offer) in entries.chain(rules) {
            for (noun, id, is_known) in
                [("smart link", link, links.contains(&link)), ("offer", offer, offers.contains(&offer))]
            {
                if !is_known {
                    let problem = format!("{name}: the upstream has no {noun} {id}");
                    unknown.push(OverlayProblem { line, problem });
                }
            }
        }
        unknown.sort_by_key(|problem| problem.line);
        unknown
    }
}

impl OverlayError {
    /// Each thing that is wrong, as a sentence that names the file.
    pub fn sentences(&self) -> Vec<String> {
        match self {
            OverlayError::Read { .. } => vec![self.to_string()],
            OverlayError::Form { path, first, others } => {
                let name = path.display();
                [first]
                    .into_iter()
                    .chain(others)
                    .map(|problem| format!("the overlay {name}, {problem}"))
                    .collect()
            }
        }
    }
}

impl fmt::Display for OverlayProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.problem)
    }
}

fn more(others: usize) -> String {
    match others {
        0 => String::new(),
        1 => "; and one more problem".to_owned(),
        others => format!("; and {others} more problems"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_error_names_the_file_and_counts_what_else_is_wrong() {
        let text = "[[smart_link_offers]]\nsmart_link_id = 1\noffer_id = 2\noffer_weight = 101\n\
                    [[routing_rules]]\nrule_id = true\n[[offer_caps]]\n[[smart_link_offers]]\n";
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("routing.toml");
        fs::write(&path, text).unwrap();
        let error = Overlay::read(&path).unwrap_err();
        let said = error.to_string();
        assert!(said.contains("routing.toml, line 4: ") && said.ends_with("; and 3 more problems"), "{said}");
        assert_eq!(error.sentences().len(), 4);
        assert!(Overlay::read(directory.path()).unwrap_err().to_string().contains("cannot read the overlay"));
    }

    #[test]
    fn an_overlay_without_its_links_and_offers_is_told_by_its_lines() {
        let text = "[[smart_link_offers]]\nsmart_link_id = 1\noffer_id = 2\n\n[[routing_rules]]\nrule_id = 7\n\
                    smart_link_id = 9\noffer_id = 8\nconditions = {}\n[[offer_caps]]\noffer_id = 3\n\
                    cap_type = \"click\"\ncap_interval = \"daily\"\ncap_amount = 1\n";
        let network: Network = serde_json::from_value(json!({
            "smart_links": [{"smart_link_id": 1, "affiliate_id": 7, "smart_link_status": "active"}],
            "offers": [{"offer_id": 2, "offer_status": "active"}],
            "offer_geo_targets": [], "smart_link_offers": [], "routing_rules": [],
        }))
        .unwrap();
        let unknown = routing_file::read(text).unwrap().unknown_to(&network);
        let told: Vec<String> = unknown.iter().map(ToString::to_string).collect();
        assert_eq!(
            told,
            [
                "line 5: rule 7: the upstream has no smart link 9",
                "line 5: rule 7: the upstream has no offer 8",
                "line 10: daily click cap of offer 3: the upstream has no offer 3",
            ]
        );
    }
}
