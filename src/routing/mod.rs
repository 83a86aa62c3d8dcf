//! The heart: a [`Snapshot`] is compiled into a [`Table`], and a table decides a click.
//!
//! Pure: no async, no I/O, no clock, no random generator, no logging, no serde. The moment of the click and the draw
//! are arguments, so that a decision can be replayed from its record.

mod alias;
mod caps;
mod compile;
mod decide;
mod describe;
mod destination;
mod explain;
mod layers;
mod sets;
mod snapshot;
mod table;
mod targeting;

pub use caps::{CapView, ClosedCap, ClosedReason, NoCaps};
pub use compile::{CompileOptions, compile};
pub use decide::{Choice, Decision, Outcome, decide};
pub use describe::{ConditionFace, EntryFace, LinkFace, TierFace, describe};
pub use destination::{
    DestinationPolicy, LOCATION_BYTES_MAX, TEMPLATE_BYTES_MAX, Template, TemplateError, TooLong, Values,
};
pub use explain::{EntryStory, Explanation, Failure, TierStory, explain};
pub use layers::{LayeredTable, LinkIds};
pub use sets::{HostSet, NameSet, NetSet, SortedSet, TextSet, is_host_pattern, parse_net};
pub use snapshot::{Attachment, Cap, Entry, Link, Offer, Rotation, Snapshot, Warning, Weight};
pub use table::{BotPolicy, IdHasher, Table};
pub use targeting::{Condition, DAY_NAMES, Flag, Flags, Hours, MinuteOfDay, Mode, ValueSet, Zone};
