//! From what the disk held to a replica.
//!
//! Records are the log's own; the snapshot is the state's. Whatever it was before, a replica comes back as a backup that
//! follows nobody: one that was primary must not go on in its view, because it does not know any more what it decided and
//! who was to be asked. It may have itself made primary anew, and tries so at once.
//!
//! A lease may count on what this replica confirmed before it was restarted: so it helps nobody to power for an election
//! timeout.

use std::sync::Arc;

use synod_core::{Config, Index, Lsn, NodeId, Output, Recovered, Rng, Time};

use super::agreement::Register;
use super::compaction::Compaction;
use super::log::Log;
use super::message::{Position, Record, View};
use super::primary::Leading;
use super::reads::Reads;
use super::{Mutant, Options, Part, PrimaryBackup};
use crate::flow::Disk;

/// What the records tell.
struct Found {
    view: Arc<View>,
    register: Register,
    log: Log,
    life: u64,
}

impl Found {
    fn replay(&mut self, record: Record) {
        match record {
            Record::Life(life) => self.life = life,
            Record::View(view) => {
                self.view = view;
                self.register = Register::default();
            }
            Record::Promised(ballot) => self.register.promised = ballot,
            Record::Accepted { ballot, next } => {
                self.register.promised = ballot;
                self.register.accepted = Some((ballot, next));
            }
            Record::Base(last) => self.log.rebase(last),
            Record::Entry { at, entry } => {
                if at <= self.log.base().index {
                    return; // From before a snapshot that came to cover it.
                }
                assert!(
                    at <= self.log.last().index.next(),
                    "the log on disk has a gap before {at:?}: records must come back in order and complete"
                );
                self.log.truncate(at);
                self.log.append(entry);
            }
        }
    }
}

impl PrimaryBackup {
    pub(super) fn recover(
        config: &Config<Options>,
        recovered: Recovered<Record>,
        now: Time,
        out: &mut Output<Self>,
    ) -> PrimaryBackup {
        if let Err(error) = config.options.check() {
            panic!("the caller checks options before it opens a replica: {error}");
        }
        let is_restart = !recovered.records.is_empty();
        let mut found = Found {
            view: Arc::new(View::initial(&config.members)),
            register: Register::default(),
            log: Log::new(Position::default()),
            life: 0,
        };
        for record in recovered.records {
            found.replay(record);
        }
        let state = recovered.snapshot.map_or(Index::ZERO, |snapshot| snapshot.at);
        let base = found.log.base().index;
        let life = found.life + 1;
        let life_lsn = out.record(Record::Life(life));
        let mut replica = PrimaryBackup {
            id: config.id,
            options: config.options.clone(),
            rng: Rng::new(config.seed ^ config.id.0.rotate_left(32) ^ life.rotate_left(48)),
            now,
            view: found.view,
            view_lsn: Lsn::ZERO,
            register: found.register,
            proposal: None,
            seen_round: 0,
            part: Part::Backup,
            leader: None,
            heard: is_restart.then_some(now),
            election_due: now,
            disk: Disk::new(found.log.last().index),
            decided: base,
            delivered: state,
            verified: base,
            owes_replicated: false,
            strays_at: None,
            lost: 0,
            reads: Reads::default(),
            compaction: Compaction::new(state),
            life: (life, life_lsn),
            forwarded: 0,
            log: found.log,
        };
        if replica.may_stray() {
            replica.verified = Index::ZERO;
        }
        replica.wait_for_primary();
        if replica.hurries() {
            replica.election_due = now + replica.options.heartbeat;
        }
        replica.settle_snapshot();
        if replica.has(Mutant::LeadsAfterRestart) && replica.view.primary == Some(replica.id) {
            replica.part = Part::Primary(Leading::new(replica.view.number, now));
            replica.leader = Some(replica.id);
            replica.meet_members();
        }
        replica
    }

    /// Whether there is no use in waiting for somebody else: this replica was the primary, or nobody ever was and it is
    /// the first by name.
    fn hurries(&self) -> bool {
        let view = &self.view;
        let first: Option<NodeId> = view.members.voters.first().copied();
        view.primary == Some(self.id) || view.primary.is_none() && first == Some(self.id)
    }
}
