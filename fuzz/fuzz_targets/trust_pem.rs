//! Foreign bytes as a PEM bundle, and as a certificate inside well-formed PEM.
#![no_main]

use std::path::Path;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = isthmus_trust::CaBundle::from_pem(data, Path::new("fuzz"));
    let _ = isthmus_trust::Pair::from_pem(data.to_vec(), data.to_vec());
});
