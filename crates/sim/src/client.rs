//! Clients: they call, wait, give up, and remember everything.
//!
//! A client does one thing at a time, at a replica that it changes now and then. An operation whose answer never came may
//! have taken effect or not: it stays open for ever in the record, and the client goes on as a new process.

use std::time::Duration;

use synod_core::{CommandId, NodeId, ReadId, Rng, Time};

use crate::machine::{Ask, Said};

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
    /// The store's revision in the answer; 0 without one.
    pub revision: u64,
    /// The greatest revision in any answer before this was asked.
    pub floor: u64,
}

/// How an operation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// A read's answer.
    Read {
        /// What the key held.
        value: Option<u64>,
    },
    /// A write's answer.
    Done {
        /// Whether it changed anything.
        done: bool,
    },
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
}

/// All clients and their records.
pub struct Clients {
    /// The clients.
    pub clients: Vec<Client>,
    /// Everything that they did.
    pub records: Vec<Record>,
    rng: Rng,
    processes: u32,
    values: u64,
    keys: u64,
    /// The greatest revision in any answer so far.
    newest: u64,
}

impl Clients {
    /// So many clients, who work on so many keys.
    #[must_use]
    pub fn new(count: usize, keys: u64, mut rng: Rng) -> Clients {
        let client = |process: usize| Client {
            node: NodeId(1),
            process: process as u32,
            turn: 0,
            open: None,
            last_seen: None,
        };
        let clients = (0..count).map(client).collect();
        let rng = rng.fork();
        Clients { clients, records: Vec::new(), rng, processes: count as u32, values: 0, keys, newest: 0 }
    }

    /// A pause before the next operation, at most `max`.
    pub fn think(&mut self, max: Duration) -> Duration {
        self.rng.span(max / 10, max)
    }

    /// Lets a client choose where to ask and what.
    pub fn choose(&mut self, client: usize, nodes: &[NodeId]) -> (NodeId, Ask) {
        let rng = &mut self.rng;
        let chosen = &mut self.clients[client];
        if rng.chance(0.2) || !nodes.contains(&chosen.node) {
            chosen.node = nodes[rng.below(nodes.len() as u64) as usize];
        }
        let key = rng.below(self.keys);
        let ask = match rng.below(100) {
            0..45 => Ask::Get { key },
            45..80 => {
                self.values += 1;
                Ask::Put { key, value: self.values }
            }
            80..88 => Ask::Delete { key },
            _ => {
                self.values += 1;
                // What it saw last is a likely value; without any it is a guess that must fail.
                let (key, expected) = chosen.last_seen.unwrap_or((key, u64::MAX >> 1));
                Ask::Swap { key, expected, value: self.values }
            }
        };
        (chosen.node, ask)
    }

    /// A write of a fresh value, for probing.
    pub fn probe(&mut self) -> Ask {
        self.values += 1;
        Ask::Put { key: 0, value: self.values }
    }

    /// One more client, who asks at one replica; its place.
    pub fn hire(&mut self, node: NodeId) -> usize {
        let process = self.processes;
        self.processes += 1;
        self.clients.push(Client { node, process, turn: 0, open: None, last_seen: None });
        self.clients.len() - 1
    }

    /// An operation begins.
    pub fn begin(&mut self, client: usize, now: Time, node: NodeId, ask: Ask, waiting: Waiting) -> u64 {
        let (record, floor) = (self.records.len(), self.newest);
        let chosen = &mut self.clients[client];
        chosen.turn += 1;
        chosen.open = Some((record, waiting));
        let process = chosen.process;
        let turn = chosen.turn;
        let (ended, completed, revision) = (Ended::Unknown, now, 0);
        self.records.push(Record { process, node, ask, ended, invoked: now, completed, revision, floor });
        turn
    }

    /// The client that waits for this, if it still does.
    #[must_use]
    pub fn waiting(&self, waiting: Waiting) -> Option<usize> {
        self.clients.iter().position(|client| client.open.is_some_and(|(_, open)| open == waiting))
    }

    /// An operation ends. Gives back its record.
    pub fn end(&mut self, client: usize, now: Time, ended: Ended, revision: u64) -> Option<Record> {
        let chosen = &mut self.clients[client];
        let (place, _) = chosen.open.take()?;
        let record = &mut self.records[place];
        record.ended = ended;
        record.completed = now;
        record.revision = revision;
        match ended {
            Ended::Read { value } => chosen.last_seen = value.map(|value| (record.ask.key(), value)),
            Ended::Done { .. } => {
                if let Ask::Put { key, value } | Ask::Swap { key, value, .. } = record.ask {
                    chosen.last_seen = Some((key, value));
                }
            }
            Ended::Refused => {}
            Ended::Unknown => {
                // The old process may still have an effect: whoever goes on is somebody else.
                chosen.process = self.processes;
                self.processes += 1;
            }
        }
        self.newest = self.newest.max(revision);
        Some(*record)
    }

    /// A reply to a command.
    pub fn replied(&mut self, id: CommandId, now: Time, said: Said) -> Option<(usize, Record)> {
        let client = self.waiting(Waiting::Command(id))?;
        Some((client, self.end(client, now, Ended::Done { done: said.done }, said.revision)?))
    }
}
