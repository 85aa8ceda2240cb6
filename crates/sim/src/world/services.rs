//! What the server does beside consensus, for every replica: letting leases end where the leader is, and feeding watchers.

use std::time::Duration;

use synod_core::{Command, CommandId, NodeId, Role, Time};

use super::{Event, World};
use crate::client::Ended;
use crate::family::Family;
use crate::machine::{Answer, Ask, Said, digest};
use crate::oracle::ledger::Judging;
use crate::trace::What;
use crate::watcher::{Ongoing, Watcher};

/// At most so many leases end in one go.
const EXPIRIES_MAX: usize = 16;

/// How many versions a lagging watcher is brought forward by, after each flush.
const CATCH_UP_BUDGET: usize = 8;

/// Whether watchers are fed because there is news, or because it is their turn.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Feeding {
    AsItHappens,
    ByTurns,
}

/// What an answered renewal promises.
#[derive(Clone, Copy, Debug)]
pub(super) struct LeaseTerm {
    /// In seconds.
    pub(super) ttl: i64,
    /// It must not end before this.
    pub(super) until: Time,
}

impl<F: Family> World<F> {
    /// After a flush: whoever leads keeps the leases' time, and watchers hear what is new.
    pub(super) fn serve_the_store(&mut self, id: NodeId) {
        if self.ledger.judging() == Judging::Sets {
            return; // Leases and watches need one order, for good.
        }
        let now = self.now;
        let election = self.plan.election;
        let node = &mut self.nodes[id.0 as usize - 1];
        let own = node.clock.shows(now);
        let life = node.life;
        let Some(running) = &mut node.running else { return };
        let leads = matches!(running.role, Role::Leader | Role::Primary);
        let machine = running.replica.machine_mut();
        let is_leading = machine.store.lessor().is_leading();
        if leads && !is_leading {
            machine.store.promote_lessor(own, election);
        } else if !leads && is_leading {
            machine.store.lessor().demote();
        }
        if leads {
            machine.store.lessor().advance(own);
            if let Some(due) = machine.store.lessor().deadline() {
                let at = node.clock.reaches(due).max(Time(now.0 + 1_000));
                if running.leases_at.is_none_or(|asked| at < asked || asked <= now) {
                    running.leases_at = Some(at);
                    self.events.push(at, Event::Leases { node: id, life });
                }
            }
        }
        let machine = running.replica.machine_mut();
        if machine.store.is_scrubbing() {
            machine.store.scrub(CATCH_UP_BUDGET);
        }
        self.feed_watchers(id, Feeding::AsItHappens);
    }

    fn feed_watchers(&mut self, id: NodeId, feeding: Feeding) {
        for number in 0..self.watchers.len() {
            let Some((node, life, _, record)) = self.watchers[number].connection else { continue };
            if node != id {
                continue;
            }
            let place = &mut self.nodes[id.0 as usize - 1];
            if place.life != life {
                continue;
            }
            let Some(running) = &mut place.running else { continue };
            let machine = running.replica.machine_mut();
            machine.store.catch_up(CATCH_UP_BUDGET);
            if feeding == Feeding::AsItHappens && Watcher::is_slow(number) {
                continue;
            }
            let watcher = &mut self.watchers[number];
            if watcher.poll(self.now, machine, &mut self.heard[record]) == Ongoing::Ended {
                watcher.connection = None;
                self.events.push(self.now + Duration::from_millis(5), Event::Watch { watcher: number });
            }
        }
    }

    /// A watcher without a connection looks for one; one that has one asks now and then how far it has come.
    pub(super) fn watch(&mut self, number: usize) {
        let again = self.now + self.clients.think(self.plan.think * 4) + Duration::from_millis(20);
        self.events.push(again, Event::Watch { watcher: number });
        if let Some((node, life, stream, _)) = self.watchers[number].connection {
            let place = &mut self.nodes[node.0 as usize - 1];
            match &mut place.running {
                Some(running) if place.life == life => {
                    if self.clients.draw(4) == 0 {
                        running.replica.machine_mut().store.hub().progress(stream);
                        self.feed_watchers(node, Feeding::ByTurns);
                    } else if Watcher::is_slow(number) {
                        self.feed_watchers(node, Feeding::ByTurns);
                    }
                    return;
                }
                _ => self.watchers[number].connection = None,
            }
        }
        let id = if self.steward.is_some() {
            let voters = self.voters();
            voters[self.clients.draw(voters.len() as u64) as usize]
        } else {
            NodeId(1 + self.clients.draw(self.nodes.len() as u64))
        };
        let record = self.heard.len();
        let node = &mut self.nodes[id.0 as usize - 1];
        let life = node.life;
        if let Some(running) = &mut node.running
            && !self.plan.liars.contains(&id)
        {
            let heard =
                self.watchers[number].connect(number, id, life, running.replica.machine_mut(), record);
            self.heard.push(heard);
            self.feed_watchers(id, Feeding::AsItHappens);
        }
    }

    /// Leases may have ended, by the leader's clock.
    pub(super) fn leases(&mut self, id: NodeId, life: u64) {
        if let Some(until) = self.paused(id) {
            let turn = super::turn_after_pause(until, super::Waits::Timer);
            return self.events.push(turn, Event::Leases { node: id, life });
        }
        let now = self.now;
        let node = &mut self.nodes[id.0 as usize - 1];
        let own = node.clock.shows(now);
        let Some(running) = node.running.as_mut().filter(|_| node.life == life) else { return };
        running.leases_at = None;
        if !matches!(running.role, Role::Leader | Role::Primary) {
            return;
        }
        let expired = running.replica.machine_mut().store.lessor().expired(own, EXPIRIES_MAX);
        for lease in expired {
            let node = self.node(id);
            node.commands += 1;
            let command = CommandId { origin: id, number: node.commands };
            let payload = Ask::Revoke { id: lease }.payload();
            self.recorder
                .note(now, Some(id), || What::Note(format!("lease {lease} is over: {command:?} revokes it")));
            self.ledger.submit(command, digest(&payload));
            self.expiries.insert(command, lease);
            if let Some(running) = &mut self.node(id).running {
                let taken = running.replica.submit_as_leader(Command { id: command, payload });
                if taken.is_err()
                    && let Err(broken) = self.ledger.refuse(command)
                {
                    self.broken(broken);
                }
            }
        }
        self.flush(id);
    }

    /// A client may have its lease renewed, if this replica leads: the fence proves that it still did when it was asked.
    pub(super) fn renew(&mut self, id: NodeId, lease: i64) -> Ended {
        let now = self.now;
        let node = &mut self.nodes[id.0 as usize - 1];
        let own = node.clock.shows(now);
        let Some(running) = &mut node.running else { return Ended::Refused };
        let leads = matches!(running.role, Role::Leader | Role::Primary);
        let machine = running.replica.machine_mut();
        if !leads || !machine.store.lessor().is_leading() {
            return Ended::Refused;
        }
        match machine.store.lessor().renew(lease, own) {
            Some(_) => Ended::Said(Said { revision: machine.store.revision(), answer: Answer::Done }),
            None => Ended::Refused,
        }
    }

    /// A client was told that its lease lives, counted from when it asked.
    pub(super) fn lease_promised(&mut self, record: &crate::client::Record) {
        let (id, ttl) = match (record.ask, record.ended) {
            (_, Ended::Said(Said { answer: Answer::Error(_), .. }) | Ended::Refused | Ended::Unknown) => {
                return;
            }
            (Ask::Grant { id, ttl }, _) => (id, ttl),
            (Ask::KeepAlive { id }, _) => match self.lease_terms.get(&id) {
                Some(term) => (id, term.ttl),
                None => return,
            },
            _ => return,
        };
        // The leader's clock may run fast by the plan's drift: a lease may be shorter by that share, and no more.
        let nanos = u128::from(ttl.unsigned_abs()) * 1_000_000_000 * 1_000_000;
        let span = nanos / (1_000_000 + u128::from(self.plan.drift_ppm));
        let until = record.invoked + Duration::from_nanos(u64::try_from(span).unwrap_or(u64::MAX));
        let term = self.lease_terms.entry(id).or_insert(LeaseTerm { ttl, until });
        term.until = term.until.max(until);
    }

    /// A command was decided: if it is a lessor's, the lease's time must be over.
    pub(super) fn lease_ended(&mut self, id: NodeId, command: CommandId) {
        let Some(lease) = self.expiries.remove(&command) else { return };
        let running = self.nodes[id.0 as usize - 1].running.as_ref();
        if running.is_some_and(|running| running.replica.machine().holds_keys_of(lease)) {
            self.broken((
                "leases take their keys along",
                format!("{id:?} ended lease {lease}, and holds keys of it"),
            ));
        }
        let Some(term) = self.lease_terms.get(&lease).copied() else { return };
        if self.now < term.until && !self.plan.faults.has(crate::faults::FaultKind::Jump) {
            let early = term.until.since(self.now);
            self.broken((
                "leases never end early",
                format!("lease {lease} of {} s ends {early:?} early", term.ttl),
            ));
        }
    }
}
