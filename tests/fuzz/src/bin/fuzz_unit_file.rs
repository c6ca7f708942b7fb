//! libFuzzer on [`fleet_fuzz::unit_file`]; see tests/fuzz.sh.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fleet_fuzz::unit_file(data));
