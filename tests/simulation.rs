//! Caps under everything that can go wrong, in virtual time: edges, a ledger, a network and clocks of one seed.
//!
//! What is simulated is what runs: [`decide`], the cap cells and their charge, the node's [`Leases`] and the SQLite
//! ledger, over a network that loses, repeats, delays and cuts off, on machines that crash, restart, shut down, and whose
//! clocks drift and step. Only the sockets, the threads and the disk are not there; tests/caps.rs has those.
//!
//! `SEEDS=10000 cargo test --release --test simulation` runs more seeds, `SEED=17` runs one and tells its story.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BinaryHeap, HashMap};
use std::env;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::panic::{catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread;

use rand::{Rng, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;
use rusqlite::Connection;

use smartlink::edge::decide_and_charge;
use smartlink::ledger::{CapState, LeaseReply, LeaseRequest, LedgerTime, SqliteLedger};
use smartlink::routing::{
    Attachment, Cap, CompileOptions, Link, Offer, Outcome, Rotation, Snapshot, Table, Weight, Zone, compile,
};
use smartlink::state::{CapBook, CapCells, Caps};
use smartlink::sync::Leases;
use smartlink::types::{
    AffiliateId, CapInterval, CapKey, CapKind, Click, Device, Draw, LinkId, OfferId, Place, UnixMillis,
};

#[test]
fn no_cap_is_exceeded_whatever_fails() {
    let one = env::var("SEED").ok().map(|seed| seed.parse().expect("SEED is a number"));
    let seeds: u64 = env::var("SEEDS").ok().map_or(300, |seeds| seeds.parse().expect("SEEDS is a number"));
    if let Some(seed) = one {
        let told = simulate(seed, true);
        println!("seed {seed}: {told}");
        return;
    }
    let (next, all) = (AtomicU64::new(0), Mutex::new(Told::default()));
    let work = || {
        loop {
            let seed = next.fetch_add(1, Relaxed);
            if seed >= seeds {
                return;
            }
            match catch_unwind(|| simulate(seed, false)) {
                Ok(told) => all.lock().unwrap().add(&told),
                Err(panic) => {
                    eprintln!(
                        "again, with its story: SEED={seed} cargo test --test simulation -- --nocapture"
                    );
                    resume_unwind(panic);
                }
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(work);
        }
    });
    let all = all.into_inner().unwrap();
    println!("{seeds} seeds: {all}");
    // A world in which nothing happens proves nothing.
    assert!(all.charges > seeds * 100 && all.capped > seeds * 100 && all.crashes > seeds / 4, "{all}");
    assert!(all.lost > seeds && all.repeated > seeds && all.steps > seeds / 8 && all.rolls > seeds, "{all}");
}

/// What happened in a world.
#[derive(Default)]
struct Told {
    clicks: u64,
    charges: u64,
    capped: u64,
    leases: u64,
    lost: u64,
    repeated: u64,
    crashes: u64,
    steps: u64,
    rolls: u64,
    /// Caps whose last window was filled to the last click, and those that fell short by what dead nodes held.
    filled: u64,
    short: u64,
}

impl Told {
    fn add(&mut self, other: &Told) {
        self.clicks += other.clicks;
        self.charges += other.charges;
        self.capped += other.capped;
        self.leases += other.leases;
        self.lost += other.lost;
        self.repeated += other.repeated;
        self.crashes += other.crashes;
        self.steps += other.steps;
        self.rolls += other.rolls;
        self.filled += other.filled;
        self.short += other.short;
    }
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Told { clicks, charges, capped, leases, lost, repeated, crashes, steps, rolls, filled, short } =
            self;
        write!(
            f,
            "{clicks} clicks, {charges} charged, {capped} capped; {leases} leases, {lost} messages lost, {repeated} \
             repeated; {crashes} crashes, {steps} clock steps, {rolls} windows begun; {filled} caps filled to the last \
             click, {short} short by what dead nodes held"
        )
    }
}

/// Nanoseconds of the time that nobody in the world can see.
type True = u64;

const MS: u64 = 1_000_000;
const SECOND: u64 = 1_000 * MS;

/// How long faults happen, and how long the world goes on after the last.
const FAULTS_END: True = 30 * SECOND;
const WORLD_ENDS: True = 45 * SECOND;

/// How often a node looks at what it holds, as in `sync/cap_keeper.rs`.
const TICK: u64 = 250 * MS;

/// How long it waits for an answer.
const PATIENCE: u64 = 1_000 * MS;

enum Event {
    Click { edge: usize },
    Tick { edge: usize, life: u64 },
    ToLedger { edge: usize, life: u64, sent_at: u64, request: LeaseRequest },
    ToEdge { edge: usize, life: u64, sent_at: u64, reply: LeaseReply },
    EdgeFails { edge: usize },
    EdgeStarts { edge: usize },
    LedgerFails,
    LedgerStarts { rebooted: bool },
    WallSteps { by_ms: i64 },
    Partition { edge: usize, until: True },
    CapChanges,
    EdgeHears { edge: usize, caps: Arc<Vec<Cap>> },
    RateChanges { edge: usize },
}

struct At {
    time: True,
    order: u64,
    event: Event,
}

impl PartialEq for At {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}
impl Eq for At {}
impl PartialOrd for At {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for At {
    fn cmp(&self, other: &Self) -> Ordering {
        (other.time, other.order).cmp(&(self.time, self.order))
    }
}

/// A machine's monotonic clock: began at some moment, runs a little fast or slow.
#[derive(Clone, Copy)]
struct Monotonic {
    began: i128,
    /// Parts a million.
    drift: i64,
}

impl Monotonic {
    fn read(&self, time: True) -> u64 {
        let since = i128::from(time) - self.began;
        u64::try_from(since + since * i128::from(self.drift) / 1_000_000).unwrap_or(0)
    }
}

struct Edge {
    alive: bool,
    /// Counts starts, so that what was meant for an earlier life does not reach a later one.
    life: u64,
    clock: Monotonic,
    caps: Arc<Vec<Cap>>,
    cells: CapCells,
    book: CapBook,
    leases: Leases,
    /// When the request that is under way was last sent.
    waits_since: Option<u64>,
    cut_off_until: True,
    clicks_a_second: u64,
    draws: Xoshiro256PlusPlus,
    /// It ends as it should: returns what it holds, and then no longer asks.
    is_ending: bool,
}

struct World {
    now: True,
    seed: u64,
    tells: bool,
    random: Xoshiro256PlusPlus,
    events: BinaryHeap<At>,
    order: u64,
    edges: Vec<Edge>,
    ledger: Option<SqliteLedger>,
    disk: Option<Connection>,
    ledger_clock: Monotonic,
    boot: u128,
    wall_offset_ms: i64,
    /// How much less than twenty seconds the first day still has.
    before_midnight: True,
    has_steps: bool,
    loss: u64,
    repeats: u64,
    caps: Arc<Vec<Cap>>,
    table: Table,
    /// Of each cap: the window that the ledger has begun, what was charged in it, and the largest amount in force.
    windows: HashMap<CapKey, Observed>,
    /// The largest amount that was ever in force.
    most: HashMap<CapKey, u64>,
    /// Clicks charged by the day on the ledger's wall, where that clock never steps.
    by_wall: BTreeMap<(CapKey, i64), u64>,
    told: Told,
}

#[derive(Default)]
struct Observed {
    ends_at: Option<i64>,
    charged: u64,
    amount: u64,
}

fn simulate(seed: u64, tells: bool) -> Told {
    let mut world = World::new(seed, tells);
    while let Some(At { time, event, .. }) = world.events.pop() {
        if time > WORLD_ENDS {
            break;
        }
        world.now = time;
        world.happen(event);
    }
    world.judge();
    world.told
}

impl World {
    fn new(seed: u64, tells: bool) -> Self {
        let mut random = Xoshiro256PlusPlus::seed_from_u64(seed);
        let offers = 1 + below(&mut random, 3) as u32;
        let caps = Arc::new(some_caps(&mut random, offers));
        let table = table(offers);
        let ledger_clock = monotonic(&mut random);
        // Twenty seconds before some midnight in New York, so that days end while the world is there.
        let midnight = 1_795_410_000_000_i64;
        let before_midnight = below(&mut random, 10_000);
        let wall_offset_ms = midnight - 20_000 + before_midnight as i64;
        let disk = Connection::open_in_memory().expect("memory");
        let is_calm = seed.is_multiple_of(5);
        let mut world = Self {
            now: 0,
            seed,
            tells,
            events: BinaryHeap::new(),
            order: 0,
            edges: Vec::new(),
            ledger: Some(SqliteLedger::from_connection(disk).expect("an empty ledger")),
            disk: None,
            ledger_clock,
            boot: u128::from(random.next_u64()),
            wall_offset_ms,
            before_midnight: before_midnight * MS,
            has_steps: false,
            loss: if is_calm { 0 } else { below(&mut random, 31) },
            repeats: if is_calm { 0 } else { below(&mut random, 51) },
            caps: Arc::clone(&caps),
            table,
            windows: HashMap::new(),
            most: HashMap::new(),
            by_wall: BTreeMap::new(),
            told: Told::default(),
            random,
        };
        world.say(|| format!("caps are {}", list(&caps)));
        world.define();
        for edge in 0..1 + below(&mut world.random, 5) as usize {
            let seed = world.random.next_u64();
            let mut draws = Xoshiro256PlusPlus::seed_from_u64(seed);
            let clock = monotonic(&mut world.random);
            world.edges.push(Edge {
                alive: false,
                life: 0,
                clock,
                caps: Arc::clone(&caps),
                cells: CapCells::default(),
                book: CapBook::default(),
                leases: Leases::new(format!("edge{edge}"), draws.next_u64()),
                waits_since: None,
                cut_off_until: 0,
                clicks_a_second: 0,
                draws,
                is_ending: false,
            });
            world.after(0, Event::EdgeStarts { edge });
            world.after(0, Event::RateChanges { edge });
            world.after(1, Event::Click { edge });
        }
        if !is_calm {
            world.plan_faults();
        }
        world
    }

    fn plan_faults(&mut self) {
        for _ in 0..below(&mut self.random, 12) {
            let time = below(&mut self.random, FAULTS_END);
            let edge = below(&mut self.random, self.edges.len() as u64) as usize;
            let event = match below(&mut self.random, 10) {
                0..=2 => Event::EdgeFails { edge },
                3 => Event::LedgerFails,
                4 => Event::WallSteps { by_ms: some_step(&mut self.random) },
                5 | 6 => Event::Partition { edge, until: time + below(&mut self.random, 15 * SECOND) },
                7 | 8 => Event::CapChanges,
                _ => Event::RateChanges { edge },
            };
            self.after(time, event);
        }
    }

    fn after(&mut self, pause: u64, event: Event) {
        self.order += 1;
        self.events.push(At { time: self.now + pause, order: self.order, event });
    }

    fn say(&self, what: impl FnOnce() -> String) {
        if self.tells {
            println!("{:>9.3} s  {}", self.now as f64 / SECOND as f64, what());
        }
    }

    fn wall_ms(&self) -> i64 {
        self.wall_offset_ms + (self.now / MS) as i64
    }

    fn ledger_time(&self) -> LedgerTime {
        LedgerTime {
            wall: UnixMillis(self.wall_ms()),
            boot: self.boot,
            uptime_ms: self.ledger_clock.read(self.now) / MS,
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Click { edge } => self.click(edge),
            Event::Tick { edge, life } => self.tick(edge, life),
            Event::ToLedger { edge, life, sent_at, request } => self.lease(edge, life, sent_at, &request),
            Event::ToEdge { edge, life, sent_at, reply } => self.answered(edge, life, sent_at, &reply),
            Event::EdgeFails { edge } => self.edge_fails(edge),
            Event::EdgeStarts { edge } => self.edge_starts(edge),
            Event::LedgerFails => self.ledger_fails(),
            Event::LedgerStarts { rebooted } => self.ledger_starts(rebooted),
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
            Event::CapChanges => self.cap_changes(),
            Event::EdgeHears { edge, caps } => self.hear(edge, caps),
            Event::RateChanges { edge } => {
                // In half of the worlds a day ends with leases in hand, and the next is filled at once: a click of the
                // old day that is spent in the new one is one too many then.
                let is_before_midnight = self.now < 20 * SECOND - self.before_midnight;
                let rates = match self.seed % 2 {
                    0 => [0, 1, 5, 20, 100, 400],
                    _ if is_before_midnight => [0, 0, 1, 5, 10, 20],
                    _ => [20, 100, 200, 400, 400, 1_000],
                };
                let rate = rates[below(&mut self.random, 6) as usize];
                // At the end everybody has clicks, so that what is left is asked for.
                self.edges[edge].clicks_a_second = if self.now > FAULTS_END { rate.max(20) } else { rate };
                let pause = 1 + below(&mut self.random, if is_before_midnight { 3 } else { 8 } * SECOND);
                self.after(pause, Event::RateChanges { edge });
            }
        }
    }

    fn click(&mut self, index: usize) {
        let rate = self.edges[index].clicks_a_second.max(if self.now > FAULTS_END { 20 } else { 0 });
        let pause = match rate {
            0 => 100 * MS,
            rate => 1 + below(&mut self.random, 2 * SECOND / rate),
        };
        self.after(pause, Event::Click { edge: index });
        let edge = &mut self.edges[index];
        if !edge.alive || rate == 0 {
            return;
        }
        self.told.clicks += 1;
        let now = edge.clock.read(self.now);
        let caps = Caps::spending_at(&edge.book, now);
        let click = some_click();
        let draw = Draw(edge.draws.next_u64());
        let (decision, charge) = decide_and_charge(&self.table, &caps, &click, draw);
        match decision.choice {
            // Some redirects do not fit, and the charge is given back.
            Some(_) if below(&mut self.random, 50) == 0 => charge.give_back(),
            Some(choice) => self.charged(choice.offer, click.affiliate, index),
            None => self.told.capped += u64::from(decision.outcome == Outcome::Capped),
        }
        if self.edges[index].cells.cells().iter().any(|(_, cell)| cell.missed()) {
            self.look(index);
        }
    }

    /// Counts a click that was sent to the offer, in every cap that should have known.
    fn charged(&mut self, offer: OfferId, affiliate: AffiliateId, edge: usize) {
        self.told.charges += 1;
        // The caps as the edge knows them.
        let caps = Arc::clone(&self.edges[edge].caps);
        for cap in caps.iter().filter(|cap| cap.key.offer == offer && !cap.alert_only) {
            if cap.key.affiliate.is_some_and(|of| of != affiliate) {
                continue;
            }
            let wall = self.wall_ms();
            let seen = self.windows.entry(cap.key).or_default();
            seen.charged += 1;
            assert!(
                seen.charged <= seen.amount,
                "seed {}: {} took {} of {} in the window that ends at {:?}",
                self.seed,
                cap.key,
                seen.charged,
                seen.amount,
                seen.ends_at
            );
            if cap.key.interval == CapInterval::Daily {
                // Midnight in New York, which is where all daily caps are, is at 5:00 UTC.
                let day = (wall - 5 * 3_600_000).div_euclid(86_400_000);
                *self.by_wall.entry((cap.key, day)).or_default() += 1;
            }
        }
    }

    fn tick(&mut self, index: usize, life: u64) {
        if self.edges[index].life != life || !self.edges[index].alive {
            return;
        }
        self.look(index);
        self.after(TICK, Event::Tick { edge: index, life });
    }

    /// The node's keeper of leases looks: sends what is to be sent.
    fn look(&mut self, index: usize) {
        let edge = &mut self.edges[index];
        let now = edge.clock.read(self.now);
        if edge.waits_since.is_some_and(|since| now < since + PATIENCE) {
            return;
        }
        if edge.is_ending && edge.leases.is_settled() {
            edge.alive = false;
            self.say(|| format!("edge {index} has ended well"));
            self.restart_later(index);
            return;
        }
        edge.waits_since = Some(now);
        let request = edge.leases.request(now).clone();
        let life = edge.life;
        self.send(index, |sent| Event::ToLedger { edge: index, life, sent_at: now, request: sent }, request);
    }

    fn send<M: Clone>(&mut self, edge: usize, event: impl Fn(M) -> Event, message: M) {
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
            let slow = !heals && below(&mut self.random, 20) == 0;
            let pause = 1 + below(&mut self.random, if slow { 8 * SECOND } else { 40 * MS });
            self.after(pause, event(message.clone()));
        }
    }

    fn lease(&mut self, edge: usize, life: u64, sent_at: u64, request: &LeaseRequest) {
        let time = self.ledger_time();
        let Some(ledger) = &mut self.ledger else { return };
        let Ok(reply) = ledger.lease(request, time) else { return };
        self.told.leases += 1;
        self.observe();
        self.send(edge, |sent| Event::ToEdge { edge, life, sent_at, reply: sent }, reply);
    }

    fn answered(&mut self, index: usize, life: u64, sent_at: u64, reply: &LeaseReply) {
        let edge = &mut self.edges[index];
        if !edge.alive || edge.life != life {
            return;
        }
        let now = edge.clock.read(self.now);
        edge.leases.answered(reply, sent_at, now);
        edge.waits_since = None;
    }

    /// Notes which windows the ledger has begun.
    fn observe(&mut self) {
        for state in self.state() {
            let amount = self.caps.iter().find(|cap| cap.key == state.cap).map_or(0, |cap| cap.amount);
            let seen = self.windows.entry(state.cap).or_default();
            if seen.ends_at != state.window_ends_at {
                if self.tells {
                    let at = self.now as f64 / SECOND as f64;
                    println!(
                        "{at:>9.3} s  {state:?} begins a window; in the last {} were charged",
                        seen.charged
                    );
                }
                self.told.rolls += 1;
                // What is carried into this window was granted while the last one's amount was in force.
                let amount = amount.max(if state.leased > 0 { seen.amount } else { 0 });
                *seen = Observed { ends_at: state.window_ends_at, charged: 0, amount };
            }
            seen.amount = seen.amount.max(amount);
            assert!(
                state.used + state.leased <= seen.amount,
                "seed {}: {} has granted {} + {} of {}",
                self.seed,
                state.cap,
                state.used,
                state.leased,
                seen.amount
            );
        }
    }

    fn state(&mut self) -> Vec<CapState> {
        let time = self.ledger_time();
        let Some(ledger) = &mut self.ledger else { return Vec::new() };
        let mut state = ledger.state(time).expect("the ledger is well");
        state.retain(|state| self.caps.iter().any(|cap| cap.key == state.cap && !cap.alert_only));
        state
    }

    fn edge_fails(&mut self, index: usize) {
        if !self.edges[index].alive {
            return;
        }
        if below(&mut self.random, 3) == 0 {
            self.say(|| format!("edge {index} is told to end"));
            self.edges[index].is_ending = true;
            self.edges[index].leases.end();
            return;
        }
        self.told.crashes += 1;
        self.edges[index].alive = false;
        self.say(|| format!("edge {index} dies"));
        self.restart_later(index);
    }

    fn restart_later(&mut self, index: usize) {
        let pause = 1 + below(&mut self.random, 5 * SECOND);
        self.after(pause, Event::EdgeStarts { edge: index });
    }

    fn edge_starts(&mut self, index: usize) {
        let epoch = self.random.next_u64() >> 1;
        let clock = if below(&mut self.random, 3) == 0 {
            monotonic_at(&mut self.random, self.now)
        } else {
            self.edges[index].clock
        };
        let caps = Arc::clone(&self.caps);
        let edge = &mut self.edges[index];
        edge.alive = true;
        edge.is_ending = false;
        edge.life += 1;
        edge.clock = clock;
        edge.cells = CapCells::default();
        edge.leases = Leases::new(format!("edge{index}"), epoch);
        edge.waits_since = None;
        let life = edge.life;
        self.hear(index, caps);
        self.say(|| format!("edge {index} starts"));
        self.after(0, Event::Tick { edge: index, life });
    }

    fn hear(&mut self, index: usize, caps: Arc<Vec<Cap>>) {
        let edge = &mut self.edges[index];
        edge.book = edge.cells.book(&caps);
        if !edge.is_ending {
            edge.leases.know(&edge.cells);
        }
        edge.caps = caps;
    }

    fn ledger_fails(&mut self) {
        if let Some(ledger) = self.ledger.take() {
            self.told.crashes += 1;
            self.disk = Some(ledger.into_connection());
            self.say(|| "the ledger dies".to_owned());
            let pause = 1 + below(&mut self.random, 6 * SECOND);
            let rebooted = below(&mut self.random, 2) == 0;
            self.after(pause, Event::LedgerStarts { rebooted });
        }
    }

    fn ledger_starts(&mut self, rebooted: bool) {
        if rebooted {
            self.boot = u128::from(self.random.next_u64());
            self.ledger_clock = monotonic_at(&mut self.random, self.now);
        }
        let disk = self.disk.take().expect("it was put there when the ledger died");
        self.ledger = Some(SqliteLedger::from_connection(disk).expect("what was written can be read"));
        self.say(|| format!("the ledger starts, rebooted: {rebooted}"));
        self.define();
    }

    fn define(&mut self) {
        let time = self.ledger_time();
        let caps = Arc::clone(&self.caps);
        for cap in caps.iter() {
            let most = self.most.entry(cap.key).or_default();
            *most = cap.amount.max(*most);
        }
        if let Some(ledger) = &mut self.ledger {
            ledger.define(&caps, time).expect("the ledger is well");
            self.observe();
        }
    }

    fn cap_changes(&mut self) {
        let mut caps = Vec::clone(&self.caps);
        let index = below(&mut self.random, caps.len() as u64) as usize;
        match below(&mut self.random, 4) {
            0 if caps.len() > 1 => {
                // Taken away, and set again later by another change.
                caps.remove(index);
            }
            1 => caps[index].amount += 1 + below(&mut self.random, 200),
            2 => {
                // What was granted stays granted until it is recalled; what the window may hold stays the larger amount.
                caps[index].amount /= 2;
            }
            _ => {
                let offers = self.table.offers() as u32;
                for cap in some_caps(&mut self.random, offers) {
                    if !caps.iter().any(|known| known.key == cap.key) {
                        caps.push(cap);
                        break;
                    }
                }
            }
        }
        self.say(|| format!("caps are now {}", list(&caps)));
        self.caps = Arc::new(caps);
        self.define();
        for edge in 0..self.edges.len() {
            let pause = 1 + below(&mut self.random, 2 * SECOND);
            let caps = Arc::clone(&self.caps);
            self.after(pause, Event::EdgeHears { edge, caps });
        }
    }

    /// After the last fault, with clicks everywhere: what came of the caps.
    fn judge(&mut self) {
        if !self.has_steps {
            for (&(cap, day), &count) in &self.by_wall {
                assert!(count <= self.most[&cap], "seed {}: {cap} took {count} on day {day}", self.seed);
            }
        }
        for state in self.state() {
            if state.cap.kind != CapKind::Click {
                continue;
            }
            let alive = self.edges.iter().filter(|edge| edge.alive);
            let held: u64 =
                alive.filter_map(|edge| edge.cells.cell(state.cap)).map(|cell| cell.tokens()).sum();
            let lost = state.leased - held.min(state.leased);
            if state.used >= state.amount {
                self.told.filled += 1;
            } else if state.used + lost >= state.amount {
                self.told.short += 1;
            }
        }
    }
}

fn below(random: &mut Xoshiro256PlusPlus, bound: u64) -> u64 {
    ((u128::from(random.next_u64()) * u128::from(bound)) >> 64) as u64
}

fn monotonic(random: &mut Xoshiro256PlusPlus) -> Monotonic {
    monotonic_at(random, 0)
}

fn monotonic_at(random: &mut Xoshiro256PlusPlus, now: True) -> Monotonic {
    let up_since = i128::from(below(random, 1_000 * SECOND));
    Monotonic { began: i128::from(now) - up_since, drift: below(random, 101) as i64 - 50 }
}

/// Mostly seconds, sometimes a day.
fn some_step(random: &mut Xoshiro256PlusPlus) -> i64 {
    let most: i64 = [2_000, 30_000, 3_600_000, 86_400_000][below(random, 4) as usize];
    below(random, 2 * most as u64) as i64 - most
}

fn list(caps: &[Cap]) -> String {
    let each =
        |cap: &Cap| format!("{} of {}{}", cap.amount, cap.key, if cap.alert_only { ", alerts" } else { "" });
    caps.iter().map(each).collect::<Vec<_>>().join("; ")
}

fn some_click() -> Click<'static> {
    Click {
        link: LinkId::new(1).expect("not 0"),
        affiliate: AffiliateId::new(10).expect("not 0"),
        at: UnixMillis(0),
        address: IpAddr::V4(Ipv4Addr::LOCALHOST),
        place: Place::default(),
        device: Device::UNKNOWN,
        language: None,
        referrer_host: None,
        subs: [None; 5],
    }
}

fn some_caps(random: &mut Xoshiro256PlusPlus, offers: u32) -> Vec<Cap> {
    let mut caps: Vec<Cap> = Vec::new();
    for offer in 1..=offers {
        for _ in 0..1 + below(random, 2) {
            let interval =
                [CapInterval::Daily, CapInterval::Daily, CapInterval::Lifetime, CapInterval::Monthly]
                    [below(random, 4) as usize];
            let affiliate = (below(random, 4) == 0).then(|| AffiliateId::new(10)).flatten();
            let key = CapKey {
                offer: OfferId::new(offer).expect("not 0"),
                affiliate,
                kind: CapKind::Click,
                interval,
            };
            let most = [10, 100, 300, 1_000, 3_000][below(random, 5) as usize];
            let amount = 1 + below(random, most);
            let zone = Zone::parse("America/New_York").expect("a zone");
            // The same cap always alerts or always closes: one that has counted without closing may be over its amount.
            let alert_only = interval == CapInterval::Monthly && offer % 2 == 0;
            if !caps.iter().any(|cap| cap.key == key) {
                caps.push(Cap { key, amount, zone, alert_only });
            }
        }
    }
    caps
}

/// One link of affiliate 10 with all offers, each with a cap.
fn table(offers: u32) -> Table {
    let link = LinkId::new(1).expect("not 0");
    let mut snapshot = Snapshot {
        links: vec![Link {
            id: link,
            affiliate: AffiliateId::new(10).expect("not 0"),
            active: true,
            rotation: Rotation::Weighted,
            cap_aware: true,
            fallback_url: None,
        }]
        .into(),
        ..Snapshot::default()
    };
    for id in 1..=offers {
        let offer = OfferId::new(id).expect("not 0");
        let weight = Weight::new(10).expect("in range");
        snapshot.attachments.to_mut().push(Attachment { link, offer, priority: 1 + id / 3, weight });
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
