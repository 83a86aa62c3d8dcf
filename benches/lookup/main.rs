//! Who is clicking: what it costs to tell where a visitor is, and what they hold. Each group says what was measured.

mod country;
mod device;

use criterion::{criterion_group, criterion_main};

criterion_group!(benches, country::country, device::devices);
criterion_main!(benches);
