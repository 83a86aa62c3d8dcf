//! Where conversions are handed in: a bounded line between those who take postbacks and whoever carries them to the
//! ledger, many at a time.
//!
//! Whoever hands one in hears what became of it once it is durable, or that this is not known. Then it is told again: the
//! ledger counts it once.

use tokio::sync::{mpsc, oneshot};

use super::message::{Conversion, Recorded};

/// Takes conversions. Clones share the line.
#[derive(Clone, Debug)]
pub struct ConversionDesk {
    line: mpsc::Sender<HandedIn>,
}

/// The other end of the line.
#[derive(Debug)]
pub struct ConversionLine {
    handed_in: mpsc::Receiver<HandedIn>,
}

/// Conversions that are carried together, and who waits for each. Dropped without an answer, it tells everybody that
/// nothing is known.
#[derive(Debug)]
pub struct ConversionBatch {
    waiting: Vec<oneshot::Sender<Recorded>>,
}

#[derive(Debug)]
struct HandedIn {
    conversion: Conversion,
    answer: oneshot::Sender<Recorded>,
}

/// Both ends of a line.
pub fn conversion_desk() -> (ConversionDesk, ConversionLine) {
    let (line, handed_in) = mpsc::channel(WAITING_MAX);
    (ConversionDesk { line }, ConversionLine { handed_in })
}

impl ConversionDesk {
    /// Waits until the conversion is durable. `None`: the line is full, or the ledger failed or is away.
    pub async fn hand_in(&self, conversion: Conversion) -> Option<Recorded> {
        let (answer, answered) = oneshot::channel();
        self.line.try_send(HandedIn { conversion, answer }).ok()?;
        answered.await.ok()
    }
}

impl ConversionLine {
    /// All that wait, up to `conversions_max`; waits for the first. `None`: nobody will hand in any more.
    pub async fn next_batch(&mut self, conversions_max: usize) -> Option<(Vec<Conversion>, ConversionBatch)> {
        let mut handed_in = Vec::new();
        if self.handed_in.recv_many(&mut handed_in, conversions_max).await == 0 {
            return None;
        }
        let (conversions, waiting) =
            handed_in.into_iter().map(|HandedIn { conversion, answer }| (conversion, answer)).unzip();
        Some((conversions, ConversionBatch { waiting }))
    }
}

impl ConversionBatch {
    /// Tells each what became of theirs, in the order in which they were handed in.
    pub fn answer(self, recorded: Vec<Recorded>) {
        for (waiting, recorded) in self.waiting.into_iter().zip(recorded) {
            // Whoever waits no longer has dropped the other end.
            let _ = waiting.send(recorded);
        }
    }
}

/// A second's worth on a busy day: whoever stands behind them is better told to come again.
const WAITING_MAX: usize = 8192;

#[cfg(test)]
mod tests {
    use super::*;

    fn conversion(transaction: &str) -> Conversion {
        Conversion {
            click_id: "id".to_owned(),
            event: 0,
            transaction: transaction.to_owned(),
            offer_id: 1,
            affiliate_id: 2,
            smart_link_id: 3,
            clicked_at: 4,
            amount: None,
        }
    }

    #[tokio::test]
    async fn each_hears_of_its_own() {
        let (desk, mut line) = conversion_desk();
        let callers: Vec<_> = ["a", "b", "c"]
            .map(|name| {
                let desk = desk.clone();
                tokio::spawn(async move { desk.hand_in(conversion(name)).await })
            })
            .into();
        let mut told = 0;
        while told < 2 {
            let (conversions, batch) = line.next_batch(2 - told).await.unwrap();
            told += conversions.len();
            let of_name = |conversion: &Conversion| match conversion.transaction.as_str() {
                "b" => Recorded::Repeated,
                _ => Recorded::Counted,
            };
            batch.answer(conversions.iter().map(of_name).collect());
        }
        // The third is carried, and nothing is heard of it.
        drop(line.next_batch(10).await.unwrap());
        let mut heard = Vec::new();
        for caller in callers {
            heard.push(caller.await.unwrap());
        }
        assert_eq!(heard, [Some(Recorded::Counted), Some(Recorded::Repeated), None]);
        drop(desk);
        assert!(line.next_batch(10).await.is_none());
    }

    #[tokio::test]
    async fn a_full_line_takes_no_more() {
        let (desk, line) = conversion_desk();
        let callers: Vec<_> = (0..WAITING_MAX)
            .map(|_| {
                let desk = desk.clone();
                tokio::spawn(async move { desk.hand_in(conversion("x")).await })
            })
            .collect();
        while desk.line.capacity() > 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(desk.hand_in(conversion("y")).await, None);
        drop(line);
        for caller in callers {
            assert_eq!(caller.await.unwrap(), None);
        }
    }
}
