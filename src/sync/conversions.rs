//! Carries conversions to the ledger, as many at a time as have come: a disk that takes a few hundred commits a second takes
//! thousands of conversions.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::cap_keeper::{LedgerAt, Place, Unanswered};
use crate::ledger::{Conversion, ConversionLine, Recorded};

/// Stands between the line of conversions and the ledger.
pub struct ConversionCarrier {
    ledger: LedgerAt,
    line: ConversionLine,
    is_answering: bool,
}

impl ConversionCarrier {
    pub fn new(ledger: LedgerAt, line: ConversionLine) -> Self {
        Self { ledger, line, is_answering: true }
    }

    /// Runs until nobody hands in conversions any more. One batch is under way; the next gathers meanwhile. One that fails
    /// is not tried again: whoever sent a postback is told so, and sends it again.
    pub async fn run(mut self) {
        while let Some((conversions, batch)) = self.line.next_batch(BATCH_MAX).await {
            match self.ledger.record(conversions).await {
                Ok(recorded) => {
                    batch.answer(recorded);
                    if !self.is_answering {
                        tracing::info!("the ledger takes conversions again");
                    }
                    self.is_answering = true;
                }
                Err(error) => {
                    drop(batch);
                    if self.is_answering {
                        tracing::warn!(
                            "the ledger takes no conversions: {error}; postbacks are answered 503, and are to come again"
                        );
                    }
                    self.is_answering = false;
                }
            }
            tokio::time::sleep(BETWEEN).await;
        }
    }
}

impl LedgerAt {
    async fn record(&self, conversions: Vec<Conversion>) -> Result<Vec<Recorded>, Unanswered> {
        let count = conversions.len();
        let answered = async {
            let recorded = match self.place() {
                Place::Here(ledger) => ledger.record(conversions).await?,
                Place::Upstream(client) => {
                    let body = Bytes::from(serde_json::to_vec(&conversions)?);
                    client.send(RECORD, body, Arc::new(|_| {})).await?.response()?
                }
                Place::OutOfReach => return Err(Unanswered::OutOfReach),
            };
            // What became of which could not be told.
            if recorded.len() == count {
                Ok(recorded)
            } else {
                Err(Unanswered::Short { recorded: recorded.len(), count })
            }
        };
        tokio::time::timeout(PATIENCE, answered).await.unwrap_or(Err(Unanswered::Late(PATIENCE)))
    }
}

/// The call of the API behind which a ledger is.
const RECORD: &str = "record_conversions.json";

/// A batch of these is written within some ten milliseconds, and is a body of less than 2 MiB.
const BATCH_MAX: usize = 1_000;

/// So that what comes together is written together, and a key of the API may make as many calls.
const BETWEEN: Duration = Duration::from_millis(5);

/// How long one batch may take.
const PATIENCE: Duration = Duration::from_secs(5);
