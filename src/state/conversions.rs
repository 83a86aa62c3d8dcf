//! What came of a postback, as it is counted.

/// Each postback is one of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConversionCount {
    Counted,
    /// It was known already.
    Repeated,
    /// The click id was forged or damaged.
    Forged,
    /// The click was too long ago, or is yet to come.
    Late,
    /// The click went to no offer.
    Unknown,
    /// A parameter is missing, repeated or malformed; or the request as a whole is.
    Invalid,
    /// The ledger did not say that it has it.
    Failed,
}

impl ConversionCount {
    pub const ALL: [ConversionCount; 7] = [
        ConversionCount::Counted,
        ConversionCount::Repeated,
        ConversionCount::Forged,
        ConversionCount::Late,
        ConversionCount::Unknown,
        ConversionCount::Invalid,
        ConversionCount::Failed,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            ConversionCount::Counted => "counted",
            ConversionCount::Repeated => "repeated",
            ConversionCount::Forged => "forged",
            ConversionCount::Late => "late",
            ConversionCount::Unknown => "unknown",
            ConversionCount::Invalid => "invalid",
            ConversionCount::Failed => "failed",
        }
    }
}
