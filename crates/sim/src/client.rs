//! Clients: they call, wait, give up, and remember everything.
//!
//! A client does one thing at a time, at a replica that it changes now and then. An operation whose answer never came may
//! have taken effect or not: it stays open for ever in the record, and the client goes on as a new process.

use std::time::Duration;

use synod_core::{CommandId, NodeId, ReadId, Rng, Time, Vector};

use crate::machine::{Answer, Ask, Said};

/// One operation, as its client knows it.
#[derive(Clone, Copy, Debug)]
pub struct Record {
    /// The sequential process that it belongs to.
    pub process: u32,
    /// Where it was asked.
    pub node: NodeId,
    /// What was asked.
    pub ask: Ask,
    /// How it ended.
    pub ended: Ended,
    /// When it was asked.
    pub invoked: Time,
    /// When the answer came.
    pub completed: Time,
    /// The greatest revision in any answer before this was asked.
    pub floor: i64,
}

/// How an operation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// With an answer.
    Said(Said),
    /// It certainly did not happen and never will.
    Refused,
    /// Nobody knows.
    Unknown,
}

/// What a client waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// A command's reply.
    Command(CommandId),
    /// A read to become readable.
    Read(NodeId, ReadId),
}

/// One client.
#[derive(Clone, Debug)]
pub struct Client {
    /// Where it asks.
    pub node: NodeId,
    process: u32,
    /// The number of its operation: late answers and timeouts of earlier ones are ignored.
    pub turn: u64,
    /// Its open operation: its place in the records, and what it waits for.
    pub open: Option<(usize, Waiting)>,
    last_seen: Option<(u64, u64)>,
    lease: i64,
    /// What it has seen, where there is no single order.
    pub token: Vector,
}

/// What clients may say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vocabulary {
    /// Everything that the store understands.
    Store,
    /// Reads, writes and removals: all that makes sense where there is no one order for good.
    Registers,
    /// What makes sense where replicas apply in orders of their own: see [`Ask::as_causal`].
    Causal,
}

/// What clients ask for most: each kind of request at its own weight, so that what is rare among everything is common in some seeds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taste {
    /// Of everything as much as people use it.
    Usual,
    /// Reads above all: what is stale is seen at once.
    Reads,
    /// Leases above all, short ones, renewed to the last moment.
    Leases,
    /// Removals, compactions and looks into the past.
    Histories,
}

impl Taste {
    /// All of them; the usual one twice, because it is the one that checkers and people know.
    pub const ALL: [Taste; 5] = [Taste::Usual, Taste::Usual, Taste::Reads, Taste::Leases, Taste::Histories];

    /// How much of a thousand goes to get, put, delete, swap, both, compact, grant, put under a lease, renew, revoke, and look.
    fn weights(self) -> [u64; 11] {
        match self {
            Taste::Usual => [440, 290, 70, 80, 40, 10, 20, 20, 20, 4, 6],
            Taste::Reads => [740, 200, 10, 30, 10, 0, 2, 2, 2, 2, 2],
            Taste::Leases => [150, 60, 20, 20, 10, 10, 60, 240, 400, 20, 10],
            Taste::Histories => [200, 200, 240, 40, 60, 80, 20, 20, 10, 10, 120],
        }
    }

    /// The longest lease, in seconds.
    fn ttl_max(self) -> u64 {
        if self == Taste::Leases { 2 } else { 5 }
    }
}

/// What becomes of a client that asks elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Roaming {
    /// It stays who it was.
    AsItself,
    /// It goes on as a new process: what it knew stays behind with the replica that it left, as for a client without a session.
    AsSomebodyElse,
}

/// All clients and their records.
pub struct Clients {
    /// The clients.
    pub clients: Vec<Client>,
    /// Everything that they did.
    pub records: Vec<Record>,
    /// What they may say.
    pub vocabulary: Vocabulary,
    /// What becomes of them elsewhere.
    pub roaming: Roaming,
    /// What they ask for most.
    pub taste: Taste,
    rng: Rng,
    processes: u32,
    values: u64,
    leases: i64,
    keys: u64,
    /// The greatest revision in any answer so far.
    newest: i64,
}

impl Clients {
    /// So many clients, who work on so many keys.
    #[must_use]
    pub fn new(count: usize, keys: u64, mut rng: Rng) -> Clients {
        let rng = rng.fork();
        let mut clients = Clients {
            clients: Vec::new(),
            records: Vec::new(),
            vocabulary: Vocabulary::Store,
            roaming: Roaming::AsItself,
            taste: Taste::Usual,
            rng,
            processes: 0,
            values: 0,
            leases: 0,
            keys,
            newest: 0,
        };
        for _ in 0..count {
            clients.hire(NodeId(1));
        }
        clients
    }

    /// One more client, who asks at one replica; its place.
    pub fn hire(&mut self, node: NodeId) -> usize {
        let process = self.process();
        self.clients.push(Client {
            node,
            process,
            turn: 0,
            open: None,
            last_seen: None,
            lease: 0,
            token: Vector::default(),
        });
        self.clients.len() - 1
    }

    fn process(&mut self) -> u32 {
        self.processes += 1;
        self.processes
    }

    /// A pause before the next operation, at most `max`.
    pub fn think(&mut self, max: Duration) -> Duration {
        self.rng.span(max / 10, max)
    }

    /// A number below `bound`, for whoever else belongs to the clients' side.
    pub fn draw(&mut self, bound: u64) -> u64 {
        self.rng.below(bound)
    }

    fn value(&mut self) -> u64 {
        self.values += 2;
        self.values
    }

    /// Lets a client choose where to ask and what.
    pub fn choose(&mut self, client: usize, nodes: &[NodeId]) -> (NodeId, Ask) {
        let value = self.value();
        let before = self.clients[client].node;
        let rng = &mut self.rng;
        let chosen = &mut self.clients[client];
        if rng.chance(0.2) || !nodes.contains(&chosen.node) {
            chosen.node = nodes[rng.below(nodes.len() as u64) as usize];
        }
        let key = rng.below(self.keys);
        let other = (key + 1 + rng.below(self.keys.max(2) - 1)) % self.keys.max(2);
        let mut draw = rng.below(1000);
        let weights = self.taste.weights();
        let choice = weights.iter().position(|weight| {
            let chosen = draw < *weight;
            draw = draw.wrapping_sub(*weight);
            chosen
        });
        let ask = match choice {
            Some(0) => Ask::Get { key },
            Some(2) => Ask::Delete { key },
            Some(3) => {
                // What it saw last is a likely value; without any it is a guess that must fail.
                let (key, expected) = chosen.last_seen.unwrap_or((key, u64::MAX >> 1));
                Ask::Swap { key, expected, value }
            }
            Some(4) => Ask::Both { first: key, second: other, value },
            Some(5) => Ask::Compact { revision: self.newest - rng.below(30) as i64 },
            Some(6) => {
                self.leases += 1;
                chosen.lease = self.leases;
                Ask::Grant { id: self.leases, ttl: 1 + rng.below(self.taste.ttl_max()) as i64 }
            }
            Some(7) if chosen.lease > 0 => Ask::Put { key, value, lease: chosen.lease },
            Some(8) if chosen.lease > 0 => Ask::KeepAlive { id: chosen.lease },
            Some(9) if chosen.lease > 0 => Ask::Revoke { id: chosen.lease },
            Some(10) => {
                let revision = (self.newest - rng.below(40) as i64).max(1);
                Ask::Look { key, revision, value }
            }
            _ => Ask::Put { key, value, lease: 0 },
        };
        let node = chosen.node;
        if self.roaming == Roaming::AsSomebodyElse && node != before {
            self.clients[client].process = self.process();
        }
        (
            node,
            match self.vocabulary {
                Vocabulary::Store => ask,
                Vocabulary::Registers => ask.as_register(value),
                Vocabulary::Causal => ask.as_causal(value),
            },
        )
    }

    /// The replica of these clients lost its memory: whoever asked there is somebody else from now on, if that matters.
    pub fn forgotten_by(&mut self, node: NodeId) {
        if self.roaming == Roaming::AsItself {
            return;
        }
        for client in 0..self.clients.len() {
            if self.clients[client].node == node {
                self.clients[client].process = self.process();
            }
        }
    }

    /// A write of a fresh value, for probing.
    pub fn probe(&mut self) -> Ask {
        Ask::Put { key: 0, value: self.value(), lease: 0 }
    }

    /// A write of a fresh value, of any key.
    pub fn write(&mut self) -> Ask {
        Ask::Put { key: self.rng.below(self.keys), value: self.value(), lease: 0 }
    }

    /// A read of any key.
    pub fn read(&mut self) -> Ask {
        Ask::Get { key: self.rng.below(self.keys) }
    }

    /// An operation begins.
    pub fn begin(&mut self, client: usize, now: Time, node: NodeId, ask: Ask, waiting: Waiting) -> u64 {
        let (record, floor) = (self.records.len(), self.newest);
        let chosen = &mut self.clients[client];
        chosen.turn += 1;
        chosen.open = Some((record, waiting));
        let (process, turn, ended) = (chosen.process, chosen.turn, Ended::Unknown);
        self.records.push(Record { process, node, ask, ended, invoked: now, completed: now, floor });
        turn
    }

    /// The client that waits for this, if it still does.
    #[must_use]
    pub fn waiting(&self, waiting: Waiting) -> Option<usize> {
        self.clients.iter().position(|client| client.open.is_some_and(|(_, open)| open == waiting))
    }

    /// An operation ends. Gives back its record.
    pub fn end(&mut self, client: usize, now: Time, ended: Ended) -> Option<Record> {
        let (place, _) = self.clients[client].open.take()?;
        let record = &mut self.records[place];
        record.ended = ended;
        record.completed = now;
        let record = *record;
        match ended {
            Ended::Said(said) => {
                self.newest = self.newest.max(said.revision);
                let seen = match (said.answer, record.ask) {
                    (Answer::Read(pair), Ask::Get { key }) => pair.map(|pair| (key, pair.value)),
                    (Answer::Done, Ask::Put { key, value, .. }) => Some((key, value)),
                    (Answer::Swapped(Ok(())), Ask::Swap { key, value, .. }) => Some((key, value)),
                    (Answer::Swapped(Err(pair)), Ask::Swap { key, .. }) => pair.map(|pair| (key, pair.value)),
                    _ => return Some(record),
                };
                self.clients[client].last_seen = seen;
            }
            Ended::Refused => {}
            // The old process may still have an effect: whoever goes on is somebody else.
            Ended::Unknown => self.clients[client].process = self.process(),
        }
        Some(record)
    }
}
