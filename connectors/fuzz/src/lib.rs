//! What each target checks.

use taktline_connectors::codec::fuzz_decode;

/// Whatever a payload holds, a decoder doesn't panic, and the message becomes samples or a dead letter.
pub fn check(formats: &[&str], payload: &[u8]) {
    for format in formats {
        let (samples, letters) = fuzz_decode(format, payload).expect("no payload ends a run");
        assert!(samples + letters > 0, "{format}: nothing came of the payload");
    }
}
