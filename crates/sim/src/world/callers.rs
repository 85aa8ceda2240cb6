//! Clients at work: they call, are answered or refused, and what they are told is judged at once.

use std::time::Duration;

use synod_core::{Command, CommandId, NodeId, ReadId, Vector};

use super::{Calling, Event, World};
use crate::client::{Clients, Ended, Record, Waiting};
use crate::family::{Family, Reads, Sessions};
use crate::machine::{Ask, Way, digest};
use crate::oracle::ledger::Judging;
use crate::trace::What;

/// What a client sends.
pub(super) enum Request {
    Read(ReadId),
    Command(Command),
}

/// Two who come by when somebody takes the lead, and each ask a few times in a row: one writes at the new leader, one reads at whoever led
/// before. What an old leader may still say, and what not any more, is decided in these milliseconds, and the other clients think too long.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Passers {
    /// Their places among the clients, the writer's first; nobody comes by where a client is alone.
    places: Option<(usize, usize)>,
    /// How often each still asks before it goes away.
    left: (u32, u32),
}

/// So often they ask each time.
const WRITES_MAX: u32 = 3;
const READS_MAX: u32 = 8;

impl Passers {
    pub(super) fn hired(clients: &mut Clients) -> Passers {
        Passers { places: Some((clients.hire(NodeId(1)), clients.hire(NodeId(1)))), left: (0, 0) }
    }

    fn has(&self, client: usize) -> bool {
        self.places.is_some_and(|(writer, reader)| client == writer || client == reader)
    }
}

impl<F: Family> World<F> {
    /// Somebody has taken the lead.
    pub(super) fn let_pass(&mut self) {
        let Some((writer, reader)) = self.passers.places.filter(|_| self.deposed.is_some()) else { return };
        self.passers.left = (WRITES_MAX, READS_MAX);
        // The writer at once: before the new leader knows more than it led by.
        self.events.push(self.now, Event::Call { client: writer });
        let at = self.now + self.pause(reader);
        self.events.push(at, Event::Call { client: reader });
    }

    /// How long a client thinks before it asks again.
    fn pause(&mut self, client: usize) -> Duration {
        let most = if self.passers.has(client) { self.plan.election / 20 } else { self.plan.think };
        self.clients.think(most)
    }

    /// Whom a passer-by asks, and for what; nobody, when it is done.
    fn in_passing(&mut self, client: usize) -> Option<(NodeId, Ask)> {
        let (writer, _) = self.passers.places?;
        let (left, node) = if client == writer {
            (&mut self.passers.left.0, self.elected.map(|(_, node, _)| node))
        } else {
            (&mut self.passers.left.1, self.deposed)
        };
        *left = left.checked_sub(1)?;
        let ask = if client == writer { self.clients.write() } else { self.clients.read() };
        Some((node?, ask))
    }

    pub(super) fn call(&mut self, client: usize) {
        let mut candidates: Vec<NodeId> = match self.calling {
            Calling::No => return,
            Calling::Probing => match self.probes.get(&client) {
                Some(node) if !self.probed.contains(node) => vec![*node],
                _ => return,
            },
            Calling::Yes if self.clients.records.len() >= self.plan.operations_max => return,
            // Over a long life most machines are history, and clients are told the members.
            Calling::Yes if self.steward.is_some() => self.voters(),
            Calling::Yes if self.reachable.is_empty() => self.nodes.iter().map(|node| node.id).collect(),
            Calling::Yes => self.reachable.clone(),
        };
        if self.clients.clients[client].open.is_some() {
            return;
        }
        // Whom a client asks it must trust: a client of liars is told lies, rightly so (see the proxy of PBFT).
        candidates.retain(|id| !self.plan.liars.contains(id));
        if candidates.is_empty() {
            return;
        }
        let (node, ask) = match self.calling {
            Calling::Probing => {
                self.clients.clients[client].node = candidates[0];
                (candidates[0], self.clients.probe())
            }
            _ if self.passers.has(client) => match self.in_passing(client) {
                Some((node, ask)) if candidates.contains(&node) => {
                    self.clients.clients[client].node = node;
                    (node, ask)
                }
                _ => return,
            },
            _ => match self.deposed.filter(|node| self.is_loyal(client) && candidates.contains(node)) {
                Some(node) => {
                    self.clients.clients[client].node = node;
                    (node, Ask::Get { key: self.clients.draw(self.plan.keys) })
                }
                None => self.clients.choose(client, &candidates),
            },
        };
        if self.node(node).running.is_none()
            || self.paused(node).is_some() && self.calling == Calling::Probing
        {
            // Connection refused: the client tries somebody else after a while.
            self.clients.clients[client].node = NodeId(0);
            let at = self.now + self.pause(client);
            return self.events.push(at, Event::Call { client });
        }
        if F::sessions(&self.plan.options) == Sessions::Carried && self.calling == Calling::Yes {
            // The replica waits with the call until it has applied what the token names; or the client goes elsewhere.
            let token = &self.clients.clients[client].token;
            if self.vector_of(node).is_some_and(|vector| !vector.dominates(token)) {
                let at = self.now + self.clients.think(self.plan.think / 4) + Duration::from_millis(1);
                return self.events.push(at, Event::Call { client });
            }
        }
        self.ask(client, node, ask);
    }

    /// Whether this client asks whoever led before.
    fn is_loyal(&self, client: usize) -> bool {
        self.plan.loyal && client == 0 && self.plan.clients > 1 && self.ledger.judging() == Judging::Places
    }

    /// What a replica has applied, where there is no single order.
    pub(super) fn vector_of(&self, id: NodeId) -> Option<&Vector> {
        self.nodes[id.0 as usize - 1].running.as_ref()?.replica.machine().store.vector()
    }

    pub(super) fn ask(&mut self, client: usize, id: NodeId, ask: Ask) {
        let now = self.now;
        let node = self.node(id);
        let waiting = match ask.way() {
            Way::Fence => {
                node.reads += 1;
                Waiting::Read(id, ReadId(node.reads))
            }
            Way::Log => {
                node.commands += 1;
                Waiting::Command(CommandId { origin: id, number: node.commands })
            }
        };
        let turn = self.clients.begin(client, now, id, ask, waiting);
        self.recorder
            .note(now, Some(id), || What::Client(format!("client {client} asks {ask:?} ({waiting:?})")));
        let give_up = Event::GiveUp { client, turn };
        let patience = if self.is_loyal(client) || self.passers.has(client) {
            self.plan.election / 2
        } else {
            self.plan.patience
        };
        self.events.push(now + patience.min(self.plan.patience), give_up);
        let request = match waiting {
            Waiting::Read(_, read) => Request::Read(read),
            Waiting::Command(id) => {
                let payload = ask.payload();
                self.ledger.submit(id, digest(&payload));
                if let Some(vector) = self.vector_of(id.origin).cloned() {
                    self.ledger.submitted_after(id, &vector);
                }
                Request::Command(Command { id, payload })
            }
        };
        let life = self.node(id).life;
        match self.paused(id) {
            // It waits in the machine's memory until the process goes on, whether the client is still there by then or not.
            Some(until) => {
                let turn = super::turn_after_pause(until, super::Waits::Clients);
                self.events.push(turn, Event::Reaches { node: id, life, client, request });
            }
            None => self.reach(id, life, client, &request),
        }
    }

    /// A request reaches the process, if it is still the one that it was sent to.
    pub(super) fn reach(&mut self, id: NodeId, life: u64, client: usize, request: &Request) {
        let node = self.node(id);
        if node.life != life || node.running.is_none() {
            return;
        }
        match request {
            Request::Read(read) if F::READS == Reads::Fenced => {
                self.with(id, |replica, _| replica.read(*read));
            }
            Request::Read(read) => self.serve(id, *read),
            Request::Command(command) => {
                let mut taken = Ok(());
                self.with(id, |replica, _| taken = replica.submit(command.clone()));
                if taken.is_err() {
                    if let Err(broken) = self.ledger.refuse(command.id) {
                        self.broken(broken);
                    }
                    if self.clients.waiting(Waiting::Command(command.id)) == Some(client) {
                        self.ended(client, Ended::Refused);
                    }
                }
            }
        }
    }

    /// A read may be answered from the machine as it is.
    pub(super) fn serve(&mut self, id: NodeId, read: ReadId) {
        let Some(client) = self.clients.waiting(Waiting::Read(id, read)) else { return };
        let Some((place, _)) = self.clients.clients[client].open else { return };
        let Some(running) = &self.nodes[id.0 as usize - 1].running else { return };
        let ended = match self.clients.records[place].ask {
            Ask::Get { key } => Ended::Said(running.replica.machine().get(key)),
            Ask::KeepAlive { id: lease } => self.renew(id, lease),
            _ => return,
        };
        self.ended(client, ended);
    }

    pub(super) fn ended(&mut self, client: usize, ended: Ended) {
        let node = self.clients.clients[client].node;
        if matches!(ended, Ended::Said(_))
            && node.0 > 0
            && let Some(vector) = self.vector_of(node).cloned()
        {
            self.clients.clients[client].token.join(&vector);
        }
        if let Some(record) = self.clients.end(client, self.now, ended) {
            self.after(client, record);
        }
    }

    /// An operation is over: what it says is judged, and the client goes on.
    pub(super) fn after(&mut self, client: usize, record: Record) {
        self.recorder.note(self.now, Some(record.node), || {
            What::Client(format!("client {client} hears {:?} to {:?}", record.ended, record.ask))
        });
        if let Ended::Said(said) = record.ended {
            self.stir(said.revision as u64);
            if self.ledger.judging() == Judging::Places && said.revision < record.floor {
                self.broken((
                    "monotonic revisions",
                    format!(
                        "client {client} is answered revision {} by {:?}, when {} was answered before it asked",
                        said.revision, record.node, record.floor
                    ),
                ));
            }
            self.lease_promised(&record);
            if self.calling == Calling::Probing && self.probes.get(&client) == Some(&record.node) {
                self.probed.push(record.node);
            }
        }
        let at = self.now + self.pause(client);
        self.events.push(at, Event::Call { client });
    }

    pub(super) fn give_up(&mut self, client: usize, turn: u64) {
        let chosen = &self.clients.clients[client];
        if chosen.turn == turn && chosen.open.is_some() {
            self.ended(client, Ended::Unknown);
        }
    }
}
