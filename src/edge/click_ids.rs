//! Makes the click ids of one thread: counts, and signs (see `click_id`, which says why none comes twice).

use crate::click_id::{ClickId, ClickIdKeys, Contents, NodeIdentity, SEQUENCES, WorkerIndex};
use crate::types::{AffiliateId, LinkId, OfferId, UnixMillis};

/// Makes the ids of one worker.
#[derive(Debug)]
pub struct ClickIds {
    keys: ClickIdKeys,
    node: NodeIdentity,
    worker: WorkerIndex,
    sequence: u32,
}

impl ClickIds {
    /// No two workers of a process may have the same index, and no two processes the same node.
    pub fn new(keys: ClickIdKeys, node: NodeIdentity, worker: WorkerIndex) -> Self {
        Self { keys, node, worker, sequence: 0 }
    }

    /// `offer` is where the click goes, if it goes to one.
    pub fn next(
        &mut self,
        at: UnixMillis,
        link: LinkId,
        affiliate: AffiliateId,
        offer: Option<OfferId>,
    ) -> ClickId {
        let Self { node, worker, sequence, .. } = *self;
        self.sequence += 1;
        if self.sequence == SEQUENCES {
            self.sequence = 0;
            self.node = node.next();
        }
        self.keys.sign(Contents { at, node, worker, sequence, link, affiliate, offer })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::thread;

    use super::*;

    const MOMENT: i64 = 1_790_000_000_000;

    fn keys() -> ClickIdKeys {
        ClickIdKeys::from_text("5a".repeat(32).as_bytes()).unwrap()
    }

    fn ids(node: u64, worker: usize) -> ClickIds {
        ClickIds::new(keys(), NodeIdentity::new(node), WorkerIndex::new(worker).unwrap())
    }

    /// Of the same link, affiliate and offer each time, so that these make no difference.
    fn next(ids: &mut ClickIds, millis: i64) -> ClickId {
        let (link, affiliate) = (LinkId::new(301).unwrap(), AffiliateId::new(67890).unwrap());
        ids.next(UnixMillis(millis), link, affiliate, OfferId::new(1042))
    }

    fn read(id: &ClickId) -> Contents {
        keys().verify(id.as_str().as_bytes()).unwrap().0
    }

    #[test]
    fn unique_over_threads() {
        const THREADS: usize = 8;
        const CLICKS: usize = 200_000;
        let threads: Vec<_> = (0..THREADS)
            .map(|worker| {
                thread::spawn(move || {
                    let mut ids = ids(7, worker);
                    // The clock stands still: that is the hardest.
                    (0..CLICKS).map(|_| next(&mut ids, MOMENT)).collect::<Vec<_>>()
                })
            })
            .collect();
        let mut seen = HashSet::with_capacity(THREADS * CLICKS);
        for thread in threads {
            seen.extend(thread.join().unwrap());
        }
        assert_eq!(seen.len(), THREADS * CLICKS);
    }

    /// Each start takes the clock back to the same moment, and it steps back while the process runs, too.
    #[test]
    fn unique_though_the_clock_steps_back_and_nodes_restart() {
        let mut seen = HashSet::new();
        for start in 0..4 {
            for worker in 0..2 {
                let mut ids = ids(0xfeed + start, worker);
                for click in 0..10_000 {
                    assert!(seen.insert(next(&mut ids, MOMENT + click % 100 - click / 1_000)));
                }
            }
        }
        assert_eq!(seen.len(), 4 * 2 * 10_000);
    }

    /// Not even after a thousand million clicks, with the clock set back to the first of them.
    #[test]
    fn unique_though_the_sequence_is_used_up() {
        let mut ids = ids(u64::MAX, 1);
        let first = next(&mut ids, MOMENT);
        ids.sequence = SEQUENCES - 1;
        let last = next(&mut ids, MOMENT);
        let carried = next(&mut ids, MOMENT);
        assert_eq!([&first, &last, &carried].map(|id| read(id).sequence), [0, SEQUENCES - 1, 0]);
        let nodes = [&first, &last, &carried].map(|id| read(id).node);
        assert_eq!(nodes, [u64::MAX, u64::MAX, 0].map(NodeIdentity::new));
    }

    #[test]
    fn an_id_says_what_the_click_was() {
        let mut ids = ids(9, 5);
        let (link, affiliate) = (LinkId::new(1).unwrap(), AffiliateId::new(2).unwrap());
        for offer in [OfferId::new(3), None] {
            let contents = read(&ids.next(UnixMillis(MOMENT), link, affiliate, offer));
            let told = (contents.at, contents.link, contents.affiliate, contents.offer);
            assert_eq!(told, (UnixMillis(MOMENT), link, affiliate, offer));
            assert_eq!(
                (contents.node, contents.worker),
                (NodeIdentity::new(9), WorkerIndex::new(5).unwrap())
            );
        }
    }
}
