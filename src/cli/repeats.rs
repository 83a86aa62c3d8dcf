//! The same line many times a second is told a few times and then counted: a log that is full of one sentence hides the others,
//! and costs what the clicks need.
//!
//! Nothing is lost in silence: at the end of each interval, one line says how often another was left out. Two lines are the same
//! if they come from the same place in the code and say the same, fields included. Where one place says more different things than
//! anybody reads, those beyond are counted by their place.

use std::cell::Cell;
use std::collections::HashMap;
use std::fmt::{self, Write};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

/// A layer that lets a line pass, or counts it.
pub struct Repeats {
    counts: Arc<Mutex<Counts>>,
    hashes: RandomState,
}

/// Tells what was left out: once in a while, and all of it at the end.
pub struct LeftOutTold(Arc<Mutex<Counts>>);

/// What was said in the interval that runs, line by line.
#[derive(Default)]
struct Counts {
    of_lines: HashMap<u64, Count>,
    /// Of lines for which there is no room above, by their place.
    of_places: HashMap<u64, Count>,
}

struct Count {
    since: Instant,
    times: u64,
    level: Level,
    /// Of the first one that was left out.
    text: Option<String>,
}

/// A line that was not told.
#[derive(Debug, PartialEq, Eq)]
struct LeftOut {
    times: u64,
    level: Level,
    text: String,
}

impl Repeats {
    /// The layer, and who tells what it left out.
    pub fn new() -> (Self, LeftOutTold) {
        let counts = Arc::new(Mutex::new(Counts::default()));
        (Self { counts: Arc::clone(&counts), hashes: RandomState::new() }, LeftOutTold(counts))
    }
}

impl<S: Subscriber> Layer<S> for Repeats {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        if IS_TELLING.get() {
            return true;
        }
        let place = event.metadata().callsite();
        let mut line = Hashed(self.hashes.build_hasher());
        std::hash::Hash::hash(&place, &mut line.0);
        let place = line.0.finish();
        event.record(&mut line);
        let text = || {
            let mut text = Text(String::new());
            event.record(&mut text);
            text.0
        };
        lock(&self.counts).admit(Instant::now(), line.0.finish(), place, *event.metadata().level(), text)
    }
}

impl Counts {
    /// Whether a line is told.
    fn admit(
        &mut self,
        now: Instant,
        line: u64,
        place: u64,
        level: Level,
        text: impl FnOnce() -> String,
    ) -> bool {
        let has_room = self.of_lines.len() < LINES_MAX || self.of_lines.contains_key(&line);
        let (counts, key) = if has_room { (&mut self.of_lines, line) } else { (&mut self.of_places, place) };
        let count = counts.entry(key).or_insert(Count { since: now, times: 0, level, text: None });
        count.times += 1;
        if count.times <= TOLD_AT_MOST {
            return true;
        }
        count.text.get_or_insert_with(text);
        false
    }

    /// What was left out in intervals that are over; they are forgotten.
    fn take(&mut self, is_over: impl Fn(Instant) -> bool) -> Vec<LeftOut> {
        let mut left_out = Vec::new();
        for counts in [&mut self.of_lines, &mut self.of_places] {
            for (_, count) in counts.extract_if(|_, count| is_over(count.since)) {
                let Count { times, level, text, .. } = count;
                left_out.extend(text.map(|text| LeftOut { times: times - TOLD_AT_MOST, level, text }));
            }
        }
        left_out
    }
}

impl LeftOutTold {
    /// From a thread of its own, which ends with the process: that a runtime hangs must not keep it from being told.
    pub fn at_intervals(&self) {
        let counts = Arc::downgrade(&self.0);
        let telling = thread::Builder::new().name("log".to_owned()).spawn(move || {
            loop {
                thread::sleep(LOOK_EVERY);
                let Some(counts) = counts.upgrade() else { return };
                let now = Instant::now();
                tell(&counts, |since| now.duration_since(since) >= INTERVAL);
            }
        });
        if let Err(error) = telling {
            tracing::warn!("repeated lines of the log are counted, and told at the end alone: {error}");
        }
    }
}

impl Drop for LeftOutTold {
    fn drop(&mut self) {
        tell(&self.0, |_| true);
    }
}

fn tell(counts: &Mutex<Counts>, is_over: impl Fn(Instant) -> bool) {
    // Not with the lock: the lines come by here, too.
    let left_out = lock(counts).take(is_over);
    IS_TELLING.set(true);
    for LeftOut { times, level, text } in left_out {
        macro_rules! say {
            ($level:ident) => {
                tracing::event!(
                    target: "smartlink",
                    Level::$level,
                    left_out = times,
                    "the same {times} times more in {} s, left out: {text}",
                    INTERVAL.as_secs()
                )
            };
        }
        match level {
            Level::ERROR => say!(ERROR),
            Level::WARN => say!(WARN),
            Level::INFO => say!(INFO),
            Level::DEBUG => say!(DEBUG),
            Level::TRACE => say!(TRACE),
        }
    }
    IS_TELLING.set(false);
}

/// A count is whole whatever happened to who counted.
fn lock(counts: &Mutex<Counts>) -> MutexGuard<'_, Counts> {
    counts.lock().unwrap_or_else(PoisonError::into_inner)
}

thread_local! {
    /// What tells of lines that were left out is told itself, always.
    static IS_TELLING: Cell<bool> = const { Cell::new(false) };
}

/// What a line says, without writing it down.
struct Hashed<H>(H);

impl<H: Hasher> Visit for Hashed<H> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.write_usize(field.index());
        // It never fails.
        let _ = write!(self, "{value:?}");
    }
}

impl<H: Hasher> Write for Hashed<H> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.write(text.as_bytes());
        Ok(())
    }
}

/// What a line says; what ends lines in it is spelled when it is told.
struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let gap = if self.0.is_empty() { "" } else { " " };
        // It never fails.
        let _ = match field.name() {
            "message" => write!(self.0, "{gap}{value:?}"),
            name => write!(self.0, "{gap}{name}={value:?}"),
        };
    }
}

/// Of the same line, in an interval.
const TOLD_AT_MOST: u64 = 10;

const INTERVAL: Duration = Duration::from_secs(10);

const LOOK_EVERY: Duration = Duration::from_secs(1);

/// More than anybody reads in an interval.
const LINES_MAX: usize = 1000;

#[cfg(test)]
mod tests {
    use std::io;

    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Log {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What is logged of some work, to its end.
    fn logged(work: impl FnOnce()) -> Vec<String> {
        let log = Log::default();
        let written = log.clone();
        let (repeats, told) = Repeats::new();
        let format = tracing_subscriber::fmt::layer()
            .without_time()
            .with_target(false)
            .with_ansi(false)
            .with_writer(move || written.clone());
        let subscriber = tracing_subscriber::registry().with(repeats).with(format);
        tracing::subscriber::with_default(subscriber, || {
            work();
            drop(told);
        });
        let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn a_repeated_line_is_told_a_few_times_and_then_counted() {
        let lines = logged(|| {
            for _ in 0..500 {
                tracing::warn!(error = "no room", "a connection could not be registered");
            }
            tracing::info!("another");
        });
        assert_eq!(lines.len(), 12, "{lines:#?}");
        for line in &lines[..10] {
            assert_eq!(line, " WARN a connection could not be registered error=\"no room\"");
        }
        assert_eq!(lines[10], " INFO another");
        assert_eq!(
            lines[11],
            " WARN the same 490 times more in 10 s, left out: a connection could not be registered error=\"no room\" \
             left_out=490"
        );
    }

    #[test]
    fn lines_that_differ_in_anything_are_not_the_same() {
        let lines = logged(|| {
            for nth in 0..200 {
                tracing::info!(nth, "published");
            }
            for nth in 0..200 {
                tracing::warn!("item {nth} is left out");
            }
            for _ in 0..TOLD_AT_MOST {
                tracing::info!("here");
            }
            for _ in 0..TOLD_AT_MOST {
                tracing::info!("here");
            }
        });
        assert_eq!(lines.len(), 420, "{lines:#?}");
    }

    #[test]
    fn a_place_that_says_ever_new_things_is_bounded_too() {
        let (said, told) = (5 * LINES_MAX, LINES_MAX + TOLD_AT_MOST as usize);
        let lines = logged(|| (0..said).for_each(|nth| tracing::info!(nth, "never the same")));
        assert_eq!(lines.len(), told + 1);
        let left_out = format!("the same {} times more", said - told);
        assert!(lines[told].contains(&left_out), "{}", lines[told]);
    }

    #[test]
    fn an_interval_ends_and_another_begins() {
        let (mut counts, begun) = (Counts::default(), Instant::now());
        let text = || "said".to_owned();
        let say = |counts: &mut Counts, at: Instant, times: u64| -> u64 {
            (0..times).map(|_| u64::from(counts.admit(at, 1, 2, Level::INFO, text))).sum()
        };
        assert_eq!(say(&mut counts, begun, 15), TOLD_AT_MOST);
        let over_at = |now: Instant| move |since: Instant| now.duration_since(since) >= INTERVAL;
        assert_eq!(counts.take(over_at(begun + INTERVAL / 2)), []);
        let left_out = LeftOut { times: 5, level: Level::INFO, text: "said".to_owned() };
        assert_eq!(counts.take(over_at(begun + INTERVAL)), [left_out]);
        assert_eq!(say(&mut counts, begun + INTERVAL, 10), TOLD_AT_MOST);
        assert_eq!(counts.take(|_| true), []);
        assert!(counts.of_lines.is_empty() && counts.of_places.is_empty());
    }
}
