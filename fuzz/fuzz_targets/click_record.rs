#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| smartlink_fuzz::click_record(data));
