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
    /// How many links it would have with these changes.
    pub fn links_with(&self, changes: &Changes) -> usize {
        self.links.len() + changes.links.difference(&self.links).count()
    }

    /// With changes that come after all that it has.
    pub fn with(mut self, changes: Changes) -> Self {
        self.network.replace(&changes.links, changes.network);
        self.links.extend(changes.links);
        self
    }
}
