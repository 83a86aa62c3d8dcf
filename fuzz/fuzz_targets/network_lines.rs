#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| smartlink_fuzz::network_lines(data));
