//! Who may call, and how often: the keys that came with a call are checked before anything is done for it.
//!
//! The node's own key passes always: the edge refreshes by it, and is not to be kept out by anybody's haste. Every
//! other key has a bucket of calls. Keys that were not yet found valid share one bucket, which is asked before the
//! key is looked for, so that guessing is slow; a key that was found valid has its own from then on, so that whoever
//! guesses keeps out no key that is in use.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::answer::Refusal;
use super::keys::{self, Hash, KEYS_MAX};
use super::parameters::PresentedKeys;
use super::rate::{Bucket, Rate};
use super::{Options, Store};

/// What is remembered of callers, from the start of the process on.
pub struct Gate {
    limit: Option<Limit>,
    started: Instant,
}

struct Limit {
    rate: Rate,
    buckets: Mutex<Buckets>,
}

/// At most [`KEYS_MAX`], and one: whoever calls from wherever, the memory is bounded.
struct Buckets {
    /// Of keys that were valid when last seen.
    valid: HashMap<Hash, Bucket>,
    /// Of everybody else.
    strangers: Bucket,
}

impl Gate {
    pub fn new(rate: Option<Rate>) -> Self {
        let limit = rate.map(|rate| {
            let strangers = Bucket::full(rate, Duration::ZERO);
            Limit { rate, buckets: Mutex::new(Buckets { valid: HashMap::new(), strangers }) }
        });
        Self { limit, started: Instant::now() }
    }

    /// Lets the call in, or refuses it. Blocks: keys are read from the store for each call, so that one which another
    /// process revoked is refused at once.
    pub fn admit(&self, store: &Store, options: &Options, presented: &PresentedKeys) -> Result<(), Refusal> {
        if presented.is_empty() {
            return Err(Refusal::Key("missing"));
        }
        let own = options.api_key.borrow().clone();
        // Where several came, none may be wrong: a stale one beside the right one is a mistake worth hearing of.
        for key in presented.iter() {
            let key = key.ok_or(Refusal::Key("wrong"))?;
            if !own.matches(key.as_bytes()) {
                self.admit_named(store, key)?;
            }
        }
        Ok(())
    }

    /// A key that is not the node's own.
    fn admit_named(&self, store: &Store, key: &str) -> Result<(), Refusal> {
        let hash = keys::hash(key);
        let now = self.started.elapsed();
        if let Some(limit) = &self.limit {
            limit.take(&hash, now)?;
        }
        let last_used = store.read(|transaction| keys::last_used(transaction, &hash))?;
        if let Some(limit) = &self.limit {
            limit.remember(&hash, last_used.is_some(), now);
        }
        let last_used_on = last_used.ok_or(Refusal::Key("wrong"))?;
        let today = Timestamp::now().strftime("%Y-%m-%d").to_string();
        if last_used_on.as_deref() != Some(&today) {
            let noted = store.write_aside(|transaction| keys::note_use(transaction, &hash, &today));
            if let Err(error) = noted {
                // The day is for people who tidy up; the call need not fail for it.
                tracing::warn!(%error, "the day on which an API key was used could not be noted");
            }
        }
        Ok(())
    }
}

impl Limit {
    fn take(&self, hash: &Hash, now: Duration) -> Result<(), Refusal> {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let Buckets { valid, strangers } = &mut *buckets;
        let (who, bucket) = match valid.get_mut(hash) {
            Some(bucket) => ("this key", bucket),
            None => ("callers with a wrong or a new key, all together,", strangers),
        };
        bucket.take(self.rate, now).map_err(|wait| Refusal::TooMany {
            who,
            rate: self.rate,
            wait_seconds: wait.as_secs_f64().ceil().max(1.0) as u64,
        })
    }

    fn remember(&self, hash: &Hash, is_valid: bool, now: Duration) {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let Buckets { valid, strangers } = &mut *buckets;
        if !is_valid {
            valid.remove(hash);
        } else if !valid.contains_key(hash) {
            if valid.len() >= KEYS_MAX as usize {
                // Keys that were revoked and never came again. The table itself holds no more than this.
                valid.retain(|_, bucket| !bucket.is_full(self.rate, now));
            }
            if valid.len() >= KEYS_MAX as usize {
                return;
            }
            let mut bucket = Bucket::full(self.rate, now);
            // Its call is its own, not the strangers': they get their token back, and it pays.
            strangers.give_back(self.rate);
            // A full bucket has a token, so nothing can be refused here.
            let _ = bucket.take(self.rate, now);
            valid.insert(*hash, bucket);
        }
    }
}
