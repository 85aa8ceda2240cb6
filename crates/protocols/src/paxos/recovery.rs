//! From what the disk held to a replica.
//!
//! Records are the acceptor's and the learner's; the snapshot is the state's. A crash can leave them apart, in two ways:
//!
//! - The state is ahead of what is known to be chosen: choices are recorded late, and a snapshot may have been saved right
//!   before the crash. They are learned again, from others or by deciding the slots once more; deliveries go on behind
//!   the state.
//! - The state is behind the slots' base, because its snapshot was damaged or lost. What it lacks is learned again, by value
//!   or by another replica's snapshot. Until then, up to the *floor*, this acceptor does not speak: it has
//!   forgotten what it promised there.

use std::collections::BTreeMap;
use std::sync::Arc;

use synod_core::{Config, Index, Lsn, Output, Recovered, Rng, Time};

use super::acceptor::Votes;
use super::compaction::Compaction;
use super::learner::Learning;
use super::membership::Settings;
use super::message::Proposal;
use super::proposer::Queue;
use super::slots::Slots;
use super::{Options, Paxos, Record};

/// What the records tell.
struct Found {
    state: Index,
    floor: Index,
    slots: Slots,
    settings: Settings,
    life: u64,
}

impl Found {
    fn replay(&mut self, record: Record) {
        let above = self.slots.base();
        match record {
            Record::Life(life) => self.life = life,
            Record::Promised { slot, ballot } if slot > above => {
                self.slots.change(slot, |slot| slot.promised = slot.promised.max(ballot));
            }
            Record::Accepted { slot, ballot, value } if slot > above => self.slots.change(slot, |slot| {
                slot.promised = slot.promised.max(ballot);
                slot.accepted = Some(Proposal { ballot, value });
            }),
            Record::Chosen { slot } if slot > above => self.slots.change(slot, |slot| {
                if let Some(accepted) = slot.accepted.take() {
                    slot.chosen = Some(accepted.value);
                }
            }),
            Record::Learned { slot, value } if slot > above => self.slots.change(slot, |slot| {
                slot.chosen = Some(value);
                slot.accepted = None;
            }),
            Record::Base { at, floor, configurations } => {
                // A state that is older needs the slots that follow it.
                self.slots.drop_through(at.min(self.state.max(self.slots.base())));
                self.floor = self.floor.max(floor);
                if let Some(settings) = Settings::restored(floor, &configurations) {
                    self.settings = settings;
                }
            }
            _ => {} // From before a snapshot that came to cover it.
        }
    }
}

impl Paxos {
    pub(super) fn recover(
        config: &Config<Options>,
        recovered: Recovered<Record>,
        now: Time,
        out: &mut Output<Self>,
    ) -> Paxos {
        if let Err(error) = config.options.check() {
            panic!("the caller checks options before it opens a replica: {error}");
        }
        let state = recovered.snapshot.map_or(Index::ZERO, |snapshot| snapshot.at);
        let mut found = Found {
            state,
            floor: Index::ZERO,
            slots: Slots::new(Index::ZERO),
            settings: Settings::new(Arc::new(config.members.clone())),
            life: 0,
        };
        for record in recovered.records {
            found.replay(record);
        }
        let life = found.life + 1;
        let life_lsn = out.record(Record::Life(life));
        let mut paxos = Paxos {
            id: config.id,
            options: config.options.clone(),
            rng: Rng::new(config.seed ^ config.id.0.rotate_left(32) ^ life.rotate_left(48)),
            now,
            life: (life, life_lsn),
            durable: Lsn::ZERO,
            top_round: 0,
            decided: found.slots.base(),
            delivered: state,
            floor: found.floor,
            slots: found.slots,
            settings: found.settings,
            votes: Votes::default(),
            attempts: BTreeMap::new(),
            queue: Queue::default(),
            change: None,
            learning: Learning::new(now),
            compaction: Compaction::new(state),
        };
        paxos.advance();
        paxos.settle_snapshot();
        paxos
    }
}
