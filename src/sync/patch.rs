//! What was changed since the base of the live table was compiled, gathered from one change after another.

use crate::cake::{Changes, Network};
use crate::routing::LinkIds;

/// The changed links, and all that is known of them now.
#[derive(Clone, Debug, Default)]
pub struct Patch {
    pub links: LinkIds,
    /// Those of the links that are still there, with everything on them.
    pub network: Network,
}

impl Patch {
    /// Whether it would still be small with these changes.
    pub fn has_room_for(&self, changes: &Changes) -> bool {
        let links = self.links.len() + changes.links.difference(&self.links).count();
        let entries = self.network.entries() + changes.network.entries();
        links <= LINKS_MAX && entries <= ENTRIES_MAX
    }

    /// With changes that come after all that it has.
    pub fn with(mut self, changes: Changes) -> Self {
        self.network.replace(&changes.links, changes.network);
        self.links.extend(changes.links);
        self
    }
}

/// Compiling so many links takes some ten milliseconds; a patch of more would no longer be small.
const LINKS_MAX: usize = 10_000;

const ENTRIES_MAX: usize = 100_000;
