//! A node: its clicks, its leases, and the conversions that it is told of.

use std::future::Future;
use std::net::{IpAddr, Ipv4Addr};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Waker};

use rand::{Rng, SeedableRng};
use smartlink::edge::decide_and_charge;
use smartlink::ledger::{Conversion, LeaseReply};
use smartlink::routing::{Cap, Outcome};
use smartlink::state::{CapBook, CapCells, Caps};
use smartlink::sync::Leases;
use smartlink::types::{
    AffiliateId, CapKey, CapKind, Click, Device, Draw, LinkId, OfferId, Place, UnixMillis,
};

use crate::events::Event;
use crate::ledger::Sale;
use crate::random::{MS, Monotonic, Random, SECOND, True, below, one_in};
use crate::world::{ALL_IS_SPENT, ALL_IS_WELL, LINKS, World, affiliate};

pub struct Edge {
    pub alive: bool,
    /// Counts starts, so that what was meant for an earlier life does not reach a later one.
    pub life: u64,
    pub started_at: True,
    pub clock: Monotonic,
    /// The caps as it knows them, and since when.
    pub caps: Arc<Vec<Cap>>,
    pub version: u64,
    pub heard_at: True,
    pub cells: CapCells,
    pub book: CapBook,
    pub leases: Leases,
    /// Whose answers it has taken, and the last request that it made.
    pub ledger: Option<u64>,
    pub asked: u64,
    /// When the request that is under way was last sent.
    waits_since: Option<u64>,
    /// The keeper is still busy with an answer.
    busy_until: True,
    pub cut_off_until: True,
    pub clicks_a_second: u64,
    draws: Random,
    /// It ends as it should: returns what it holds, and then no longer asks.
    pub is_ending: bool,
    /// When the last of its connections is closed.
    drained_at: True,
    /// Conversions that were handed in and not yet carried.
    desk: Vec<Conversion>,
}

impl Edge {
    pub fn new(random: &mut Random, index: usize, caps: &Arc<Vec<Cap>>) -> Self {
        let mut draws = Random::seed_from_u64(below(random, u64::MAX));
        Self {
            alive: false,
            life: 0,
            started_at: 0,
            clock: Monotonic::some(random, 0),
            caps: Arc::clone(caps),
            version: 0,
            heard_at: 0,
            cells: CapCells::default(),
            book: CapBook::default(),
            leases: Leases::new(format!("edge{index}"), draws.next_u64()),
            ledger: None,
            asked: 0,
            waits_since: None,
            busy_until: 0,
            cut_off_until: 0,
            clicks_a_second: 0,
            draws,
            is_ending: false,
            drained_at: 0,
            desk: Vec::new(),
        }
    }

    /// Whether some cell has called the keeper since this was last asked.
    fn is_called(&self) -> bool {
        pin!(self.cells.called()).poll(&mut Context::from_waker(Waker::noop())).is_ready()
    }
}

/// How often a node looks at what it holds, as in `sync/cap_keeper.rs`.
const TICK: u64 = 250 * MS;

/// How long it waits for an answer.
const PATIENCE: u64 = 1_000 * MS;

/// How long it leaves the ledger alone after one.
const BETWEEN: u64 = 2 * MS;

/// Connections may be open for a while after the node was told to end.
pub const DRAIN: u64 = 200 * MS;

impl World {
    pub fn click(&mut self, index: usize) {
        // At the end everybody has clicks, so that what is left is asked for.
        let least = if self.now > ALL_IS_WELL { 300 } else { 0 };
        let rate = self.edges[index].clicks_a_second.max(least);
        let pause = match rate {
            0 => 100 * MS,
            rate => 1 + below(&mut self.random, 2 * SECOND / rate),
        };
        self.after(pause, Event::Click { edge: index });
        let edge = &mut self.edges[index];
        if !edge.alive || rate == 0 || edge.is_ending && self.now > edge.drained_at {
            return;
        }
        self.told.clicks += 1;
        let now = edge.clock.read(self.now);
        let caps = Caps::spending_at(&edge.book, now);
        let draw = Draw(edge.draws.next_u64());
        let click = some_click(1 + (edge.draws.next_u64() >> 32) as u32 % LINKS);
        let (decision, charge) = decide_and_charge(&self.table, &caps, &click, draw);
        match decision.choice {
            // Some redirects do not fit, and the charge is given back.
            Some(_) if one_in(&mut self.random, 50) => charge.give_back(),
            Some(choice) => self.charged(choice.offer, click.affiliate, index),
            None => self.told.capped += u64::from(decision.outcome == Outcome::Capped),
        }
        let life = self.edges[index].life;
        self.wait(index, life);
    }

    pub fn tick(&mut self, index: usize, life: u64) {
        if self.edges[index].life != life || !self.edges[index].alive {
            return;
        }
        self.ask(index);
        self.after(TICK, Event::Tick { edge: index, life });
    }

    /// The keeper waits, and goes on if it is called, or if the node ends.
    pub fn wait(&mut self, index: usize, life: u64) {
        let edge = &self.edges[index];
        if !edge.alive || edge.life != life || edge.waits_since.is_some() || self.now < edge.busy_until {
            return;
        }
        if edge.is_ending || edge.is_called() {
            self.ask(index);
        }
    }

    /// The node's keeper of leases sends what is to be sent.
    fn ask(&mut self, index: usize) {
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
        edge.asked = request.sequence;
        let life = edge.life;
        self.send(index, |sent| Event::ToLedger { edge: index, life, sent_at: now, request: sent }, request);
    }

    pub fn answered(&mut self, index: usize, life: u64, sent_at: u64, reply: &LeaseReply) {
        let edge = &mut self.edges[index];
        if !edge.alive || edge.life != life {
            return;
        }
        let now = edge.clock.read(self.now);
        let is_another = edge.leases.answered(reply, sent_at, now);
        edge.waits_since = None;
        edge.busy_until = self.now + BETWEEN;
        if is_another || edge.ledger.is_none() {
            edge.ledger = Some(reply.ledger);
        }
        if is_another {
            self.heard_of_another(index, life);
        }
        self.after(BETWEEN, Event::Waits { edge: index, life });
    }

    /// A visitor who was sent to an offer that has caps on conversions may buy there.
    pub fn may_convert(&mut self, offer: OfferId, affiliate: AffiliateId) {
        let counts = |key: &CapKey| key.kind == CapKind::Conversion && key.offer == offer;
        if self.is_over || !self.seen.keys().any(counts) || !one_in(&mut self.random, 4) {
            return;
        }
        let conversion = self.sales.len() as u64;
        let clicked_at = self.wall_ms();
        self.sales.push(Sale {
            offer,
            affiliate,
            clicked_at,
            counted_by: None,
            is_answered: false,
            times_told: 0,
        });
        let pause = below(&mut self.random, 3 * SECOND);
        self.after(pause, Event::Converts { conversion });
    }

    pub fn converts(&mut self, conversion: u64) {
        let sale = &mut self.sales[conversion as usize];
        // It is told again until there is an answer; and sometimes though there was one.
        if sale.times_told > 0 && sale.is_answered && !one_in(&mut self.random, 4) || self.now > ALL_IS_SPENT
        {
            return;
        }
        sale.times_told += 1;
        self.told.again += u64::from(sale.times_told > 1);
        let told = sale.conversion(conversion);
        let index = self.some_edge();
        let edge = &mut self.edges[index];
        if edge.alive {
            let life = edge.life;
            edge.desk.push(told);
            if edge.desk.len() == 1 {
                let pause = 5 * MS + below(&mut self.random, 95 * MS);
                self.after(pause, Event::Carry { edge: index, life });
            }
        }
        let pause = SECOND + below(&mut self.random, 4 * SECOND);
        self.after(pause, Event::Converts { conversion });
    }

    pub fn carry(&mut self, index: usize, life: u64) {
        let edge = &mut self.edges[index];
        if edge.alive && edge.life == life {
            let conversions = std::mem::take(&mut edge.desk);
            self.send(index, |sent| Event::ToRecord { edge: index, life, conversions: sent }, conversions);
        }
    }

    pub fn recorded(&mut self, index: usize, life: u64, conversions: &[Conversion]) {
        let edge = &self.edges[index];
        if !edge.alive || edge.life != life {
            return;
        }
        for conversion in conversions {
            let sale = &mut self.sales[Sale::index_of(conversion)];
            sale.is_answered = true;
            assert!(
                sale.counted_by.is_some(),
                "seed {}: {conversion:?} was answered and not written down",
                self.seed
            );
        }
    }

    pub fn edge_fails(&mut self, index: usize) {
        if !self.edges[index].alive {
            return;
        }
        if one_in(&mut self.random, 3) {
            self.say(|| format!("edge {index} is told to end"));
            self.edge_ends(index);
            return;
        }
        self.told.crashes += 1;
        self.edges[index].alive = false;
        self.may_be_lost(index);
        self.say(|| format!("edge {index} dies"));
        self.restart_later(index);
    }

    pub fn edge_ends(&mut self, index: usize) {
        let edge = &mut self.edges[index];
        edge.is_ending = true;
        edge.drained_at = self.now + DRAIN;
        edge.leases.end();
        let caps: Vec<CapKey> = edge.caps.iter().map(|cap| cap.key).collect();
        caps.into_iter().for_each(|cap| self.may_drop(index, cap));
    }

    pub fn restart_later(&mut self, index: usize) {
        if !self.is_over {
            let pause = 1 + below(&mut self.random, 4 * SECOND);
            self.after(pause, Event::EdgeStarts { edge: index });
        }
    }

    pub fn edge_starts(&mut self, index: usize) {
        let epoch = self.random.next_u64() >> 1;
        let rebooted = one_in(&mut self.random, 3);
        let clock =
            if rebooted { Monotonic::some(&mut self.random, self.now) } else { self.edges[index].clock };
        let (caps, version) = (Arc::clone(&self.caps), self.version);
        let edge = &mut self.edges[index];
        edge.alive = true;
        edge.is_ending = false;
        edge.life += 1;
        edge.started_at = self.now;
        edge.clock = clock;
        edge.cells = CapCells::default();
        edge.leases = Leases::new(format!("edge{index}"), epoch);
        edge.ledger = None;
        edge.asked = 0;
        self.alerted_by.retain(|(of, _), _| *of != index);
        edge.waits_since = None;
        edge.desk.clear();
        let life = edge.life;
        self.hear(index, version, caps);
        self.say(|| format!("edge {index} starts"));
        self.after(0, Event::Tick { edge: index, life });
    }

    pub fn hear(&mut self, index: usize, version: u64, caps: Arc<Vec<Cap>>) {
        let edge = &mut self.edges[index];
        if version < edge.version {
            return;
        }
        edge.version = version;
        edge.heard_at = self.now;
        edge.book = edge.cells.book(&caps);
        edge.leases.know(&edge.cells);
        let before = std::mem::replace(&mut edge.caps, caps);
        let now = Arc::clone(&edge.caps);
        for cap in before.iter().filter(|cap| !now.iter().any(|other| other.key == cap.key)) {
            self.may_drop(index, cap.key);
        }
    }
}

fn some_click(link: u32) -> Click<'static> {
    Click {
        link: LinkId::new(link).expect("not 0"),
        affiliate: affiliate(link),
        at: UnixMillis(0),
        address: IpAddr::V4(Ipv4Addr::LOCALHOST),
        place: Place::default(),
        device: Device::UNKNOWN,
        language: None,
        referrer_host: None,
        subs: [None; 5],
    }
}
