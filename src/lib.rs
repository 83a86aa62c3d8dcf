//! smartlink
pub mod types;
