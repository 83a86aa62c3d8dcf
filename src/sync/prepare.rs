//! From a fetched network to a table that can be published: hash, compile, put back what the upstream broke. Takes
//! seconds for a large network, so it runs on a thread that answers nobody.

use std::io;
use std::path::PathBuf;

use crate::cake::{Network, Unreadable};
use crate::routing::{Cap, CompileOptions, Table, Warning, Zone, compile};

use super::last_good::{self, name};
use super::quarantine::{Standard, restore};
use super::unreadable::stand_in;

/// What preparing depends on.
#[derive(Clone, Debug)]
pub struct Preparation {
    pub zone: Zone,
    pub compile: CompileOptions,
    pub last_good: PathBuf,
    /// The name of the live snapshot.
    pub live: String,
    /// The name of the network that was fetched last, as it came. Differs from `live` where items were put back.
    pub fetched: String,
}

/// A fetched network, prepared.
pub enum Prepared {
    /// Exactly what came last time.
    SameAsFetched,
    /// Something else came, but what can be used of it is what is live.
    SameAsLive {
        fetched: String,
        warnings: Vec<Warning>,
    },
    New {
        fetched: String,
        network: Box<Network>,
        hash: blake3::Hash,
        compiled: Box<Compiled>,
    },
}

/// A table, and what was left out of it or put back into it.
pub struct Compiled {
    pub table: Table,
    /// No part of the table.
    pub caps: Vec<Cap>,
    pub warnings: Vec<Warning>,
}

impl Preparation {
    /// Fails only if the network cannot be written as JSON.
    pub fn run(&self, mut network: Network, unreadable: &[Unreadable]) -> io::Result<Prepared> {
        let mut hash = last_good::hash(&network)?;
        let fetched = name_with(&hash, unreadable);
        if fetched == self.fetched {
            return Ok(Prepared::SameAsFetched);
        }
        let mut compiled = Compiled::new(&network, &self.zone, &self.compile);
        if !compiled.warnings.is_empty() || !unreadable.is_empty() {
            let put_back;
            (network, put_back) = self.put_back(network, unreadable, &compiled.warnings);
            if !put_back.is_empty() {
                hash = last_good::hash(&network)?;
                compiled = Compiled::new(&network, &self.zone, &self.compile);
                compiled.warnings.splice(..0, put_back);
            }
        }
        if name(&hash) == self.live {
            return Ok(Prepared::SameAsLive { fetched, warnings: compiled.warnings });
        }
        Ok(Prepared::New { fetched, network: Box::new(network), hash, compiled: Box::new(compiled) })
    }

    /// Read from the disk, because it is needed rarely and would double the memory of a large network.
    fn put_back(
        &self,
        mut network: Network,
        unreadable: &[Unreadable],
        as_it_came: &[Warning],
    ) -> (Network, Vec<Warning>) {
        let last_good = last_good::read_newest(&self.last_good).ok().flatten();
        let last_good = last_good.map(|kept| kept.network).unwrap_or_default();
        let mut warnings = stand_in(&mut network, unreadable, &last_good);
        let standard = Standard { zone: &self.zone, policy: &self.compile.policy };
        let mut restored = restore(&mut network, &last_good, standard);
        give_reasons(&mut restored, as_it_came);
        warnings.append(&mut restored);
        (network.canonical(), warnings)
    }
}

/// Says of each item that was put back what was wrong with the one that came. Warnings end in a consequence, which is
/// another one now.
fn give_reasons(restored: &mut [Warning], as_it_came: &[Warning]) {
    for kept in restored {
        // Of a rule it is also said whose it is: `rule 7 of smart link 301`.
        let longer = format!("{} of ", kept.item);
        if let Some(came) =
            as_it_came.iter().find(|came| came.item == kept.item || came.item.starts_with(&longer))
        {
            let reason = came.problem.rsplit_once("; ").map_or(came.problem.as_str(), |(reason, _)| reason);
            kept.problem = format!("{reason}; its last good version stays");
        }
    }
}

/// What could not be read counts, too: the same rest with one item deleted is another network than with that item
/// unreadable.
fn name_with(hash: &blake3::Hash, unreadable: &[Unreadable]) -> String {
    if unreadable.is_empty() {
        return name(hash);
    }
    let mut hasher = blake3::Hasher::new();
    hasher.update(hash.as_bytes());
    for row in unreadable {
        hasher.update(format!("{row}\n{}\n", row.reason).as_bytes());
    }
    name(&hasher.finalize())
}

impl Compiled {
    pub fn new(network: &Network, zone: &Zone, options: &CompileOptions) -> Self {
        let (snapshot, mut warnings) = network.to_snapshot(zone);
        let (table, compile_warnings) = compile(&snapshot, options);
        warnings.extend(compile_warnings);
        Self { table, caps: snapshot.caps, warnings }
    }
}
