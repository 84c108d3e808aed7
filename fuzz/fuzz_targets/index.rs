//! The fuzz target `index`; what it does is in `src/lib.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| minic_fuzz::index(bytes));
