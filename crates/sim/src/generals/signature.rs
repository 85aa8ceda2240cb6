//! Signatures that cannot be forged, because the language does not let anybody make one (assumption A4).
//!
//! A [`Pen`] signs in one general's name. It cannot be copied, and a game deals one to each general; the traitors put theirs together, and the
//! loyal ones keep theirs. A [`Signed`] order has private fields and comes into being in two ways only: a pen opens it, or a
//! pen adds a signature to one that is there. So whatever the traitors hand round, a loyal general's signature is under it only if he put it
//! there, and the order above it is the one that he saw:
//!
//! ```compile_fail
//! use synod_sim::generals::{Order, signature::Signed};
//! // The commander never said so.
//! let forged = Signed { order: Order::Attack, signers: vec![] };
//! ```
//!
//! Left out: cryptography. Real signatures (Ed25519) are in PBFT, `synod_protocols::pbft`.

use std::fmt;

use super::{General, Group, Order};

/// What signs in one general's name; neither copied nor cloned.
#[derive(Debug)]
pub struct Pen {
    owner: General,
}

impl Pen {
    /// One for each of the generals, in order. Called once for each game.
    pub(super) fn deal(generals: usize) -> Vec<Pen> {
        (0..generals).map(|number| Pen { owner: General(number as u8) }).collect()
    }

    /// In whose name it signs.
    #[must_use]
    pub fn owner(&self) -> General {
        self.owner
    }

    /// An order with one signature.
    #[must_use]
    pub fn open(&self, order: Order) -> Signed {
        Signed { order, signers: vec![self.owner] }
    }

    /// The same order with one more signature under the others.
    #[must_use]
    pub fn countersign(&self, signed: &Signed) -> Signed {
        let mut signers = signed.signers.clone();
        signers.push(self.owner);
        Signed { order: signed.order, signers }
    }
}

/// An order and who signed it, one after the other: the paper's `v:0:j1:...:jk`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed {
    order: Order,
    signers: Vec<General>,
}

impl Signed {
    /// What is ordered.
    #[must_use]
    pub fn order(&self) -> Order {
        self.order
    }

    /// How many signatures.
    #[must_use]
    pub fn signatures(&self) -> usize {
        self.signers.len()
    }

    /// Who signed last.
    #[must_use]
    pub fn last(&self) -> General {
        // The constructors leave one at least.
        self.signers[self.signers.len() - 1]
    }

    /// Everybody who signed.
    #[must_use]
    pub fn signers(&self) -> Group {
        self.signers.iter().fold(Group::default(), |group, signer| group.with(*signer))
    }

    /// Whether it is what SM knows: the commander's signature first, then different lieutenants'.
    #[must_use]
    pub fn is_proper(&self) -> bool {
        self.signers[0] == General::COMMANDER && self.signers().len() == self.signers.len()
    }
}

impl fmt::Display for Signed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.order)?;
        self.signers.iter().try_for_each(|signer| write!(f, ":{}", signer.0))
    }
}
