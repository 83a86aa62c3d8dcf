//! Everything the upstream says, in domain terms: the input of [`compile`](super::compile::compile).
//!
//! Values here are already parsed (a weight is in range, a country exists); what only shows when items meet, such
//! as an entry that names an unknown offer, is for `compile` to find. Items have a total order, so that `compile` can
//! bring any snapshot into the same one.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use crate::types::{AffiliateId, CapKey, LinkId, OfferId, RuleId, UnixMillis};

use super::targeting::{Condition, Zone};

/// A network: its links, its offers, and which offer hangs on which link. What there are millions of may be borrowed:
/// a copy of it would be as large as the table.
#[derive(Clone, Debug, Default)]
pub struct Snapshot<'a> {
    pub links: Cow<'a, [Link]>,
    pub offers: Vec<Offer>,
    /// Entries without rule and conditions.
    pub attachments: Cow<'a, [Attachment]>,
    /// Rules; attachments may be here, too.
    pub entries: Cow<'a, [Entry]>,
    /// No part of the table: they are kept by offer, beside it, so that a cap can change without it.
    pub caps: Vec<Cap>,
}

/// How much an offer may take in a window.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cap {
    pub key: CapKey,
    /// Clicks or conversions.
    pub amount: u64,
    /// In which the windows begin and end.
    pub zone: Zone,
    /// Never closes the offer; somebody is told when the amount is reached.
    pub alert_only: bool,
}

/// What `id` names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Link {
    pub id: LinkId,
    /// The only affiliate whose clicks this link takes.
    pub affiliate: AffiliateId,
    pub active: bool,
    pub rotation: Rotation,
    /// Whether offers whose caps are full are passed over.
    pub cap_aware: bool,
    /// A destination template, tried before the network's.
    pub fallback_url: Option<Box<str>>,
}

/// A destination.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Offer {
    pub id: OfferId,
    pub active: bool,
    /// The first moment at which the offer is expired.
    pub expires_at: Option<UnixMillis>,
    /// A destination template.
    pub url: String,
    /// Geo targets; all must hold, on whatever entry the offer hangs.
    pub targeting: Vec<Condition>,
}

/// An offer attached to a link, for every click.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Attachment {
    pub link: LinkId,
    pub offer: OfferId,
    /// Lower is tried first.
    pub priority: u32,
    pub weight: Weight,
}

/// An offer attached to a link. With `rule`, a routing rule; without, a plain attachment.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    pub link: LinkId,
    pub offer: OfferId,
    pub weight: Weight,
    /// Lower is tried first.
    pub priority: u32,
    pub rule: Option<RuleId>,
    /// All must hold. Rules repeat each other, so that many share one list.
    pub conditions: Arc<[Condition]>,
}

/// How a tier shares its traffic (CAKE's `rotation_type`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rotation {
    /// In proportion to `offer_weight`.
    #[default]
    Weighted,
    /// Equal shares; an entry of weight 0 still gets none.
    Even,
    /// The lowest offer id takes all; an entry of weight 0 still gets none.
    Priority,
}

impl Rotation {
    pub const ALL: [Rotation; 3] = [Rotation::Weighted, Rotation::Even, Rotation::Priority];

    pub const fn as_str(self) -> &'static str {
        match self {
            Rotation::Weighted => "weighted",
            Rotation::Even => "even",
            Rotation::Priority => "priority",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|rotation| rotation.as_str() == text)
    }

    /// What a positive weight counts for when a tier is drawn.
    pub(super) fn share(self, weight: u8) -> u8 {
        match self {
            Rotation::Weighted => weight,
            Rotation::Even | Rotation::Priority => 1,
        }
    }
}

/// 0 to 100. Zero is "attached, gets no traffic".
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Weight(u8);

impl Weight {
    pub const MAX: u8 = 100;

    pub const fn new(value: u8) -> Option<Self> {
        if value <= Self::MAX { Some(Self(value)) } else { None }
    }

    pub const fn value(self) -> u8 {
        self.0
    }
}

/// Something in the snapshot that an operator should mend. The item it names was left out of the table, unless
/// the problem says otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// The item: `offer 1042`, `rule 7 of smart link 301`.
    pub item: String,
    /// What is wrong with it and what happens now.
    pub problem: String,
}

impl Warning {
    pub fn new(item: impl fmt::Display, problem: impl fmt::Display) -> Self {
        Self { item: item.to_string(), problem: problem.to_string() }
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.item, self.problem)
    }
}

const _: () =
    assert!(size_of::<Attachment>() == 16 && size_of::<Link>() == 32, "a network has millions of them");
