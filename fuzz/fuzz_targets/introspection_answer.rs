#![no_main]

#[path = "../targets/introspection_answer.rs"]
mod target;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| target::run(bytes));
