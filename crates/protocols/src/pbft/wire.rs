//! How PBFT's messages and records become bytes: a tag, then the fields in order.
//!
//! Tags are never reused. Numbers beyond `NUMBER_MAX` are refused here, so that no sum of what a peer says can overflow;
//! digests of what is received are computed here, and never taken from a peer.

use std::sync::Arc;

use bytes::BytesMut;
use synod_core::wire::{Reader, put_u64};
use synod_core::{Batch, Index, NodeId, Wire, WireError};

use super::keys::{Digest, Mac, Signature};
use super::message::{
    Base, Certificate, Claim, Content, Message, NUMBER_MAX, NewView, Point, Progress, Proposal, Record,
    Request, Sealed, View, ViewChange,
};

/// Requests in one proposal, signatures in one proof, claims in one view change: more is malformed.
const ELEMENTS_MAX: u64 = 1 << 16;

fn put_tag(out: &mut BytesMut, tag: u8) {
    out.extend_from_slice(&[tag]);
}

/// Stands in a request's number, above all numbers, when a view follows that it is meant for alone.
const ONE_VIEW: u64 = 1 << 62;

pub(super) fn number(from: &mut Reader, what: &'static str) -> Result<u64, WireError> {
    let value = from.u64(what)?;
    if value > NUMBER_MAX {
        return Err(WireError::Invalid { what, value, allowed: "at most 2^60" });
    }
    Ok(value)
}

fn index(from: &mut Reader) -> Result<Index, WireError> {
    Ok(Index(number(from, "sequence number")?))
}

fn fixed<const N: usize>(from: &mut Reader, what: &'static str) -> Result<[u8; N], WireError> {
    if from.remaining() < N {
        return Err(WireError::Short { what });
    }
    let mut bytes = [0; N];
    for byte in &mut bytes {
        *byte = from.u8(what)?;
    }
    Ok(bytes)
}

fn list<T: Wire>(from: &mut Reader, what: &'static str) -> Result<Vec<T>, WireError> {
    let count = from.count(what, ELEMENTS_MAX)?;
    let mut values = Vec::new();
    for _ in 0..count {
        values.push(T::decode(from)?);
    }
    Ok(values)
}

fn put_list<T: Wire>(out: &mut BytesMut, values: &[T]) {
    put_u64(out, values.len() as u64);
    for value in values {
        value.encode(out);
    }
}

fn signatures(from: &mut Reader) -> Result<Vec<(NodeId, Signature)>, WireError> {
    let count = from.count("signatures", ELEMENTS_MAX)?;
    let mut found = Vec::new();
    for _ in 0..count {
        found.push((NodeId::decode(from)?, Signature::decode(from)?));
    }
    Ok(found)
}

fn put_signatures(out: &mut BytesMut, signatures: &[(NodeId, Signature)]) {
    put_u64(out, signatures.len() as u64);
    for (signer, signature) in signatures {
        signer.encode(out);
        signature.encode(out);
    }
}

impl Wire for Digest {
    fn encode(&self, out: &mut BytesMut) {
        out.extend_from_slice(&self.0);
    }
    fn decode(from: &mut Reader) -> Result<Self, WireError> {
        Ok(Digest(fixed(from, "digest")?))
    }
}

impl Wire for Signature {
    fn encode(&self, out: &mut BytesMut) {
        out.extend_from_slice(&self.0);
    }
    fn decode(from: &mut Reader) -> Result<Self, WireError> {
        Ok(Signature(fixed(from, "signature")?))
    }
}

impl Wire for Sealed {
    fn encode(&self, out: &mut BytesMut) {
        out.extend_from_slice(&self.mac.0);
        self.message.encode(out);
    }
    fn decode(from: &mut Reader) -> Result<Self, WireError> {
        let mac = Mac(fixed(from, "mac")?);
        Ok(Sealed { mac, message: Message::decode(from)? })
    }
}

impl Wire for View {
    fn encode(&self, out: &mut BytesMut) {
        put_u64(out, self.0);
    }
    fn decode(from: &mut Reader) -> Result<Self, WireError> {
        Ok(View(number(from, "view")?))
    }
}

impl Wire for Request {
    fn encode(&self, out: &mut BytesMut) {
        self.origin.encode(out);
        match self.only_in {
            None => put_u64(out, self.number),
            Some(view) => {
                put_u64(out, self.number | ONE_VIEW);
                view.encode(out);
            }
        }
        self.batch.encode(out);
        self.signature.encode(out);
    }
    fn decode(from: &mut Reader) -> Result<Self, WireError> {
        let origin = NodeId::decode(from)?;
        let value = from.u64("request number")?;
        let number = value & !ONE_VIEW;
        if number > NUMBER_MAX {
            return Err(WireError::Invalid { what: "request number", value, allowed: "at most 2^60" });
        }
        let only_in = if value & ONE_VIEW == 0 { None } else { Some(View::decode(from)?) };
        let batch = Batch::decode(from)?;
        Ok(Request::received(only_in, origin, number, batch, Signature::decode(from)?))
    }
}

impl Wire for Proposal {
    fn encode(&self, out: &mut BytesMut) {
        put_list(out, &self.requests);
    }
    fn decode(from: &mut Reader) -> Result<Self, WireError> {
        Ok(Proposal::new(list(from, "requests")?))
    }
}

impl Wire for Point {
    fn encode(&self, out: &mut BytesMut) {
        self.at.encode(out);
        self.history.encode(out);
    }
    fn decode(from: &mut Reader) -> Result<Self, WireError> {
        Ok(Point { at: index(from)?, history: Digest::decode(from)? })
    }
}

impl Wire for Certificate {
    fn encode(&self, out: &mut BytesMut) {
        self.point.encode(out);
        put_signatures(out, &self.signatures);
    }
    fn decode(from: &mut Reader) -> Result<Self, WireError> {
        Ok(Certificate { point: Point::decode(from)?, signatures: signatures(from)? })
    }
}

impl Wire for Claim {
    fn encode(&self, out: &mut BytesMut) {
        self.at.encode(out);
        self.view.encode(out);
        self.digest.encode(out);
    }
    fn decode(from: &mut Reader) -> Result<Self, WireError> {
        Ok(Claim { at: index(from)?, view: View::decode(from)?, digest: Digest::decode(from)? })
    }
}

impl ViewChange {
    /// Everything but the signature.
    pub(super) fn encode_content(&self, out: &mut BytesMut) {
        self.view.encode(out);
        self.replica.encode(out);
        self.stable.encode(out);
        put_list(out, &self.prepared);
        put_list(out, &self.pre_prepared);
    }
}

impl Wire for ViewChange {
    fn encode(&self, out: &mut BytesMut) {
        self.encode_content(out);
        self.signature.encode(out);
    }
    fn decode(from: &mut Reader) -> Result<Self, WireError> {
        Ok(ViewChange {
            view: View::decode(from)?,
            replica: NodeId::decode(from)?,
            stable: Certificate::decode(from)?,
            prepared: list(from, "prepared")?,
            pre_prepared: list(from, "pre-prepared")?,
            signature: Signature::decode(from)?,
        })
    }
}

impl Wire for NewView {
    fn encode(&self, out: &mut BytesMut) {
        self.view.encode(out);
        put_list(out, &self.view_changes);
        put_list(out, &self.selection);
        self.signature.encode(out);
    }
    fn decode(from: &mut Reader) -> Result<Self, WireError> {
        Ok(NewView {
            view: View::decode(from)?,
            view_changes: list(from, "view changes")?,
            selection: list(from, "selection")?,
            signature: Signature::decode(from)?,
        })
    }
}

impl Wire for Base {
    fn encode(&self, out: &mut BytesMut) {
        self.point.encode(out);
        self.executed.encode(out);
    }
    fn decode(from: &mut Reader) -> Result<Self, WireError> {
        Ok(Base { point: Point::decode(from)?, executed: Wire::decode(from)? })
    }
}

impl Wire for Progress {
    fn encode(&self, out: &mut BytesMut) {
        self.view.encode(out);
        self.executed.encode(out);
        self.stable.encode(out);
        self.proven.encode(out);
    }
    fn decode(from: &mut Reader) -> Result<Self, WireError> {
        Ok(Progress {
            view: View::decode(from)?,
            executed: index(from)?,
            stable: index(from)?,
            proven: index(from)?,
        })
    }
}

impl Wire for Message {
    fn encode(&self, out: &mut BytesMut) {
        match self {
            Message::Request(request) => {
                put_tag(out, 1);
                request.encode(out);
            }
            Message::PrePrepare { view, at, proposal } => {
                put_tag(out, 2);
                view.encode(out);
                at.encode(out);
                proposal.encode(out);
            }
            Message::Prepare { view, at, digest } => {
                put_tag(out, 3);
                view.encode(out);
                at.encode(out);
                digest.encode(out);
            }
            Message::Commit { view, at, digest } => {
                put_tag(out, 4);
                view.encode(out);
                at.encode(out);
                digest.encode(out);
            }
            Message::Checkpoint { point, signature } => {
                put_tag(out, 5);
                point.encode(out);
                signature.encode(out);
            }
            Message::Stable(certificate) => {
                put_tag(out, 6);
                certificate.encode(out);
            }
            Message::Saved { at, state, signature } => {
                put_tag(out, 7);
                at.encode(out);
                state.encode(out);
                signature.encode(out);
            }
            Message::ViewChange(view_change) => {
                put_tag(out, 8);
                view_change.encode(out);
            }
            Message::NewView(new_view) => {
                put_tag(out, 9);
                new_view.encode(out);
            }
            Message::Status(progress) => {
                put_tag(out, 10);
                progress.encode(out);
            }
            Message::Fetch { from, content } => {
                put_tag(out, 11);
                from.encode(out);
                put_tag(out, *content as u8);
            }
            Message::Decided { from, digests, proposals } => {
                put_tag(out, 12);
                from.encode(out);
                put_list(out, digests);
                put_list(out, proposals);
            }
            Message::FetchProposal { at, digest } => {
                put_tag(out, 13);
                at.encode(out);
                digest.encode(out);
            }
            Message::Fetched { at, proposal } => {
                put_tag(out, 14);
                at.encode(out);
                proposal.encode(out);
            }
            Message::InstallSnapshot { base, sum, proof } => {
                put_tag(out, 15);
                base.encode(out);
                sum.encode(out);
                put_signatures(out, proof);
            }
        }
    }

    fn decode(from: &mut Reader) -> Result<Self, WireError> {
        Ok(match from.u8("message kind")? {
            1 => Message::Request(Arc::decode(from)?),
            2 => Message::PrePrepare {
                view: View::decode(from)?,
                at: index(from)?,
                proposal: Arc::decode(from)?,
            },
            3 => Message::Prepare {
                view: View::decode(from)?,
                at: index(from)?,
                digest: Digest::decode(from)?,
            },
            4 => {
                Message::Commit { view: View::decode(from)?, at: index(from)?, digest: Digest::decode(from)? }
            }
            5 => Message::Checkpoint { point: Point::decode(from)?, signature: Signature::decode(from)? },
            6 => Message::Stable(Arc::decode(from)?),
            7 => Message::Saved {
                at: index(from)?,
                state: Digest::decode(from)?,
                signature: Signature::decode(from)?,
            },
            8 => Message::ViewChange(Arc::decode(from)?),
            9 => Message::NewView(Arc::decode(from)?),
            10 => Message::Status(Progress::decode(from)?),
            11 => {
                let first = index(from)?;
                let content = match from.u8("content")? {
                    0 => Content::Digests,
                    1 => Content::Proposals,
                    2 => Content::Snapshot,
                    other => {
                        let allowed = "0 to 2";
                        return Err(WireError::Invalid { what: "content", value: other.into(), allowed });
                    }
                };
                Message::Fetch { from: first, content }
            }
            12 => Message::Decided {
                from: index(from)?,
                digests: list(from, "digests")?,
                proposals: list(from, "proposals")?,
            },
            13 => Message::FetchProposal { at: index(from)?, digest: Digest::decode(from)? },
            14 => Message::Fetched { at: index(from)?, proposal: Arc::decode(from)? },
            15 => Message::InstallSnapshot {
                base: Arc::decode(from)?,
                sum: Digest::decode(from)?,
                proof: signatures(from)?,
            },
            other => {
                return Err(WireError::Invalid {
                    what: "message kind",
                    value: other.into(),
                    allowed: "1 to 15",
                });
            }
        })
    }
}

impl Wire for Record {
    fn encode(&self, out: &mut BytesMut) {
        match self {
            Record::Life(life) => {
                put_tag(out, 1);
                put_u64(out, *life);
            }
            Record::View(view) => {
                put_tag(out, 2);
                view.encode(out);
            }
            Record::NewView(new_view) => {
                put_tag(out, 3);
                new_view.encode(out);
            }
            Record::PrePrepare { view, at, proposal } => {
                put_tag(out, 4);
                view.encode(out);
                at.encode(out);
                proposal.encode(out);
            }
            Record::Prepared { view, at, digest } => {
                put_tag(out, 5);
                view.encode(out);
                at.encode(out);
                digest.encode(out);
            }
            Record::Decided { at, digest } => {
                put_tag(out, 6);
                at.encode(out);
                digest.encode(out);
            }
            Record::Learned { at, proposal } => {
                put_tag(out, 7);
                at.encode(out);
                proposal.encode(out);
            }
            Record::Stable(certificate) => {
                put_tag(out, 8);
                certificate.encode(out);
            }
            Record::Base(base) => {
                put_tag(out, 9);
                base.encode(out);
            }
        }
    }

    fn decode(from: &mut Reader) -> Result<Self, WireError> {
        Ok(match from.u8("record kind")? {
            1 => Record::Life(number(from, "life")?),
            2 => Record::View(View::decode(from)?),
            3 => Record::NewView(Arc::decode(from)?),
            4 => Record::PrePrepare {
                view: View::decode(from)?,
                at: index(from)?,
                proposal: Arc::decode(from)?,
            },
            5 => Record::Prepared {
                view: View::decode(from)?,
                at: index(from)?,
                digest: Digest::decode(from)?,
            },
            6 => Record::Decided { at: index(from)?, digest: Digest::decode(from)? },
            7 => Record::Learned { at: index(from)?, proposal: Arc::decode(from)? },
            8 => Record::Stable(Arc::decode(from)?),
            9 => Record::Base(Arc::decode(from)?),
            other => {
                return Err(WireError::Invalid {
                    what: "record kind",
                    value: other.into(),
                    allowed: "1 to 9",
                });
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::fmt;

    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;

    /// Any bytes at all are decoded or refused, and what is decoded is encoded to something that decodes to
    /// the same.
    fn decodes_or_refuses<T: Wire + PartialEq + fmt::Debug>(bytes: &[u8]) {
        if let Ok(value) = T::decode_all(Bytes::copy_from_slice(bytes)) {
            assert_eq!(T::decode_all(value.to_bytes()), Ok(value));
        }
    }

    /// A request for one view alone is another one than the same for every view, and comes back as it was.
    #[test]
    fn a_request_keeps_its_view() {
        let keys = super::super::Keys::from_names().of(NodeId(1));
        let made = |only_in| Request::within(only_in, NodeId(1), 7, synod_core::empty_batch(), &keys);
        let (any, one) = (made(None), made(Some(View(3))));
        for request in [&any, &one] {
            let decoded = Request::decode_all(request.to_bytes());
            assert_eq!(decoded.as_ref(), Ok(request));
            assert!(decoded.is_ok_and(|it| it.is_valid(&keys)));
        }
        let moved =
            Request::received(Some(View(4)), one.origin, one.number, one.batch.clone(), one.signature);
        let freed = Request::received(None, one.origin, one.number, one.batch.clone(), one.signature);
        assert!(!moved.is_valid(&keys) && !freed.is_valid(&keys));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(kind in 0u8..18, rest in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut bytes = vec![kind];
            bytes.extend(rest);
            decodes_or_refuses::<Message>(&bytes);
            decodes_or_refuses::<Sealed>(&bytes);
            decodes_or_refuses::<Record>(&bytes);
        }

        #[test]
        fn small_numbers_never_panic(kind in 0u8..18, rest in proptest::collection::vec(0u8..3, 0..300)) {
            let mut bytes = vec![kind];
            bytes.extend(rest);
            decodes_or_refuses::<Message>(&bytes);
            decodes_or_refuses::<Record>(&bytes);
        }
    }

    /// A number that could overflow a sum is refused where it enters.
    #[test]
    fn numbers_out_of_bounds_are_refused() {
        let prepare =
            Message::Prepare { view: View(NUMBER_MAX + 1), at: Index(1), digest: Digest::default() };
        assert!(Message::decode_all(prepare.to_bytes()).is_err());
        let fetch = Message::Fetch { from: Index(u64::MAX), content: Content::Digests };
        assert!(Message::decode_all(fetch.to_bytes()).is_err());
    }
}
