//! From the events or intervals of some input to a [`History`] whose invariants hold.
//!
//! Every importer, generator and user of the library goes through here, so that what is odd about an input is found in
//! one place and said in one way: a completion before its invocation, a process that calls twice at once, an id that
//! comes twice, one value written twice to one key. Nothing is repaired silently: the repair is named in the warning.

use std::hash::BuildHasher;

use hashbrown::{HashMap, HashTable};

use crate::history::*;

/// Collects operations and makes a [`History`] of them.
pub struct Builder {
    history: History,
    open: HashMap<u32, Open, foldhash::fast::FixedState>,
    last_event: Time,
    next_id: u64,
    order: Order,
}

/// How strictly ids are watched.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Order {
    /// No operation brought an id of its own so far.
    Own,
    /// Some did: look for duplicates.
    Given,
}

struct Open {
    key: Key,
    call: Call,
    invoked: Time,
    id: u64,
    line: u32,
}

/// An invocation event.
pub struct Invocation {
    /// Who calls.
    pub process: Process,
    /// Of what.
    pub key: Key,
    /// What is asked.
    pub call: Call,
    /// When.
    pub time: Time,
    /// The input's own number for it, if it has one.
    pub id: Option<u64>,
    /// The line, from 1.
    pub line: u32,
}

impl Builder {
    /// A builder for a history of that name, format and model.
    pub fn new(name: impl Into<String>, format: &'static str, model: ModelKind) -> Builder {
        Builder {
            history: History::empty(name, format, model),
            open: HashMap::default(),
            last_event: Time::MIN,
            next_id: 0,
            order: Order::Own,
        }
    }

    /// The number of a key's name.
    pub fn key(&mut self, name: Datum) -> Key {
        Key(self.history.keys.intern(name))
    }

    /// The number of a value.
    pub fn value(&mut self, value: Datum) -> Value {
        Value(self.history.values.intern(value))
    }

    /// The number of a process's name.
    pub fn process(&mut self, name: Datum) -> Process {
        Process(self.history.processes.intern(name))
    }

    /// The history so far, to set its model, clock, initial value or watches. Its operations are not sorted yet.
    pub fn history_mut(&mut self) -> &mut History {
        &mut self.history
    }

    /// Notes something odd; of each kind the first is kept in words, the others are counted.
    pub fn warn(&mut self, kind: WarningKind, line: u32, message: impl FnOnce() -> String) {
        warn(&mut self.history.warnings, kind, line, message);
    }

    /// An operation whose two times are known. `completed` is ignored for unknown outcomes.
    pub fn push(&mut self, mut operation: Operation) {
        if operation.is_unknown() {
            operation.completed = NEVER;
        } else if operation.completed < operation.invoked {
            let (a, b) = (operation.invoked, operation.completed);
            self.warn(WarningKind::ClockAnomaly, operation.line, || {
                format!("completed at {b}, before it was invoked at {a}; taken as completed at {a}")
            });
            operation.completed = a;
        }
        self.history.operations.push(operation);
        self.next_id += 1;
    }

    /// An id for an operation that brings none: its position.
    pub fn id(&mut self, given: Option<u64>) -> u64 {
        match given {
            Some(id) => {
                self.order = Order::Given;
                id
            }
            None => self.next_id + self.open.len() as u64,
        }
    }

    /// A process calls. If it has a call open, that one's fate is unknown from now on, and a warning says so.
    pub fn invoke(&mut self, invocation: Invocation) {
        let Invocation { process, key, call, time, id, line } = invocation;
        let time = self.event_time(time, line);
        let id = self.id(id);
        if let Some(earlier) = self.open.remove(&process.0) {
            let name = self.history.processes.get(process.0).clone();
            self.warn(WarningKind::OverlappingProcess, line, || {
                format!(
                    "process {name} calls again while its call of line {} is open; that one's outcome is taken as unknown",
                    earlier.line
                )
            });
            self.close(process, earlier, Outcome::Unknown, NEVER);
        }
        self.open.insert(process.0, Open { key, call, invoked: time, id, line });
    }

    /// The call that a process has open, if any.
    pub fn open_call(&self, process: Process) -> Option<(Key, &Call)> {
        self.open.get(&process.0).map(|open| (open.key, &open.call))
    }

    /// The open call of a process completes; `call` replaces what was asked when the completion says it better.
    pub fn complete(
        &mut self,
        process: Process,
        call: Option<Call>,
        outcome: Outcome,
        time: Time,
        line: u32,
    ) {
        let time = self.event_time(time, line);
        let Some(mut open) = self.open.remove(&process.0) else {
            let name = self.history.processes.get(process.0).clone();
            self.warn(WarningKind::Ignored, line, || {
                format!("process {name} completes a call that it never made; left out")
            });
            return;
        };
        if let Some(call) = call {
            open.call = call;
        }
        let completed = if outcome == Outcome::Unknown { NEVER } else { time };
        self.close(process, open, outcome, completed);
    }

    fn close(&mut self, process: Process, open: Open, outcome: Outcome, completed: Time) {
        let Open { key, call, invoked, id, line } = open;
        self.push(Operation { process, key, call, outcome, invoked, completed, id, line });
    }

    /// The time for an event that brings none: just after the last one.
    pub fn next_time(&self) -> Time {
        self.last_event.saturating_add(1).max(0)
    }

    /// Event times may not run backwards: the order of the events in the input is the truth, so each time is moved up
    /// to just after the last one where it is not after it already.
    fn event_time(&mut self, time: Time, line: u32) -> Time {
        let last = self.last_event;
        if time < last {
            self.warn(WarningKind::ClockAnomaly, line, || {
                format!("time runs backwards, from {last} to {time}; the order of the events is used")
            });
        }
        self.last_event =
            if last == Time::MIN { time } else { time.max(last.saturating_add(1)) }.min(NEVER - 1);
        self.last_event
    }

    /// The history: calls still open become unknown, operations are sorted, and the whole is looked over for oddities.
    pub fn finish(mut self) -> History {
        let mut open: Vec<(u32, Open)> = std::mem::take(&mut self.open).into_iter().collect();
        open.sort_by_key(|(_, open)| (open.invoked, open.line));
        for (process, call) in open {
            self.close(Process(process), call, Outcome::Unknown, NEVER);
        }
        let mut history = self.history;
        if !history.operations.is_sorted_by_key(|operation| operation.invoked) {
            history.operations.sort_by_key(|operation| operation.invoked);
        }
        find_overlaps(&mut history);
        if self.order == Order::Given {
            find_duplicate_ids(&mut history);
        }
        find_repeated_values(&mut history);
        history.warnings.sort_by_key(|warning| warning.kind);
        history
    }
}

fn warn(warnings: &mut Vec<Warning>, kind: WarningKind, line: u32, message: impl FnOnce() -> String) {
    match warnings.iter_mut().find(|warning| warning.kind == kind) {
        Some(known) => known.count += 1,
        None => warnings.push(Warning { kind, line, message: message(), count: 1 }),
    }
}

/// Two intervals of one process that overlap: a process is sequential, so one of the times is wrong.
fn find_overlaps(history: &mut History) {
    let mut last: Vec<Option<u32>> = vec![None; history.processes.len()];
    for (i, operation) in history.operations.iter().enumerate() {
        let slot = &mut last[operation.process.0 as usize];
        if let Some(earlier) = slot.map(|e| &history.operations[e as usize])
            && earlier.completed > operation.invoked
            && earlier.completed != NEVER
        {
            let name = history.processes.get(operation.process.0);
            warn(&mut history.warnings, WarningKind::OverlappingProcess, operation.line, || {
                format!(
                    "process {name} has two operations at once (ids {} and {}); its session order is taken by invocation",
                    earlier.id, operation.id
                )
            });
        }
        *slot = Some(i as u32);
    }
}

fn find_duplicate_ids(history: &mut History) {
    let hasher = foldhash::fast::FixedState::default();
    let operations = &history.operations;
    let mut seen: HashTable<u32> = HashTable::with_capacity(operations.len());
    for (i, operation) in operations.iter().enumerate() {
        let hash = hasher.hash_one(operation.id);
        if seen.find(hash, |&j| operations[j as usize].id == operation.id).is_some() {
            warn(&mut history.warnings, WarningKind::DuplicateId, operation.line, || {
                format!("id {} comes twice; operations are told apart by position", operation.id)
            });
        } else {
            seen.insert_unique(hash, i as u32, |&j| hasher.hash_one(operations[j as usize].id));
        }
    }
}

/// One value written twice to one key, or equal to the initial one: then a read does not say which write it saw.
fn find_repeated_values(history: &mut History) {
    let hasher = foldhash::fast::FixedState::default();
    let operations = &history.operations;
    let mut seen: HashTable<(u32, u32)> = HashTable::new();
    for operation in operations {
        let Some(value) = operation.value_written() else { continue };
        if matches!(operation.call, Call::Delete) {
            continue;
        }
        let pair = (operation.key.0, value.0);
        let hash = hasher.hash_one(pair);
        if value == history.initial || seen.find(hash, |known| *known == pair).is_some() {
            let (key, value) = (history.keys.get(operation.key.0), history.values.get(value.0));
            warn(&mut history.warnings, WarningKind::ValueNotUnique, operation.line, || {
                format!(
                    "{value} is written to {key} more than once, so a read of it does not say which write it saw"
                )
            });
        } else {
            seen.insert_unique(hash, pair, |known| hasher.hash_one(known));
        }
    }
}
