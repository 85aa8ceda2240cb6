//! A history: what the clients of a store asked, when, and what they were told.
//!
//! "A history is a finite sequence of operation invocation and response events" (Herlihy and Wing, 1990). Here the two
//! events of an operation are kept together: one [`Operation`] with the process that called it, the two times and the
//! [`Outcome`]. Keys, values and process names are interned, so that an operation is a few machine words and a million
//! of them fit in about a hundred megabytes; the [`History`] owns the tables that turn the small numbers back into text.
//!
//! What an operation whose fate nobody knows means: it may have taken effect at any time after its invocation, or never
//! (Jepsen's `:info`). What a failed one means: it did not happen.
//!
//! Importers build a history through [`Builder`](crate::builder::Builder), which reports what is odd about the input as
//! [`Warning`]s instead of guessing over it. Left out here: any notion of correctness; that is the models' and checkers' part.

use std::fmt;
use std::hash::BuildHasher;
use std::sync::Arc;

use hashbrown::HashTable;

use crate::etcd;

/// A point in time in the history's own ticks (nanoseconds, event numbers, abstract ticks); only the order matters.
pub type Time = i64;

/// "Never": the completion time of an operation whose outcome is unknown.
pub const NEVER: Time = Time::MAX;

/// An interned key (the object, variable or account an operation is about). Index into [`History::keys`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(pub u32);

/// An interned value. Index into [`History::values`]; [`Value::NIL`] is always there. Two values are equal exactly when their numbers are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Value(pub u32);

impl Value {
    /// The absent value: `nil`, `null`, a key that is not there.
    pub const NIL: Value = Value(0);
}

/// An interned process: one sequential client. Index into [`History::processes`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Process(pub u32);

/// What a value, key or process name is, spelt out.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Datum {
    /// Absent.
    Nil,
    /// True or false.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// Text; also the canonical spelling of anything else the input held (a vector, a float).
    Text(Box<str>),
}

impl Datum {
    /// Text from anything that reads as text.
    pub fn text(text: impl Into<Box<str>>) -> Datum {
        Datum::Text(text.into())
    }
}

impl fmt::Display for Datum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Datum::Nil => f.write_str("nil"),
            Datum::Bool(b) => write!(f, "{b}"),
            Datum::Int(i) => write!(f, "{i}"),
            Datum::Text(t) => f.write_str(t),
        }
    }
}

/// A table that gives equal data equal numbers, densely from zero in order of first appearance. Cheap to clone.
#[derive(Clone, Default)]
pub struct Table {
    inner: Arc<Inner>,
}

#[derive(Clone, Default)]
struct Inner {
    data: Vec<Datum>,
    index: HashTable<u32>,
    hasher: foldhash::fast::FixedState,
}

impl Table {
    /// The number of `datum`, given out now if it is new.
    pub fn intern(&mut self, datum: Datum) -> u32 {
        if let Some(found) = self.find(&datum) {
            return found;
        }
        let inner = Arc::make_mut(&mut self.inner);
        let id = u32::try_from(inner.data.len())
            .expect("fewer than 2^32 distinct data: inputs are bounded below that");
        let hash = inner.hasher.hash_one(&datum);
        inner.data.push(datum);
        let (data, hasher) = (&inner.data, &inner.hasher);
        inner.index.insert_unique(hash, id, |&i| hasher.hash_one(&data[i as usize]));
        id
    }

    /// The number of `datum` if it has one.
    pub fn find(&self, datum: &Datum) -> Option<u32> {
        let Inner { data, index, hasher } = &*self.inner;
        index.find(hasher.hash_one(datum), |&i| &data[i as usize] == datum).copied()
    }

    /// The datum of a number that this table gave out.
    pub fn get(&self, id: u32) -> &Datum {
        &self.inner.data[id as usize]
    }

    /// How many distinct data there are.
    pub fn len(&self) -> usize {
        self.inner.data.len()
    }

    /// Whether nothing was interned yet.
    pub fn is_empty(&self) -> bool {
        self.inner.data.is_empty()
    }
}

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.inner.data.iter().take(64)).finish()
    }
}

/// What was asked. The operation's [`key`](Operation::key) is the object it was asked of, unless said otherwise.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Call {
    /// The whole object: a register's or key's value, a set's members, a list, a counter's number, all balances.
    Read,
    /// Replace the value (register write, key-value put).
    Write(Value),
    /// Replace `expected` by `new`, if `expected` is what is there.
    Cas {
        /// The value that must be there.
        expected: Value,
        /// The value that takes its place.
        new: Value,
    },
    /// Remove the key.
    Delete,
    /// Append text to the text that is there (key-value with append), or an element to a list (list-append).
    Append(Value),
    /// Put an element into a set.
    Add(Value),
    /// Take an element out of a set.
    Remove(Value),
    /// Add to a counter (negative: subtract).
    Increment(i64),
    /// Put an element at the end of a queue.
    Enqueue(Value),
    /// Take the element at the head of a queue; answered with it, or with nil when the queue was empty.
    Dequeue,
    /// Take the mutex; answered with [`Reply::Number`], the fencing token, where the lock gives one.
    Acquire,
    /// Give the mutex back.
    Release,
    /// Move money between two accounts (bank).
    Transfer(Box<Transfer>),
    /// Several accesses that take effect at once, in order; the operation's own key means nothing.
    Txn(Box<[Access]>),
    /// A request to etcd's revisioned store; the operation's own key means nothing.
    Etcd(Box<etcd::Request>),
}

/// A bank transfer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Transfer {
    /// The account that pays.
    pub from: Key,
    /// The account that is paid.
    pub to: Key,
    /// How much.
    pub amount: i64,
}

/// One access of a transaction over many keys.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Access {
    /// The object.
    pub key: Key,
    /// What is done to it.
    pub kind: AccessKind,
}

/// What one access of a transaction does.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum AccessKind {
    /// Read a register; `None` where the answer is not known.
    Read(Option<Value>),
    /// Write a register.
    Write(Value),
    /// Append an element to a list.
    Append(Value),
    /// Read a list; `None` where the answer is not known.
    ReadList(Option<Box<[Value]>>),
}

/// What was answered.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Reply {
    /// It is done, and nothing more was said.
    Done,
    /// A value. For a read: what was read.
    Value(Value),
    /// Whether it took effect (`Flag(false)` for a cas: the comparison failed, which is also knowledge about the state).
    Flag(bool),
    /// A number: a counter's, a fencing token.
    Number(i64),
    /// The members of a set or list, or what a drain took.
    Values(Box<[Value]>),
    /// All balances of a bank.
    Balances(Box<[(Key, i64)]>),
    /// The accesses of a [`Call::Txn`] again, reads filled in.
    Txn(Box<[Access]>),
    /// The answer to a [`Call::Etcd`].
    Etcd(Box<etcd::Reply>),
}

/// How an operation ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It took effect between invocation and completion, with this answer.
    Ok(Reply),
    /// It did not take effect and never will.
    Failed,
    /// Nobody knows: it may take effect at any time after its invocation, or never. `completed` is [`NEVER`].
    Unknown,
}

/// One operation of one process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// Who called.
    pub process: Process,
    /// The object.
    pub key: Key,
    /// What was asked.
    pub call: Call,
    /// How it ended.
    pub outcome: Outcome,
    /// When it was called.
    pub invoked: Time,
    /// When the answer came; [`NEVER`] exactly when the outcome is unknown.
    pub completed: Time,
    /// The input's own number for it, or its position among the operations of the input.
    pub id: u64,
    /// The line of the input that invoked it, from 1; 0 when the input has no lines.
    pub line: u32,
}

impl Operation {
    /// Whether the operation surely took effect.
    pub fn is_ok(&self) -> bool {
        matches!(self.outcome, Outcome::Ok(_))
    }

    /// Whether nobody knows what became of it.
    pub fn is_unknown(&self) -> bool {
        matches!(self.outcome, Outcome::Unknown)
    }

    /// The answer, if there was one.
    pub fn reply(&self) -> Option<&Reply> {
        match &self.outcome {
            Outcome::Ok(reply) => Some(reply),
            Outcome::Failed | Outcome::Unknown => None,
        }
    }

    /// The value that a completed read returned, if this is one and it says.
    pub fn value_read(&self) -> Option<Value> {
        match (&self.call, &self.outcome) {
            (Call::Read, Outcome::Ok(Reply::Value(value))) => Some(*value),
            _ => None,
        }
    }

    /// The value that this operation writes, wherever it took effect or may have.
    pub fn value_written(&self) -> Option<Value> {
        match (&self.call, &self.outcome) {
            (_, Outcome::Failed) | (Call::Cas { .. }, Outcome::Ok(Reply::Flag(false))) => None,
            (Call::Write(value), _) => Some(*value),
            (Call::Cas { new, .. }, _) => Some(*new),
            (Call::Delete, _) => Some(Value::NIL),
            _ => None,
        }
    }

    /// Whether this operation had completed before `other` was invoked: the real-time order of linearizability.
    pub fn precedes(&self, other: &Operation) -> bool {
        self.completed < other.invoked
    }
}

/// What the times of a history mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// One clock for all processes: an operation that completed before another was invoked precedes it.
    Shared,
    /// Only the order inside each process is known (dbcop, the POPL'17 examples); real-time order must not be used.
    PerProcess,
}

/// Which sequential specification the operations are to be judged by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ModelKind {
    /// One register for each key: read, write, cas, delete.
    Register,
    /// A text for each key: get, put, append.
    KeyValue,
    /// etcd's store: one revision for all keys.
    Etcd,
    /// A set for each key: add, remove, read of all members.
    Set,
    /// A counter for each key: increment, read.
    Counter,
    /// A first-in-first-out queue for each key.
    Queue,
    /// A mutex for each key, with fencing tokens that grow.
    Mutex,
    /// Lists under transactions over many keys: append, read.
    ListAppend,
    /// Registers under transactions over many keys: read, write.
    TxnRegister,
    /// Accounts with balances: transfer, read of all.
    Bank,
}

impl ModelKind {
    /// Every model with the name that `--model` and histories use.
    pub const ALL: [(ModelKind, &'static str); 10] = [
        (ModelKind::Register, "register"),
        (ModelKind::KeyValue, "kv"),
        (ModelKind::Etcd, "etcd"),
        (ModelKind::Set, "set"),
        (ModelKind::Counter, "counter"),
        (ModelKind::Queue, "queue"),
        (ModelKind::Mutex, "mutex"),
        (ModelKind::ListAppend, "list-append"),
        (ModelKind::TxnRegister, "txn-register"),
        (ModelKind::Bank, "bank"),
    ];

    /// The name of this model.
    pub fn name(self) -> &'static str {
        ModelKind::ALL.iter().find(|(kind, _)| *kind == self).map_or("register", |(_, name)| name)
    }

    /// The model of that name.
    pub fn by_name(name: &str) -> Option<ModelKind> {
        ModelKind::ALL.iter().find(|(_, known)| *known == name).map(|(kind, _)| *kind)
    }
}

/// Something odd about the input that a reader of the verdict should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// The kind, for counting and for machines.
    pub kind: WarningKind,
    /// The line of the input it was first seen at, from 1; 0 when the input has no lines.
    pub line: u32,
    /// One sentence.
    pub message: String,
    /// How often this kind occurred in all; later ones are counted, not listed.
    pub count: u64,
}

/// The kinds of warnings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WarningKind {
    /// Two writes of one key wrote the same value, so a read does not say which it saw.
    ValueNotUnique,
    /// A completion lies before its invocation, or event times run backwards.
    ClockAnomaly,
    /// A process invoked an operation before its last one had completed.
    OverlappingProcess,
    /// Two operations have the same id.
    DuplicateId,
    /// A completion without an invocation, or another event that had to be left out.
    Ignored,
    /// An assumption about what the format means, which an option could change.
    Assumption,
}

impl WarningKind {
    /// A name for machines.
    pub fn name(self) -> &'static str {
        match self {
            WarningKind::ValueNotUnique => "value-not-unique",
            WarningKind::ClockAnomaly => "clock-anomaly",
            WarningKind::OverlappingProcess => "overlapping-process",
            WarningKind::DuplicateId => "duplicate-id",
            WarningKind::Ignored => "ignored",
            WarningKind::Assumption => "assumption",
        }
    }
}

/// A whole history.
///
/// Invariants: `operations` are sorted by `invoked`, ties in input order, so the operations of one process appear in its
/// session order; `completed >= invoked`; `completed == NEVER` exactly for unknown outcomes; every interned number is in its table.
#[derive(Clone, Debug)]
pub struct History {
    /// What to call it: the file's name, or the name or id inside the file.
    pub name: String,
    /// The format it was read from, for messages.
    pub format: &'static str,
    /// The operations, sorted as said above. An operation is named by its position here (`u32`).
    pub operations: Vec<Operation>,
    /// What the times mean.
    pub clock: Clock,
    /// The sequential specification.
    pub model: ModelKind,
    /// The value of every register and key before anything happened.
    pub initial: Value,
    /// The names of keys.
    pub keys: Table,
    /// The values.
    pub values: Table,
    /// The names of processes.
    pub processes: Table,
    /// What was odd about the input.
    pub warnings: Vec<Warning>,
    /// Recorded watch streams, for the watch and lease checks; empty for most formats.
    pub watches: Vec<etcd::WatchStream>,
}

impl History {
    /// A history without operations.
    pub fn empty(name: impl Into<String>, format: &'static str, model: ModelKind) -> History {
        let mut values = Table::default();
        let nil = values.intern(Datum::Nil);
        assert_eq!(nil, Value::NIL.0, "nil is the first value of every table");
        History {
            name: name.into(),
            format,
            operations: Vec::new(),
            clock: Clock::Shared,
            model,
            initial: Value::NIL,
            keys: Table::default(),
            values,
            processes: Table::default(),
            warnings: Vec::new(),
            watches: Vec::new(),
        }
    }

    /// The name of a key.
    pub fn key(&self, key: Key) -> &Datum {
        self.keys.get(key.0)
    }

    /// What a value is.
    pub fn value(&self, value: Value) -> &Datum {
        self.values.get(value.0)
    }

    /// The name of a process.
    pub fn process(&self, process: Process) -> &Datum {
        self.processes.get(process.0)
    }

    /// The same history (tables, name, model) with only the given operations, which must be in ascending order.
    ///
    /// Positions in the new history are positions in `keep`: evidence found there is translated back with `keep[i]`.
    pub fn restricted(&self, keep: &[u32]) -> History {
        History {
            name: self.name.clone(),
            format: self.format,
            operations: keep.iter().map(|&i| self.operations[i as usize].clone()).collect(),
            clock: self.clock,
            model: self.model,
            initial: self.initial,
            keys: self.keys.clone(),
            values: self.values.clone(),
            processes: self.processes.clone(),
            warnings: Vec::new(),
            watches: Vec::new(),
        }
    }

    /// The positions of each key's operations, in key order. Meaningless for models whose calls span keys.
    pub fn by_key(&self) -> Vec<Vec<u32>> {
        let mut parts = vec![Vec::new(); self.keys.len()];
        for (i, operation) in self.operations.iter().enumerate() {
            parts[operation.key.0 as usize].push(i as u32);
        }
        parts
    }

    /// The positions of each process's operations, in session order.
    pub fn by_process(&self) -> Vec<Vec<u32>> {
        let mut parts = vec![Vec::new(); self.processes.len()];
        for (i, operation) in self.operations.iter().enumerate() {
            parts[operation.process.0 as usize].push(i as u32);
        }
        parts
    }
}
