#![no_main]

#[path = "../targets/signals.rs"]
#[allow(dead_code)]
mod target;

libfuzzer_sys::fuzz_target!(|data: &[u8]| target::security_event(data));
