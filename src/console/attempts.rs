//! How often a wrong token may be tried: a few times at once, then slowly, from each address. Pure: the moment is an
//! argument.
//!
//! An address of IPv6 is its /64, which one person has. More addresses than are remembered share one count: whoever has
//! many of them is slowed down with all others that are new, and keeps out nobody who has a session.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// The wrong tokens of late.
#[derive(Debug, Default)]
pub struct Attempts(Mutex<Counts>);

#[derive(Debug, Default)]
struct Counts {
    by_address: HashMap<IpAddr, Count>,
    others: Count,
    /// When the log heard of a refusal last.
    told: Option<Duration>,
    /// Refusals since then.
    untold: u64,
}

/// Wrong tokens, fading with time.
#[derive(Clone, Copy, Debug, Default)]
struct Count {
    /// Each counts [`FADES`] when it comes, and less as time goes by.
    debt: Duration,
    at: Duration,
}

impl Attempts {
    /// How long until this address may try again; zero: now.
    pub fn wait(&self, address: IpAddr, now: Duration) -> Duration {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counts.of(address, now).wait(now)
    }

    /// Counts a wrong token.
    pub fn failed(&self, address: IpAddr, now: Duration) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.of(address, now);
        count.debt = count.left(now) + FADES;
        count.at = now;
    }

    /// Whether the log is to hear of a refusal, and of how many it did not since it heard of one.
    pub fn to_tell(&self, now: Duration) -> Option<u64> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.told.is_some_and(|told| now.saturating_sub(told) < TOLD_EVERY) {
            counts.untold += 1;
            return None;
        }
        counts.told = Some(now);
        Some(std::mem::take(&mut counts.untold))
    }
}

impl Counts {
    fn of(&mut self, address: IpAddr, now: Duration) -> &mut Count {
        let address = neighbourhood(address);
        if self.by_address.len() >= ADDRESSES_MAX && !self.by_address.contains_key(&address) {
            self.by_address.retain(|_, count| !count.left(now).is_zero());
            if self.by_address.len() >= ADDRESSES_MAX {
                return &mut self.others;
            }
        }
        self.by_address.entry(address).or_default()
    }
}

impl Count {
    fn left(&self, now: Duration) -> Duration {
        self.debt.saturating_sub(now.saturating_sub(self.at))
    }

    fn wait(&self, now: Duration) -> Duration {
        (self.left(now) + FADES).saturating_sub(FADES * AT_ONCE)
    }
}

/// What one person has.
fn neighbourhood(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
        v4 => v4,
    }
}

/// Wrong tokens at once, after a pause.
const AT_ONCE: u32 = 5;

/// Then one in so long.
const FADES: Duration = Duration::from_secs(20);

/// One line of the log in so long, whoever guesses from wherever.
const TOLD_EVERY: Duration = Duration::from_secs(10);

/// Addresses that are remembered.
const ADDRESSES_MAX: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn some_wrong_tokens_are_let_pass_and_then_one_in_a_while() {
        let attempts = Attempts::default();
        let (mallory, alice) = (address("192.0.2.1"), address("192.0.2.2"));
        for _ in 0..AT_ONCE {
            assert_eq!(attempts.wait(mallory, Duration::ZERO), Duration::ZERO);
            attempts.failed(mallory, Duration::ZERO);
        }
        assert_eq!(attempts.wait(mallory, Duration::ZERO), FADES);
        assert_eq!(attempts.wait(alice, Duration::ZERO), Duration::ZERO);
        assert_eq!(attempts.wait(mallory, FADES), Duration::ZERO);
        attempts.failed(mallory, FADES);
        assert_eq!(attempts.wait(mallory, FADES), FADES);
        assert_eq!(attempts.wait(mallory, FADES * 20), Duration::ZERO);
    }

    #[test]
    fn a_whole_network_of_ipv6_is_one_person() {
        let attempts = Attempts::default();
        for last in 1..=AT_ONCE {
            attempts.failed(address(&format!("2001:db8::{last:x}")), Duration::ZERO);
        }
        assert_eq!(attempts.wait(address("2001:db8::ffff"), Duration::ZERO), FADES);
        assert_eq!(attempts.wait(address("2001:db8:0:1::1"), Duration::ZERO), Duration::ZERO);
        // The same host, written in both ways.
        for _ in 0..AT_ONCE {
            attempts.failed(address("::ffff:192.0.2.1"), Duration::ZERO);
        }
        assert_eq!(attempts.wait(address("192.0.2.1"), Duration::ZERO), FADES);
    }

    #[test]
    fn what_is_remembered_is_bounded_and_the_rest_shares_a_count() {
        let attempts = Attempts::default();
        let nth = |index: usize| IpAddr::from((index as u32).to_be_bytes());
        for index in 0..ADDRESSES_MAX + AT_ONCE as usize {
            attempts.failed(nth(index), Duration::ZERO);
        }
        assert_eq!(attempts.0.lock().unwrap().by_address.len(), ADDRESSES_MAX);
        assert_eq!(attempts.wait(nth(ADDRESSES_MAX + 99), Duration::ZERO), FADES);
        assert_eq!(attempts.wait(nth(0), Duration::ZERO), Duration::ZERO);
        assert_eq!(attempts.wait(nth(ADDRESSES_MAX + 99), FADES * 9), Duration::ZERO, "all of it fades");
    }

    #[test]
    fn the_log_hears_of_a_refusal_now_and_then() {
        let attempts = Attempts::default();
        assert_eq!(attempts.to_tell(Duration::ZERO), Some(0));
        for _ in 0..7 {
            assert_eq!(attempts.to_tell(TOLD_EVERY / 2), None);
        }
        assert_eq!(attempts.to_tell(TOLD_EVERY), Some(7));
        assert_eq!(attempts.to_tell(TOLD_EVERY * 2), Some(0));
    }
}
