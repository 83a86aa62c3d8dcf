//! The node's side of the caps: what it holds of each, what it tells the ledger, and what it asks for.
//!
//! A state machine without clock and without network, so that what runs here is what the simulation runs
//! (`tests/simulation`). Whoever drives it carries [`Leases::request`] to the ledger, again and again until there is an
//! answer, and hands the answer to [`Leases::answered`]. Moments are nanoseconds of the machine's uptime, as the cells'.
//!
//! What keeps a cap whole, whatever is lost, repeated or late on the way:
//!
//! - One request is under way. What it tells is settled when it is made, and it is repeated word for word, so that the
//!   ledger, which counts each sequence number once, hears everything once.
//! - Tokens that are returned are taken out of the cell before it is told.
//! - A lease is over when the node's own monotonic clock says so, counted from when the request was sent, with a margin for
//!   clocks that do not run alike. Its tokens are of one window; the next window's are never put beside them.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry::{Occupied, Vacant};
use std::ops::Bound::{Included, Unbounded};
use std::sync::Arc;
use std::time::Duration;

use crate::ledger::{Grant, LeaseItem, LeaseReply, LeaseRequest, Standing};
use crate::state::{CapCell, CapCells, CapRole};
use crate::types::{CapKey, CapKind};

/// All that a node holds of caps.
#[derive(Debug)]
pub struct Leases {
    node: String,
    epoch: u64,
    sequence: u64,
    /// The ledger that has answered; what is held was granted by it.
    ledger: Option<u64>,
    /// Up to where the ledger has told.
    news: u64,
    held: BTreeMap<CapKey, Held>,
    /// Where the next request goes on: one has no room for all of very many.
    next: Option<CapKey>,
    under_way: Option<LeaseRequest>,
    /// There is a cap of which nothing was heard, or of which it is no longer known how it stands.
    must_hear_all: bool,
    is_ending: bool,
}

impl Leases {
    /// `node`: a name for people, 1 to 64 characters. `epoch`: random, another at every start.
    pub fn new(node: String, epoch: u64) -> Self {
        Self {
            node,
            epoch,
            sequence: 0,
            ledger: None,
            news: 0,
            held: BTreeMap::new(),
            next: None,
            under_way: None,
            must_hear_all: false,
            is_ending: false,
        }
    }

    /// Looks which caps there are now. What is held of others is returned.
    pub fn know(&mut self, cells: &CapCells) {
        for (key, cell) in cells.cells() {
            let is_new = match self.held.entry(key) {
                Vacant(unknown) => {
                    unknown.insert(Held::new(cell));
                    true
                }
                Occupied(mut known) => known.get_mut().is_set_again(),
            };
            // How it stands may have been told before it was known here.
            self.must_hear_all |= is_new;
        }
    }

    /// What is to be carried to the ledger: the request that is under way, word for word, or the next one.
    pub fn request(&mut self, now: u64) -> &LeaseRequest {
        let next = || {
            let mut items = Vec::new();
            let from = self.next.take();
            for (&cap, held) in self.held.range_mut((from.map_or(Unbounded, Included), Unbounded)) {
                if items.len() >= ITEMS_MAX {
                    self.next = Some(cap);
                    break;
                }
                held.is_ending = self.is_ending;
                self.must_hear_all |= held.should_have_opened(now);
                held.tell(cap, now, &mut items);
            }
            self.sequence += 1;
            let (node, epoch, sequence) = (self.node.clone(), self.epoch, self.sequence);
            let news_since = if std::mem::take(&mut self.must_hear_all) { 0 } else { self.news };
            LeaseRequest { node, epoch, sequence, news_since, ledger: self.ledger, items }
        };
        self.under_way.get_or_insert_with(next)
    }

    /// From now on, everything that is held is returned: the node ends.
    pub fn end(&mut self) {
        self.is_ending = true;
    }

    /// Whether the ledger knows all that there is to tell.
    pub fn is_settled(&self) -> bool {
        self.under_way.is_none() && !self.held.values().any(Held::has_something_to_tell)
    }

    /// Takes the answer to a request that was sent at `sent_at`. An answer to any other request than the one that is under
    /// way says nothing new.
    ///
    /// Whether it comes from another ledger than the answers before: its file was moved away, or another machine took over
    /// with one of its own. Then nothing is held any more, and nothing is owed: what the old ledger granted would be spent
    /// beside what the new one grants. The next request begins anew.
    pub fn answered(&mut self, reply: &LeaseReply, sent_at: u64, now: u64) -> bool {
        let Some(request) = self.under_way.take_if(|request| request.sequence == reply.sequence) else {
            return false;
        };
        if self.ledger.replace(reply.ledger).is_some_and(|before| before != reply.ledger) {
            self.begin_anew();
            return true;
        }
        self.news = reply.news;
        for item in request.items.iter().filter(|item| item.wants > 0) {
            // Until the ledger says otherwise, be it that it does not know the cap.
            if let Some(held) = self.held.get_mut(&item.cap) {
                held.ask_again_at = now.saturating_add(ASK_AGAIN);
            }
        }
        for grant in &reply.grants {
            if let Some(held) = self.held.get_mut(&grant.cap) {
                held.granted(grant, sent_at);
            }
        }
        for item in request.items.iter().filter(|item| item.counted > 0) {
            if let Some(held) = self.held.get_mut(&item.cap) {
                held.is_told_in_vain();
            }
        }
        if request.news_since == 0 {
            // Told from the beginning, what is not named stands open.
            for (&cap, held) in &mut self.held {
                held.stands(&open(cap), now);
            }
        }
        for standing in &reply.standings {
            if let Some(held) = self.held.get_mut(&standing.cap) {
                held.stands(standing, now);
            }
        }
        false
    }

    /// Forgets what a ledger granted and told that is no more. Requests are numbered on, so that a late answer of its own is
    /// not taken for one to what comes now.
    fn begin_anew(&mut self) {
        self.news = 0;
        for held in self.held.values_mut() {
            held.begin_anew();
        }
    }
}

/// What is held of one cap.
#[derive(Debug)]
struct Held {
    cell: Arc<CapCell>,
    /// Of which the tokens in the cell are.
    window: Option<i64>,
    /// When they are worthless; `None`: never.
    deadline: Option<u64>,
    /// When the ledger last told how long the window lasts.
    told_at: u64,
    /// When the ledger was last told what is held.
    told_holds_at: u64,
    /// Tokens that the ledger thinks are here.
    tokens: u64,
    /// How many there were after the last grant.
    after_grant: u64,
    /// What is to be told of windows that are over.
    owed: Vec<LeaseItem>,
    /// How many of the clicks that the cell counted because the cap only alerted a ledger has taken, and how many the request
    /// tells that is under way.
    counted: u64,
    telling: u64,
    /// The node ends.
    is_ending: bool,
    /// The cap was removed, and how it stood was forgotten.
    was_gone: bool,
    /// How the cap stands, as the ledger last told.
    closed_until: Option<u64>,
    wanted: bool,
    recalled: bool,
    /// Nothing was to be had a moment ago.
    ask_again_at: u64,
    demand: Demand,
}

impl Held {
    fn new(cell: Arc<CapCell>) -> Self {
        Self {
            cell,
            window: None,
            deadline: None,
            told_at: 0,
            told_holds_at: 0,
            tokens: 0,
            after_grant: 0,
            owed: Vec::new(),
            counted: 0,
            telling: 0,
            is_ending: false,
            was_gone: false,
            closed_until: None,
            wanted: false,
            recalled: false,
            ask_again_at: 0,
            demand: Demand::default(),
        }
    }

    fn is_set_again(&mut self) -> bool {
        let is_set_again = self.was_gone && self.cell.role() != CapRole::Gone;
        self.was_gone &= !is_set_again;
        is_set_again
    }

    /// Whether the window is over in which conversions had closed the cap, by what the ledger told then. It may last longer
    /// by now: the cap's zone was changed, or the ledger's clock was set back.
    fn should_have_opened(&mut self, now: u64) -> bool {
        let closes = self.cell.role() == CapRole::Conversions;
        closes && self.closed_until.take_if(|until| *until <= now).is_some()
    }

    fn has_something_to_tell(&self) -> bool {
        self.tokens > 0 || !self.owed.is_empty() || self.cell.counted() > self.counted
    }

    /// Drops what is held, owed and told. How fast clicks come is still so; and what was counted and told to nobody yet is
    /// told to whoever counts now.
    fn begin_anew(&mut self) {
        // A new round: what a click gives back that has a token of the last one is lost with it. A cap on conversions that
        // is closed stays so until the next answer says how it stands.
        self.cell.begin_round(0);
        let (counted, is_ending, demand) = (self.counted, self.is_ending, self.demand);
        *self = Self { counted, is_ending, demand, ..Self::new(Arc::clone(&self.cell)) };
    }

    /// Adds what is to be told and asked now.
    fn tell(&mut self, cap: CapKey, now: u64, items: &mut Vec<LeaseItem>) {
        if self.cell.role() == CapRole::Gone {
            // If it is ever set again, it is another.
            self.stands(&open(cap), now);
            self.was_gone = true;
        }
        if cap.kind == CapKind::Conversion {
            return;
        }
        if self.deadline.is_some_and(|deadline| now > deadline) {
            self.close_window(cap);
        }
        items.append(&mut self.owed);
        let is_in_vain = now < self.ask_again_at;
        let before = self.cell.tokens();
        self.demand.measure(self.tokens.saturating_sub(before), self.cell.take_missed(), now);
        let stock = if is_in_vain { self.stock(now).min(before) } else { self.stock(now) };
        if stock > 0 && !is_in_vain {
            // Only now does the cell call again: where nothing is to be had, clicks would call without end. A call that
            // came since the tokens were counted is kept by whoever waits for it.
            self.cell.heard();
        }
        // What is drained can no longer be spent, so the rest of what is not in the cell was.
        let drained = if self.wanted || self.must_return_all() { self.cell.drain_to(stock) } else { 0 };
        let left = self.cell.tokens();
        // A charge that was given back after it was told is here, though the ledger counts it as spent: it may be spent
        // once more, but not be returned.
        let returned = drained.min(self.tokens);
        let spent = self.tokens.saturating_sub(returned + left);
        self.tokens -= spent + returned;
        // A quarter of what there was after the last grant: where the ledger gives less than is wanted, asking again at
        // once would get a little of what is left each time.
        let low = stock.min(self.after_grant) / 4;
        let wants = if left <= low { stock.saturating_sub(left) } else { 0 };
        self.cell.call_below(low as u32);
        // A click that was counted, told and then sent elsewhere makes it one less for a moment. They are told in whatever role:
        // they may have come before the cap was made to close, or removed.
        let counted = self.cell.counted().saturating_sub(self.counted);
        self.telling = counted;
        let has_to_tell = spent + returned + wants + counted > 0;
        if has_to_tell || self.must_ask_for_the_end(now) || self.must_tell_that_it_holds(now) {
            self.told_holds_at = now;
            let (window, holds) = (self.window, self.tokens);
            items.push(LeaseItem { cap, window, spent, returned, wants, holds, counted });
        }
    }

    /// How many tokens would be right to hold.
    fn stock(&self, now: u64) -> u64 {
        let is_closed = self.closed_until.is_some_and(|until| now < until);
        if is_closed || self.must_return_all() {
            return 0;
        }
        let of_rate = |ahead: Duration| (self.demand.rate * ahead.as_secs_f64()).min(STOCK_MAX as f64) as u64;
        match self.wanted {
            false => of_rate(STOCK_AHEAD).max(STOCK_MIN),
            // Where there is not enough for all, nobody holds what they do not use.
            true if self.demand.is_idle(now) => 0,
            true => of_rate(SCARCE_AHEAD).max(1),
        }
    }

    fn must_return_all(&self) -> bool {
        self.is_ending || self.recalled || self.cell.role() != CapRole::Lease
    }

    /// Whether to ask again how long the window lasts: the margin shrinks with what is left, so that at the end of a day
    /// it is not the seconds that clocks may differ by over a whole one.
    fn must_ask_for_the_end(&self, now: u64) -> bool {
        let Some(deadline) = self.deadline else { return false };
        self.tokens > 0 && now.saturating_sub(self.told_at) > deadline.saturating_sub(now).max(ASK_AGAIN)
    }

    /// Whether the ledger has not heard for long what is held here: one that has lost what it wrote, as a replica that has
    /// become the primary may have, learns it from the nodes.
    fn must_tell_that_it_holds(&self, now: u64) -> bool {
        self.tokens > 0 && now.saturating_sub(self.told_holds_at) >= TELL_AGAIN
    }

    /// Takes the tokens of a window that is over out of the cell.
    fn close_window(&mut self, cap: CapKey) {
        let returned = self.cell.drain().min(self.tokens);
        let spent = self.tokens - returned;
        if self.tokens > 0 {
            self.owed.push(LeaseItem {
                cap,
                window: self.window,
                spent,
                returned,
                wants: 0,
                holds: 0,
                counted: 0,
            });
        }
        self.tokens = 0;
        self.window = None;
        self.deadline = None;
    }

    /// The ledger has answered. If it did not name the cap, it knows of none and has taken nothing: a node may hear of a cap
    /// before its ledger does. What was counted is told again, unless nobody will hear of the cap any more.
    fn is_told_in_vain(&mut self) {
        if self.is_ending || self.cell.role() == CapRole::Gone {
            self.counted += self.telling;
        }
        self.telling = 0;
    }

    fn granted(&mut self, grant: &Grant, sent_at: u64) {
        self.counted += std::mem::take(&mut self.telling);
        // The ledger wrote this after the request was sent.
        let deadline = grant.ends_in_ms.map(|ends_in| sent_at.saturating_add(life_of(ends_in)));
        let in_cell = deadline.unwrap_or(u64::MAX);
        if self.window == Some(grant.window) {
            self.cell.extend(in_cell);
        } else {
            self.close_window(grant.cap);
            self.cell.begin_round(in_cell);
            self.window = Some(grant.window);
            // It is told only to end a window that was full.
            self.closed_until = None;
            self.cell.close_until(0);
        }
        self.deadline = deadline;
        self.told_at = sent_at;
        if grant.granted > 0 {
            self.cell.add(grant.granted);
            self.tokens += grant.granted;
            self.after_grant = self.cell.tokens();
            self.ask_again_at = 0;
        }
    }

    fn stands(&mut self, standing: &Standing, now: u64) {
        let until = standing.ends_in_ms.map_or(u64::MAX, |ends_in| now.saturating_add(nanos(ends_in)));
        self.closed_until = standing.closed.then_some(until);
        self.wanted = standing.wanted;
        self.recalled = standing.recalled;
        self.cell.close_until(self.closed_until.unwrap_or(0));
    }
}

fn open(cap: CapKey) -> Standing {
    Standing { cap, closed: false, wanted: false, recalled: false, ends_in_ms: None }
}

/// How fast clicks come.
#[derive(Clone, Copy, Debug, Default)]
struct Demand {
    /// Clicks a second.
    rate: f64,
    measured_at: u64,
    /// When a click was last sent to the offer, or refused for want of a token.
    busy_at: Option<u64>,
}

impl Demand {
    fn measure(&mut self, spent: u64, missed: bool, now: u64) {
        if spent > 0 || missed {
            self.busy_at = Some(now);
        }
        let elapsed = Duration::from_nanos(now.saturating_sub(self.measured_at)).as_secs_f64().max(0.001);
        let rate = spent as f64 / elapsed;
        self.measured_at = now;
        // Up at once, down slowly: to hold too little sends clicks away.
        self.rate += (rate - self.rate) * if rate > self.rate { 1.0 } else { (elapsed / 2.0).min(1.0) };
        if missed && spent > 0 {
            // There was not enough, and nobody knows how many more would have come.
            self.rate = (self.rate * 2.0).min(STOCK_MAX as f64);
        }
    }

    fn is_idle(&self, now: u64) -> bool {
        self.busy_at.is_none_or(|busy_at| now.saturating_sub(busy_at) > IDLE_AFTER)
    }
}

/// For how many nanoseconds a lease is good that the ledger says to last `ends_in` milliseconds.
fn life_of(ends_in: u64) -> u64 {
    let life = nanos(ends_in);
    life.saturating_sub(MARGIN + life / DRIFT)
}

fn nanos(millis: u64) -> u64 {
    millis.saturating_mul(1_000_000)
}

/// How many caps one request speaks of, a few more or less: the ledger takes more, and takes its time for them.
const ITEMS_MAX: usize = 2_000;

/// What a node holds of a cap of which nobody is short.
const STOCK_MIN: u64 = 100;

/// A token count is half a word.
const STOCK_MAX: u64 = 1 << 30;

/// How long a stock lasts while nobody is short …
const STOCK_AHEAD: Duration = Duration::from_secs(2);

/// … and when somebody is.
const SCARCE_AHEAD: Duration = Duration::from_millis(250);

/// In nanoseconds, as the rest.
const IDLE_AFTER: u64 = 500_000_000;

/// What is not to be had is asked for no more often, nor is the end of a window.
const ASK_AGAIN: u64 = 200_000_000;

/// What is held is told at least so often.
const TELL_AGAIN: u64 = 5_000_000_000;

/// The least by which a lease ends early …
const MARGIN: u64 = 10_000_000;

/// … and by what part of its life beside that: the clocks of two machines differ by less than 200 parts a million.
const DRIFT: u64 = 5_000;
