//! Commands that wait to be mined (section 5, steps 1 and 2).
//!
//! A replica's own clients' commands are kept until they are delivered, and told to everybody again and again until they are in a
//! block: a command that was lost on its way costs time and nothing else. Others' commands are kept as long as there is room,
//! because their origin offers them again. When a block leaves the best chain its commands come back here.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use synod_core::{Batch, Command, CommandId, NodeId};

use super::seen::{WINDOW, is_too_old};
use super::tree::Tree;

/// What a command costs beside its payload.
const OVERHEAD_BYTES: usize = 64;

/// The pool.
#[derive(Debug, Default)]
pub(super) struct Pool {
    /// In the order in which they came.
    waiting: BTreeMap<u64, Command>,
    places: BTreeMap<CommandId, u64>,
    next_place: u64,
    bytes: usize,
    /// This replica's clients' commands that were not delivered yet.
    own: BTreeSet<u64>,
    /// Counts changes: a block in the making is out of date when this has moved.
    pub(super) version: u64,
}

fn cost(payload: &Bytes) -> usize {
    payload.len() + OVERHEAD_BYTES
}

impl Pool {
    /// Takes the batch of this replica's clients, all of it or nothing: false when there is no room.
    ///
    /// A client's command must stay valid until it is mined. So a new one waits outside while the oldest one inside is so
    /// much older that the chain's window could close behind it.
    pub(super) fn propose(&mut self, batch: &Batch, bytes_max: usize) -> bool {
        let bytes: usize = batch.iter().map(|command| cost(&command.payload)).sum();
        let newest = batch.iter().map(|command| command.id.number).max().unwrap_or_default();
        let oldest = self.own.first().copied().unwrap_or(newest);
        let is_full = self.bytes + bytes > bytes_max && !self.waiting.is_empty();
        if is_full || newest.saturating_sub(oldest) >= WINDOW / 2 {
            return false;
        }
        for command in batch.iter() {
            self.own.insert(command.id.number);
            self.put(command.clone());
        }
        true
    }

    /// Takes another replica's command, if there is room and it is new.
    pub(super) fn offer(&mut self, command: &Command, tree: &Tree, bytes_max: usize) {
        let has_room = self.bytes + cost(&command.payload) <= bytes_max;
        if has_room && !self.places.contains_key(&command.id) && is_minable(command.id, tree) {
            self.put(command.clone());
        }
    }

    /// Takes a command whatever there is of room: it was in a block that lost.
    pub(super) fn put(&mut self, command: Command) {
        if self.places.contains_key(&command.id) {
            return;
        }
        self.bytes += cost(&command.payload);
        self.places.insert(command.id, self.next_place);
        self.waiting.insert(self.next_place, command);
        self.next_place += 1;
        self.version += 1;
    }

    /// The same, unless the best chain holds it already.
    pub(super) fn put_if_minable(&mut self, command: &Command, tree: &Tree) {
        if is_minable(command.id, tree) {
            self.put(command.clone());
        }
    }

    /// A command is in a block of the best chain.
    pub(super) fn remove(&mut self, id: CommandId) {
        if let Some(command) = self.places.remove(&id).and_then(|place| self.waiting.remove(&place)) {
            self.bytes -= cost(&command.payload);
            self.version += 1;
        }
    }

    /// A command was delivered: if it is this replica's, its client has been answered.
    pub(super) fn delivered(&mut self, id: CommandId, me: NodeId) {
        if id.origin == me {
            self.own.remove(&id.number);
        }
    }

    /// What the next block should hold: the commands that have waited longest.
    pub(super) fn choose(&mut self, tree: &Tree, bytes_max: usize) -> Batch {
        let tip = tree.tip();
        let mut chosen = Vec::new();
        let mut origins = tree.highest(tip).len();
        let mut bytes = 0;
        let mut stale = Vec::new();
        for command in self.waiting.values() {
            if is_too_old(tree.highest(tip), command.id) || tree.holds(command.id, tip) {
                stale.push(command.id);
                continue;
            }
            let length = command.payload.len() + BLOCK_OVERHEAD_BYTES;
            if bytes + length > bytes_max && !chosen.is_empty() {
                break;
            }
            if !tree.highest(tip).contains_key(&command.id.origin) {
                origins += 1;
            }
            if origins > super::seen::ORIGINS_MAX {
                break;
            }
            bytes += length;
            chosen.push(command.clone());
        }
        stale.into_iter().for_each(|id| self.remove(id));
        Batch::from(chosen)
    }

    /// This replica's commands that are in no block yet, oldest first, up to so many bytes.
    pub(super) fn own_waiting(&self, me: NodeId, bytes_max: usize) -> Batch {
        let mut bytes = 0;
        let own = self.waiting.values().filter(|command| command.id.origin == me);
        own.take_while(|command| {
            let room = bytes == 0 || bytes + cost(&command.payload) <= bytes_max;
            bytes += cost(&command.payload);
            room
        })
        .cloned()
        .collect()
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }
}

/// As `batch_bytes` counts, and a little more: a chosen block is never too large.
const BLOCK_OVERHEAD_BYTES: usize = 64;

/// Whether a block behind the tip could hold it.
fn is_minable(id: CommandId, tree: &Tree) -> bool {
    let tip = tree.tip();
    !is_too_old(tree.highest(tip), id) && !tree.holds(id, tip)
}
