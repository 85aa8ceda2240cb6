//! The gateway's JSON, for the fuzz target: what is understood is written and understood again, to the same.

use prost_reflect::MessageDescriptor;

use super::json::{Objects, from_protobuf, to_protobuf};

/// A longer object is refused.
const OBJECT_BYTES: usize = 1 << 16;

/// A call's body, whole and in pieces.
pub(crate) fn json(text: &[u8], descriptor: MessageDescriptor) {
    if let Ok(message) = to_protobuf(text, descriptor.clone()) {
        let mut written = Vec::new();
        from_protobuf(message.clone(), descriptor.clone(), &mut written);
        let again = to_protobuf(&written, descriptor).expect("our own JSON");
        assert_eq!(again, message, "what was written means the same");
    }
    let mut objects = Objects::new(OBJECT_BYTES);
    for piece in text.chunks(7) {
        objects.push(piece);
        loop {
            match objects.next() {
                Ok(Some(object)) => assert!(object.len() <= OBJECT_BYTES),
                Ok(None) => break,
                Err(status) => return assert!(!status.message.is_empty()),
            }
        }
        assert!(objects.unfinished() <= OBJECT_BYTES + 7);
    }
}
