//! What a call takes and what it answers, told once: the API refuses names that are not told here, and the document
//! that callers read (`openapi`) is written from it.

/// A parameter of a call.
#[derive(Clone, Copy, Debug)]
pub struct Parameter {
    pub name: &'static str,
    pub kind: Kind,
    pub about: &'static str,
    pub required: bool,
    /// Whether null takes the value away.
    pub removable: bool,
    pub default: Option<Given>,
    /// One that may be given instead of all of these.
    pub instead_of: &'static [&'static str],
}

/// What a value must be.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    Id,
    /// An id to look for; one that nothing has finds nothing.
    Sought,
    /// A whole number from the first to the second.
    Whole(i64, i64),
    Amount,
    Truth,
    Title,
    Text,
    OneOf(&'static [&'static str]),
    /// `YYYY-MM-DD HH:MM:SS`
    Moment,
    /// `US,CA,GB`
    Countries,
    /// The same, or a list of them.
    CountryList,
    Conditions,
    /// Anything but a list or an object.
    Single,
}

/// What a call assumes where nothing is sent.
#[derive(Clone, Copy, Debug)]
pub enum Given {
    Number(i64),
    Text(&'static str),
    Truth(bool),
}

/// What stands in an answer beside `request_status`. Items are named as in `schemas.json`.
#[derive(Clone, Copy, Debug)]
pub enum Shape {
    /// `response` with a list of that noun and `total_rows`.
    Page { noun: &'static str, item: &'static str },
    /// The same, without `response` around it.
    OpenPage { noun: &'static str, item: &'static str },
    /// `response` with an item.
    Under { item: &'static str },
    /// `response` with an item, and a `message` that is one of these.
    Told { item: &'static str, messages: &'static [&'static str] },
    /// The members of an item themselves.
    Open { item: &'static str },
    /// The first for one offer, the second for all.
    Either(&'static Shape, &'static Shape),
    /// No envelope, but lines of JSON, each such an item, of a state of the network that the caller may have already.
    Lines { item: &'static str },
}

impl Parameter {
    pub const fn new(name: &'static str, kind: Kind, about: &'static str) -> Self {
        Self { name, kind, about, required: false, removable: false, default: None, instead_of: &[] }
    }

    pub const fn required(self) -> Self {
        Self { required: true, ..self }
    }

    /// The same, as what a list is to be filtered by.
    pub const fn sought(self) -> Self {
        Self { kind: Kind::Sought, ..self }
    }

    pub const fn removable(self) -> Self {
        Self { removable: true, ..self }
    }

    pub const fn instead_of(self, others: &'static [&'static str]) -> Self {
        Self { instead_of: others, ..self }
    }

    pub const fn default(self, default: Given) -> Self {
        Self { default: Some(default), ..self }
    }
}

/// Which row a page begins with.
pub const START_AT_ROW: Parameter =
    Parameter::new("start_at_row", Kind::Whole(0, i64::MAX), "The row to begin with, counted from 0.")
        .default(Given::Number(0));

/// How long a page is; its default is each list's own.
pub const ROW_LIMIT: Parameter =
    Parameter::new("row_limit", Kind::Whole(1, ROW_LIMIT_MAX), "How many rows to answer at most.");

/// Whether a change is tried out alone; every call that changes the network takes it.
pub const DRY_RUN: Parameter = Parameter::new(
    "dry_run",
    Kind::Truth,
    "Whether it is only tried out: the answer is as if it had been done, and nothing is changed.",
)
.default(Given::Truth(false));

/// The highest priority number and id: 32 bits.
pub const NUMBER_MAX: i64 = u32::MAX as i64;

/// Refuses a text longer than this: a name is shown in tables.
pub const TITLE_CHARS_MAX: usize = 255;

/// CAKE's limit; over it, CAKE and we answer an error.
pub const ROW_LIMIT_MAX: i64 = 500;
