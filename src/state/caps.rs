//! Caps as clicks meet them: what the node holds of each ([`CapCells`]), which offer has which ([`CapBook`]), and what
//! one click sees and spends ([`Caps`]).
//!
//! Cells are stable and books are replaced: a book is published with the table, in one swap, and a cap that stays keeps
//! what the node holds of it. A click goes by the definitions of the book that it loaded.

use std::cell::Cell;
use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::routing::{Cap, CapView, ClosedCap, ClosedReason, IdHasher};
use crate::types::{AffiliateId, CapInterval, CapKey, CapKind, OfferId};

use super::cap_cell::{CapCell, CapRole, Round};
use super::clock::uptime;

/// Every cap that the process has heard of. Nothing is ever taken out: a cell may be in a book that a click still reads.
#[derive(Debug, Default)]
pub struct CapCells {
    cells: Mutex<HashMap<CapKey, Arc<CapCell>>>,
    keeper: Arc<Notify>,
}

/// Which offer has which caps. Immutable; replaced whole.
#[derive(Debug, Default)]
pub struct CapBook {
    offers: ById<OfferId, OfferCaps>,
}

/// The caps of one offer.
#[derive(Debug, Default)]
struct OfferCaps {
    /// For every affiliate.
    every: Vec<Member>,
    /// Campaign caps.
    campaigns: ById<AffiliateId, Vec<Member>>,
}

/// A cap and what the node holds of it.
#[derive(Debug)]
struct Member {
    key: CapKey,
    role: CapRole,
    cell: Arc<CapCell>,
}

/// The caps as one click sees them. Reads the clock once, and only if the click comes near a cap.
#[derive(Debug)]
pub struct Caps<'a> {
    book: &'a CapBook,
    /// A person's click: it spends, and what it misses is noted.
    spends: bool,
    now: Cell<Option<u64>>,
}

/// The same caps, as if each that can close were closed.
#[derive(Clone, Copy, Debug)]
pub struct Shut<'a>(&'a CapBook);

/// What a click has taken from the caps of its offer.
#[derive(Debug)]
pub struct Charge<'a> {
    every: &'a [Member],
    campaign: &'a [Member],
    rounds: [Round; CAPS_MAX],
}

type ById<K, V> = HashMap<K, V, BuildHasherDefault<IdHasher>>;

impl CapCells {
    /// A book of these caps. Of two of the same name, the first counts. Caps that are not among them are gone.
    pub fn book(&self, caps: &[Cap]) -> CapBook {
        let mut cells = self.lock();
        let mut book = CapBook::default();
        for cap in caps {
            let role = role_of(cap);
            let cell = cells
                .entry(cap.key)
                .or_insert_with(|| Arc::new(CapCell::new(CapRole::Gone, Arc::clone(&self.keeper))));
            let offer = book.offers.entry(cap.key.offer).or_default();
            let members = match cap.key.affiliate {
                None => &mut offer.every,
                Some(affiliate) => offer.campaigns.entry(affiliate).or_default(),
            };
            if members.iter().all(|member| member.key != cap.key) {
                cell.assume(role);
                members.push(Member { key: cap.key, role, cell: Arc::clone(cell) });
            }
        }
        for (_, cell) in cells.iter().filter(|(key, _)| !book.has(key)) {
            cell.assume(CapRole::Gone);
        }
        book
    }

    /// For the lease keeper, in the order of their names.
    pub fn cells(&self) -> Vec<(CapKey, Arc<CapCell>)> {
        let mut cells: Vec<_> = self.lock().iter().map(|(&key, cell)| (key, Arc::clone(cell))).collect();
        cells.sort_unstable_by_key(|&(key, _)| key);
        cells
    }

    /// What is held of this cap, if it was ever in a book.
    pub fn cell(&self, key: CapKey) -> Option<Arc<CapCell>> {
        self.lock().get(&key).map(Arc::clone)
    }

    /// Waits until a cell calls: its tokens run low, or a click missed one.
    pub async fn called(&self) {
        self.keeper.notified().await;
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<CapKey, Arc<CapCell>>> {
        // Right after any panic: each change is one insertion.
        self.cells.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl CapBook {
    pub fn is_empty(&self) -> bool {
        self.offers.is_empty()
    }

    /// How many caps there are.
    pub fn len(&self) -> usize {
        let of_offer =
            |offer: &OfferCaps| offer.every.len() + offer.campaigns.values().map(Vec::len).sum::<usize>();
        self.offers.values().map(of_offer).sum()
    }

    fn has(&self, key: &CapKey) -> bool {
        let caps = self.offers.get(&key.offer);
        let members = caps.and_then(|caps| match key.affiliate {
            None => Some(&caps.every),
            Some(affiliate) => caps.campaigns.get(&affiliate),
        });
        members.is_some_and(|members| members.iter().any(|member| member.key == *key))
    }

    /// The offer's own, and those of this affiliate for it.
    #[inline]
    fn of(&self, offer: OfferId, affiliate: AffiliateId) -> (&[Member], &[Member]) {
        // Without caps, which is common, one branch.
        if self.offers.is_empty() {
            return (&[], &[]);
        }
        self.offers.get(&offer).map_or((&[], &[]), |caps| caps.of(affiliate))
    }
}

impl OfferCaps {
    fn of(&self, affiliate: AffiliateId) -> (&[Member], &[Member]) {
        let campaign = match self.campaigns.is_empty() {
            true => None,
            false => self.campaigns.get(&affiliate),
        };
        (&self.every, campaign.map_or(&[], Vec::as_slice))
    }
}

impl Member {
    fn is_open(&self, now: u64) -> bool {
        match self.role {
            CapRole::Lease => self.cell.has_token(now),
            CapRole::Conversions => !self.cell.is_closed(now),
            CapRole::Alert | CapRole::Gone => true,
            CapRole::Zero => false,
        }
    }

    /// Why it is closed, if it is.
    fn reason(&self, now: u64) -> ClosedReason {
        match self.role {
            CapRole::Lease if self.cell.is_closed(now) => ClosedReason::Full,
            CapRole::Lease if self.cell.is_told() => ClosedReason::NoLease,
            CapRole::Lease => ClosedReason::Unknown,
            _ => ClosedReason::Full,
        }
    }

    fn can_close(&self) -> bool {
        matches!(self.role, CapRole::Lease | CapRole::Conversions | CapRole::Zero)
    }

    /// `None` if it is closed. The round means something for a lease alone.
    fn charge(&self, now: u64) -> Option<Round> {
        match self.role {
            CapRole::Lease => return self.cell.take(now),
            CapRole::Alert if self.key.kind == CapKind::Click => self.cell.count(),
            _ => {}
        }
        self.is_open(now).then_some(Round::default())
    }

    fn give_back(&self, round: Round) {
        match self.role {
            CapRole::Lease => self.cell.give_back(round),
            CapRole::Alert if self.key.kind == CapKind::Click => self.cell.count_not(),
            _ => {}
        }
    }
}

impl<'a> Caps<'a> {
    /// For a person's click, which spends.
    pub fn spending(book: &'a CapBook) -> Self {
        Self { book, spends: true, now: Cell::new(None) }
    }

    /// As [`Caps::spending`], at an uptime that the caller knows: nothing reads the clock.
    pub fn spending_at(book: &'a CapBook, now: u64) -> Self {
        Self { book, spends: true, now: Cell::new(Some(now)) }
    }

    /// For whoever only wants to know: a probe, a bot, an explanation.
    pub fn looking(book: &'a CapBook) -> Self {
        Self { book, spends: false, now: Cell::new(None) }
    }

    /// As if every cap that can close were closed: what such a decision chooses can be charged.
    pub fn shut(&self) -> Shut<'a> {
        Shut(self.book)
    }

    /// Charges a click on this offer to all caps that count it, or to none: `None` if one of them is closed. Who only looks
    /// is charged nothing.
    #[inline]
    pub fn charge(&self, offer: OfferId, affiliate: AffiliateId) -> Option<Charge<'a>> {
        let (every, campaign) = match self.spends {
            true => self.book.of(offer, affiliate),
            false => (&[][..], &[][..]),
        };
        if every.is_empty() && campaign.is_empty() {
            return Some(Charge::NOTHING);
        }
        self.charge_all(every, campaign)
    }

    fn charge_all(&self, every: &'a [Member], campaign: &'a [Member]) -> Option<Charge<'a>> {
        let mut charge = Charge { every, campaign, ..Charge::NOTHING };
        let now = self.now();
        for (index, member) in every.iter().chain(campaign).enumerate() {
            match member.charge(now) {
                Some(round) => charge.rounds[index] = round,
                None => {
                    charge.give_back_first(index);
                    return None;
                }
            }
        }
        Some(charge)
    }

    fn all_open(&self, every: &[Member], campaign: &[Member]) -> bool {
        let now = self.now();
        let is_open = every.iter().chain(campaign).all(|member| member.is_open(now));
        if !is_open && self.spends {
            note_misses(every.iter().chain(campaign), now);
        }
        is_open
    }

    fn now(&self) -> u64 {
        self.now.get().unwrap_or_else(|| {
            let now = uptime();
            self.now.set(Some(now));
            now
        })
    }
}

impl CapView for Caps<'_> {
    #[inline]
    fn is_open(&self, offer: OfferId, affiliate: AffiliateId) -> bool {
        let (every, campaign) = self.book.of(offer, affiliate);
        (every.is_empty() && campaign.is_empty()) || self.all_open(every, campaign)
    }

    fn closed_caps(&self, offer: OfferId, affiliate: AffiliateId) -> Vec<ClosedCap> {
        let (every, campaign) = self.book.of(offer, affiliate);
        let closed = every.iter().chain(campaign).filter(|member| !member.is_open(self.now()));
        closed.map(|member| ClosedCap { key: member.key, reason: member.reason(self.now()) }).collect()
    }
}

impl CapView for Shut<'_> {
    fn is_open(&self, offer: OfferId, affiliate: AffiliateId) -> bool {
        let (every, campaign) = self.0.of(offer, affiliate);
        !every.iter().chain(campaign).any(Member::can_close)
    }

    fn closed_caps(&self, offer: OfferId, affiliate: AffiliateId) -> Vec<ClosedCap> {
        let (every, campaign) = self.0.of(offer, affiliate);
        let closed = every.iter().chain(campaign).filter(|member| member.can_close());
        closed.map(|member| ClosedCap { key: member.key, reason: ClosedReason::Full }).collect()
    }
}

impl Charge<'_> {
    /// Of a click that no cap counts.
    pub const NOTHING: Self = Self { every: &[], campaign: &[], rounds: [Round(0); CAPS_MAX] };

    /// Puts back what was taken, because the visitor is not sent to the offer after all.
    pub fn give_back(self) {
        self.give_back_first(self.every.len() + self.campaign.len());
    }

    fn give_back_first(&self, count: usize) {
        for (member, &round) in self.every.iter().chain(self.campaign).zip(&self.rounds).take(count) {
            member.give_back(round);
        }
    }
}

/// Tells the keeper of a click that had no token: nobody takes from a cell that is seen to be empty. Not where the click
/// would be refused with a token, too.
fn note_misses<'a>(members: impl Iterator<Item = &'a Member> + Clone, now: u64) {
    let closed = members.filter(|member| !member.is_open(now));
    if closed.clone().all(|member| member.role == CapRole::Lease) {
        closed.for_each(|member| member.cell.miss());
    }
}

fn role_of(cap: &Cap) -> CapRole {
    match cap.key.kind {
        _ if cap.alert_only => CapRole::Alert,
        _ if cap.amount == 0 => CapRole::Zero,
        CapKind::Click => CapRole::Lease,
        CapKind::Conversion => CapRole::Conversions,
    }
}

/// An offer has at most one cap of each kind and interval, for every affiliate and for this one.
const CAPS_MAX: usize = 2 * CapKind::ALL.len() * CapInterval::ALL.len();

#[cfg(test)]
mod tests {
    use super::super::cap_cell::FOREVER;
    use super::*;
    use crate::routing::Zone;

    fn cap(offer: u32, affiliate: Option<u32>, kind: CapKind, interval: CapInterval) -> Cap {
        let offer = OfferId::new(offer).unwrap();
        let affiliate = affiliate.and_then(AffiliateId::new);
        let key = CapKey { offer, affiliate, kind, interval };
        Cap { key, amount: 10, zone: Zone::parse("UTC").unwrap(), alert_only: false }
    }

    fn clicks(offer: u32, affiliate: Option<u32>) -> Cap {
        cap(offer, affiliate, CapKind::Click, CapInterval::Daily)
    }

    /// The cell of a cap, with so many tokens.
    fn filled(cells: &CapCells, cap: &Cap, tokens: u64) -> Arc<CapCell> {
        let cell = cells.cells().into_iter().find(|(key, _)| *key == cap.key).unwrap().1;
        cell.begin_round(FOREVER);
        assert_eq!(cell.add(tokens), tokens);
        cell
    }

    fn is_open(book: &CapBook, offer: u32, affiliate: u32) -> bool {
        Caps::looking(book).is_open(OfferId::new(offer).unwrap(), AffiliateId::new(affiliate).unwrap())
    }

    fn charge(book: &CapBook, offer: u32, affiliate: u32) -> Option<Charge<'_>> {
        Caps::spending(book).charge(OfferId::new(offer).unwrap(), AffiliateId::new(affiliate).unwrap())
    }

    #[test]
    fn a_cap_without_a_lease_is_closed_and_an_offer_without_caps_is_open() {
        let cells = CapCells::default();
        let book = cells.book(&[clicks(1, None)]);
        assert_eq!((is_open(&book, 1, 7), is_open(&book, 2, 7)), (false, true));
        let cell = filled(&cells, &clicks(1, None), 1);
        assert!(is_open(&book, 1, 7));
        assert!(charge(&book, 1, 7).is_some());
        assert_eq!((is_open(&book, 1, 7), cell.tokens()), (false, 0));
        assert!(charge(&book, 1, 7).is_none());
        assert!(CapBook::default().is_empty() && is_open(&CapBook::default(), 1, 7));
    }

    #[test]
    fn a_cell_outlives_its_books() {
        let cells = CapCells::default();
        let one = cells.book(&[clicks(1, None)]);
        let cell = filled(&cells, &clicks(1, None), 5);
        assert_eq!(cell.role(), CapRole::Lease);
        // Another amount, the same cap.
        let two = cells.book(&[Cap { amount: 99, ..clicks(1, None) }, clicks(2, None)]);
        assert!(charge(&one, 1, 7).is_some() && charge(&two, 1, 7).is_some());
        assert_eq!((cell.tokens(), two.len()), (3, 2));
        let none = cells.book(&[]);
        assert_eq!((cell.role(), none.len()), (CapRole::Gone, 0));
        assert!(is_open(&none, 1, 7));
        let again = cells.book(&[clicks(1, None)]);
        assert!(charge(&again, 1, 7).is_some());
        assert_eq!((cell.tokens(), cell.role()), (2, CapRole::Lease));
    }

    #[test]
    fn a_campaign_cap_counts_one_affiliate_and_the_offers_own_counts_all() {
        let cells = CapCells::default();
        let caps = [clicks(1, None), clicks(1, Some(7))];
        let book = cells.book(&caps);
        let (all, campaign) = (filled(&cells, &caps[0], 3), filled(&cells, &caps[1], 1));
        assert!(charge(&book, 1, 8).is_some());
        assert_eq!((all.tokens(), campaign.tokens()), (2, 1));
        assert!(charge(&book, 1, 7).is_some());
        assert_eq!((all.tokens(), campaign.tokens()), (1, 0));
        // All or nothing: what was taken from the first is put back.
        assert!(charge(&book, 1, 7).is_none());
        assert_eq!((all.tokens(), campaign.tokens()), (1, 0));
        assert_eq!((is_open(&book, 1, 7), is_open(&book, 1, 8)), (false, true));
    }

    #[test]
    fn the_cap_closed_last_names_itself_and_the_keeper_hears_of_misses_of_those_who_spend() {
        let cells = CapCells::default();
        let caps =
            [clicks(1, None), clicks(1, Some(7)), cap(1, None, CapKind::Conversion, CapInterval::Lifetime)];
        let book = cells.book(&caps);
        let cell = filled(&cells, &caps[0], 0);
        let (offer, affiliate) = (OfferId::new(1).unwrap(), AffiliateId::new(7).unwrap());
        let looking = Caps::looking(&book);
        assert!(!looking.is_open(offer, affiliate));
        let unknown = |cap: &Cap| ClosedCap { key: cap.key, reason: ClosedReason::Unknown };
        assert_eq!(looking.closed_caps(offer, affiliate), [unknown(&caps[0]), unknown(&caps[1])]);
        assert!(!cell.missed(), "only a click that would have spent is missed");
        assert!(!Caps::spending(&book).is_open(offer, affiliate));
        assert!(cells.cells().iter().all(|(key, cell)| cell.missed() == (key.kind == CapKind::Click)));
        // A token would not have helped this one.
        let conversions = &cells.cells().into_iter().find(|(key, _)| *key == caps[2].key).unwrap().1;
        conversions.close_until(FOREVER);
        assert!(cell.take_missed());
        assert!(!Caps::spending(&book).is_open(offer, affiliate));
        assert!(!cell.missed());
    }

    #[test]
    fn conversions_close_until_a_moment_and_an_amount_of_0_for_ever() {
        let cells = CapCells::default();
        let conversions = cap(1, None, CapKind::Conversion, CapInterval::Daily);
        let book = cells.book(&[conversions.clone(), Cap { amount: 0, ..clicks(2, None) }]);
        let cell = filled(&cells, &conversions, 0);
        assert_eq!((is_open(&book, 1, 7), is_open(&book, 2, 7)), (true, false));
        cell.close_until(FOREVER);
        assert!(!is_open(&book, 1, 7) && charge(&book, 1, 7).is_none());
        cell.close_until(uptime());
        assert!(is_open(&book, 1, 7), "the moment has come");
        filled(&cells, &clicks(2, None), 5);
        assert!(!is_open(&book, 2, 7) && charge(&book, 2, 7).is_none(), "whatever was granted before");
    }

    #[test]
    fn a_cap_that_only_alerts_counts_and_never_closes() {
        let cells = CapCells::default();
        let alert = Cap { alert_only: true, amount: 0, ..clicks(1, None) };
        let book = cells.book(std::slice::from_ref(&alert));
        let cell = filled(&cells, &alert, 0);
        let caps = Caps::spending(&book);
        let (offer, affiliate) = (OfferId::new(1).unwrap(), AffiliateId::new(7).unwrap());
        assert!(caps.is_open(offer, affiliate) && caps.shut().is_open(offer, affiliate));
        for _ in 0..3 {
            assert!(caps.charge(offer, affiliate).is_some());
        }
        caps.charge(offer, affiliate).unwrap().give_back();
        assert!(Caps::looking(&book).charge(offer, affiliate).is_some());
        assert_eq!(cell.counted(), 3);
    }

    #[test]
    fn what_is_given_back_can_be_spent_and_who_looks_spends_nothing() {
        let cells = CapCells::default();
        let caps: Vec<Cap> = CapInterval::ALL
            .into_iter()
            .flat_map(|interval| [None, Some(7)].map(|campaign| cap(1, campaign, CapKind::Click, interval)))
            .collect();
        let book = cells.book(&caps);
        let filled: Vec<_> = caps.iter().map(|cap| filled(&cells, cap, 1)).collect();
        for _ in 0..3 {
            let charge = charge(&book, 1, 7).unwrap();
            assert!(filled.iter().all(|cell| cell.tokens() == 0));
            charge.give_back();
            assert!(filled.iter().all(|cell| cell.tokens() == 1));
        }
        let (offer, affiliate) = (OfferId::new(1).unwrap(), AffiliateId::new(7).unwrap());
        assert!(Caps::looking(&book).charge(offer, affiliate).is_some());
        assert!(filled.iter().all(|cell| cell.tokens() == 1));
        assert!(!Caps::spending(&book).shut().is_open(offer, affiliate));
    }
}
