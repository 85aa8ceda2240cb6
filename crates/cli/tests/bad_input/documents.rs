//! What people are told of errors, against the code: every message that a client can get stands in `docs/errors.md`.

use std::fs;
use std::path::Path;

/// See the file's text.
#[test]
fn every_message_is_documented() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let told = fs::read_to_string(root.join("docs/errors.md")).expect("docs/errors.md");
    let code = fs::read_to_string(root.join("crates/server/src/status.rs")).expect("status.rs");
    let messages: Vec<&str> = code.split('"').filter(|text| text.starts_with("etcdserver: ")).collect();
    assert!(messages.len() > 25, "{messages:?}");
    for message in messages {
        assert!(told.contains(message), "docs/errors.md does not tell of: {message}");
    }
}
