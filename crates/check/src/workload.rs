//! Large histories from small simulated stores, each of a known level; and violations planted into them.
//!
//! A [`Workload`] says how many processes do how many operations on how many keys, and on which [`Store`]; the same
//! workload always makes the same history. A [`Plant`] breaks it in one place near the middle, as a faulty store would:
//! a stale read, a lost update, a split brain, a session whose writes arrive in another order.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::builder::Builder;
use crate::generate::Random;
use crate::history::{Call, Datum, History, ModelKind, Operation, Outcome, Reply, Time};

/// What kind of store the processes talk to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Store {
    /// One copy; every operation takes effect at one moment between call and answer.
    Linearizable,
    /// One log of writes; each process reads from a replica of its own that lags behind it, but never behind the process's own writes.
    Sequential,
    /// A replica for each process, gossip in causal order, and the later Lamport stamp wins everywhere: causal convergence.
    Convergent,
    /// The same, but the write that arrives last wins: causal memory without convergence.
    CausalMemory,
}

/// What to break.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plant {
    /// Nothing.
    Nothing,
    /// A process reads a value again that it had seen overwritten.
    StaleRead,
    /// Two compare-and-sets from the same value both succeed, so one of the updates is lost.
    LostUpdate,
    /// For a while the processes are in two halves, each with a copy of the store of its own; then one copy is thrown away.
    SplitBrain,
    /// A process sees a later write of another process, and after that still what was there before an earlier one.
    ReorderedSession,
}

/// A recipe for a history.
#[derive(Clone, Copy, Debug)]
pub struct Workload {
    /// How many processes.
    pub processes: usize,
    /// How many keys.
    pub keys: usize,
    /// How many operations in all.
    pub operations: usize,
    /// How many operations out of a hundred write.
    pub write_percent: usize,
    /// The store.
    pub store: Store,
    /// What to break.
    pub plant: Plant,
    /// Where the randomness comes from.
    pub seed: u64,
}

impl Workload {
    /// Ten processes, a hundred keys, half of the operations writes, nothing broken.
    pub fn new(store: Store, operations: usize, seed: u64) -> Workload {
        Workload {
            processes: 10,
            keys: 100,
            operations,
            write_percent: 50,
            store,
            plant: Plant::Nothing,
            seed,
        }
    }

    /// The same with something broken.
    pub fn with(self, plant: Plant) -> Workload {
        Workload { plant, ..self }
    }

    /// Makes the history.
    ///
    /// ```
    /// use synod_check::workload::{Store, Workload};
    ///
    /// let history = Workload::new(Store::Linearizable, 1_000, 1).history();
    /// assert_eq!(history.operations.len(), 1_000);
    /// assert!(history.warnings.is_empty());
    /// ```
    pub fn history(&self) -> History {
        assert!(self.processes > 1 && self.keys > 0, "a workload needs two processes and a key");
        let mut events = self.simulate();
        match self.plant {
            Plant::Nothing | Plant::SplitBrain => {}
            Plant::StaleRead => plant_stale_read(&mut events),
            Plant::LostUpdate => plant_lost_update(&mut events),
            Plant::ReorderedSession => plant_reordered_session(&mut events),
        }
        self.build(&events)
    }

    fn simulate(&self) -> Vec<Event> {
        let mut random = Random::new(self.seed);
        let mut replicas = Replicas::new(self);
        let mut events: Vec<Event> = Vec::with_capacity(self.operations);
        // (moment of effect, process, called at)
        let mut queue: BinaryHeap<Reverse<(Time, usize, Time)>> = BinaryHeap::new();
        for process in 0..self.processes {
            let called = random.below(20) as Time;
            queue.push(Reverse((called + 1 + random.below(20) as Time, process, called)));
        }
        while events.len() < self.operations {
            let Reverse((effect, process, invoked)) =
                queue.pop().expect("every process is always in the queue");
            let completed = effect + 1 + random.below(20) as Time;
            let key = random.below(self.keys);
            replicas.before(self, events.len(), process, &mut random);
            let (read, write) = if random.percent(self.write_percent) {
                let value = events.len() as i64 + 1;
                replicas.write(self, process, key, value);
                (None, Some(value))
            } else {
                (Some(replicas.read(self, process, key)), None)
            };
            events.push(Event { process, key, read, write, invoked, completed });
            let called = completed + 1 + random.below(10) as Time;
            queue.push(Reverse((called + 1 + random.below(20) as Time, process, called)));
        }
        events
    }

    fn build(&self, events: &[Event]) -> History {
        let name = format!("{:?} {} operations, seed {}", self.store, self.operations, self.seed);
        let mut builder = Builder::new(name, "generated", ModelKind::Register);
        let initial = builder.value(Datum::Int(0));
        builder.history_mut().initial = initial;
        for event in events {
            let process = builder.process(Datum::Int(event.process as i64));
            let key = builder.key(Datum::text(format!("k{}", event.key)));
            let read = event.read.map(|value| builder.value(Datum::Int(value)));
            let write = event.write.map(|value| builder.value(Datum::Int(value)));
            let (call, reply) = match (read, write) {
                (Some(expected), Some(new)) => (Call::Cas { expected, new }, Reply::Flag(true)),
                (Some(value), None) => (Call::Read, Reply::Value(value)),
                (None, Some(value)) => (Call::Write(value), Reply::Done),
                (None, None) => continue,
            };
            let id = builder.id(None);
            let (invoked, completed, outcome) = (event.invoked, event.completed, Outcome::Ok(reply));
            builder.push(Operation { process, key, call, outcome, invoked, completed, id, line: 0 });
        }
        builder.finish()
    }
}

/// One operation, in the order of effect.
#[derive(Clone, Copy, Debug)]
struct Event {
    process: usize,
    key: usize,
    read: Option<i64>,
    write: Option<i64>,
    invoked: Time,
    completed: Time,
}

/// A write that replicas pass on.
#[derive(Clone, Copy)]
struct Stamped {
    key: usize,
    value: i64,
    stamp: (u64, usize),
}

/// The state of whichever store is simulated.
struct Replicas {
    /// The one copy, and the second one while the brain is split.
    copies: [Vec<i64>; 2],
    split: bool,
    /// Sequential: for each key the (log position, value) of its writes; the log's length; each process's replica's position.
    versions: Vec<Vec<(usize, i64)>>,
    log: usize,
    applied: Vec<usize>,
    /// Causal: each process's writes; how many of each process each replica has; each replica's state; its Lamport clock.
    written: Vec<Vec<Stamped>>,
    delivered: Vec<Vec<usize>>,
    state: Vec<Vec<(u64, usize, i64)>>,
    lamport: Vec<u64>,
}

impl Replicas {
    fn new(workload: &Workload) -> Replicas {
        let (processes, keys) = (workload.processes, workload.keys);
        Replicas {
            copies: [vec![0; keys], vec![0; keys]],
            split: false,
            versions: vec![Vec::new(); keys],
            log: 0,
            applied: vec![0; processes],
            written: vec![Vec::new(); processes],
            delivered: vec![vec![0; processes]; processes],
            state: vec![vec![(0, 0, 0); keys]; processes],
            lamport: vec![0; processes],
        }
    }

    /// What happens in the background before an operation.
    fn before(&mut self, workload: &Workload, event: usize, process: usize, random: &mut Random) {
        match workload.store {
            Store::Linearizable if workload.plant == Plant::SplitBrain => {
                let middle = workload.operations / 2;
                let split = (middle..middle + 40 * workload.processes).contains(&event);
                if split && !self.split {
                    self.copies[1] = self.copies[0].clone();
                }
                self.split = split;
            }
            Store::Linearizable => {}
            Store::Sequential => {
                let lag = random.below(3 * workload.processes);
                self.applied[process] = self.applied[process].max(self.log.saturating_sub(lag));
            }
            Store::Convergent | Store::CausalMemory => {
                if random.percent(30) {
                    let from = random.below(workload.processes);
                    self.gossip(workload, from, process);
                }
            }
        }
    }

    fn side(&self, workload: &Workload, process: usize) -> usize {
        usize::from(self.split && process >= workload.processes / 2)
    }

    fn read(&self, workload: &Workload, process: usize, key: usize) -> i64 {
        match workload.store {
            Store::Linearizable => self.copies[self.side(workload, process)][key],
            Store::Sequential => {
                let versions = &self.versions[key];
                let seen = versions.partition_point(|&(position, _)| position <= self.applied[process]);
                seen.checked_sub(1).map_or(0, |i| versions[i].1)
            }
            Store::Convergent | Store::CausalMemory => self.state[process][key].2,
        }
    }

    fn write(&mut self, workload: &Workload, process: usize, key: usize, value: i64) {
        match workload.store {
            Store::Linearizable => {
                let side = self.side(workload, process);
                self.copies[side][key] = value;
            }
            Store::Sequential => {
                self.log += 1;
                self.versions[key].push((self.log, value));
                self.applied[process] = self.log;
            }
            Store::Convergent | Store::CausalMemory => {
                self.lamport[process] += 1;
                let stamp = (self.lamport[process], process);
                self.written[process].push(Stamped { key, value, stamp });
                self.delivered[process][process] += 1;
                self.state[process][key] = (stamp.0, stamp.1, value);
            }
        }
    }

    /// A replica gets everything that another has: in the order of stamps, which agrees with causality.
    fn gossip(&mut self, workload: &Workload, from: usize, to: usize) {
        let mut news: Vec<Stamped> = Vec::new();
        for writer in 0..workload.processes {
            let (have, theirs) = (self.delivered[to][writer], self.delivered[from][writer]);
            if have < theirs {
                news.extend(&self.written[writer][have..theirs]);
                self.delivered[to][writer] = theirs;
            }
        }
        news.sort_by_key(|write| write.stamp);
        for Stamped { key, value, stamp } in news {
            self.lamport[to] = self.lamport[to].max(stamp.0);
            let known = &mut self.state[to][key];
            if workload.store == Store::CausalMemory || (known.0, known.1) < stamp {
                *known = (stamp.0, stamp.1, value);
            }
        }
    }
}

/// A read near the middle returns what the same process had read there two different values ago.
fn plant_stale_read(events: &mut [Event]) {
    for at in events.len() / 2..events.len() {
        let Event { process, key, read: Some(value), write: None, .. } = events[at] else { continue };
        let mine = |event: &&Event| event.process == process && event.key == key && event.write.is_none();
        let earlier = events[..at].iter().rev().filter(mine).filter_map(|event| event.read);
        let newer = |old: i64| old != value && old != 0;
        // Read it before, then something newer, and now again.
        let values: Vec<i64> = earlier.filter(|&old| newer(old)).take(2).collect();
        if let [last, before_last] = values[..]
            && last != before_last
        {
            events[at].read = Some(before_last);
            return;
        }
    }
}

/// Near the middle two processes replace the same value, each believing that it was the only one.
fn plant_lost_update(events: &mut [Event]) {
    for at in events.len() / 2..events.len() {
        let Event { process, key, write: Some(_), .. } = events[at] else { continue };
        let before = events[..at].iter().rev().find(|event| event.key == key && event.write.is_some());
        let after = (at + 1..events.len()).find(|&i| events[i].key == key && events[i].write.is_some());
        if let (Some(value), Some(after)) = (before.and_then(|event| event.write), after)
            && events[after].process != process
        {
            events[at].read = Some(value);
            events[after].read = Some(value);
            return;
        }
    }
}

/// Near the middle a process reads the newest write of another, and later a key as it was before an earlier write of that one.
fn plant_reordered_session(events: &mut [Event]) {
    for at in events.len() / 2..events.len() {
        let Event { process, key, read: Some(value), write: None, .. } = events[at] else { continue };
        let writer_of = |value: i64| events[..at].iter().rfind(|event| event.write == Some(value));
        let Some(writer) = writer_of(value).map(|event| event.process).filter(|&writer| writer != process)
        else {
            continue;
        };
        let Some(written) = events[..at].iter().rposition(|event| event.write == Some(value)) else {
            continue;
        };
        let is_theirs = |event: &&Event| event.process == writer && event.key == key && event.write.is_some();
        let Some(older) = events[..written].iter().rev().find(is_theirs).and_then(|event| event.write) else {
            continue;
        };
        // The process has seen something that the writer wrote after it.
        let seen_later = events[written..at].iter().any(|event| {
            event.process == process
                && event.key != key
                && event.read.is_some_and(|seen| {
                    events[written + 1..at].iter().any(|w| w.process == writer && w.write == Some(seen))
                })
        });
        let own = |event: &Event| event.process == process && event.key == key;
        if seen_later && !events[written..at].iter().any(own) {
            events[at].read = Some(older);
            return;
        }
    }
}
