//! Turns at work that takes a processor for long: pages and scrapes that walk a whole network. So many are done at a time, each on
//! a thread of its own, that those who answer small questions are never behind them; some wait, for a bounded time; the
//! others are told to come again.

use std::panic;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task;

/// The turns there are. Clones share them.
#[derive(Clone, Debug)]
pub struct Turns {
    /// One permit for each that can be had at a time.
    free: Arc<Semaphore>,
    /// One permit for each that can be waited for at a time.
    places: Arc<Semaphore>,
    waiting_max: usize,
    patience: Duration,
}

/// A turn, until it is dropped.
#[derive(Debug)]
pub struct Turn {
    _permit: OwnedSemaphorePermit,
}

/// There was no turn to be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "This is asked for more often than it can be answered; ask again in {} s.",
    Crowded::RETRY_AFTER_SECONDS
)]
pub struct Crowded;

impl Crowded {
    /// When to ask again.
    pub const RETRY_AFTER_SECONDS: u64 = 2;
}

impl Turns {
    /// So many at a time.
    pub fn new(at_once: usize) -> Self {
        Self::bounded(at_once, WAITING_MAX, PATIENCE)
    }

    /// So many at a time; so many wait, and each of them so long.
    pub fn bounded(at_once: usize, waiting_max: usize, patience: Duration) -> Self {
        Self {
            free: Arc::new(Semaphore::new(at_once)),
            places: Arc::new(Semaphore::new(waiting_max)),
            waiting_max,
            patience,
        }
    }

    /// A turn, in the order in which they were asked for.
    pub async fn take(&self) -> Result<Turn, Crowded> {
        // Nobody is passed by: there is a free one only if nobody waits.
        if let Ok(permit) = Arc::clone(&self.free).try_acquire_owned() {
            return Ok(Turn { _permit: permit });
        }
        let Ok(_place) = self.places.try_acquire() else { return Err(Crowded) };
        let turn = tokio::time::timeout(self.patience, Arc::clone(&self.free).acquire_owned()).await;
        match turn {
            Ok(Ok(permit)) => Ok(Turn { _permit: permit }),
            // Nobody closes it.
            Ok(Err(_)) | Err(_) => Err(Crowded),
        }
    }

    /// Waits for a turn and does the work in it, on a thread that answers nobody else. The turn is the work's: it lasts
    /// until the work is done, whether or not whoever asked still waits for it. A panic of the work is one of who asked.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Crowded> {
        let turn = self.take().await?;
        let done = task::spawn_blocking(move || {
            let done = work();
            drop(turn);
            done
        });
        match done.await {
            Ok(done) => Ok(done),
            Err(error) => match error.try_into_panic() {
                Ok(panic) => panic::resume_unwind(panic),
                // The process ends.
                Err(_) => Err(Crowded),
            },
        }
    }

    /// How many wait for one at this moment.
    pub fn waiting(&self) -> usize {
        self.waiting_max - self.places.available_permits()
    }
}

/// More people than look at one node, each with a few pages that come up to date by themselves.
const WAITING_MAX: usize = 64;

/// Shorter than people and scrapers wait.
const PATIENCE: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// Until so many wait.
    async fn wait_for(turns: &Turns, waiting: usize) {
        while turns.waiting() != waiting {
            task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn so_many_at_a_time_so_many_wait_and_one_more_is_told() {
        let turns = Turns::bounded(2, 1, Duration::from_secs(3_600));
        let [first, _second] = [turns.take().await.unwrap(), turns.take().await.unwrap()];
        let third = tokio::spawn({
            let turns = turns.clone();
            async move { turns.take().await.is_ok() }
        });
        wait_for(&turns, 1).await;
        assert_eq!(turns.take().await.unwrap_err(), Crowded);
        drop(first);
        assert!(third.await.unwrap());
        assert_eq!(turns.waiting(), 0);
        assert!(turns.take().await.is_ok(), "the third has let go of it");
    }

    #[tokio::test]
    async fn nobody_waits_for_ever() {
        let turns = Turns::bounded(1, 1, Duration::from_millis(20));
        let turn = turns.take().await.unwrap();
        let begun = tokio::time::Instant::now();
        assert_eq!(turns.take().await.unwrap_err(), Crowded);
        assert!(begun.elapsed() >= Duration::from_millis(20));
        assert_eq!(turns.waiting(), 0);
        drop(turn);
        assert!(turns.take().await.is_ok());
    }

    #[tokio::test]
    async fn a_turn_lasts_as_long_as_the_work_though_nobody_waits_for_it() {
        let turns = Turns::bounded(1, 1, Duration::from_secs(3_600));
        let (go_on, told) = mpsc::channel::<()>();
        let asked = tokio::spawn({
            let turns = turns.clone();
            async move { turns.run(move || told.recv().is_ok()).await }
        });
        while turns.free.available_permits() > 0 {
            task::yield_now().await;
        }
        asked.abort();
        assert!(asked.await.unwrap_err().is_cancelled());
        let next = tokio::spawn({
            let turns = turns.clone();
            async move { turns.run(|| 7).await }
        });
        wait_for(&turns, 1).await;
        go_on.send(()).unwrap();
        assert_eq!(next.await.unwrap(), Ok(7));
    }

    #[tokio::test]
    async fn a_panic_gives_the_turn_back_and_is_whose_it_is() {
        let turns = Turns::new(1);
        let asked = tokio::spawn({
            let turns = turns.clone();
            async move { turns.run(|| panic!("a panic of this test")).await }
        });
        let ended: Result<Result<(), Crowded>, _> = asked.await;
        assert!(ended.unwrap_err().is_panic());
        assert_eq!(turns.run(|| 7).await, Ok(7));
    }
}
