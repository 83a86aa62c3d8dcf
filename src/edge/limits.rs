//! How many connections there may be at once, in all and of one address; and how large a head may be.
//!
//! A connection counts from the end of its first turn: one that was answered and closed in it holds nothing that could run
//! out. Trusted proxies speak for many visitors, so that they have no limit of their own. A connection whose visitor is known by a
//! PROXY header counts among the visitor's.
//!
//! Where there are as many as there may be, none is accepted until one has ended: those that come wait in the queue of the
//! socket, where they cost next to nothing, and those that are served are served as fast as ever.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use rustix::process::{Resource, getrlimit};
use tokio::sync::Notify;

use crate::routing::NetSet;

/// How many connections there may be, and how much of each.
#[derive(Clone, Debug)]
pub struct ConnectionLimits {
    /// In all, give or take those that several threads accept at the same moment.
    pub connections: usize,
    /// Of one IPv4 address, or of one /64 of IPv6, of which a visitor has a whole one.
    pub per_address: Option<usize>,
    /// After so many, a connection is closed.
    pub requests: Option<u32>,
    /// The first answer after it is the last on its connection. It is up to a tenth shorter, by chance, so that not all that began
    /// together end together.
    pub age: Option<Duration>,
    pub head: HeadLimits,
}

/// How large a head may be, whoever reads it. What has to be percent-encoded in a target counts as it is then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadLimits {
    /// From the first byte of the request to the empty line, and with it. A longer head is answered 431.
    pub bytes: usize,
    /// Of the request target. A longer one is answered 414.
    pub uri_bytes: usize,
}

impl HeadLimits {
    /// What is not configured otherwise.
    pub const DEFAULT: Self = Self { bytes: 16 * 1024, uri_bytes: 8 * 1024 };
}

impl ConnectionLimits {
    /// Just under half of the descriptors that the process may have: the rest is for files, the upstream and the admin listener.
    pub fn connections_by_descriptors() -> usize {
        let descriptors = getrlimit(Resource::Nofile).current.unwrap_or(1 << 20);
        usize::try_from(descriptors / 2).unwrap_or(usize::MAX).saturating_sub(16).max(16)
    }
}

/// The connections of all threads.
#[derive(Debug)]
pub(super) struct Admissions {
    connections_max: AtomicUsize,
    /// `usize::MAX` is any number.
    per_address_max: AtomicUsize,
    exempt: RwLock<NetSet>,
    open: AtomicUsize,
    /// Each network in one of them, so that threads seldom wait for each other.
    by_network: [Mutex<HashMap<Network, usize>>; SHARDS],
    /// Tells of each connection that ends while no more are accepted.
    room: Notify,
}

/// That a connection may be open; given back when it is dropped.
#[derive(Debug)]
pub(super) struct Admission {
    to: Arc<Admissions>,
    network: Option<Network>,
}

/// What one visitor has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Network {
    V4(u32),
    V6(u64),
}

impl Admissions {
    pub fn new(limits: &ConnectionLimits, exempt: NetSet) -> Self {
        Self {
            connections_max: AtomicUsize::new(limits.connections),
            per_address_max: AtomicUsize::new(limits.per_address.unwrap_or(usize::MAX)),
            exempt: RwLock::new(exempt),
            open: AtomicUsize::new(0),
            by_network: Default::default(),
            room: Notify::new(),
        }
    }

    /// From now on; those that are open stay.
    pub fn change(&self, limits: &ConnectionLimits, exempt: NetSet) {
        // Relaxed: whoever comes at this moment is admitted by one or the other.
        self.connections_max.store(limits.connections, Relaxed);
        self.per_address_max.store(limits.per_address.unwrap_or(usize::MAX), Relaxed);
        *self.exempt.write().unwrap_or_else(PoisonError::into_inner) = exempt;
        self.room.notify_waiters();
    }

    /// Whether so many more may be accepted.
    pub fn has_room_for(&self, more: usize) -> bool {
        // Relaxed: a number that nothing else depends on; it may be a connection behind.
        self.open.load(Relaxed) + more <= self.connections_max.load(Relaxed)
    }

    /// Waits until one may be.
    pub async fn room(&self) {
        loop {
            let told = self.room.notified();
            if self.has_room_for(1) {
                return;
            }
            told.await;
        }
    }

    /// Whether it speaks for others.
    pub fn is_proxy(&self, peer: IpAddr) -> bool {
        self.exempt.read().unwrap_or_else(PoisonError::into_inner).contains(peer.to_canonical())
    }

    /// `None` if its address has as many as one may have.
    pub fn admit(self: &Arc<Self>, peer: IpAddr) -> Option<Admission> {
        let network = match self.per_address_max.load(Relaxed) {
            at_most if at_most < usize::MAX && !self.is_proxy(peer) => {
                let network = Network::of(peer);
                let mut by_network = self.shard(network);
                let open = by_network.entry(network).or_default();
                if *open >= at_most {
                    return None;
                }
                *open += 1;
                Some(network)
            }
            _ => None,
        };
        self.open.fetch_add(1, Relaxed);
        Some(Admission { to: Arc::clone(self), network })
    }

    fn shard(&self, network: Network) -> MutexGuard<'_, HashMap<Network, usize>> {
        let bits = match network {
            Network::V4(bits) => u64::from(bits),
            Network::V6(bits) => bits,
        };
        let shard = (bits ^ bits >> 16 ^ bits >> 32) as usize % SHARDS;
        // Counts are right after any panic: each update is one addition.
        self.by_network[shard].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        if let Some(network) = self.network
            && let Entry::Occupied(mut open) = self.to.shard(network).entry(network)
        {
            *open.get_mut() -= 1;
            if *open.get() == 0 {
                open.remove();
            }
        }
        if self.to.open.fetch_sub(1, Relaxed) >= self.to.connections_max.load(Relaxed) {
            // All of them: which thread has somebody in its queue, nobody knows.
            self.to.room.notify_waiters();
        }
    }
}

impl Network {
    fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Network::V4(address.to_bits()),
            IpAddr::V6(address) => Network::V6((address.to_bits() >> 64) as u64),
        }
    }
}

const SHARDS: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routing::parse_net;

    fn admissions(connections: usize, per_address: Option<usize>) -> Arc<Admissions> {
        let limits = ConnectionLimits {
            connections,
            per_address,
            requests: None,
            age: None,
            head: HeadLimits::DEFAULT,
        };
        Arc::new(Admissions::new(&limits, NetSet::new([parse_net("10.0.0.0/8").unwrap()])))
    }

    fn admit(admissions: &Arc<Admissions>, peer: &str) -> Option<Admission> {
        admissions.admit(peer.parse().unwrap())
    }

    #[test]
    fn an_address_has_its_share_and_gets_it_back() {
        let admissions = admissions(100, Some(2));
        for (peers, apart) in [
            (["192.0.2.1", "::ffff:192.0.2.1", "192.0.2.1"], "192.0.2.2"),
            (["2001:db8::1", "2001:db8::2", "2001:db8:0:0:ffff::"], "2001:db8:0:1::1"),
        ] {
            let first = admit(&admissions, peers[0]).unwrap();
            let _second = admit(&admissions, peers[1]).unwrap();
            assert!(admit(&admissions, peers[2]).is_none(), "{peers:?}");
            assert!(admit(&admissions, apart).is_some(), "{apart}");
            drop(first);
            assert!(admit(&admissions, peers[2]).is_some(), "{peers:?}");
        }
        let open: Vec<_> = (0..50).map(|_| admit(&admissions, "10.1.1.1").expect("a proxy")).collect();
        drop(open);
        assert!(admissions.by_network.iter().all(|shard| shard.lock().unwrap().is_empty()));
        assert_eq!(admissions.open.load(Relaxed), 0);
    }

    #[test]
    fn who_waits_for_room_hears_of_it() {
        let admissions = admissions(2, None);
        let first = admit(&admissions, "192.0.2.1");
        assert!(admissions.has_room_for(1) && !admissions.has_room_for(2));
        let second = admit(&admissions, "192.0.2.1");
        assert!(!admissions.has_room_for(1));
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let mut waits = std::pin::pin!(admissions.room());
            let mut context = std::task::Context::from_waker(std::task::Waker::noop());
            assert!(std::future::Future::poll(waits.as_mut(), &mut context).is_pending());
            drop(first);
            waits.await;
        });
        drop(second);
    }
}
