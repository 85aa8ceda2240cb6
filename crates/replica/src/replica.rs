//! One replica: a protocol and a machine, and the order in which effects leave.
//!
//! (tidy: long because the order in which lanes are drained is one story, and is read as one.)

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use synod_core::{
    Answer, Audience, Awaiting, Batch, Change, Command, Config, Delivery, Index, Input, Lsn, Machine, NodeId,
    Output, Patience, Protocol, ReadId, Recovered, Refusal, Role, SnapshotPlaces, SnapshotRef, Stamp,
    Stamped, Status, Time, batch_bytes, empty_batch,
};

use crate::bases::Bases;
use crate::compaction::{CompactionPolicy, Growth};
use crate::mutants::Mutant;
use crate::past::Past;
use crate::reads::Reads;
use crate::transfer::{Incoming, Taken, Transfers};
use crate::world::{Packet, Piece, TransferId, World};

/// What a replica may hold and do at once.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Commands in one batch, at most.
    pub batch_commands_max: usize,
    /// Bytes of payload in one batch; a single command may be larger and then travels alone.
    pub batch_bytes_max: usize,
    /// Commands waiting for the next flush; beyond it [`Replica::submit`] refuses with `Busy`.
    pub pending_max: usize,
    /// Commands applied in one flush, a long one counted once for each KiB; the rest is applied in the next one, which is due
    /// at once. Keeps heartbeats and answers going while a replica catches up.
    pub applies_max: usize,
    /// When snapshots are taken.
    pub compaction: CompactionPolicy,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            batch_commands_max: 1024,
            batch_bytes_max: 1 << 20,
            pending_max: 100_000,
            applies_max: 8192,
            compaction: CompactionPolicy::default(),
        }
    }
}

/// How much of [`Limits::applies_max`] a batch takes.
fn work_in(batch: &Batch) -> usize {
    batch.len().max(batch_bytes(batch) >> 10).max(1)
}

/// A snapshot could not become the machine's state: the replica must stop.
#[derive(Debug, thiserror::Error)]
#[error("the snapshot at {at} cannot be restored: {source}")]
pub struct RestoreFailed {
    /// The snapshot's last delivery.
    pub at: Index,
    /// What went wrong.
    pub source: std::io::Error,
}

/// A protocol and a machine at work.
///
/// Invariant: deliveries are applied in order and without gaps: `applied` only ever grows by one, jumps
/// to a restored snapshot, or goes back by a rewind, never below what is settled.
pub struct Replica<P: Protocol, M: Machine> {
    id: NodeId,
    protocol: P,
    machine: M,
    limits: Limits,
    out: Output<P>,
    /// Messages that promise what the disk does not hold yet.
    awaiting: Awaiting<(NodeId, P::Message)>,
    durable: Lsn,
    pending: Vec<Command>,
    /// What is to be proposed only while this replica leads.
    pending_as_leader: Vec<Command>,
    reads: Reads,
    backlog: VecDeque<Delivery>,
    applied: Index,
    /// Until the first flush.
    is_new: bool,
    /// What may be taken back, if the protocol takes anything back.
    past: Option<Past<M::Frozen>>,
    growth: Growth,
    /// The newest saved snapshot.
    snapshot: Option<SnapshotRef>,
    /// What a restart may build upon, which is not always the newest.
    bases: Bases,
    /// The snapshot that is being written.
    saving: Option<Index>,
    /// It could not be written, and when to try again is not decided yet.
    save_failed: bool,
    save_again_at: Option<Time>,
    snapshot_wanted: bool,
    checkpoint_due: bool,
    /// The log stands on a snapshot that the machine has not become yet: what the machine holds until then belongs to no log.
    is_behind: bool,
    transfers: Transfers<P::Message>,
    incoming: Incoming<P::Message>,
    /// What snapshot transfers have to say, and to write, with the next flush.
    packets: Vec<(NodeId, Packet<P::Message>)>,
    pieces: Vec<Piece>,
}

impl<P: Protocol, M: Machine> Replica<P, M> {
    /// Opens a replica on what its disk held; the machine is restored from the snapshot first, which takes its time: `clock` is
    /// asked when that is over.
    ///
    /// # Errors
    /// When the machine cannot read the snapshot.
    pub fn open(
        config: &Config<P::Options>,
        limits: Limits,
        found: Recovered<P::Record>,
        mut machine: M,
        clock: impl FnOnce() -> Time,
    ) -> Result<Self, RestoreFailed> {
        let mut out = Output::default();
        let mut growth = Growth::new(limits.compaction);
        let snapshot = found.snapshot.clone();
        if let Some(snapshot) = &snapshot {
            machine.restore(snapshot).map_err(|source| RestoreFailed { at: snapshot.at, source })?;
            growth.restart(snapshot.at);
            growth.measured(snapshot.bytes);
        }
        let protocol = P::open(config, found, clock(), &mut out);
        let applied = snapshot.as_ref().map_or(Index::ZERO, |snapshot| snapshot.at);
        let past = protocol.settled().map(|_| Past::new(applied, machine.freeze()));
        Ok(Replica {
            id: config.id,
            protocol,
            machine,
            limits,
            out,
            awaiting: Awaiting::default(),
            durable: Lsn::ZERO,
            pending: Vec::new(),
            pending_as_leader: Vec::new(),
            reads: Reads::default(),
            backlog: VecDeque::new(),
            applied,
            past,
            is_new: true,
            growth,
            bases: Bases::new(snapshot.as_ref().map(|snapshot| snapshot.at)),
            snapshot,
            saving: None,
            save_failed: false,
            save_again_at: None,
            snapshot_wanted: false,
            checkpoint_due: false,
            is_behind: false,
            // The seed differs from incarnation to incarnation, and so do the names of transfers.
            transfers: Transfers::new(config.seed),
            incoming: Incoming::new(),
            packets: Vec::new(),
            pieces: Vec::new(),
        })
    }

    /// Takes a client's command; it leaves with the next flush.
    ///
    /// # Errors
    /// [`Refusal::Busy`] when too many wait already; nothing was queued.
    pub fn submit(&mut self, command: Command) -> Result<(), Refusal> {
        if self.pending.len() >= self.limits.pending_max {
            return Err(Refusal::Busy);
        }
        self.pending.push(command);
        Ok(())
    }

    /// The leader wants this ordered as long as it leads, and not under another one: see [`Protocol::propose_as_leader`]. Refused with
    /// the next flush if it leads no more.
    ///
    /// # Errors
    /// [`Refusal::Busy`] when too much waits already.
    pub fn submit_as_leader(&mut self, command: Command) -> Result<(), Refusal> {
        if self.pending_as_leader.len() >= self.limits.pending_max {
            return Err(Refusal::Busy);
        }
        self.pending_as_leader.push(command);
        Ok(())
    }

    /// A client wants to read: [`World::readable`] or [`World::unreadable`] answers. All reads asked before
    /// a flush share one fence.
    pub fn read(&mut self, read: ReadId) {
        self.reads.ask(read);
    }

    /// A packet from a peer; `from` is proven by the transport.
    pub fn receive(&mut self, now: Time, from: NodeId, packet: Packet<P::Message>) {
        match packet {
            Packet::Protocol(message) => self.step(now, Input::Message { from, message }),
            Packet::Chunk(chunk) if self.is_taken(chunk.at) => {
                self.packets.push((from, Packet::Rejected { transfer: chunk.transfer }));
            }
            Packet::Chunk(chunk) => {
                let transfer = chunk.transfer;
                match self.incoming.on_chunk(now, from, chunk) {
                    Taken::Stage(piece) => self.pieces.push(piece),
                    Taken::Tell { upto } => self.packets.push((from, Packet::Held { transfer, upto })),
                    Taken::Ignored => {}
                }
            }
            Packet::Held { transfer, upto } => self.transfers.on_held(now, from, transfer, upto),
            Packet::Arrived { transfer } => {
                self.transfers.end(from, transfer);
            }
            Packet::Rejected { transfer } => {
                if self.transfers.end(from, transfer) {
                    self.step(now, Input::TransferFailed(from));
                }
            }
        }
    }

    /// Whether a snapshot that the log stands on, or is about to, has this position and may hold another state.
    fn is_taken(&self, at: Index) -> bool {
        if P::HAS_ONE_ORDER && P::PEERS_ARE_HONEST {
            return false;
        }
        let own = self.snapshot.as_ref().map(|snapshot| snapshot.at);
        // What the protocol has taken over in this turn becomes the newest with the next flush.
        let taken_over = self.out.deliveries.iter().any(|delivery| match delivery {
            Delivery::Adopt(snapshot) | Delivery::Restore(snapshot) | Delivery::Replace(snapshot) => {
                snapshot.at == at
            }
            _ => false,
        });
        own == Some(at) || self.saving == Some(at) || self.bases.contains(at) || taken_over
    }

    /// A snapshot at this position becomes the one that the log stands on: where peers may lie, what arrives under the same name is
    /// broken off. What the disk was given of it comes before what it is given now, so it cannot take the place any more.
    fn claim_place(&mut self, at: Index) {
        if !P::PEERS_ARE_HONEST
            && let Some((from, transfer)) = self.incoming.abandon_at(at)
        {
            self.pieces.retain(|piece| piece.at != at);
            self.packets.push((from, Packet::Rejected { transfer }));
        }
    }

    /// Whether a peer's snapshot at this position, which may hold another state, is arriving.
    fn is_arriving(&self, at: Index) -> bool {
        !P::HAS_ONE_ORDER && self.incoming.position() == Some(at)
    }

    /// Every record up to `upto` is on disk.
    pub fn durable(&mut self, now: Time, upto: Lsn) {
        assert!(upto <= self.out.written(), "the disk cannot be ahead of what was written");
        if upto > self.durable {
            self.durable = upto;
            self.step(now, Input::Durable(upto));
        }
    }

    /// The checkpoint that [`World::checkpoint`] was asked for is on disk: the log stands on the snapshot at `at` from now on, and every
    /// record up to `upto` is durable.
    pub fn checkpointed(&mut self, now: Time, at: Index, upto: Lsn) {
        self.bases.finished(at);
        self.durable(now, upto);
    }

    /// The snapshot that [`World::save`] was asked for is on disk.
    pub fn saved(&mut self, now: Time, snapshot: SnapshotRef) {
        self.saving = None;
        self.save_again_at = None;
        if self.snapshot.as_ref().is_some_and(|newest| newest.at >= snapshot.at) {
            return; // A peer's newer snapshot was installed meanwhile.
        }
        self.growth.measured(snapshot.bytes);
        self.snapshot = Some(snapshot.clone());
        self.checkpoint_due = true;
        self.step(now, Input::Snapshot(snapshot));
    }

    /// The snapshot could not be written (a full disk, say): the log goes on growing, and after [`SAVE_AGAIN_AFTER`] it is tried again.
    /// It must not wait for more to gather: the protocol's memory may be full, and takes nothing more before there is a snapshot.
    pub fn save_failed(&mut self) {
        self.saving = None;
        self.save_failed = true;
    }

    /// Everything of a peer's snapshot before `upto` was taken by the disk.
    pub fn staged(&mut self, from: NodeId, transfer: TransferId, upto: u64) {
        self.packets.push((from, Packet::Held { transfer, upto }));
    }

    /// A peer's snapshot is whole, verified and saved under its own name.
    pub fn installed(&mut self, now: Time, from: NodeId, transfer: TransferId, snapshot: SnapshotRef) {
        self.packets.push((from, Packet::Arrived { transfer }));
        if let Some(message) = self.incoming.finish(from, transfer) {
            self.step(now, Input::Installed { from, message, snapshot });
        }
    }

    /// A peer's snapshot could not be written, or is not what its sum says.
    pub fn stage_failed(&mut self, from: NodeId, transfer: TransferId) {
        self.incoming.abandon(from, transfer);
        self.packets.push((from, Packet::Rejected { transfer }));
    }

    /// Asks for another configuration; [`World::declined`] when it is not even started.
    pub fn reconfigure(&mut self, now: Time, changes: Vec<Change>) {
        self.step(now, Input::Reconfigure(changes));
    }

    /// Asks this replica to hand its leadership to `to`; [`World::declined`] when it cannot.
    pub fn transfer_leadership(&mut self, now: Time, to: NodeId) {
        self.step(now, Input::Transfer(to));
    }

    /// Lets the protocol see that its deadline has passed. Harmless when early.
    pub fn tick(&mut self, now: Time) {
        if self.protocol.deadline().is_some_and(|deadline| deadline <= now) {
            self.step(now, Input::Timeout);
        }
    }

    /// When [`Replica::tick`] and [`Replica::flush`] are due at the latest.
    pub fn deadline(&self) -> Option<Time> {
        let waits = !self.pending.is_empty() || !self.pending_as_leader.is_empty();
        if !self.backlog.is_empty() && !self.is_merge_waiting() || waits {
            return Some(Time::ZERO);
        }
        [self.protocol.deadline(), self.transfers.deadline(), self.save_again_at].into_iter().flatten().min()
    }

    /// Whether anything here waits for the disk, and [`Replica::durable`] must be called as soon as it can: otherwise it may come
    /// with whatever comes next.
    pub fn awaits_disk(&self) -> bool {
        !self.awaiting.is_empty() || self.protocol.awaits_disk()
    }

    /// Whether what was delivered waits for a snapshot to be written, because another is to be made.
    fn is_merge_waiting(&self) -> bool {
        match self.backlog.front() {
            Some(Delivery::Merge { at, .. }) => self.saving.is_some() || self.is_arriving(*at),
            _ => false,
        }
    }

    /// Lets everything that gathered leave in one group.
    ///
    /// # Errors
    /// When a snapshot cannot be restored; the replica is unusable then.
    pub fn flush<W: World<P, M>>(&mut self, now: Time, world: &mut W) -> Result<(), RestoreFailed> {
        self.propose_pending(now);
        if let Some(fence) = self.reads.next_fence() {
            self.step(now, Input::Read(fence));
        }
        self.protocol.flush(now, &mut self.out);
        self.let_out(now, world);
        self.apply_backlog(now, world)?;
        let upto = if Mutant::ReadsBeforeApplied.is_on() { Index(u64::MAX) } else { self.applied };
        for read in self.reads.readable(upto) {
            world.readable(read);
        }
        self.consider_snapshot(now, world);
        Ok(())
    }

    /// The last delivery that the machine has seen.
    pub fn applied(&self) -> Index {
        self.applied
    }

    /// This replica's name.
    pub fn id(&self) -> NodeId {
        self.id
    }

    /// The state machine.
    pub fn machine(&self) -> &M {
        &self.machine
    }

    /// The state machine, for what is not replicated (a watcher, a counter). Whoever changes replicated
    /// state through it breaks the cluster.
    pub fn machine_mut(&mut self) -> &mut M {
        &mut self.machine
    }

    /// The protocol, for tests and oracles.
    pub fn protocol(&self) -> &P {
        &self.protocol
    }

    /// The protocol's view of itself, for people.
    pub fn status(&self) -> Status {
        self.protocol.status()
    }

    /// The newest saved snapshot.
    pub fn snapshot(&self) -> Option<&SnapshotRef> {
        self.snapshot.as_ref()
    }

    /// How many records have been written, and how many of them are durable, in this incarnation.
    pub fn log_marks(&self) -> (Lsn, Lsn) {
        (self.out.written(), self.durable)
    }

    fn step(&mut self, now: Time, input: Input<P::Message>) {
        self.protocol.step(now, input, &mut self.out);
    }

    fn propose_pending(&mut self, now: Time) {
        let pending = std::mem::take(&mut self.pending);
        self.in_batches(pending, |replica, batch| replica.step(now, Input::Propose(batch)));
        if self.pending_as_leader.is_empty() {
            return;
        }
        let pending = std::mem::take(&mut self.pending_as_leader);
        let Status { role, leader, .. } = self.protocol.status();
        if matches!(role, Role::Leader | Role::Primary) {
            self.in_batches(pending, |replica, batch| {
                replica.protocol.propose_as_leader(now, batch, &mut replica.out);
            });
        } else {
            self.out.refuse(pending.into(), Refusal::NotLeader { leader });
        }
    }

    /// As few batches as the limits allow, in order.
    fn in_batches(&mut self, commands: Vec<Command>, mut propose: impl FnMut(&mut Self, Batch)) {
        let mut batch = Vec::new();
        let mut bytes = 0;
        for command in commands {
            let length = command.payload.len();
            let full =
                batch.len() >= self.limits.batch_commands_max || bytes + length > self.limits.batch_bytes_max;
            if full && !batch.is_empty() {
                propose(self, Arc::from(std::mem::take(&mut batch)));
                bytes = 0;
            }
            bytes += length;
            batch.push(command);
        }
        if !batch.is_empty() {
            propose(self, Arc::from(batch));
        }
    }

    /// Drains the lanes: records first, then the messages that wait for nothing, then those whose records
    /// were durable already.
    fn let_out<W: World<P, M>>(&mut self, now: Time, world: &mut W) {
        // What was adopted already is not written down again when it is restored.
        let known = self.snapshot.as_ref().map(|snapshot| snapshot.at);
        let restored = self.out.deliveries.iter().rev().find_map(|delivery| match delivery {
            Delivery::Restore(snapshot) | Delivery::Adopt(snapshot) => {
                Some(Some(snapshot.clone()).filter(|snapshot| P::HAS_ONE_ORDER || known != Some(snapshot.at)))
            }
            Delivery::Replace(snapshot) => Some(Some(snapshot.clone())),
            _ => None,
        });
        if let Some(snapshot) = restored.flatten() {
            self.growth.restart(snapshot.at);
            self.growth.measured(snapshot.bytes);
            self.claim_place(snapshot.at);
            self.snapshot = Some(snapshot);
            self.checkpoint_due = true;
        }
        let upto = self.out.written();
        match self.snapshot.as_ref().filter(|_| std::mem::take(&mut self.checkpoint_due)) {
            Some(snapshot) => {
                // What has not reached the log yet is part of the state that the checkpoint writes down.
                self.out.records.clear();
                let mut records = Vec::new();
                self.protocol.checkpoint(&mut records);
                if Mutant::CheckpointForgets.is_on() {
                    records.pop();
                }
                self.bases.begun(snapshot.at);
                world.checkpoint(snapshot, records, upto);
            }
            None if !self.out.records.is_empty() => world.persist(&mut self.out.records, upto),
            None => {}
        }
        debug_assert!(self.out.records.is_empty(), "the world takes every record");

        let mut undeliverable = Vec::new();
        for outbound in self.out.messages.drain(..) {
            let (to, message) = (outbound.to, outbound.message);
            debug_assert_ne!(to, self.id, "a replica does not talk to itself");
            match outbound.patience {
                Patience::Early => world.send(to, Packet::Protocol(message)),
                Patience::Leisure => world.send_at_leisure(to, Packet::Protocol(message)),
                Patience::Durable(_) if Mutant::PromisesEarly.is_on() => {
                    world.send(to, Packet::Protocol(message));
                }
                Patience::Durable(mark) if mark <= self.durable => world.send(to, Packet::Protocol(message)),
                Patience::Durable(mark) => {
                    if let Err(message) = world.send_when_durable(to, message) {
                        self.awaiting.push(mark, (to, message));
                    }
                }
                Patience::Snapshot => match &self.snapshot {
                    Some(snapshot) => self.transfers.start(now, to, snapshot.clone(), message),
                    None => undeliverable.push(to),
                },
            }
        }
        while let Some((to, message)) = self.awaiting.pop(self.durable) {
            world.send(to, Packet::Protocol(message));
        }
        for piece in self.pieces.drain(..) {
            world.stage(piece);
        }
        for (to, packet) in self.packets.drain(..) {
            world.send(to, packet);
        }
        undeliverable.extend(self.transfers.pump(now, |to, packet| world.send(to, packet)));
        world.dispatch();
        for peer in undeliverable {
            self.protocol.step(now, Input::TransferFailed(peer), &mut self.out);
        }
        self.backlog.extend(self.out.deliveries.drain(..));
        self.snapshot_wanted |= std::mem::take(&mut self.out.snapshot_wanted);
        for note in self.out.notes.drain(..) {
            world.note(note);
        }
        for answer in self.out.answers.drain(..) {
            match answer {
                Answer::Read { read, at } => self.reads.fenced(read, at),
                Answer::ReadRefused { read, reason } => {
                    for read in self.reads.refused(read) {
                        world.unreadable(read, reason.clone());
                    }
                }
                Answer::Refused { batch, reason } => {
                    for command in batch.iter().filter(|command| command.id.origin == self.id) {
                        world.refuse(command.id, reason.clone());
                    }
                }
                Answer::Declined { reason } => world.declined(reason),
            }
        }
    }

    fn apply_backlog<W: World<P, M>>(&mut self, now: Time, world: &mut W) -> Result<(), RestoreFailed> {
        // What its own disk gives back is applied at once: nobody may see a replica go through its past again.
        let is_new = std::mem::take(&mut self.is_new);
        let mut budget = if is_new && !P::HAS_ONE_ORDER { usize::MAX } else { self.limits.applies_max };
        while budget > 0
            && let Some(delivery) = self.backlog.pop_front()
        {
            match delivery {
                Delivery::Batch { at, batch } => {
                    self.advance(at);
                    self.apply(at, &batch, world);
                    self.remember(at, &batch);
                    budget = budget.saturating_sub(work_in(&batch));
                }
                Delivery::Members { at, members } => {
                    self.advance(at);
                    self.remember(at, &empty_batch());
                    world.members(at, &members);
                }
                Delivery::Restore(snapshot) => {
                    let at = snapshot.at;
                    self.machine.restore(&snapshot).map_err(|source| RestoreFailed { at, source })?;
                    self.applied = at;
                    self.is_behind = false;
                    if let Some(past) = &mut self.past {
                        past.restart(at, self.machine.freeze(), self.id);
                        self.machine.taken_back();
                    }
                    // Without one order the snapshot may lack what was applied here before, and what follows brings it back: nobody
                    // may see the state between.
                    budget = usize::MAX;
                }
                // The log has begun anew; the machine follows.
                Delivery::Adopt(_) => self.is_behind = true,
                Delivery::Stamped { at, stamp, body } => {
                    self.advance(at);
                    self.machine.stamped(&stamp);
                    match body {
                        Stamped::Batch(batch) => {
                            self.apply_stamped(at, stamp, &batch, world);
                            budget = budget.saturating_sub(work_in(&batch));
                        }
                        Stamped::Members(members) => world.members(at, &members),
                    }
                }
                Delivery::Merge { at, .. } if self.saving.is_some() || self.is_arriving(at) => {
                    // One snapshot is written at a time; this one waits, and what was delivered behind it.
                    self.backlog.push_front(delivery);
                    break;
                }
                Delivery::Merge { at, snapshot } => {
                    let (frozen_at, failed) =
                        (snapshot.at, |source| RestoreFailed { at: snapshot.at, source });
                    debug_assert!(
                        at > self.applied && at > frozen_at,
                        "a merged state holds more than either"
                    );
                    let merged = self.machine.merge(&snapshot, at).map_err(failed)?;
                    self.saving = Some(at);
                    world.save(at, merged);
                }
                Delivery::Replace(snapshot) => {
                    let at = snapshot.at;
                    self.machine.restore(&snapshot).map_err(|source| RestoreFailed { at, source })?;
                    self.machine.taken_back();
                    self.applied = at;
                    // What they were to see is gone.
                    for read in self.reads.take_fenced() {
                        world.unreadable(read, Refusal::LeaderChanged);
                    }
                }
                Delivery::Rewind { at } => self.rewind(at)?,
                Delivery::Freeze { at } => {
                    debug_assert_eq!(at, self.applied, "a snapshot is taken right behind what was delivered");
                    if self.saving.is_none() && self.snapshot.as_ref().is_none_or(|newest| newest.at < at) {
                        self.freeze(at, now, world);
                    }
                }
            }
        }
        Ok(())
    }

    /// Goes back to how things were after the delivery at `at`.
    fn rewind(&mut self, at: Index) -> Result<(), RestoreFailed> {
        let past = self.past.as_mut().expect("who rewinds says what is settled");
        let (from, view, again) = past.rewind(at, self.id);
        self.machine.rewind(from, view).map_err(|source| RestoreFailed { at: from, source })?;
        self.machine.taken_back();
        let mut place = from;
        for batch in again {
            place = place.next();
            for command in batch.iter() {
                self.machine.apply(place, command, Audience::Nobody);
            }
        }
        self.applied = at;
        Ok(())
    }

    fn remember(&mut self, at: Index, batch: &Batch) {
        if let Some(past) = &mut self.past {
            past.push(at, batch.clone(), self.machine.freeze());
        }
    }

    fn apply_stamped<W: World<P, M>>(&mut self, at: Index, stamp: Stamp, batch: &Batch, world: &mut W) {
        self.growth.applied(batch_bytes(batch));
        for (place, command) in batch.iter().enumerate() {
            let stamp = stamp.of_command(place);
            if command.id.origin == self.id {
                let reply = self.machine.apply_stamped(at, &stamp, command, Audience::Client);
                world.reply(command.id, reply);
            } else {
                self.machine.apply_stamped(at, &stamp, command, Audience::Nobody);
            }
        }
    }

    fn advance(&mut self, at: Index) {
        assert_eq!(at, self.applied.next(), "deliveries come in order, without gaps");
        self.applied = at;
    }

    fn apply<W: World<P, M>>(&mut self, at: Index, batch: &Batch, world: &mut W) {
        self.growth.applied(batch_bytes(batch));
        for commands in batch.chunks(EXPECTED) {
            self.machine.expect(commands);
            for command in commands {
                let waits = command.id.origin == self.id
                    && !self.past.as_mut().is_some_and(|past| past.was_answered(command.id));
                if waits {
                    let reply = self.machine.apply(at, command, Audience::Client);
                    world.reply(command.id, reply);
                } else {
                    self.machine.apply(at, command, Audience::Nobody);
                }
            }
        }
    }

    /// Starts a snapshot when one is due or wanted, and none is being written.
    fn consider_snapshot<W: World<P, M>>(&mut self, now: Time, world: &mut W) {
        if P::SNAPSHOTS == SnapshotPlaces::AsDelivered {
            return;
        }
        let failed = std::mem::take(&mut self.save_failed);
        let again = self.save_again_at.take_if(|due| *due <= now).is_some();
        if failed || again {
            // Should something else come in between now.
            self.save_again_at = Some(now + SAVE_AGAIN_AFTER);
        }
        // Of what may be taken back there is no snapshot: an earlier view is written down.
        let at = match &self.past {
            None => self.applied,
            Some(past) => match self.protocol.settled().and_then(|settled| past.view(settled)) {
                Some((at, _)) => *at,
                None => return,
            },
        };
        if self.is_arriving(at) {
            return;
        }
        let newer = self.snapshot.as_ref().is_none_or(|snapshot| snapshot.at < at);
        if !newer {
            self.save_again_at = None;
        }
        // While a restore waits in the backlog, or for the disk, the machine is behind the log: no time for a snapshot.
        if !newer || self.saving.is_some() || self.is_behind || !self.backlog.is_empty() || at == Index::ZERO
        {
            return;
        }
        if !std::mem::take(&mut self.snapshot_wanted) && !again && !self.growth.is_due(at) {
            return;
        }
        self.save_again_at = None;
        self.freeze(at, now, world);
    }

    /// Has the state behind the delivery at `at` written elsewhere.
    fn freeze<W: World<P, M>>(&mut self, at: Index, now: Time, world: &mut W) {
        self.claim_place(at);
        self.saving = Some(at);
        self.growth.restart(at);
        let at = if Mutant::SnapshotBehindItself.is_on() && at.0 > 1 { at.previous() } else { at };
        self.step(now, Input::Freezing(at));
        let frozen = match &mut self.past {
            None => self.machine.freeze(),
            Some(past) => past.forget_before(at),
        };
        world.save(at, frozen);
    }
}

/// A snapshot that could not be written is tried again after this long: often enough for a disk that has room again, and seldom enough for
/// one that has none.
const SAVE_AGAIN_AFTER: Duration = Duration::from_secs(1);
/// So many commands are shown to the machine before they are applied: what they need must still be near when it is their turn.
const EXPECTED: usize = 64;

/// Shows the protocol's own view: for traces.
impl<P: Protocol, M: Machine> std::fmt::Debug for Replica<P, M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Replica")
            .field("id", &self.id)
            .field("applied", &self.applied)
            .finish_non_exhaustive()
    }
}
