//! The heart: a [`Snapshot`] is compiled into a [`Table`], and a table decides a click.
//!
//! Pure: no async, no I/O, no clock, no random generator, no logging, no serde. The moment of the click and the draw
//! are arguments, so that a decision can be replayed from its record.

mod alias;
mod destination;
mod sets;
mod snapshot;
mod targeting;

pub use destination::{
    DestinationPolicy, LOCATION_BYTES_MAX, TEMPLATE_BYTES_MAX, Template, TemplateError, TooLong, Values,
};
pub use sets::{HostSet, NameSet, NetSet, TextSet, is_host_pattern};
pub use snapshot::{Entry, Link, Offer, Rotation, Snapshot, Warning, Weight};
pub use targeting::{Condition, Flag, Flags, Hours, MinuteOfDay, Mode, ValueSet, Zone};
