//! Models: what each operation may answer in each state, one operation at a time.
//!
//! A model is a sequential specification: a first state, and a step from a state over a call to the next state, or
//! nowhere when the answer is not one that the object could give. The trait asks for as little as Porcupine's; a Rust
//! user who adds one gives it to [`search`](crate::linearizable::search::search) directly, with calls and replies of
//! their own. The models here speak [`Call`] and [`Reply`].
//!
//! ```
//! use synod_check::budget::Budget;
//! use synod_check::linearizable::search::{Entry, Search, search};
//! use synod_check::model::Model;
//!
//! /// A latch: once set it stays set. Calls set it (true) or look (false).
//! struct Latch;
//!
//! impl Model for Latch {
//!     type Call = bool;
//!     type Reply = bool;
//!     type State = bool;
//!     fn initial(&self) -> bool {
//!         false
//!     }
//!     fn step(&self, state: &bool, set: &bool, reply: Option<&bool>) -> Option<bool> {
//!         let after = *state || *set;
//!         reply.is_none_or(|said| *said == after).then_some(after)
//!     }
//! }
//!
//! // Set from 0 to 10; seen as set from 2 to 4, and as not set from 6 to 8.
//! let entries = [
//!     Entry::<Latch> { call: &true, reply: Some(&true), invoked: 0, completed: 10 },
//!     Entry { call: &false, reply: Some(&true), invoked: 2, completed: 4 },
//!     Entry { call: &false, reply: Some(&false), invoked: 6, completed: 8 },
//! ];
//! assert!(matches!(search(&Latch, &entries, &Budget::default()), Search::None { .. }));
//! assert_eq!(search(&Latch, &entries[..2], &Budget::default()), Search::Linearization(vec![0, 1]));
//! ```

mod bank;
mod counter;
mod kv;
mod lists;
mod mutex;
mod queue;
mod register;
mod set;
pub mod store;

use std::hash::Hash;

pub use bank::{Bank, Overdraft, bank_of};
pub use counter::Counter;
pub use kv::KeyValue;
pub use lists::Transactions;
pub use mutex::Mutex;
pub use queue::Queue;
pub use register::Register;
pub use set::Set;

use crate::history::{Call, Reply};

/// A sequential specification. Several threads may search it at once.
pub trait Model: Sync {
    /// What can be asked.
    type Call: Eq + Hash + Sync;
    /// What can be answered.
    type Reply: Eq + Hash + Sync;
    /// The object's state.
    type State: Clone + Eq + Hash + Send;

    /// The state before anything happened.
    fn initial(&self) -> Self::State;

    /// The state after `call` took effect in `state` and was answered `reply`; `None` if it cannot be answered so.
    /// A `reply` of `None` is unknown, and agrees with everything.
    fn step(
        &self,
        state: &Self::State,
        call: &Self::Call,
        reply: Option<&Self::Reply>,
    ) -> Option<Self::State>;

    /// Whether `state` can still come to agree with the answered `read` by steps that are not resets in the sense of
    /// [`Model::resets_to`]. Saying yes too often costs time; saying no wrongly costs a right verdict.
    fn can_lead_to(&self, state: &Self::State, read: &Self::Call, reply: &Self::Reply) -> bool {
        let _ = (state, read, reply);
        true
    }

    /// Whether `call`, from any state, can lead to one from which the answered `read` can be reached.
    fn resets_to(&self, call: &Self::Call, read: &Self::Call, reply: &Self::Reply) -> bool {
        let _ = (call, read, reply);
        true
    }

    /// Whether the call leaves every state in which it can be answered so as it was.
    fn reads_only(&self, call: &Self::Call, reply: Option<&Self::Reply>) -> bool {
        let _ = (call, reply);
        false
    }
}

/// Whether a read of something that is not there is asked for: helper of the models over [`Call`].
fn is_read(call: &Call, _: Option<&Reply>) -> bool {
    matches!(call, Call::Read)
}
