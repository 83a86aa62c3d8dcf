//! What a node holds of one cap: clicks that it may spend, for a cap on clicks; until when it is closed, for a cap on
//! conversions; a count, for a cap that only alerts.
//!
//! Many threads take, one writes: the lease keeper. Tokens belong to a round, which is one window of the ledger or a part of
//! one. The round and what is left of it are one word, so that a token is taken of the round in which it was seen, or not
//! at all:
//!
//! ```text
//! taker     load the word → tokens left? → not past the deadline? → exchange it for one with a token less
//! writer    a new round: word = (round + 1, 0) → its deadline → add tokens to the word
//! ```
//!
//! A taker that saw the old word exchanges in vain once the round has begun; one that sees tokens of the new round sees its
//! deadline, too. A token that was granted is taken once, returned once, or lost; never two of these.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};

use tokio::sync::Notify;

/// What a node holds of one cap. Stable for the life of the process, whatever becomes of the cap. What is asked of it
/// comes with the cap's definition ([`CapRole`]); each role has parts of its own.
#[derive(Debug)]
pub struct CapCell {
    /// By the newest definition, for the keeper; clicks go by the book that they loaded.
    role: AtomicU8,
    /// The round in the upper half, its tokens in the lower.
    word: AtomicU64,
    /// The [`uptime`](super::uptime) after which the tokens are worthless.
    deadline: AtomicU64,
    /// 0: open. [`FOREVER`]: closed for good. Else the uptime until which it is closed. A cap on clicks closes for want of
    /// tokens, and this only explains it.
    closed_until: AtomicU64,
    /// The ledger has told how the cap stands.
    is_told: AtomicBool,
    /// Clicks that a cap which only alerts has let through.
    counted: AtomicU64,
    /// A click was refused, because there was no token for it.
    missed: AtomicBool,
    /// With fewer tokens the keeper is called.
    low_water: AtomicU32,
    /// The keeper was called and has not looked since.
    called: AtomicBool,
    keeper: Arc<Notify>,
}

/// What a cap asks of its cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum CapRole {
    /// There is no such cap any more. What the cell holds should be returned.
    Gone,
    /// Clicks are spent from leases.
    Lease,
    /// Closed while the ledger says so.
    Conversions,
    /// Never closed: clicks are counted, of conversions the ledger knows all.
    Alert,
    /// The amount is 0: always closed.
    Zero,
}

/// Which round a token is of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Round(pub u32);

/// Never over: a deadline that does not come, or a cap that does not open.
pub const FOREVER: u64 = u64::MAX;

// For clicks.
impl CapCell {
    /// A cell without tokens: closed, until somebody adds some.
    pub(super) fn new(role: CapRole, keeper: Arc<Notify>) -> Self {
        Self {
            role: AtomicU8::new(role as u8),
            word: AtomicU64::new(0),
            deadline: AtomicU64::new(0),
            closed_until: AtomicU64::new(0),
            is_told: AtomicBool::new(false),
            counted: AtomicU64::new(0),
            missed: AtomicBool::new(false),
            low_water: AtomicU32::new(0),
            called: AtomicBool::new(false),
            keeper,
        }
    }

    /// Whether a token could be taken at this uptime.
    #[inline]
    pub fn has_token(&self, now: u64) -> bool {
        // Acquire, twice, as in `take`.
        tokens_of(self.word.load(Ordering::Acquire)) > 0 && now <= self.deadline.load(Ordering::Acquire)
    }

    /// Takes a token, and says of which round it is.
    #[inline]
    pub fn take(&self, now: u64) -> Option<Round> {
        // Acquire: whoever sees tokens of a round sees the deadline that was stored before they were added.
        let mut word = self.word.load(Ordering::Acquire);
        // Acquire: whoever sees the deadline of a later round comes after the word with which that round began, so that the
        // exchange below fails for the word of an earlier one.
        while tokens_of(word) > 0 && now <= self.deadline.load(Ordering::Acquire) {
            // AcqRel. Acquire, for the next turn, is as above. Release: what was added stays published through the
            // words that takers write.
            match self.word.compare_exchange_weak(word, word - 1, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => {
                    // Relaxed: a mark that moves is seen by the next click.
                    if tokens_of(word) <= self.low_water.load(Ordering::Relaxed) {
                        self.call();
                    }
                    return Some(round_of(word));
                }
                Err(other) => word = other,
            }
        }
        self.miss();
        None
    }

    /// Puts back a token that was not spent after all. If its round is over, it is lost with it.
    pub fn give_back(&self, round: Round) {
        let one_more = |word| (round_of(word) == round).then_some(word + 1);
        // Release: whoever takes it sees the deadline that its first taker saw. Acquire: so that this one has seen it.
        let _ = self.word.fetch_update(Ordering::AcqRel, Ordering::Acquire, one_more);
    }

    /// Notes that a click was refused for want of a token.
    #[inline]
    pub fn miss(&self) {
        // Relaxed: the keeper is woken after it, and looks again in any case. Read first, so that clicks which are refused
        // one after another write nothing.
        if !self.missed.load(Ordering::Relaxed) {
            self.missed.store(true, Ordering::Relaxed);
        }
        self.call();
    }

    /// Whether the amount is reached, as the ledger last told.
    #[inline]
    pub fn is_closed(&self, now: u64) -> bool {
        // Relaxed: the number says everything, and nothing is published with it.
        now < self.closed_until.load(Ordering::Relaxed)
    }

    /// Whether the ledger has told how the cap stands, since the process began.
    pub fn is_told(&self) -> bool {
        // Relaxed: it explains, and nothing goes by it.
        self.is_told.load(Ordering::Relaxed)
    }

    pub(super) fn count(&self) {
        // Relaxed: a sum, on which nothing else depends.
        self.counted.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_not(&self) {
        // Wrapping, as is the sum.
        self.counted.fetch_sub(1, Ordering::Relaxed);
    }

    /// Wakes the keeper, unless it was woken and has not looked yet.
    fn call(&self) {
        // Relaxed: should the keeper clear the mark at this very moment and look before what is told, the next click with
        // the same to tell calls it. Read first, so that most clicks write nothing.
        if !self.called.load(Ordering::Relaxed) && !self.called.swap(true, Ordering::Relaxed) {
            self.keeper.notify_one();
        }
    }
}

// For the one writer.
impl CapCell {
    /// Begins a round without tokens, and answers how many of the last one nobody took. They are worthless now; no taker
    /// has one, nor can take one.
    pub fn begin_round(&self, deadline: u64) -> u64 {
        // Only this thread changes the round, so that what is read here is the round at the swap.
        let round = self.round().0.wrapping_add(1);
        // AcqRel. Release: takers of the new round come after all that was done in the old. Acquire: the takes whose rest is
        // answered here are over.
        let old = self.word.swap(u64::from(round) << 32, Ordering::AcqRel);
        self.extend(deadline);
        u64::from(tokens_of(old))
    }

    /// Moves the deadline of the round.
    pub fn extend(&self, deadline: u64) {
        // Release: see the second Acquire of `take`.
        self.deadline.store(deadline, Ordering::Release);
    }

    /// Adds tokens to the round, and answers how many: more than [`TOKENS_MAX`] have no room, and the rest must be returned.
    pub fn add(&self, tokens: u64) -> u64 {
        // Takers take, and give back what they took: the room that is seen here does not become less than nothing, as the
        // lower half is twice as large.
        let room = TOKENS_MAX.saturating_sub(self.tokens());
        let added = tokens.min(room);
        // Release: whoever sees the tokens sees their deadline.
        self.word.fetch_add(added, Ordering::Release);
        added
    }

    /// Takes all tokens out, so that they can be returned.
    pub fn drain(&self) -> u64 {
        // AcqRel, as any other taker; the round stays.
        let drained = self.word.fetch_and(!u64::from(u32::MAX), Ordering::AcqRel);
        u64::from(tokens_of(drained))
    }

    /// Takes tokens out until so many are left, and answers how many.
    pub fn drain_to(&self, keep: u64) -> u64 {
        let kept = |word| tokens_of(word).min(u32::try_from(keep).unwrap_or(u32::MAX));
        let less = |word| Some(word & !u64::from(u32::MAX) | u64::from(kept(word)));
        // As `drain`.
        let old = self.word.fetch_update(Ordering::AcqRel, Ordering::Acquire, less);
        // Never refused: there is a word for every word.
        old.map_or(0, |old| u64::from(tokens_of(old) - kept(old)))
    }

    /// How many tokens are left.
    pub fn tokens(&self) -> u64 {
        // Acquire: what is answered to the ledger comes after the takes that it counts.
        u64::from(tokens_of(self.word.load(Ordering::Acquire)))
    }

    pub fn round(&self) -> Round {
        // Relaxed: only the writer, who asks, changes it.
        round_of(self.word.load(Ordering::Relaxed))
    }

    pub fn deadline(&self) -> u64 {
        // Relaxed, as the round.
        self.deadline.load(Ordering::Relaxed)
    }

    /// Notes that the ledger tells that the cap is full until an uptime, or [`FOREVER`]; 0: that it is not. A cap on
    /// conversions is closed and opened by it.
    pub fn close_until(&self, uptime: u64) {
        // Relaxed: see `is_closed` and `is_told`.
        self.closed_until.store(uptime, Ordering::Relaxed);
        self.is_told.store(true, Ordering::Relaxed);
    }

    pub fn role(&self) -> CapRole {
        // Relaxed: a mark for the keeper, which looks again.
        match self.role.load(Ordering::Relaxed) {
            role if role == CapRole::Lease as u8 => CapRole::Lease,
            role if role == CapRole::Conversions as u8 => CapRole::Conversions,
            role if role == CapRole::Alert as u8 => CapRole::Alert,
            role if role == CapRole::Zero as u8 => CapRole::Zero,
            _ => CapRole::Gone,
        }
    }

    pub(super) fn assume(&self, role: CapRole) {
        self.role.store(role as u8, Ordering::Relaxed);
    }

    /// The clicks that a cap which only alerts has let through, since the process began. Now and then one less than
    /// before: a click that was counted and then sent elsewhere.
    pub fn counted(&self) -> u64 {
        self.counted.load(Ordering::Relaxed)
    }

    /// Whether a click was refused for want of a token.
    pub fn missed(&self) -> bool {
        self.missed.load(Ordering::Relaxed)
    }

    /// The same since it was last asked.
    pub fn take_missed(&self) -> bool {
        self.missed.swap(false, Ordering::Relaxed)
    }

    /// From now on a click that leaves fewer than so many tokens calls the keeper.
    pub fn call_below(&self, tokens: u32) {
        self.low_water.store(tokens, Ordering::Relaxed);
    }

    /// The keeper looks now: what it does not see will call it again.
    pub fn heard(&self) {
        // AcqRel: what was done before the call is seen by whoever clears it; what is looked at after it is no older.
        self.called.swap(false, Ordering::AcqRel);
    }
}

fn tokens_of(word: u64) -> u32 {
    word as u32
}

fn round_of(word: u64) -> Round {
    Round((word >> 32) as u32)
}

/// More than any node needs between two answers of the ledger.
pub const TOKENS_MAX: u64 = 1 << 31;

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    fn cell() -> Arc<CapCell> {
        Arc::new(CapCell::new(CapRole::Lease, Arc::default()))
    }

    #[test]
    fn tokens_are_taken_until_none_is_left_or_their_time_is_over() {
        let cell = cell();
        assert_eq!(cell.take(0), None, "nothing was granted");
        assert_eq!(cell.begin_round(100), 0);
        assert_eq!(cell.add(2), 2);
        assert_eq!((cell.take(100), cell.take(101)), (Some(Round(1)), None));
        assert_eq!((cell.has_token(100), cell.has_token(101)), (true, false));
        cell.extend(200);
        assert_eq!((cell.take(200), cell.take(0), cell.tokens()), (Some(Round(1)), None, 0));
    }

    #[test]
    fn a_token_of_an_old_round_is_not_given_back_to_a_new_one() {
        let cell = cell();
        cell.begin_round(FOREVER);
        cell.add(3);
        let (one, two) = (cell.take(0).unwrap(), cell.take(0).unwrap());
        cell.give_back(one);
        assert_eq!(cell.tokens(), 2);
        assert_eq!(cell.begin_round(FOREVER), 2, "what nobody took is known");
        cell.give_back(two);
        assert_eq!((cell.tokens(), cell.round()), (0, Round(2)));
        cell.add(5);
        assert_eq!((cell.drain(), cell.tokens(), cell.round()), (5, 0, Round(2)));
    }

    #[test]
    fn what_has_no_room_is_not_added() {
        let cell = cell();
        assert_eq!(cell.add(u64::MAX), TOKENS_MAX);
        assert_eq!((cell.add(1), cell.tokens(), cell.round()), (0, TOKENS_MAX, Round(0)));
    }

    #[test]
    fn the_keeper_is_called_once_until_it_looks() {
        let keeper = Arc::new(Notify::new());
        let cell = CapCell::new(CapRole::Lease, Arc::clone(&keeper));
        let mut called = calls_of(&keeper);
        cell.begin_round(FOREVER);
        cell.add(10);
        cell.call_below(8);
        cell.take(0);
        cell.take(0);
        assert!(!called(), "eight are left");
        cell.take(0);
        assert!(called());
        cell.take(0);
        assert!(!called(), "it has not looked since");
        cell.heard();
        cell.take(0);
        assert!(called());
        cell.drain();
        cell.heard();
        assert_eq!((cell.take(0), cell.missed(), called()), (None, true, true));
        assert_eq!((cell.take_missed(), cell.missed()), (true, false));
    }

    /// Whether the keeper was called since it was asked last.
    fn calls_of(keeper: &Notify) -> impl FnMut() -> bool {
        use std::task::{Context, Waker};
        || {
            let called = std::pin::pin!(keeper.notified());
            called.poll(&mut Context::from_waker(Waker::noop())).is_ready()
        }
    }

    /// Takers, some of which give back, against a writer that begins rounds, adds, drains. Every token that was added is
    /// taken once, drained, left over at the end of its round, or lost: given back to a round that is over.
    #[test]
    fn every_token_is_accounted_for_under_contention() {
        const TAKERS: usize = 4;
        const ROUNDS: u32 = 2_000;
        let cell = cell();
        let (done, has_begun) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let takers: Vec<_> = (0..TAKERS)
            .map(|taker| {
                let (cell, done, began) = (Arc::clone(&cell), Arc::clone(&done), Arc::clone(&has_begun));
                thread::spawn(move || {
                    let mut taken = vec![0i64; ROUNDS as usize + 1];
                    let mut takes = 0usize;
                    loop {
                        // Read first, so that there is a take after the last round ended.
                        let done = done.load(Ordering::Acquire);
                        while let Some(round) = cell.take(1) {
                            // A round is known by its deadline, too: even ones were over before they began.
                            assert!(round.0 % 2 == 1, "a token of round {} came too late", round.0);
                            taken[round.0 as usize] += 1;
                            takes += 1;
                            if takes == 1 {
                                began.store(true, Ordering::Release);
                            }
                            if takes.is_multiple_of(7 + taker) {
                                cell.give_back(round);
                                taken[round.0 as usize] -= 1;
                            }
                        }
                        if done {
                            return (taken, takes);
                        }
                        thread::yield_now();
                    }
                })
            })
            .collect();

        let (mut added, mut returned) = (vec![0i64; ROUNDS as usize + 1], vec![0i64; ROUNDS as usize + 1]);
        for round in 1..=ROUNDS {
            let deadline = if round % 2 == 1 { FOREVER } else { 0 };
            returned[round as usize - 1] += cell.begin_round(deadline) as i64;
            assert_eq!(cell.round(), Round(round));
            for step in 0..8 {
                added[round as usize] += cell.add(u64::from(1 + (round + step) % 13)) as i64;
                match (round + step) % 5 {
                    0 => returned[round as usize] += cell.drain() as i64,
                    1 => thread::yield_now(),
                    _ => {}
                }
            }
            // On a machine that is busy with something else, the takers have yet to run.
            while round == 1 && !has_begun.load(Ordering::Acquire) {
                added[1] += cell.add(1) as i64;
                thread::yield_now();
            }
        }
        returned[ROUNDS as usize] += cell.begin_round(0) as i64;
        done.store(true, Ordering::Release);
        let (mut taken, mut takes) = (vec![0i64; ROUNDS as usize + 1], 0);
        for taker in takers {
            let (of_one, takes_of_one) = taker.join().unwrap();
            taken.iter_mut().zip(of_one).for_each(|(sum, count)| *sum += count);
            takes += takes_of_one;
        }
        let mut lost = 0;
        for round in 0..=ROUNDS as usize {
            let missing = added[round] - returned[round] - taken[round];
            // What was given back too late is in no sum; nothing is in two.
            assert!((0..=TAKERS as i64).contains(&missing), "round {round}: {missing} tokens are missing");
            lost += missing;
        }
        let sum = |counts: &[i64]| counts.iter().sum::<i64>();
        println!("{} added, {takes} takes, {} drained or left, {lost} lost", sum(&added), sum(&returned));
        assert!(takes > 0 && sum(&returned) > 0);
        assert_eq!(cell.tokens(), 0);
    }
}
