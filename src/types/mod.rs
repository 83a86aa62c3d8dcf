//! The vocabulary: ids, countries, devices, caps, the click. std only, no behaviour beyond parsing and naming.
//!
//! Every other room speaks in these types; none of them knows any other room.

mod cap;
mod click;
mod country;
mod device;
mod ids;

pub use cap::{CapInterval, CapKey, CapKind};
pub use click::{Click, Draw, Language, Place, Region, SUB_BYTES_MAX, SUBS, Subs, UnixMillis, referrer_host};
pub use country::{COUNTRIES, Country, CountrySet};
pub use device::{Browser, Device, DeviceKind, Os};
pub use ids::{AffiliateId, LinkId, OfferId, RuleId};
