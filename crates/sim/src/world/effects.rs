//! What a replica's flush leads to: the oracles see what it has become, its packets go on their way, its clients hear.

use std::fmt::{self, Write as _};

use bytes::Bytes;
use synod_core::{NodeId, Role, Time, Wire};
use synod_replica::Packet;

use super::node::End;
use super::outside::Effects;
use super::{Body, Event, MessageOf, World, foresight};
use crate::client::{Ended, Waiting};
use crate::family::{Family, Finality};
use crate::faults::{Cue, FaultKind, Packets, Side};
use crate::machine::{Applied, mix};
use crate::network::{Fate, Form, NODES_MAX};
use crate::script::show_packet;
use crate::trace::What;

/// So many of a replica's latest promises are remembered for it.
const PROMISES_MAX: usize = 8;

/// How many packets of each kind were sent.
#[derive(Default)]
pub(super) struct Kinds {
    /// The first bytes of the kind's name, and the count.
    kinds: Vec<([u8; KIND_BYTES], u64)>,
    all: u64,
}

const KIND_BYTES: usize = 14;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Rarity {
    Rare,
    Common,
}

/// Takes the name in front of a message's debugging output, and then stops the output.
struct KindOf([u8; KIND_BYTES], usize);

impl fmt::Write for KindOf {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            if self.1 == KIND_BYTES || !byte.is_ascii_alphanumeric() {
                return Err(fmt::Error);
            }
            self.0[self.1] = byte;
            self.1 += 1;
        }
        Ok(())
    }
}

impl Kinds {
    /// Counts a packet, and says whether its kind is rare.
    fn count<M: fmt::Debug>(&mut self, packet: &Packet<M>) -> Rarity {
        let mut kind = KindOf([0; KIND_BYTES], 0);
        let _ = match packet {
            Packet::Protocol(message) => write!(kind, "{message:?}"),
            Packet::Chunk(_) => kind.write_str("Chunk"),
            Packet::Held { .. } => kind.write_str("Held"),
            Packet::Arrived { .. } => kind.write_str("Arrived"),
            Packet::Rejected { .. } => kind.write_str("Rejected"),
        };
        self.all += 1;
        let count = match self.kinds.iter_mut().find(|(known, _)| *known == kind.0) {
            Some((_, count)) => {
                *count += 1;
                *count
            }
            None => {
                self.kinds.push((kind.0, 1));
                1
            }
        };
        if count * 50 < self.all { Rarity::Rare } else { Rarity::Common }
    }
}

impl<F: Family> World<F> {
    pub(super) fn flush(&mut self, id: NodeId) {
        self.flush_and_judge(id, false);
    }

    /// As [`World::flush`]; what leaves although nothing may is a violation.
    pub(super) fn flush_and_judge(&mut self, id: NodeId, mut expects_nothing: bool) {
        let now = self.now;
        loop {
            let node = &mut self.nodes[id.0 as usize - 1];
            let own = node.clock.shows(now);
            let Some(running) = &mut node.running else { return };
            if let Err(error) = running.replica.flush(own, &mut self.effects) {
                let error = error.to_string();
                self.effects = Effects::default();
                return if self.node(id).disk.died_at().is_some() || self.node(id).failing {
                    self.disk_failed_with(id, &error)
                } else {
                    self.stop(id, &error)
                };
            }
            let again = running.replica.deadline() == Some(Time::ZERO);
            if std::mem::take(&mut expects_nothing) && self.effects.is_something() {
                let what = format!("{id:?} said that it did not wait for its disk, and acts upon its news");
                self.broken(("waiting", what));
            }
            self.observe(id);
            self.serve_the_store(id);
            self.let_out(id);
            if !again || self.violation.is_some() {
                break;
            }
        }
        self.start_workers(id);
        self.ask_for_wake_up(id);
    }

    /// Shows the oracles what the replica has become.
    pub(super) fn observe(&mut self, id: NodeId) {
        let node = &mut self.nodes[id.0 as usize - 1];
        let Some(running) = &mut node.running else { return };
        std::mem::swap(&mut self.trail, &mut running.replica.machine_mut().trail);
        let (role, term) = F::standing(running.replica.protocol());
        let changed = (role, term) != (running.role, running.term);
        (running.role, running.term) = (role, term);
        let is_liar = self.plan.liars.contains(&id);
        // Where decisions may be revoked, a primary decides alone: once another leads, it must not decide any more.
        let newest = self.leaders.newest();
        if role == Role::Primary
            && term < newest
            && !self.trail.is_empty()
            && F::finality(&self.plan.options) == Finality::Revocable
        {
            self.broken((
                "fencing",
                format!("{id:?} goes on deciding in term {term}, although another leads in term {newest}"),
            ));
        }
        let mut trail = std::mem::take(&mut self.trail);
        for applied in &trail {
            self.hash = mix(self.hash, applied.chain);
            if self.recorder.is_on() {
                let (at, text) = (applied.at.0, format!("{:?}", applied.id));
                self.recorder.note(self.now, Some(id), || What::Applied { at, text });
            }
            if is_liar {
                continue;
            }
            if let Err(broken) = self.ledger.apply(id, applied) {
                self.broken(broken);
                break;
            }
            self.lease_ended(id, applied.id);
        }
        self.observe_pasts(id, &trail);
        let applied = !trail.is_empty();
        trail.clear();
        self.trail = trail;
        self.judge_standing(id);
        if is_liar {
            return;
        }
        if (changed || applied)
            && let Some(running) = &self.nodes[id.0 as usize - 1].running
            && let Err(what) = F::examine(running.replica.protocol())
        {
            self.broken(("what a replica says of itself", format!("{id:?}: {what}")));
        }
        if changed {
            self.stir(term << 8 | role as u64);
            self.recorder.note(self.now, Some(id), || What::Stands { role: format!("{role:?}"), term });
            if matches!(role, Role::Leader | Role::Primary) {
                if let Some((_, before, _)) = self.elected.filter(|(_, before, _)| *before != id) {
                    self.deposed = Some(before);
                }
                self.elected = Some((self.now, id, term));
                self.looked.1 = foresight::LOOKS_MAX;
                self.examine_leader(id, term);
                self.let_pass();
                self.cue(Cue::Lead, id);
            }
        }
        self.look_ahead(id);
    }

    /// However a replica came to its state, by applying, by a peer's snapshot or by a start from its disk, somebody who tells the truth was in
    /// that state before, or comes to it now. The ledger holds what those applied, and no word of liars: one may be the first to know of a
    /// decision, and stand on a snapshot behind it when it starts anew, before any of the others has heard enough.
    pub(super) fn judge_standing(&mut self, id: NodeId) {
        if self.plan.liars.contains(&id) {
            return;
        }
        if let Some(running) = &self.nodes[id.0 as usize - 1].running
            && let Err(broken) = self.ledger.stands(id, running.replica.machine())
        {
            self.broken(broken);
        }
    }

    /// Where there is no single order: what was applied came behind what it depends on, and nothing that was shown goes back.
    fn observe_pasts(&mut self, id: NodeId, trail: &[Applied]) {
        let node = &mut self.nodes[id.0 as usize - 1];
        let Some(running) = &mut node.running else { return };
        let pasts = std::mem::take(&mut running.replica.machine_mut().pasts);
        if let Some((clock, floor)) = running.replica.machine().late {
            let what =
                format!("{id:?} applies what was written at {clock}, though all from {floor} on is settled");
            return self.broken(("convergence", what));
        }
        let Some(vector) = running.replica.machine().store.vector() else { return };
        if !vector.dominates(&node.shown) {
            let what = format!("{id:?} goes back from {:?} to {vector:?}", node.shown);
            return self.broken(("monotonic revisions", what));
        }
        node.shown = vector.clone();
        for (applied, past) in trail.iter().zip(&pasts) {
            if let Err(broken) = self.ledger.depends(id, applied.id, past) {
                return self.broken(broken);
            }
        }
    }

    /// Somebody leads from now on: election safety, log matching, leader completeness.
    pub(super) fn examine_leader(&mut self, id: NodeId, term: u64) {
        if let Err(broken) = self.leaders.leads(id, term) {
            return self.broken(broken);
        }
        let mut logs = Vec::new();
        for node in &self.nodes {
            let Some(running) = &node.running else { continue };
            let mut log = Vec::new();
            F::log(running.replica.protocol(), &mut log);
            logs.push((node.id, running.term, log, running.replica.applied()));
        }
        let mut result = Ok(());
        for (node, term, log, applied) in &logs {
            result = result.and_then(|()| self.leaders.note_committed(*node, *term, log, *applied));
        }
        if let Some((_, _, own, _)) = logs.iter().find(|(node, ..)| *node == id) {
            result = result.and_then(|()| self.leaders.complete(id, term, own));
            for (node, _, log, _) in &logs {
                result = result.and_then(|()| crate::oracle::leaders::logs_match((id, own), (*node, log)));
            }
        }
        if let Err(broken) = result {
            self.broken(broken);
        }
    }

    /// A replica is about to be gone: what it knew to be decided stays so.
    pub(super) fn examine_committed(&mut self, id: NodeId) {
        let Some(running) = &self.nodes[id.0 as usize - 1].running else { return };
        if self.plan.liars.contains(&id) {
            return;
        }
        let mut log = Vec::new();
        F::log(running.replica.protocol(), &mut log);
        let (term, applied) = (running.term, running.replica.applied());
        if let Err(broken) = self.leaders.note_committed(id, term, &log, applied) {
            self.broken(broken);
        }
    }

    /// Carries out what the replica wants done.
    pub(super) fn let_out(&mut self, id: NodeId) {
        let mut effects = std::mem::take(&mut self.effects);
        if let Some(running) = &mut self.node(id).running {
            running.storage.log_jobs.extend(effects.log.drain(..));
            running.storage.snapshot_jobs.extend(effects.snapshots.drain(..));
        }
        for (at, members) in effects.members.drain(..) {
            self.stir(at.0);
            self.recorder.note(self.now, Some(id), || What::Note(format!("members at {at:?}: {members:?}")));
            if let Err(broken) = self.ledger.configure(id, at, &members) {
                self.broken(broken);
            }
            self.cue(Cue::Members, id);
            self.looked.1 = foresight::LOOKS_MAX;
        }
        for text in effects.notes.drain(..) {
            self.recorder.note(self.now, Some(id), || What::Note(text));
        }
        for (id, said) in effects.replies.drain(..) {
            self.ledger.acknowledge(id);
            if let Some(client) = self.clients.waiting(Waiting::Command(id)) {
                self.ended(client, Ended::Said(said));
            }
        }
        for (command, reason) in effects.refusals.drain(..) {
            if let Err(broken) = self.ledger.refuse(command) {
                self.broken(broken);
            }
            self.recorder
                .note(self.now, Some(id), || What::Client(format!("refuses {command:?}: {reason:?}")));
            if let Some(client) = self.clients.waiting(Waiting::Command(command)) {
                self.ended(client, Ended::Refused);
            }
        }
        for read in effects.readable.drain(..) {
            self.serve(id, read);
        }
        for (read, reason) in effects.unreadable.drain(..) {
            self.recorder.note(self.now, Some(id), || What::Client(format!("refuses {read:?}: {reason:?}")));
            if let Some(client) = self.clients.waiting(Waiting::Read(id, read)) {
                self.ended(client, Ended::Refused);
            }
        }
        for reason in effects.declined.drain(..) {
            self.recorder.note(self.now, Some(id), || What::Note(format!("declines: {reason:?}")));
        }
        let mut ended = None;
        for (to, packet) in effects.packets.drain(..) {
            if ended.is_some() {
                continue; // Nobody is there any more who could send it.
            }
            ended = self.ends_at_this_send(id, &packet);
            if ended != Some(Side::Before) {
                self.send(id, to, packet);
            }
        }
        self.effects = effects;
        if ended.is_some() {
            let End { down, .. } = self.node(id).end;
            let loss = self.node(id).sends_left.take().and_then(|sends| sends.loss);
            self.crash(id, loss, down);
        }
    }

    /// Whether the process ends at this packet, and on which side of it.
    fn ends_at_this_send(&mut self, id: NodeId, packet: &Packet<MessageOf<F>>) -> Option<Side> {
        if !self.plan.faults.has(FaultKind::CrashPoint) {
            return None;
        }
        let rarity = self.kinds_sent.count(packet);
        let sends = self.node(id).sends_left.as_mut()?;
        if sends.packets == Packets::Rare && rarity == Rarity::Common {
            return None;
        }
        if sends.skip > 0 {
            sends.skip -= 1;
            return None;
        }
        let side = sends.side;
        let shown = show_packet(packet);
        let kind = shown.split([' ', '{', '(']).next().unwrap_or_default().to_owned();
        let moment = if side == Side::Before { "before" } else { "after" };
        self.recorder.note(self.now, Some(id), || What::Fault(format!("ends {moment} it sends {kind}")));
        *self.counts.send_crashes.entry((moment, kind)).or_default() += 1;
        Some(side)
    }

    pub(super) fn send(&mut self, from: NodeId, to: NodeId, packet: Packet<MessageOf<F>>) {
        if self.plan.liars.contains(&from) {
            return self.send_lies(from, to, packet);
        }
        let node = self.node(from);
        if let Packet::Protocol(message) = &packet
            && let Some(running) = &node.running
            && let Some(promise) = F::promise(message, running.replica.protocol())
            && node.promised.back() != Some(&promise)
        {
            // Not only a crash makes forget: who promises something else may have let go of what it promised before.
            let protocol = running.replica.protocol();
            let forgot = node.promised.iter().find_map(|promised| F::forgot(promised, protocol));
            node.promised.push_back(promise);
            if node.promised.len() > PROMISES_MAX {
                node.promised.pop_front();
            }
            if let Some(what) = forgot.filter(|_| !node.harmed) {
                self.broken(("promises are kept", format!("{from:?} told others something else: {what}")));
            }
        }
        self.post(from, to, packet);
    }

    pub(crate) fn post(&mut self, from: NodeId, to: NodeId, packet: Packet<MessageOf<F>>) {
        self.flights += 1;
        self.counts.packets += 1;
        let flight = self.flights;
        if self.recorder.is_on() {
            let text = show_packet(&packet);
            self.recorder.note(self.now, Some(from), || What::Sent { flight, to, text });
        }
        if to.0 == 0 || to.0 as usize > self.nodes.len() || to.0 as usize >= NODES_MAX {
            return; // Nobody has this name (any more, or yet).
        }
        match self.network.fate(self.now, from, to) {
            Fate::Lost => {
                let why = "on the way";
                self.recorder.note(self.now, Some(from), || What::Lost { flight, from, to, why });
            }
            Fate::Arrives { at, again, form } => {
                if let Some(again) = again {
                    let body = Body::Value(packet.clone());
                    self.events.push(again, Event::Arrive { flight, from, to, body });
                }
                let body = match form {
                    Form::Value => Body::Value(packet),
                    Form::Encoded | Form::Corrupt => self.frame(&packet, form),
                };
                self.events.push(at, Event::Arrive { flight, from, to, body });
            }
        }
    }

    pub(super) fn frame(&mut self, packet: &Packet<MessageOf<F>>, form: Form) -> Body<MessageOf<F>> {
        let bytes = packet.to_bytes();
        let sum = crc32c::crc32c(&bytes);
        self.stir(u64::from(sum));
        if form != Form::Corrupt || bytes.is_empty() {
            return Body::Frame(bytes, sum);
        }
        *self.counts.faults.entry(FaultKind::Corrupt).or_default() += 1;
        let mut damaged = bytes.to_vec();
        // Damaged bytes must not bring the decoder down, even where no checksum stands before it.
        for _ in 0..=self.network.draw(3) {
            let bit = self.network.draw(damaged.len() as u64 * 8) as usize;
            damaged[bit / 8] ^= 1 << (bit % 8);
        }
        let damaged = Bytes::from(damaged);
        let _ = Packet::<MessageOf<F>>::decode_all(damaged.clone());
        Body::Frame(damaged, sum)
    }
}
