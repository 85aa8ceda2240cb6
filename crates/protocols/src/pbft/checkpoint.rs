//! Checkpoints and watermarks (4.3): when a quorum has executed everything up to a point, what led there may be forgotten.
//!
//! A checkpoint's digest is that of the history: the machine is deterministic, so equal histories are equal states. It is
//! a promise to be able to give the state: it leaves when the record of every decision before it is durable.

use std::collections::BTreeSet;
use std::sync::Arc;

use synod_core::{Index, NodeId, Output};

use super::keys::{Digest, Signature, Subject};
use super::message::{Certificate, Message, Point, Record};
use super::{Mutant, Pbft};

impl Pbft {
    /// This replica has come to another point: it says so where checkpoints are. However it came there, by executing, by a
    /// peer's snapshot or by a restart, it can give the state; and where the window ends, nothing goes on before a quorum has
    /// spoken.
    pub(super) fn take_checkpoint(&mut self, out: &mut Output<Self>) {
        let point = self.head.point;
        if point.at <= self.stable.point.at || !point.at.0.is_multiple_of(self.options.checkpoint_every) {
            return;
        }
        let signature = self.keys.sign(Subject::Checkpoint, point.digest());
        self.note_checkpoint(self.id, point, signature, out);
        self.multicast(&Message::Checkpoint { point, signature }, out);
    }

    pub(super) fn on_checkpoint(
        &mut self,
        from: NodeId,
        point: Point,
        signature: Signature,
        out: &mut Output<Self>,
    ) {
        let far = Index(self.high_watermark().0 + self.options.window);
        if point.at <= self.stable.point.at
            || point.at > far
            || !point.at.0.is_multiple_of(self.options.checkpoint_every)
            || !self.keys.verify(from, Subject::Checkpoint, point.digest(), &signature)
        {
            return;
        }
        self.note_checkpoint(from, point, signature, out);
    }

    fn note_checkpoint(&mut self, from: NodeId, point: Point, signature: Signature, out: &mut Output<Self>) {
        let said = self.checkpoints.entry(point.at).or_default();
        said.insert(from, (point.history, signature));
        let agree = |(_, (history, _)): &(&NodeId, &(Digest, Signature))| *history == point.history;
        let signatures: Vec<(NodeId, Signature)> =
            said.iter().filter(agree).map(|(node, (_, signature))| (*node, *signature)).collect();
        if signatures.len() >= self.quorums.strong() {
            self.stabilise(Arc::new(Certificate { point, signatures }), out);
        }
    }

    /// Somebody shows that a checkpoint is stable.
    pub(super) fn on_stable(&mut self, certificate: Arc<Certificate>, out: &mut Output<Self>) {
        if certificate.point.at > self.stable.point.at && self.proves(&certificate) {
            self.stabilise(certificate, out);
        }
    }

    /// Whether a quorum, each counted once, signed this.
    pub(super) fn proves(&self, certificate: &Certificate) -> bool {
        let point = certificate.point;
        if point.at == Index::ZERO {
            return point == Point::default() && certificate.signatures.is_empty();
        }
        let signers: BTreeSet<NodeId> = certificate.signatures.iter().map(|(signer, _)| *signer).collect();
        let signers =
            if self.has(Mutant::RepeatedSigner) { certificate.signatures.len() } else { signers.len() };
        // Each signer once, no more signatures than replicas: nobody is made to verify for long.
        signers >= self.quorums.strong()
            && signers == certificate.signatures.len()
            && certificate.signatures.len() <= self.voters.len()
            && certificate.signatures.iter().all(|(signer, signature)| {
                self.voters.contains(signer)
                    && self.keys.verify(*signer, Subject::Checkpoint, point.digest(), signature)
            })
    }

    /// A checkpoint is stable: the low watermark rises.
    ///
    /// What is forgotten here, executed or not, the replicas that signed can give: as decided proposals, or as a snapshot.
    pub(super) fn stabilise(&mut self, certificate: Arc<Certificate>, out: &mut Output<Self>) {
        let at = certificate.point.at;
        if at <= self.stable.point.at {
            return;
        }
        out.record(Record::Stable(certificate.clone()));
        self.adopt_stable(certificate);
    }

    pub(super) fn adopt_stable(&mut self, certificate: Arc<Certificate>) {
        let above = certificate.point.at.next();
        self.slots = self.slots.split_off(&above);
        self.checkpoints = self.checkpoints.split_off(&above);
        self.selection = self.selection.split_off(&above);
        self.next = self.next.max(above);
        self.stable = certificate;
    }

    /// This replica's own newest checkpoint that is not stable yet: to be said again.
    pub(super) fn own_checkpoint(&self) -> Option<Message> {
        self.checkpoints.iter().rev().find_map(|(at, said)| {
            let (history, signature) = *said.get(&self.id)?;
            Some(Message::Checkpoint { point: Point { at: *at, history }, signature })
        })
    }
}
