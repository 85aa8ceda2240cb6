//! Who is who: Ed25519 keys, and what is signed with them.
//!
//! What must convince somebody who was not there is signed (Castro and Liskov 1999, 5.3): requests, because the
//! primary passes them on; checkpoints and saved snapshots, because their proofs travel; view changes and new views.
//! What convinces its receiver alone (pre-prepares, prepares, commits, and whatever else is said) has a MAC under a secret that
//! the two replicas share: so nothing is believed because of the connection through which it came. Every message has
//! one, also those that are signed, which keeps the rule simple. The secret of a pair follows from the keys of both
//! (Diffie-Hellman on the same curve).
//!
//! Every signature begins with what it is about and with the cluster's number, so that none can be shown as one of another
//! kind or elsewhere.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use ed25519_dalek::{Signer, SigningKey, VerifyingKey};
use hmac::{Hmac, Mac as _};
use sha2::{Digest as _, Sha256};
use synod_core::NodeId;

/// A SHA-256.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Digest(pub [u8; 32]);

/// An Ed25519 signature.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Signature(pub [u8; 64]);

/// An HMAC-SHA-256, cut to 128 bits: between two replicas.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Mac(pub [u8; 16]);

/// What a signature is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A replica's clients want this ordered.
    Request,
    /// A replica has executed everything up to a sequence number.
    Checkpoint,
    /// A replica has saved its state at a sequence number.
    Saved,
    /// A replica leaves its view.
    ViewChange,
    /// A primary begins its view.
    NewView,
    /// A replica answers a client.
    Reply,
}

/// How many proven signatures are remembered: what is sent again need not be computed again.
const PROVEN_MAX: usize = 4096;

/// The keys of a cluster, as one replica holds them. Copies share what they have proven.
#[derive(Clone)]
pub struct Keys {
    shared: Arc<Shared>,
    own: Option<(NodeId, SigningKey)>,
}

struct Shared {
    /// The cluster's number: part of whatever is signed.
    cluster: u64,
    source: Source,
    proven: Mutex<Proven>,
}

enum Source {
    /// Every key follows from the name of its owner: for simulations, where nothing is secret.
    Names,
    /// The public keys of all.
    Known(BTreeMap<NodeId, VerifyingKey>),
}

#[derive(Default)]
struct Proven {
    known: BTreeSet<Digest>,
    order: VecDeque<Digest>,
    derived: BTreeMap<NodeId, SigningKey>,
    /// The secrets of pairs, by the lower and the higher name.
    pairs: BTreeMap<(NodeId, NodeId), [u8; 32]>,
}

/// Why keys cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyError {
    /// It is no point on the curve.
    NotAKey(NodeId),
    /// The secret key belongs to another public key than the one that everybody knows.
    Mismatch(NodeId),
    /// There is no public key for this replica.
    Missing(NodeId),
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KeyError::NotAKey(node) => write!(f, "the public key of {node} is not an Ed25519 key"),
            KeyError::Mismatch(node) => {
                write!(f, "the secret key does not belong to the public key of {node}")
            }
            KeyError::Missing(node) => write!(f, "there is no public key for {node}"),
        }
    }
}

impl std::error::Error for KeyError {}

impl Default for Keys {
    fn default() -> Self {
        Keys::from_names()
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.shared.source {
            Source::Names => f.write_str("Keys(from names)"),
            Source::Known(keys) => write!(f, "Keys(of {} replicas)", keys.len()),
        }
    }
}

impl Keys {
    /// Keys that follow from names: for simulations and scripts. Anybody can sign as anybody.
    #[must_use]
    pub fn from_names() -> Keys {
        let shared = Shared { cluster: 0, source: Source::Names, proven: Mutex::default() };
        Keys { shared: Arc::new(shared), own: None }
    }

    /// One's own secret key, and the public keys of all.
    ///
    /// # Errors
    /// When a key is none, or one's own is not the one that the others know.
    pub fn new(
        cluster: u64,
        id: NodeId,
        secret: [u8; 32],
        public: &BTreeMap<NodeId, [u8; 32]>,
    ) -> Result<Keys, KeyError> {
        let own = SigningKey::from_bytes(&secret);
        let mut known = BTreeMap::new();
        for (node, bytes) in public {
            let key = VerifyingKey::from_bytes(bytes).map_err(|_| KeyError::NotAKey(*node))?;
            if key.is_weak() {
                return Err(KeyError::NotAKey(*node));
            }
            known.insert(*node, key);
        }
        match known.get(&id) {
            None => return Err(KeyError::Missing(id)),
            Some(key) if *key != own.verifying_key() => return Err(KeyError::Mismatch(id)),
            Some(_) => {}
        }
        let shared = Shared { cluster, source: Source::Known(known), proven: Mutex::default() };
        Ok(Keys { shared: Arc::new(shared), own: Some((id, own)) })
    }

    /// The public keys alone: for whoever checks and never signs.
    ///
    /// # Errors
    /// When a key is none.
    pub fn public_only(cluster: u64, public: &BTreeMap<NodeId, [u8; 32]>) -> Result<Keys, KeyError> {
        let mut known = BTreeMap::new();
        for (node, bytes) in public {
            known.insert(*node, VerifyingKey::from_bytes(bytes).map_err(|_| KeyError::NotAKey(*node))?);
        }
        let shared = Shared { cluster, source: Source::Known(known), proven: Mutex::default() };
        Ok(Keys { shared: Arc::new(shared), own: None })
    }

    /// The public key of a secret one.
    #[must_use]
    pub fn public_of(secret: [u8; 32]) -> [u8; 32] {
        SigningKey::from_bytes(&secret).verifying_key().to_bytes()
    }

    /// The same keys in the hands of this replica.
    ///
    /// # Panics
    /// When they are another replica's: the caller gives each its own.
    #[must_use]
    pub fn of(&self, id: NodeId) -> Keys {
        let own = match &self.own {
            Some((owner, key)) => {
                assert_eq!(*owner, id, "these are the keys of another replica");
                key.clone()
            }
            None => self.derived(id),
        };
        Keys { shared: self.shared.clone(), own: Some((id, own)) }
    }

    /// Whether the keys of all these replicas are known.
    ///
    /// # Errors
    /// The first that is missing.
    pub fn cover(&self, nodes: impl IntoIterator<Item = NodeId>) -> Result<(), KeyError> {
        let Source::Known(known) = &self.shared.source else { return Ok(()) };
        match nodes.into_iter().find(|node| !known.contains_key(node)) {
            Some(missing) => Err(KeyError::Missing(missing)),
            None => Ok(()),
        }
    }

    /// Signs as this replica.
    ///
    /// # Panics
    /// When these keys hold no secret.
    #[must_use]
    pub fn sign(&self, subject: Subject, what: Digest) -> Signature {
        let (_, own) = self.own.as_ref().expect("only a replica signs, and it holds its key");
        Signature(own.sign(&self.statement(subject, what)).to_bytes())
    }

    /// Whether `signer` signed this.
    #[must_use]
    pub fn verify(&self, signer: NodeId, subject: Subject, what: Digest, signature: &Signature) -> bool {
        let mut hash = Sha256::new();
        hash.update(signer.0.to_le_bytes());
        hash.update(self.statement(subject, what));
        hash.update(signature.0);
        let name = Digest(hash.finalize().into());
        if self.proven().known.contains(&name) {
            return true;
        }
        let key = match &self.shared.source {
            Source::Names => self.derived(signer).verifying_key(),
            Source::Known(known) => match known.get(&signer) {
                Some(key) => *key,
                None => return false,
            },
        };
        let signature = ed25519_dalek::Signature::from_bytes(&signature.0);
        // Strictly: two replicas must never differ about whether a signature holds.
        let holds = key.verify_strict(&self.statement(subject, what), &signature).is_ok();
        if holds {
            self.proven().remember(name);
        }
        holds
    }

    /// What is really signed: the subject, the cluster, then the digest.
    fn statement(&self, subject: Subject, what: Digest) -> [u8; 56] {
        let mut bytes = [0; 56];
        bytes[..10].copy_from_slice(b"synod pbft");
        bytes[15] = number(subject);
        bytes[16..24].copy_from_slice(&self.shared.cluster.to_le_bytes());
        bytes[24..].copy_from_slice(&what.0);
        bytes
    }

    /// The MAC of what this replica says to `to`.
    ///
    /// # Panics
    /// When these keys hold no secret.
    #[must_use]
    pub fn mac(&self, to: NodeId, what: Digest) -> Mac {
        let (own, _) = self.own.as_ref().expect("only a replica speaks, and it holds its key");
        self.pair(*own, to).map_or(Mac([0; 16]), |secret| mac(&secret, *own, to, what))
    }

    /// Whether `from` said this to this replica.
    #[must_use]
    pub fn checks(&self, from: NodeId, what: Digest, said: Mac) -> bool {
        let Some((own, _)) = &self.own else { return false };
        let Some(secret) = self.pair(from, *own) else { return false };
        let right = mac(&secret, from, *own, what);
        // All of it is compared, whatever differs: how long this takes tells nothing.
        right.0.iter().zip(said.0).fold(0, |differs, (a, b)| differs | (a ^ b)) == 0
    }

    /// The secret of two replicas, one of them this.
    fn pair(&self, a: NodeId, b: NodeId) -> Option<[u8; 32]> {
        let names = (a.min(b), a.max(b));
        if let Some(secret) = self.proven().pairs.get(&names) {
            return Some(*secret);
        }
        let (own, key) = self.own.as_ref()?;
        let other = if *own == a { b } else { a };
        let shared = match &self.shared.source {
            Source::Names => [0; 32],
            Source::Known(known) => (known.get(&other)?.to_montgomery() * key.to_scalar()).to_bytes(),
        };
        let (low, high) = (names.0.0.to_le_bytes(), names.1.0.to_le_bytes());
        let cluster = self.shared.cluster.to_le_bytes();
        let secret = digest(&[b"synod pbft pair", &cluster, &low, &high, &shared]).0;
        self.proven().pairs.insert(names, secret);
        Some(secret)
    }

    fn proven(&self) -> std::sync::MutexGuard<'_, Proven> {
        self.shared.proven.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn derived(&self, id: NodeId) -> SigningKey {
        let make = || {
            let mut hash = Sha256::new();
            hash.update(b"a key that is no secret, of ");
            hash.update(id.0.to_le_bytes());
            SigningKey::from_bytes(&hash.finalize().into())
        };
        self.proven().derived.entry(id).or_insert_with(make).clone()
    }
}

impl Proven {
    fn remember(&mut self, name: Digest) {
        if self.known.insert(name) {
            self.order.push_back(name);
        }
        while self.order.len() > PROVEN_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
    }
}

fn number(subject: Subject) -> u8 {
    match subject {
        Subject::Request => 1,
        Subject::Checkpoint => 2,
        Subject::Saved => 3,
        Subject::ViewChange => 4,
        Subject::NewView => 5,
        Subject::Reply => 6,
    }
}

/// The sender's name is in it: nobody's words can be sent back to him as another's.
fn mac(secret: &[u8; 32], from: NodeId, to: NodeId, what: Digest) -> Mac {
    let mut hmac = Hmac::<Sha256>::new_from_slice(secret).expect("any length is a key");
    hmac.update(&from.0.to_le_bytes());
    hmac.update(&to.0.to_le_bytes());
    hmac.update(&what.0);
    let mut short = [0; 16];
    short.copy_from_slice(&hmac.finalize().into_bytes()[..16]);
    Mac(short)
}

/// Hashes parts of fixed length, or parts that carry their length.
#[must_use]
pub fn digest(parts: &[&[u8]]) -> Digest {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part);
    }
    Digest(hash.finalize().into())
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{:02x}{:02x}{:02x}", self.0[0], self.0[1], self.0[2])
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sealed")
    }
}

/// A signature tells people nothing.
impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("signed")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(n: u8) -> [u8; 32] {
        [n; 32]
    }

    fn cluster() -> BTreeMap<NodeId, [u8; 32]> {
        (1..=4).map(|n| (NodeId(n), Keys::public_of(secret(n as u8)))).collect()
    }

    /// A signature holds for its signer, its subject and its content, and for nothing else.
    #[test]
    fn signatures_hold_for_what_they_are_about() {
        let keys = Keys::new(7, NodeId(1), secret(1), &cluster()).expect("the keys fit");
        let what = digest(&[b"something"]);
        let signature = keys.sign(Subject::Checkpoint, what);
        let checker = Keys::public_only(7, &cluster()).expect("the keys are keys");
        for _ in 0..2 {
            assert!(checker.verify(NodeId(1), Subject::Checkpoint, what, &signature));
            assert!(!checker.verify(NodeId(2), Subject::Checkpoint, what, &signature));
            assert!(!checker.verify(NodeId(1), Subject::Saved, what, &signature));
            assert!(!checker.verify(NodeId(1), Subject::Checkpoint, digest(&[b"else"]), &signature));
            assert!(!checker.verify(NodeId(9), Subject::Checkpoint, what, &signature));
        }
    }

    /// A MAC convinces the one to whom it was said, and only of who said what.
    #[test]
    fn macs_convince_their_receiver() {
        let keys = |n: u64| Keys::new(7, NodeId(n), secret(n as u8), &cluster()).expect("the keys fit");
        let (one, two, three) = (keys(1), keys(2), keys(3));
        let what = digest(&[b"something"]);
        let said = one.mac(NodeId(2), what);
        assert!(two.checks(NodeId(1), what, said));
        assert!(!two.checks(NodeId(3), what, said), "n3 did not say it");
        assert!(!two.checks(NodeId(1), digest(&[b"else"]), said), "n1 said something else");
        assert!(!three.checks(NodeId(1), what, said), "n1 said it to n2");
        assert!(!one.checks(NodeId(2), what, said), "n1 said it, not n2");
        assert!(!two.checks(NodeId(9), what, said), "nobody knows n9");
        let elsewhere = Keys::new(8, NodeId(2), secret(2), &cluster()).expect("the keys fit");
        assert!(!elsewhere.checks(NodeId(1), what, said), "in another cluster it means nothing");
    }

    /// A key that is another's, missing or none is told at the start.
    #[test]
    fn wrong_keys_are_told() {
        let wrong = Keys::new(7, NodeId(1), secret(2), &cluster()).expect_err("it is n2's key");
        assert_eq!(wrong, KeyError::Mismatch(NodeId(1)));
        assert_eq!(wrong.to_string(), "the secret key does not belong to the public key of 1");
        let unknown = Keys::new(7, NodeId(5), secret(5), &cluster()).expect_err("n5 is nobody");
        assert_eq!(unknown, KeyError::Missing(NodeId(5)));
        let mut weak = cluster();
        weak.insert(NodeId(3), [0; 32]);
        assert_eq!(
            Keys::new(7, NodeId(1), secret(1), &weak).expect_err("zero"),
            KeyError::NotAKey(NodeId(3))
        );
        let keys = Keys::new(7, NodeId(1), secret(1), &cluster()).expect("the keys fit");
        assert_eq!(keys.cover((1..=5).map(NodeId)), Err(KeyError::Missing(NodeId(5))));
    }
}
