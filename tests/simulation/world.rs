//! What there is, how it begins, and how one thing happens after another.

use std::collections::{BTreeMap, BinaryHeap, HashMap, HashSet};
use std::sync::Arc;

use rand::SeedableRng;
use rusqlite::Connection;
use smartlink::ledger::SqliteLedger;
use smartlink::routing::{
    Attachment, Cap, CompileOptions, Link, Offer, Rotation, Snapshot, Table, Weight, compile,
};
use smartlink::types::{AffiliateId, CapKey, LinkId, OfferId};

use crate::Told;
use crate::changes::{list, some_caps};
use crate::edge::Edge;
use crate::events::{At, Event};
use crate::judge::Observed;
use crate::ledger::{Sale, memory};
use crate::random::{MS, Monotonic, Random, SECOND, True, below, one_in, one_of, some_step};

/// How long faults happen and people change caps.
pub const FAULTS_END: True = 30 * SECOND;

/// When the last message of that time has arrived, and whoever died is there again.
pub const ALL_IS_WELL: True = 40 * SECOND;

/// When at the latest all that can be spent must have been.
pub const ALL_IS_SPENT: True = 80 * SECOND;

pub struct World {
    pub now: True,
    pub seed: u64,
    pub tells: bool,
    pub random: Random,
    events: BinaryHeap<At>,
    order: u64,
    pub edges: Vec<Edge>,
    pub ledger: Option<SqliteLedger>,
    pub disk: Option<Connection>,
    /// `None`: a new one that has not been started.
    pub ledger_identity: Option<u64>,
    /// Of the caps that it knows.
    pub ledger_version: u64,
    /// Looks at what is on the ledger's disk, whether it is alive or not.
    pub reader: Connection,
    pub ledger_clock: Monotonic,
    pub boot: u128,
    pub wall_offset_ms: i64,
    /// How much less than twenty seconds the first day still has.
    before_midnight: True,
    pub has_steps: bool,
    /// Nothing fails in this one, from the beginning.
    pub is_calm: bool,
    loss: u64,
    repeats: u64,
    pub caps: Arc<Vec<Cap>>,
    /// Counts the changes of the caps.
    pub version: u64,
    pub removed: Vec<Cap>,
    /// Caps that only alert, or did at some time.
    pub alerting: HashSet<CapKey>,
    pub table: Table,
    pub offers: u32,
    pub sales: Vec<Sale>,
    /// Of each cap that the ledger knows, what was seen of its window.
    pub seen: HashMap<CapKey, Observed>,
    /// The same of the ledger that was replaced: some edges spend what it granted until they hear of it.
    pub seen_before: HashMap<CapKey, Observed>,
    pub replaced_at: True,
    /// Clicks that edges have counted of caps that only alert and that the ledger does not know yet.
    pub unknown: HashMap<(usize, CapKey), u64>,
    /// Those that each edge has counted since it started or, if that was later, the ledger was replaced.
    pub alerted_by: HashMap<(usize, CapKey), u64>,
    /// Clicks that may be told to this ledger, and need not be.
    pub may_be_told: HashMap<CapKey, u64>,
    /// What was granted to each life of an edge, and not charged.
    pub spendable: HashMap<(usize, u64, CapKey), u64>,
    /// What was granted to each life of an edge, and not settled.
    pub unsettled: HashMap<(usize, u64), HashMap<CapKey, u64>>,
    /// What was granted to edges that heard of another ledger then, or did not wait for the answer any more.
    pub granted_in_vain: HashMap<CapKey, u64>,
    /// The last request of each life that was settled.
    pub settled: HashMap<(usize, u64), u64>,
    /// Clicks charged by the day on the ledger's wall, where that clock never steps and the cap's zone never moves.
    pub by_wall: BTreeMap<(CapKey, i64), u64>,
    /// Since when an edge has sent nothing to an offer that it could.
    pub stuck_since: HashMap<(usize, OfferId, AffiliateId), True>,
    /// Since when an edge does not know whether conversions have closed a cap.
    pub unaware_since: HashMap<(usize, CapKey), True>,
    /// How many looks in a row found everything full.
    pub full_looks: u32,
    pub is_over: bool,
    pub told: Told,
}

pub fn simulate(seed: u64, tells: bool) -> Told {
    let mut world = World::new(seed, tells);
    while let Some(At { time, event, .. }) = world.events.pop() {
        world.now = time;
        if let Event::Ended = event {
            break;
        }
        world.happen(event);
    }
    world.judge();
    world.told
}

impl World {
    fn new(seed: u64, tells: bool) -> Self {
        let mut random = Random::seed_from_u64(seed);
        let offers = 1 + below(&mut random, 3) as u32;
        let caps = Arc::new(some_caps(&mut random, offers));
        let ledger_clock = Monotonic::some(&mut random, 0);
        // Less than twenty seconds before some midnight in New York, so that days end while the world is there.
        let midnight = one_of(&mut random, &MIDNIGHTS);
        let before_midnight = below(&mut random, 10_000);
        let is_calm = seed.is_multiple_of(5);
        let name = seed.to_string();
        let mut world = Self {
            now: 0,
            seed,
            tells,
            events: BinaryHeap::new(),
            order: 0,
            edges: Vec::new(),
            ledger: Some(SqliteLedger::from_connection(memory(&name)).expect("an empty ledger")),
            disk: None,
            ledger_identity: None,
            ledger_version: 0,
            reader: memory(&name),
            ledger_clock,
            boot: u128::from(below(&mut random, u64::MAX)),
            wall_offset_ms: midnight - 20_000 + before_midnight as i64,
            before_midnight: before_midnight * MS,
            has_steps: false,
            is_calm,
            loss: if is_calm { 0 } else { below(&mut random, 31) },
            repeats: if is_calm { 0 } else { below(&mut random, 51) },
            caps: Arc::clone(&caps),
            version: 0,
            removed: Vec::new(),
            alerting: caps.iter().filter(|cap| cap.alert_only).map(|cap| cap.key).collect(),
            table: table(offers),
            offers,
            sales: Vec::new(),
            seen: HashMap::new(),
            seen_before: HashMap::new(),
            replaced_at: 0,
            unknown: HashMap::new(),
            alerted_by: HashMap::new(),
            may_be_told: HashMap::new(),
            spendable: HashMap::new(),
            unsettled: HashMap::new(),
            granted_in_vain: HashMap::new(),
            settled: HashMap::new(),
            by_wall: BTreeMap::new(),
            stuck_since: HashMap::new(),
            unaware_since: HashMap::new(),
            full_looks: 0,
            is_over: false,
            told: Told::default(),
            random,
        };
        world.say(|| format!("caps are {}", list(&caps)));
        world.define();
        for edge in 0..1 + below(&mut world.random, 5) as usize {
            let new = Edge::new(&mut world.random, edge, &caps);
            world.edges.push(new);
            world.after(0, Event::EdgeStarts { edge });
            world.after(0, Event::RateChanges { edge });
            world.after(1, Event::Click { edge });
        }
        for _ in 0..below(&mut world.random, 6) {
            let time = below(&mut world.random, FAULTS_END);
            world.after(time, Event::CapsChange);
        }
        if !is_calm {
            world.plan_faults();
        }
        world.after(LOOK_EVERY, Event::Look);
        world
    }

    fn plan_faults(&mut self) {
        for _ in 0..below(&mut self.random, 12) {
            let time = below(&mut self.random, FAULTS_END);
            let edge = self.some_edge();
            let event = match below(&mut self.random, 9) {
                0..=2 => Event::EdgeFails { edge },
                3 => Event::LedgerFails,
                4 => Event::WallSteps { by_ms: some_step(&mut self.random) },
                5 | 6 => Event::Partition { edge, until: time + below(&mut self.random, 15 * SECOND) },
                7 => Event::CapsChange,
                _ => Event::RateChanges { edge },
            };
            self.after(time, event);
        }
        // In a fifth of all worlds: where nothing fails, this does not either.
        if one_in(&mut self.random, 4) {
            let time = below(&mut self.random, FAULTS_END);
            self.after(time, Event::LedgerReplaced);
            // Some edge may be cut off at that time, and spend on what it holds.
            let edge = self.some_edge();
            if one_in(&mut self.random, 2) {
                let (begins, until) =
                    (below(&mut self.random, time + 1), time + below(&mut self.random, 15 * SECOND));
                self.after(begins, Event::Partition { edge, until });
            }
        }
    }

    pub fn some_edge(&mut self) -> usize {
        below(&mut self.random, self.edges.len() as u64) as usize
    }

    /// From when on nothing fails.
    pub fn is_well(&self) -> bool {
        self.is_calm || self.now >= ALL_IS_WELL
    }

    pub fn after(&mut self, pause: u64, event: Event) {
        self.order += 1;
        self.events.push(At { time: self.now + pause, order: self.order, event });
    }

    pub fn say(&self, what: impl FnOnce() -> String) {
        if self.tells {
            println!("{:>9.3} s  {}", self.now as f64 / SECOND as f64, what());
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Click { edge } => self.click(edge),
            Event::Tick { edge, life } => self.tick(edge, life),
            Event::Waits { edge, life } => self.wait(edge, life),
            Event::ToLedger { edge, life, sent_at, request } => self.lease(edge, life, sent_at, &request),
            Event::ToEdge { edge, life, sent_at, reply } => self.answered(edge, life, sent_at, &reply),
            Event::Converts { conversion } => self.converts(conversion),
            Event::Carry { edge, life } => self.carry(edge, life),
            Event::ToRecord { edge, life, conversions } => self.record(edge, life, conversions),
            Event::Recorded { edge, life, conversions } => self.recorded(edge, life, &conversions),
            Event::EdgeFails { edge } => self.edge_fails(edge),
            Event::EdgeStarts { edge } => self.edge_starts(edge),
            Event::LedgerFails => self.ledger_fails(),
            Event::LedgerStarts { rebooted } => self.ledger_starts(rebooted),
            Event::LedgerHears { version, caps } => self.define_version(version, caps),
            Event::LedgerReplaced => self.ledger_replaced(),
            Event::WallSteps { by_ms } => {
                self.has_steps = true;
                self.told.steps += 1;
                self.wall_offset_ms += by_ms;
                self.say(|| format!("the ledger's clock steps by {by_ms} ms"));
            }
            Event::Partition { edge, until } => {
                self.edges[edge].cut_off_until = until.min(FAULTS_END);
                self.say(|| format!("edge {edge} is cut off"));
            }
            Event::CapsChange => self.caps_change(),
            Event::EdgeHears { edge, version, caps } => self.hear(edge, version, caps),
            Event::RateChanges { edge } => self.rate_changes(edge),
            Event::Look => {
                self.look();
                if !self.is_over {
                    self.after(LOOK_EVERY, Event::Look);
                }
            }
            Event::AllEnd => self.all_end(),
            Event::Ended => {}
        }
    }

    fn rate_changes(&mut self, edge: usize) {
        // In half of the worlds a day ends with leases in hand, and the next is filled at once: a click of the old day
        // that is spent in the new one is one too many then.
        let is_before_midnight = self.now < 20 * SECOND - self.before_midnight;
        let rates = match self.seed % 2 {
            0 => [0, 1, 5, 20, 100, 400],
            _ if is_before_midnight => [0, 0, 1, 5, 10, 20],
            _ => [20, 100, 200, 400, 400, 1_000],
        };
        self.edges[edge].clicks_a_second = one_of(&mut self.random, &rates);
        let pause = 1 + below(&mut self.random, if is_before_midnight { 3 } else { 8 } * SECOND);
        self.after(pause, Event::RateChanges { edge });
    }

    pub fn send<M: Clone>(&mut self, edge: usize, event: impl Fn(M) -> Event, message: M) {
        let heals = self.now > FAULTS_END;
        if self.now < self.edges[edge].cut_off_until || (!heals && below(&mut self.random, 100) < self.loss) {
            self.told.lost += 1;
            return;
        }
        let mut copies = 1;
        while !heals && copies < 4 && below(&mut self.random, 100) < self.repeats {
            copies += 1;
            self.told.repeated += 1;
        }
        for _ in 0..copies {
            let slow = !heals && !self.is_calm && one_in(&mut self.random, 20);
            let pause = 1 + below(&mut self.random, if slow { 8 * SECOND } else { 40 * MS });
            self.after(pause, event(message.clone()));
        }
    }
}

/// How often the judge looks.
pub const LOOK_EVERY: u64 = 100 * MS;

/// Ends of days in New York, in milliseconds since 1970: of one with 24 hours, with 25 and with 23, the beginning of that, and
/// the end of a month.
const MIDNIGHTS: [i64; 5] =
    [1_795_410_000_000, 1_793_595_600_000, 1_773_028_800_000, 1_772_946_000_000, 1_796_101_200_000];

/// Affiliates 10 and 11, with a link each that has all offers.
pub fn affiliate(link: u32) -> AffiliateId {
    AffiliateId::new(9 + link).expect("not 0")
}

pub const LINKS: u32 = 2;

/// Offers of lower tiers have clicks where all above them are closed.
pub fn priority(offer: u32) -> u32 {
    1 + offer / 3
}

fn table(offers: u32) -> Table {
    let mut snapshot = Snapshot::default();
    for link in 1..=LINKS {
        snapshot.links.to_mut().push(Link {
            id: LinkId::new(link).expect("not 0"),
            affiliate: affiliate(link),
            active: true,
            rotation: Rotation::Weighted,
            cap_aware: true,
            fallback_url: None,
        });
    }
    for id in 1..=offers {
        let offer = OfferId::new(id).expect("not 0");
        let weight = Weight::new(10).expect("in range");
        for link in 1..=LINKS {
            let link = LinkId::new(link).expect("not 0");
            snapshot.attachments.to_mut().push(Attachment { link, offer, priority: priority(id), weight });
        }
        snapshot.offers.push(Offer {
            id: offer,
            active: true,
            expires_at: None,
            url: format!("https://o{id}.example/"),
            targeting: Vec::new(),
        });
    }
    let (table, warnings) = compile(&snapshot, &CompileOptions::default());
    assert!(warnings.is_empty(), "{warnings:?}");
    table
}
