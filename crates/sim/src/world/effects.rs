//! What a replica's flush leads to: the oracles see what it has become, its packets go on their way, its clients hear.

use bytes::Bytes;
use synod_core::{NodeId, Role, Time, Wire};
use synod_replica::Packet;

use super::node::End;
use super::outside::Effects;
use super::{Body, Event, MessageOf, World};
use crate::client::{Ended, Waiting};
use crate::family::{Family, Finality};
use crate::faults::FaultKind;
use crate::machine::{Applied, mix};
use crate::network::{Fate, Form, NODES_MAX};
use crate::script::show_packet;
use crate::trace::What;

impl<F: Family> World<F> {
    pub(super) fn flush(&mut self, id: NodeId) {
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
            if !is_liar && let Err(broken) = self.ledger.apply(id, applied) {
                self.broken(broken);
                break;
            }
            self.lease_ended(id, applied.id);
        }
        self.observe_pasts(id, &trail);
        let applied = !trail.is_empty();
        trail.clear();
        self.trail = trail;
        if is_liar {
            return;
        }
        if let Some(running) = &self.nodes[id.0 as usize - 1].running
            && let Err(broken) = self.ledger.stands(id, running.replica.machine())
        {
            self.broken(broken);
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
                self.elected = Some((self.now, id, term));
                self.examine_leader(id, term);
            }
        }
    }

    /// Where there is no single order: what was applied came behind what it depends on, and nothing that was shown goes back.
    fn observe_pasts(&mut self, id: NodeId, trail: &[Applied]) {
        let node = &mut self.nodes[id.0 as usize - 1];
        let Some(running) = &mut node.running else { return };
        let pasts = std::mem::take(&mut running.replica.machine_mut().pasts);
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
            logs.push((node.id, log, running.replica.applied()));
        }
        let mut result = Ok(());
        for (node, log, applied) in &logs {
            result = result.and_then(|()| self.leaders.note_committed(*node, log, *applied));
        }
        if let Some((_, own, _)) = logs.iter().find(|(node, ..)| *node == id) {
            result = result.and_then(|()| self.leaders.complete(id, term, own));
            for (node, log, _) in &logs {
                result = result.and_then(|()| crate::oracle::leaders::logs_match((id, own), (*node, log)));
            }
        }
        if let Err(broken) = result {
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
        let mut ended = false;
        for (to, packet) in effects.packets.drain(..) {
            if !ended && self.ends_at_this_send(id, &packet) {
                ended = true;
            }
            if !ended {
                self.send(id, to, packet);
            }
        }
        self.effects = effects;
        if ended {
            let End { loss: _, down } = self.node(id).end;
            self.crash(id, None, down);
        }
    }

    pub(super) fn ends_at_this_send(&mut self, id: NodeId, packet: &Packet<MessageOf<F>>) -> bool {
        let Some(left) = &mut self.node(id).sends_left else { return false };
        if *left > 0 {
            *left -= 1;
            return false;
        }
        let shown = show_packet(packet);
        let kind = shown.split([' ', '{', '(']).next().unwrap_or_default().to_owned();
        self.recorder.note(self.now, Some(id), || What::Fault(format!("ends before it sends {kind}")));
        *self.counts.send_crashes.entry(kind).or_default() += 1;
        true
    }

    pub(super) fn send(&mut self, from: NodeId, to: NodeId, packet: Packet<MessageOf<F>>) {
        if self.plan.liars.contains(&from) {
            return self.send_lies(from, to, packet);
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
