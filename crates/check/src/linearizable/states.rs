//! The states that a [`search`](super::search) meets, numbered, and where each operation leads from each.
//!
//! A configuration holds a state's number, whatever the size of the state, and an operation is tried from a state once:
//! after that its outcome is looked up. Threads of one search agree on the numbers and remember outcomes for themselves.

use std::hash::BuildHasher;
use std::sync::Mutex;

use hashbrown::{HashMap, HashTable};

use super::parallel;
use super::search::Entry;
use crate::model::Model;

/// No state: the call is impossible there. Elsewhere: nothing there is to be named.
pub(super) const NONE: u32 = u32::MAX;
/// Not computed yet.
const UNSEEN: u32 = u32::MAX - 1;

/// The states met, numbered.
pub(super) struct Interner<M: Model> {
    states: Vec<M::State>,
    index: HashTable<u32>,
    hasher: foldhash::fast::FixedState,
}

impl<M: Model> Interner<M> {
    fn new() -> Interner<M> {
        Interner {
            states: Vec::new(),
            index: HashTable::new(),
            hasher: foldhash::fast::FixedState::default(),
        }
    }

    fn find(&self, state: &M::State) -> Option<u32> {
        self.index.find(self.hasher.hash_one(state), |&i| self.states[i as usize] == *state).copied()
    }

    /// Gives the next number to a state that has none.
    fn add(&mut self, state: M::State) -> u32 {
        let hash = self.hasher.hash_one(&state);
        let id = self.states.len() as u32;
        self.states.push(state);
        let (states, hasher) = (&self.states, &self.hasher);
        self.index.insert_unique(hash, id, |&i| hasher.hash_one(&states[i as usize]));
        id
    }

    pub(super) fn memory(&self) -> usize {
        self.states.len() * (size_of::<M::State>() + 8)
    }
}

/// The states met, and where each class of calls leads from each.
pub(super) struct States<'a, M: Model> {
    known: Interner<M>,
    /// In a parallel search: everybody's numbering, of which `known` is a beginning.
    common: Option<&'a Mutex<Interner<M>>>,
    /// Dense rows of `width` when there are few classes, else pairs.
    dense: Vec<u32>,
    sparse: HashMap<(u32, u32), u32, foldhash::fast::FixedState>,
    width: usize,
}

/// With so few classes, a state's transitions are a row of an array.
const DENSE_CLASSES_MAX: usize = 512;

impl<'a, M: Model> States<'a, M> {
    pub(super) fn new(classes: usize, common: Option<&'a Mutex<Interner<M>>>) -> States<'a, M> {
        States {
            known: Interner::new(),
            common,
            dense: Vec::new(),
            sparse: HashMap::default(),
            width: if classes <= DENSE_CLASSES_MAX { classes } else { 0 },
        }
    }

    /// The states alone, to be shared.
    pub(super) fn into_interner(self) -> Interner<M> {
        self.known
    }

    pub(super) fn intern(&mut self, state: M::State) -> u32 {
        if let Some(id) = self.known.find(&state) {
            return id;
        }
        let Some(common) = self.common else {
            let id = self.known.add(state);
            self.dense.resize(self.known.states.len() * self.width, UNSEEN);
            return id;
        };
        let mut common = parallel::lock(common);
        let id = common.find(&state).unwrap_or_else(|| common.add(state));
        self.follow(&common);
        id
    }

    /// Learns the states that others have numbered.
    pub(super) fn catch_up(&mut self) {
        if let Some(common) = self.common {
            self.follow(&parallel::lock(common));
        }
    }

    fn follow(&mut self, common: &Interner<M>) {
        for state in &common.states[self.known.states.len()..] {
            self.known.add(state.clone());
        }
        self.dense.resize(self.known.states.len() * self.width, UNSEEN);
    }

    /// The state of this number.
    pub(super) fn get(&self, id: u32) -> &M::State {
        &self.known.states[id as usize]
    }

    /// The number of the state that an entry of this class leads to; `NONE` where it cannot be answered so.
    pub(super) fn step(&mut self, model: &M, from: u32, class: u32, entry: &Entry<'_, M>) -> u32 {
        let cell = from as usize * self.width + class as usize;
        let known = match self.width {
            0 => self.sparse.get(&(from, class)).copied().unwrap_or(UNSEEN),
            _ => self.dense[cell],
        };
        if known != UNSEEN {
            return known;
        }
        let to = match model.step(&self.known.states[from as usize], entry.call, entry.reply) {
            Some(state) => self.intern(state),
            None => NONE,
        };
        match self.width {
            0 => {
                self.sparse.insert((from, class), to);
            }
            _ => self.dense[cell] = to,
        }
        to
    }

    pub(super) fn memory(&self) -> usize {
        self.known.memory() + self.dense.capacity() * 4 + self.sparse.capacity() * 14
    }
}
