//! From a fetched network to a table that can be published: hash, compile, put back what the upstream broke. Takes
//! seconds for a large network, so it runs on a thread that answers nobody.

use std::path::PathBuf;

use crate::cake::wire::Network;
use crate::routing::{CompileOptions, Table, Warning, Zone, compile};

use super::last_good::{self, Encoded};
use super::quarantine::{Standard, restore};

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
        encoded: Encoded,
        compiled: Box<Compiled>,
    },
}

/// A table, and what was left out of it or put back into it.
pub struct Compiled {
    pub table: Table,
    pub warnings: Vec<Warning>,
}

impl Preparation {
    /// Fails only if the network cannot be written as JSON.
    pub fn run(&self, network: Network) -> Result<Prepared, String> {
        let as_fetched = Encoded::new(&network)?;
        let fetched = as_fetched.name();
        if fetched == self.live || fetched == self.fetched {
            return Ok(Prepared::SameAsFetched);
        }
        let compiled = Compiled::new(&network, &self.zone, &self.compile);
        if compiled.warnings.is_empty() {
            return Ok(Prepared::New { fetched, encoded: as_fetched, compiled: Box::new(compiled) });
        }
        let (network, put_back) = self.put_back(network);
        if put_back.is_empty() {
            return Ok(Prepared::New { fetched, encoded: as_fetched, compiled: Box::new(compiled) });
        }
        let encoded = Encoded::new(&network)?;
        let mut compiled = Compiled::new(&network, &self.zone, &self.compile);
        compiled.warnings.splice(..0, put_back);
        if encoded.name() == self.live {
            return Ok(Prepared::SameAsLive { fetched, warnings: compiled.warnings });
        }
        Ok(Prepared::New { fetched, encoded, compiled: Box::new(compiled) })
    }

    /// Read from the disk, because it is needed rarely and would double the memory of a large network.
    fn put_back(&self, mut network: Network) -> (Network, Vec<Warning>) {
        let Ok(Some((last_good, _))) = last_good::read(&self.last_good) else {
            return (network, Vec::new());
        };
        let standard = Standard { zone: &self.zone, policy: &self.compile.policy };
        let warnings = restore(&mut network, &last_good, standard);
        (network.canonical(), warnings)
    }
}

impl Compiled {
    pub fn new(network: &Network, zone: &Zone, options: &CompileOptions) -> Self {
        let (snapshot, mut warnings) = network.to_snapshot(zone);
        let (table, compile_warnings) = compile(&snapshot, options);
        warnings.extend(compile_warnings);
        Self { table, warnings }
    }
}
