//! A cap as it is kept on the server, and its name there.

use std::collections::BTreeMap;

use crate::ledger::caps::{AMOUNT_MAX, Flags};
use crate::ledger::error::LedgerError;
use crate::ledger::message::CapState;
use crate::ledger::window::Window;
use crate::routing::{Cap, Zone};
use crate::types::{AffiliateId, CapInterval, CapKey, CapKind, OfferId, UnixMillis};

/// One cap, as a script told it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub key: CapKey,
    pub amount: u64,
    pub zone: String,
    pub alert_only: bool,
    pub in_force: bool,
    pub window: Window,
    pub used: u64,
    pub wanted_until: i64,
    pub leased: u64,
}

impl Row {
    /// What `row` of offer.lua writes.
    pub fn read(offer: OfferId, text: &str) -> Result<Self, LedgerError> {
        read(offer, text).ok_or_else(|| unreadable(offer, text))
    }

    /// As it stands at the moment: in the window that it is, of which nothing is written down yet if it is a new one.
    pub fn at(mut self, now: UnixMillis) -> Result<Self, LedgerError> {
        if self.window.is_over(now) {
            self.window = window_at(&self.key, &self.zone, now)?;
            self.used = 0;
            self.wanted_until = 0;
        }
        Ok(self)
    }

    pub fn flags(&self, now: UnixMillis) -> Flags {
        match self.alert_only || !self.in_force {
            true => Flags::default(),
            false => {
                Flags::of_count(self.key.kind, self.amount, self.used, self.leased, self.wanted_until > now.0)
            }
        }
    }

    pub fn state(&self) -> CapState {
        CapState {
            cap: self.key,
            amount: self.amount,
            used: self.used,
            leased: if self.key.kind == CapKind::Click { self.leased } else { 0 },
            window_ends_at: self.window.end.map(|end| end.saturating_mul(1000)),
        }
    }

    /// What define.lua compares and writes: all but what is used.
    pub fn definition(&self) -> String {
        let Self { amount, zone, window, .. } = self;
        let end = window.end.map_or("-".to_owned(), |end| end.to_string());
        let (alert_only, in_force) = (u8::from(self.alert_only), u8::from(self.in_force));
        format!("{amount} {zone} {alert_only} {in_force} {} {end}", window.start)
    }

    /// A cap that there was not before.
    pub fn new(cap: &Cap, now: UnixMillis) -> Self {
        Self {
            key: cap.key,
            amount: cap.amount.min(AMOUNT_MAX),
            zone: cap.zone.name().to_owned(),
            alert_only: cap.alert_only,
            in_force: true,
            window: Window::at(cap.key.interval, &cap.zone, now),
            used: 0,
            wanted_until: 0,
            leased: 0,
        }
    }

    /// The cap, defined so from now on. Counted in another zone, the window at hand gets another end, and begins no earlier
    /// than it did: what is used and granted of it stays so, as nobody can say which part of it falls outside.
    pub fn redefine(&mut self, cap: &Cap, now: UnixMillis) {
        if self.zone != cap.zone.name() {
            let start = self.window.start;
            let no_earlier = UnixMillis(now.0.max(start.saturating_mul(1000)));
            let window = Window::at(self.key.interval, &cap.zone, no_earlier);
            self.window = Window { start: window.start.max(start), end: window.end };
            self.zone = cap.zone.name().to_owned();
        }
        self.amount = cap.amount.min(AMOUNT_MAX);
        self.alert_only = cap.alert_only;
        self.in_force = true;
    }

    pub fn is_defined(&self, cap: &Cap) -> bool {
        self.in_force
            && self.amount == cap.amount.min(AMOUNT_MAX)
            && self.zone == cap.zone.name()
            && self.alert_only == cap.alert_only
    }
}

/// The window of the cap that holds the moment.
pub(super) fn window_at(key: &CapKey, zone: &str, now: UnixMillis) -> Result<Window, LedgerError> {
    let zone = Zone::parse(zone).ok_or_else(|| {
        LedgerError::Failed(format!(
            "the {key} counts in time zone `{zone}`, which this version does not know"
        ))
    })?;
    Ok(Window::at(key.interval, &zone, now))
}

/// The windows that begin at a moment, as scripts are told them.
pub(super) type Windows = BTreeMap<CapKey, Window>;

/// What the cap is called among those of its offer.
pub(super) fn name(key: &CapKey) -> String {
    let affiliate = key.affiliate.map_or(0, AffiliateId::value);
    format!("{}:{}:{affiliate}", key.kind.as_str(), key.interval.as_str())
}

pub(super) fn key_of(offer: OfferId, name: &str) -> Result<CapKey, LedgerError> {
    read_key(offer, name).ok_or_else(|| unreadable(offer, name))
}

pub(super) fn unreadable(offer: OfferId, text: &str) -> LedgerError {
    LedgerError::Failed(format!(
        "the server has `{text}` of offer {offer}, which this version of smartlink did not write"
    ))
}

fn read(offer: OfferId, text: &str) -> Option<Row> {
    let words: Vec<&str> = text.split(' ').collect();
    let &[name, amount, zone, alert_only, in_force, start, end, used, wanted_until, leased] =
        words.as_slice()
    else {
        return None;
    };
    Some(Row {
        key: read_key(offer, name)?,
        amount: amount.parse().ok()?,
        zone: zone.to_owned(),
        alert_only: alert_only == "1",
        in_force: in_force == "1",
        window: Window { start: start.parse().ok()?, end: ending(end)? },
        used: used.parse().ok()?,
        wanted_until: wanted_until.parse().ok()?,
        leased: leased.parse().ok()?,
    })
}

/// `-` is never.
pub(super) fn ending<T: std::str::FromStr>(text: &str) -> Option<Option<T>> {
    match text {
        "-" => Some(None),
        number => number.parse().ok().map(Some),
    }
}

fn read_key(offer: OfferId, name: &str) -> Option<CapKey> {
    let mut parts = name.split(':');
    let key = CapKey {
        offer,
        kind: CapKind::parse(parts.next()?)?,
        interval: CapInterval::parse(parts.next()?)?,
        affiliate: AffiliateId::new(parts.next()?.parse().ok()?),
    };
    parts.next().is_none().then_some(key)
}
