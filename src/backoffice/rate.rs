//! How often a caller may call: a bucket of tokens that fills at an even rate. Pure: the moment is an argument.

use std::time::Duration;

/// So many calls a second, and so many at once after a pause.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    per_second: f64,
    burst: u32,
}

/// The tokens of one caller. Each call takes one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bucket {
    tokens: f64,
    /// When `tokens` was right, counted from a moment that is the same for all calls.
    at: Duration,
}

impl Rate {
    /// Nothing for a rate or a burst that would never let a call in.
    pub fn new(per_second: f64, burst: u32) -> Option<Self> {
        (per_second > 0.0 && per_second.is_finite() && burst > 0).then_some(Self { per_second, burst })
    }

    pub fn per_second(self) -> f64 {
        self.per_second
    }

    pub fn burst(self) -> u32 {
        self.burst
    }
}

impl Default for Rate {
    /// Far above what a person or a script of theirs needs, far below what would keep the store from the edge.
    fn default() -> Self {
        Self { per_second: 200.0, burst: 400 }
    }
}

impl Bucket {
    pub fn full(rate: Rate, now: Duration) -> Self {
        Self { tokens: rate.burst.into(), at: now }
    }

    /// Takes a token, or says how long it is until there is one.
    pub fn take(&mut self, rate: Rate, now: Duration) -> Result<(), Duration> {
        self.fill(rate, now);
        if self.tokens >= 1.0 {
            self.tokens -= 1.0;
            return Ok(());
        }
        let seconds = (1.0 - self.tokens) / rate.per_second;
        Err(Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX))
    }

    /// Undoes a [`take`](Self::take).
    pub fn give_back(&mut self, rate: Rate) {
        self.tokens = (self.tokens + 1.0).min(rate.burst.into());
    }

    /// Whether forgetting the bucket would change nothing.
    pub fn is_full(&mut self, rate: Rate, now: Duration) -> bool {
        self.fill(rate, now);
        self.tokens >= rate.burst.into()
    }

    fn fill(&mut self, rate: Rate, now: Duration) {
        // Two callers read the clock, and the later one may come first: a moment in the past gives nothing.
        let since = now.saturating_sub(self.at).as_secs_f64();
        self.tokens = (self.tokens + since * rate.per_second).min(rate.burst.into());
        self.at = self.at.max(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn a_burst_then_the_rate() {
        let rate = Rate::new(10.0, 3).unwrap();
        let mut bucket = Bucket::full(rate, at(0));
        for _ in 0..3 {
            assert_eq!(bucket.take(rate, at(0)), Ok(()));
        }
        assert_eq!(bucket.take(rate, at(0)), Err(at(100)));
        assert_eq!(bucket.take(rate, at(50)), Err(at(50)));
        assert_eq!(bucket.take(rate, at(101)), Ok(()));
        assert!(bucket.take(rate, at(101)).is_err());
    }

    #[test]
    fn a_pause_gives_no_more_than_the_burst() {
        let rate = Rate::new(10.0, 3).unwrap();
        let mut bucket = Bucket::full(rate, at(0));
        bucket.take(rate, at(0)).unwrap();
        assert!(!bucket.is_full(rate, at(50)) && bucket.is_full(rate, at(1_000)));
        let taken = (0..10).filter(|_| bucket.take(rate, at(3_600_000)).is_ok()).count();
        assert_eq!(taken, 3);
    }

    #[test]
    fn a_clock_that_seems_to_go_back_gives_nothing() {
        let rate = Rate::new(1.0, 1).unwrap();
        let mut bucket = Bucket::full(rate, at(5_000));
        bucket.take(rate, at(5_000)).unwrap();
        assert_eq!(bucket.take(rate, at(0)), Err(at(1_000)));
        assert_eq!(bucket.take(rate, at(5_500)), Err(at(500)));
    }

    #[test]
    fn over_a_long_time_the_rate_is_kept() {
        let rate = Rate::new(3.0, 5).unwrap();
        let mut bucket = Bucket::full(rate, at(0));
        let taken = (0..10_000).filter(|step| bucket.take(rate, at(step * 10)).is_ok()).count();
        assert!((300..=305).contains(&taken), "{taken} in 100 s");
    }

    #[test]
    fn a_rate_lets_somebody_in() {
        for (per_second, burst) in [(0.0, 1), (-1.0, 1), (f64::NAN, 1), (f64::INFINITY, 1), (1.0, 0)] {
            assert_eq!(Rate::new(per_second, burst), None);
        }
        let slow = Rate::new(f64::MIN_POSITIVE, 1).unwrap();
        let mut bucket = Bucket::full(slow, at(0));
        bucket.take(slow, at(0)).unwrap();
        assert_eq!(bucket.take(slow, at(1)), Err(Duration::MAX));
    }
}
