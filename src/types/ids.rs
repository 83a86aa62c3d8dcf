//! The numbers by which CAKE names things. A link is not an offer, so each has a type of its own.

use std::fmt;
use std::num::NonZeroU32;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(NonZeroU32);

        impl $name {
            /// `None` for zero, which names nothing.
            pub const fn new(value: u32) -> Option<Self> {
                match NonZeroU32::new(value) {
                    Some(value) => Some(Self(value)),
                    None => None,
                }
            }

            /// The number as CAKE writes it, 1 ≤ value < 2³².
            pub const fn value(self) -> u32 {
                self.0.get()
            }

            /// Reads an id as a click spells it: 1 to 10 ASCII digits, no leading zero, 1 ≤ value < 2³².
            pub fn parse(text: &[u8]) -> Option<Self> {
                parse_digits(text).map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }
    };
}

id!(
    /// What `id` names in a click: CAKE's `smart_link_id`.
    LinkId
);
id!(
    /// What `aff_id` names in a click: CAKE's `affiliate_id`.
    AffiliateId
);
id!(
    /// A destination: CAKE's `offer_id`.
    OfferId
);
id!(
    /// A routing rule: our `rule_id`.
    RuleId
);

fn parse_digits(text: &[u8]) -> Option<NonZeroU32> {
    if text.is_empty() || text.len() > DIGITS_MAX || text[0] == b'0' {
        return None;
    }
    let mut value: u64 = 0;
    for &digit in text {
        if !digit.is_ascii_digit() {
            return None;
        }
        value = value * 10 + u64::from(digit - b'0');
    }
    u32::try_from(value).ok().and_then(NonZeroU32::new)
}

/// 4294967295 has ten digits.
const DIGITS_MAX: usize = 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_a_click_may_say() {
        for (text, value) in [("1", 1), ("301", 301), ("4294967295", u32::MAX)] {
            assert_eq!(LinkId::parse(text.as_bytes()).map(LinkId::value), Some(value));
        }
    }

    #[test]
    fn refuses_everything_else() {
        for text in
            ["", "0", "01", "+1", "-1", " 1", "1 ", "1a", "0x1", "4294967296", "42949672950", "١", "%31"]
        {
            assert_eq!(LinkId::parse(text.as_bytes()), None, "{text:?}");
        }
    }
}
