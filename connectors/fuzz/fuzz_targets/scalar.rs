#![no_main]

libfuzzer_sys::fuzz_target!(|payload: &[u8]| taktline_connectors_fuzz::check(&["number", "text", "scalar"], payload));
