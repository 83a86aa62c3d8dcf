//! How a cap is named: what it counts, of which offer, and how often the count begins anew.

use std::fmt;

use super::ids::{AffiliateId, OfferId};

/// Which cap. An offer has at most one of each kind; a cap of the same name, set again, is the same cap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CapKey {
    pub offer: OfferId,
    /// A campaign cap counts this affiliate's traffic alone.
    pub affiliate: Option<AffiliateId>,
    pub kind: CapKind,
    pub interval: CapInterval,
}

/// What a cap counts (CAKE's `cap_type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CapKind {
    Click,
    Conversion,
}

/// How long a cap counts before it begins anew (CAKE's `cap_interval`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CapInterval {
    /// For ever.
    Lifetime,
    /// A civil day.
    Daily,
    /// An ISO week, which begins on Monday.
    Weekly,
    /// A civil month.
    Monthly,
}

impl CapKind {
    pub const ALL: [CapKind; 2] = [CapKind::Click, CapKind::Conversion];

    pub const fn as_str(self) -> &'static str {
        match self {
            CapKind::Click => "click",
            CapKind::Conversion => "conversion",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text)
    }
}

impl CapInterval {
    pub const ALL: [CapInterval; 4] =
        [CapInterval::Lifetime, CapInterval::Daily, CapInterval::Weekly, CapInterval::Monthly];

    pub const fn as_str(self) -> &'static str {
        match self {
            CapInterval::Lifetime => "lifetime",
            CapInterval::Daily => "daily",
            CapInterval::Weekly => "weekly",
            CapInterval::Monthly => "monthly",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|interval| interval.as_str() == text)
    }
}

impl fmt::Display for CapKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} cap of offer {}", self.interval.as_str(), self.kind.as_str(), self.offer)?;
        match self.affiliate {
            Some(affiliate) => write!(f, " for affiliate {affiliate}"),
            None => Ok(()),
        }
    }
}
