//! libFuzzer on [`fleet_fuzz::api`]; see tests/fuzz.sh.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fleet_fuzz::api(data));
