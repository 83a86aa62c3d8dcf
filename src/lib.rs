//! smartlink
pub mod lookup;
pub mod types;
