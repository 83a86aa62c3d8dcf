//! One run of a fault: how long it is, what is drawn in it, and the line that it says at the end.

use std::fmt::Display;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rand::SeedableRng;
use rand_xoshiro::Xoshiro256PlusPlus;

use crate::support::node::Setup;

/// Faults come one after the other, so that the figures of one are not those of another.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

pub struct Run {
    fault: &'static str,
    pub random: Xoshiro256PlusPlus,
    seed: u64,
    begun: Instant,
    _turn: MutexGuard<'static, ()>,
}

/// One for each length.
pub struct Lengths<T> {
    /// With all other tests, on a machine that others use, too.
    pub short: T,
    pub ci: T,
    /// What docs/RELIABILITY.md promises.
    pub full: T,
}

impl Run {
    pub fn begin(fault: &'static str) -> Self {
        let turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let seed = number("CHAOS_SEED").unwrap_or_else(|| RandomState::new().build_hasher().finish());
        println!("chaos {fault}: CHAOS_SEED={seed}");
        let random = Xoshiro256PlusPlus::seed_from_u64(seed);
        Self { fault, random, seed, begun: Instant::now(), _turn: turn }
    }

    /// The last line of the run.
    pub fn tell(&self, figures: &[(&str, &dyn Display)]) {
        let figures: Vec<String> = figures.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let (fault, seed, took) = (self.fault, self.seed, self.begun.elapsed().as_secs_f64());
        println!("chaos {fault}: {} seed={seed} seconds={took:.1}", figures.join(" "));
    }
}

impl<T> Lengths<T> {
    /// The one that `CHAOS` asks for.
    pub fn pick(self) -> T {
        match std::env::var("CHAOS").as_deref() {
            Err(_) | Ok("short") => self.short,
            Ok("ci") => self.ci,
            Ok("full") => self.full,
            Ok(other) => panic!("CHAOS is {other:?}; it is short, ci or full"),
        }
    }
}

pub fn lengths<T>(short: T, ci: T, full: T) -> T {
    Lengths { short, ci, full }.pick()
}

/// What `CHAOS_CLICKS_A_SECOND` asks for, where the rate of the clicks is free.
pub fn clicks_a_second(otherwise: f64) -> f64 {
    number("CHAOS_CLICKS_A_SECOND").map_or(otherwise, |clicks| clicks as f64)
}

/// A number of the environment.
pub fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is {text:?}, and no number")))
}

/// The build that is to be looked at.
pub fn of_this_build(setup: Setup) -> Setup {
    setup.program(program())
}

pub fn program() -> PathBuf {
    let Some(program) = std::env::var_os("SMARTLINK_CHAOS_PROGRAM") else {
        return PathBuf::from(env!("CARGO_BIN_EXE_smartlink"));
    };
    // Nodes live in directories of their own.
    std::fs::canonicalize(program).expect("SMARTLINK_CHAOS_PROGRAM is the path of a program")
}

/// In milliseconds, for people.
pub fn millis(time: Option<Duration>) -> String {
    time.map_or("none".to_owned(), |time| format!("{:.2}ms", time.as_secs_f64() * 1e3))
}
