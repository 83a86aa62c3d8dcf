//! What nodes and the ledger say to each other, as values and as JSON.
//!
//! Idempotent by (node, epoch, sequence): a node has one request under way, repeats it word for word until it is
//! answered, and only then counts on. The ledger remembers the last answer of each (node, epoch) and gives it again.
//!
//! Each ledger has an identity, and a request names the one to which it speaks: what was granted by a file that was moved
//! away is nothing to the file that took its place. Like an epoch it is a number of 64 bits, which JSON writes in full; a
//! reader that takes numbers for doubles would round it, and none of these messages is for such a one.

use serde::{Deserialize, Serialize};

use crate::types::CapKey;

/// What a node did with its leases, and what it wants.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseRequest {
    /// The node's name, 1 to 64 characters.
    pub node: String,
    /// Another at every start of the node: what an earlier one held is lost.
    pub epoch: u64,
    /// 1, 2, 3 … within an epoch.
    pub sequence: u64,
    /// The last [`LeaseReply::news`] that the node has heard; 0 if none.
    pub news_since: u64,
    /// The ledger to which this speaks, as its answers named it; `None`: none has answered yet, and whoever reads this is
    /// the one.
    #[serde(default)]
    pub ledger: Option<u64>,
    /// Each cap at most twice: for a window that has ended, and for the one at hand.
    pub items: Vec<LeaseItem>,
}

/// One cap of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseItem {
    #[serde(with = "cap_key")]
    pub cap: CapKey,
    /// Of which window `spent` and `returned` tell, as its grant named it; `None`: both are of the current one.
    pub window: Option<i64>,
    /// Clicks that were granted and sent to the offer since the last request.
    pub spent: u64,
    /// Clicks that were granted and will not be spent.
    pub returned: u64,
    /// Clicks that the node would like to have beside those it holds. 0: none, only tell how the window stands.
    pub wants: u64,
    /// Clicks of that window that the node still holds after this. A ledger that may have lost what it wrote learns from it.
    #[serde(default)]
    pub holds: u64,
    /// Clicks since the last request that needed no grant, because the cap only alerted when they came. They count in the
    /// window at hand, whatever the cap does by now.
    #[serde(default)]
    pub counted: u64,
}

/// The ledger's answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseReply {
    /// Which ledger this is. If it is not the one to which the request speaks, nothing was settled, granted or told.
    #[serde(default)]
    pub ledger: u64,
    /// The request's.
    pub sequence: u64,
    /// Up to where `standings` tell.
    pub news: u64,
    /// One for each cap of the request that the ledger knows, be it one that was removed. Of any other nothing was settled
    /// or counted.
    pub grants: Vec<Grant>,
    /// The caps whose standing has changed since `news_since`.
    pub standings: Vec<Standing>,
}

impl LeaseReply {
    /// Of this ledger, to a request that does not speak to it.
    pub(super) fn of_another(ledger: u64, request: &LeaseRequest) -> Self {
        Self { ledger, sequence: request.sequence, news: 0, grants: Vec::new(), standings: Vec::new() }
    }
}

/// Clicks that a node may spend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    #[serde(with = "cap_key")]
    pub cap: CapKey,
    /// The window's beginning in seconds since 1970. They are spent in this window or not at all.
    pub window: i64,
    pub granted: u64,
    /// Until the window ends, in milliseconds from when the ledger wrote this; `None`: it never does.
    pub ends_in_ms: Option<u64>,
}

/// How a cap stands, where a node that holds nothing of it must know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    #[serde(with = "cap_key")]
    pub cap: CapKey,
    /// Full: nothing can be granted, or conversions have reached the amount.
    pub closed: bool,
    /// Some node asked for more than was left: whoever holds what it does not need should return it.
    pub wanted: bool,
    /// The amount was lowered below what is granted: everybody must return what they hold.
    pub recalled: bool,
    /// As [`Grant::ends_in_ms`].
    pub ends_in_ms: Option<u64>,
}

/// A cap as the API shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CapState {
    #[serde(with = "cap_key")]
    pub cap: CapKey,
    pub amount: u64,
    /// Clicks or conversions that are known to have been.
    pub used: u64,
    /// Clicks that nodes may be spending now.
    pub leased: u64,
    /// When the window ends, in milliseconds since 1970; `None`: never.
    pub window_ends_at: Option<i64>,
}

impl CapState {
    /// What may still be granted or counted.
    pub fn remaining(&self) -> u64 {
        self.amount.saturating_sub(self.used).saturating_sub(self.leased)
    }
}

/// A conversion whose click id was verified.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Conversion {
    /// With `event` and `transaction`, what makes it the same conversion when it is told again.
    pub click_id: String,
    pub event: u32,
    pub transaction: String,
    pub offer_id: u32,
    pub affiliate_id: u32,
    pub smart_link_id: u32,
    /// When the click was, in milliseconds since 1970.
    pub clicked_at: i64,
    /// What was paid, as it was told.
    pub amount: Option<String>,
}

/// What became of a conversion.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Recorded {
    /// Written down and counted.
    Counted,
    /// It was known already.
    Repeated,
}

/// A cap's name in the words of the API.
mod cap_key {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use crate::types::{AffiliateId, CapInterval, CapKey, CapKind, OfferId};

    #[derive(Serialize, Deserialize)]
    struct Named<'a> {
        offer_id: u32,
        affiliate_id: Option<u32>,
        cap_type: std::borrow::Cow<'a, str>,
        cap_interval: std::borrow::Cow<'a, str>,
    }

    pub fn serialize<S: Serializer>(key: &CapKey, to: S) -> Result<S::Ok, S::Error> {
        Named {
            offer_id: key.offer.value(),
            affiliate_id: key.affiliate.map(AffiliateId::value),
            cap_type: key.kind.as_str().into(),
            cap_interval: key.interval.as_str().into(),
        }
        .serialize(to)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<CapKey, D::Error> {
        let named = Named::deserialize(from)?;
        let unreadable = |field: &str| D::Error::custom(format!("`{field}` is none of a cap"));
        Ok(CapKey {
            offer: OfferId::new(named.offer_id).ok_or_else(|| unreadable("offer_id"))?,
            affiliate: match named.affiliate_id {
                Some(id) => Some(AffiliateId::new(id).ok_or_else(|| unreadable("affiliate_id"))?),
                None => None,
            },
            kind: CapKind::parse(&named.cap_type).ok_or_else(|| unreadable("cap_type"))?,
            interval: CapInterval::parse(&named.cap_interval).ok_or_else(|| unreadable("cap_interval"))?,
        })
    }
}
