//! Draws, and clocks that run as machines' clocks do.

use rand::Rng;
use rand_xoshiro::Xoshiro256PlusPlus;

/// Nanoseconds of the time that nobody in the world can see.
pub type True = u64;

pub const MS: u64 = 1_000_000;
pub const SECOND: u64 = 1_000 * MS;

pub type Random = Xoshiro256PlusPlus;

pub fn below(random: &mut Random, bound: u64) -> u64 {
    ((u128::from(random.next_u64()) * u128::from(bound)) >> 64) as u64
}

pub fn one_in(random: &mut Random, many: u64) -> bool {
    below(random, many) == 0
}

pub fn one_of<T: Clone>(random: &mut Random, choices: &[T]) -> T {
    choices[below(random, choices.len() as u64) as usize].clone()
}

/// A machine's monotonic clock: began at some moment, runs a little fast or slow.
#[derive(Clone, Copy)]
pub struct Monotonic {
    began: i128,
    /// Parts a million.
    drift: i64,
}

impl Monotonic {
    pub fn some(random: &mut Random, now: True) -> Self {
        let up_since = i128::from(below(random, 1_000 * SECOND));
        Self { began: i128::from(now) - up_since, drift: below(random, 101) as i64 - 50 }
    }

    pub fn read(&self, time: True) -> u64 {
        let since = i128::from(time) - self.began;
        u64::try_from(since + since * i128::from(self.drift) / 1_000_000).unwrap_or(0)
    }
}

/// Mostly seconds, sometimes a day; now and then a whole hour or day, after which another midnight is near.
pub fn some_step(random: &mut Random) -> i64 {
    if one_in(random, 3) {
        let whole = one_of(random, &[-86_400_000, -3_600_000, 3_600_000, 86_400_000]);
        return whole + below(random, 10_000) as i64 - 5_000;
    }
    let most: i64 = one_of(random, &[2_000, 30_000, 3_600_000, 86_400_000]);
    below(random, 2 * most as u64) as i64 - most
}
