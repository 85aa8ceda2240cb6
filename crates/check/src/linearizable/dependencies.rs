//! Transactions over many keys, by their dependencies: what was read says who came before whom.
//!
//! As in Elle (Kingsbury and Alvaro, VLDB 2020): a read of a list spells out the order of its appends, so writes follow
//! writes (ww), reads follow the write that they saw (wr) and precede the next (rw). Real time is added through a chain
//! of moments, so that it costs n edges and not n². A cycle is a violation, and the shortest found is the evidence.
//! Without one, the transactions are put in an order that the edges allow and replayed: if every read agrees, that order
//! is a linearization (strict serializability). For lists it always does, unless a transaction contradicts itself; for
//! registers the order of writes that nobody compared is a guess, and a replay that fails leaves the matter to the search.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use hashbrown::HashMap;

use super::{Impossible, Placement};
use crate::history::{Access, AccessKind, Call, History, Key, NEVER, Outcome, Reply, Value};
use crate::verdict::{Edge, Evidence, Why};

/// What the dependencies say.
pub(super) enum Ordered {
    /// An order of the transactions that explains every read.
    Order(Vec<u32>),
    /// A cycle.
    Cycle(Evidence),
    /// Not decided here.
    Other(Placement),
}

type Fast<K, V> = HashMap<K, V, foldhash::fast::FixedState>;

/// How many transactions of a cyclic part are tried as the start of a short cycle.
const CYCLE_STARTS_MAX: usize = 100;

/// Judges transactions over lists and registers.
pub(super) fn order(history: &History, part: &[u32]) -> Ordered {
    let mut graph =
        Graph { history, edges: Vec::new(), nodes: history.operations.len() as u32, included: Vec::new() };
    if let Err(placement) = graph.build(part) {
        return Ordered::Other(placement);
    }
    match graph.sort() {
        Ok(order) if replays(history, &order) => Ordered::Order(order),
        Ok(_) => {
            Ordered::Other(Placement::Declined("the order of some writes cannot be told from the reads"))
        }
        Err(left) => Ordered::Cycle(graph.cycle(&left)),
    }
}

/// The accesses of a transaction, with reads filled in where it was answered.
fn accesses(history: &History, i: u32) -> &[Access] {
    let operation = &history.operations[i as usize];
    match (&operation.call, &operation.outcome) {
        (_, Outcome::Ok(Reply::Txn(accesses))) => accesses,
        (Call::Txn(accesses), _) => accesses,
        _ => &[],
    }
}

struct Graph<'a> {
    history: &'a History,
    /// `(from, to, why)`; numbers from the operations' count on are helpers without operation.
    edges: Vec<(u32, u32, Why)>,
    nodes: u32,
    /// The transactions that surely happened, ascending.
    included: Vec<u32>,
}

/// What is known of one key.
#[derive(Default)]
struct Known<'a> {
    /// Who appended or wrote each value.
    writers: Fast<Value, u32>,
    /// The longest list read, and by whom.
    longest: &'a [Value],
    longest_by: Option<u32>,
    /// Reads: how many elements, by whom.
    reads: Vec<(usize, u32)>,
    /// Reads of a register.
    values: Vec<(Value, u32)>,
}

impl<'a> Graph<'a> {
    fn helper(&mut self) -> u32 {
        self.nodes += 1;
        self.nodes - 1
    }

    fn edge(&mut self, from: u32, to: u32, why: Why) {
        if from != to {
            self.edges.push((from, to, why));
        }
    }

    fn build(&mut self, part: &[u32]) -> Result<(), Placement> {
        let mut keys: Fast<Key, Known<'a>> = HashMap::default();
        for &i in part {
            self.collect(i, &mut keys)?;
        }
        let mut seen: Fast<u32, ()> = HashMap::default();
        for known in keys.values() {
            let read = known.longest.iter().chain(known.values.iter().map(|(value, _)| value));
            seen.extend(read.filter_map(|value| known.writers.get(value)).map(|writer| (*writer, ())));
        }
        let happened = |&i: &u32| {
            let operation = &self.history.operations[i as usize];
            operation.is_ok() || (operation.is_unknown() && seen.contains_key(&i))
        };
        self.included = part.iter().copied().filter(happened).collect();
        let mut names: Vec<Key> = keys.keys().copied().collect();
        names.sort_unstable();
        for key in names {
            self.list(&keys[&key], &seen)?;
            self.register(&keys[&key])?;
        }
        self.real_time();
        Ok(())
    }

    fn collect(&self, i: u32, keys: &mut Fast<Key, Known<'a>>) -> Result<(), Placement> {
        let operation = &self.history.operations[i as usize];
        if operation.outcome == Outcome::Failed {
            return Ok(());
        }
        for access in accesses(self.history, i) {
            let known = keys.entry(access.key).or_default();
            match &access.kind {
                AccessKind::Append(value) | AccessKind::Write(value)
                    if known.writers.insert(*value, i).is_some() || *value == self.history.initial =>
                {
                    return Err(Placement::Declined("a value was written twice"));
                }
                AccessKind::ReadList(Some(list)) if operation.is_ok() => {
                    known.reads.push((list.len(), i));
                    let (short, long) = if list.len() > known.longest.len() {
                        (known.longest, &list[..])
                    } else {
                        (&list[..], known.longest)
                    };
                    if !long.starts_with(short) {
                        let operations =
                            vec![known.longest_by.unwrap_or(i).min(i), known.longest_by.unwrap_or(i).max(i)];
                        let reason = "two reads show the appends to one key in different orders".to_string();
                        return Err(Placement::Impossible(Impossible { operations, reason }));
                    }
                    if list.len() > known.longest.len() {
                        (known.longest, known.longest_by) = (list, Some(i));
                    }
                }
                AccessKind::Read(Some(value)) if operation.is_ok() => known.values.push((*value, i)),
                _ => {}
            }
        }
        Ok(())
    }

    fn nobody(&self, value: Value, by: u32) -> Placement {
        let reason = format!("{} was read, but nobody wrote it", self.history.value(value));
        Placement::Impossible(Impossible { operations: vec![by], reason })
    }

    fn list(&mut self, known: &Known<'a>, seen: &Fast<u32, ()>) -> Result<(), Placement> {
        let mut order = Vec::with_capacity(known.longest.len());
        for value in known.longest {
            match known.writers.get(value) {
                Some(writer) => order.push(*writer),
                None => return Err(self.nobody(*value, known.longest_by.unwrap_or(0))),
            }
        }
        if known.reads.is_empty() {
            return Ok(());
        }
        for pair in order.windows(2) {
            self.edge(pair[0], pair[1], Why::WriteOrder);
        }
        let shown: Fast<Value, ()> = known.longest.iter().map(|value| (*value, ())).collect();
        let happened =
            |writer: u32| self.history.operations[writer as usize].is_ok() || seen.contains_key(&writer);
        let unseen =
            known.writers.iter().filter(|(value, writer)| !shown.contains_key(*value) && happened(**writer));
        let unseen: Vec<u32> = unseen.map(|(_, writer)| *writer).collect();
        // Appends that nobody saw come after everything that was read.
        let mut last: Vec<(u32, Why)> =
            order.last().map(|last| (*last, Why::WriteOrder)).into_iter().collect();
        for &(length, reader) in &known.reads {
            if let Some(writer) = length.checked_sub(1).map(|last| order[last]) {
                self.edge(writer, reader, Why::ReadsFrom);
            }
            match order.get(length) {
                Some(&next) => self.edge(reader, next, Why::Overwrites),
                None => last.push((reader, Why::Overwrites)),
            }
        }
        self.all_before(&last, &unseen);
        Ok(())
    }

    /// Every one of `before` precedes every one of `after` but itself; through a helper, so that it costs the sum of both.
    fn all_before(&mut self, before: &[(u32, Why)], after: &[u32]) {
        let helper = self.helper();
        let targets: Fast<u32, ()> = after.iter().map(|node| (*node, ())).collect();
        let mut both = 0;
        for &(node, why) in before {
            if targets.contains_key(&node) {
                // Through the helper it would precede itself. Two such nodes precede one another: that is a cycle, and enough.
                both += 1;
                if both > 2 {
                    continue;
                }
                after.iter().for_each(|to| self.edge(node, *to, why));
            } else {
                self.edge(node, helper, why);
            }
        }
        for &node in after {
            self.edge(helper, node, Why::Overwrites);
        }
    }

    fn register(&mut self, known: &Known<'a>) -> Result<(), Placement> {
        if known.values.is_empty() {
            return Ok(());
        }
        let mut first = Vec::new();
        for &(value, reader) in &known.values {
            match known.writers.get(&value) {
                Some(&writer) => self.edge(writer, reader, Why::ReadsFrom),
                None if value == self.history.initial || value == Value::NIL => {
                    first.push((reader, Why::Overwrites))
                }
                None => return Err(self.nobody(value, reader)),
            }
        }
        let operations = &self.history.operations;
        let read: Fast<Value, ()> = known.values.iter().map(|(value, _)| (*value, ())).collect();
        let writers = known
            .writers
            .iter()
            .filter(|(value, writer)| operations[**writer as usize].is_ok() || read.contains_key(*value));
        let writers: Vec<u32> = writers.map(|(_, writer)| *writer).collect();
        self.all_before(&first, &writers);
        Ok(())
    }

    /// Moments in a chain: whoever completed leads to the moment of that, the last moment before a call leads to it.
    fn real_time(&mut self) {
        let operations = &self.history.operations;
        let mut completed: Vec<u32> = self.included.clone();
        completed.retain(|&i| operations[i as usize].completed != NEVER);
        completed.sort_unstable_by_key(|&i| operations[i as usize].completed);
        let first = self.nodes;
        self.nodes += completed.len() as u32;
        for (at, &i) in completed.iter().enumerate() {
            let moment = first + at as u32;
            self.edge(i, moment, Why::RealTime);
            if at > 0 {
                self.edge(moment - 1, moment, Why::RealTime);
            }
        }
        for i in std::mem::take(&mut self.included) {
            let invoked = operations[i as usize].invoked;
            let before = completed.partition_point(|&j| operations[j as usize].completed < invoked);
            if before > 0 {
                self.edge(first + before as u32 - 1, i, Why::RealTime);
            }
            self.included.push(i);
        }
    }

    /// The edges by where they begin: `starts[n]..starts[n + 1]`.
    fn index(&mut self) -> Vec<u32> {
        self.edges.sort_unstable_by_key(|(from, to, _)| (*from, *to));
        let mut starts = vec![0u32; self.nodes as usize + 1];
        for (from, ..) in &self.edges {
            starts[*from as usize + 1] += 1;
        }
        for at in 1..starts.len() {
            starts[at] += starts[at - 1];
        }
        starts
    }

    /// An order of the transactions along the edges, those called first first; else the nodes that are left.
    fn sort(&mut self) -> Result<Vec<u32>, Vec<u32>> {
        let starts = self.index();
        let mut waiting = vec![0u32; self.nodes as usize];
        for (_, to, _) in &self.edges {
            waiting[*to as usize] += 1;
        }
        let count = self.history.operations.len() as u32;
        // Helpers at once: they stand for no operation and only hold others up.
        let rank = |node: u32| {
            if node < count { self.history.operations[node as usize].completed } else { i64::MIN }
        };
        let helpers = count..self.nodes;
        let all = self.included.iter().copied().chain(helpers);
        let mut ready: BinaryHeap<Reverse<(i64, u32)>> = all
            .clone()
            .filter(|&node| waiting[node as usize] == 0)
            .map(|node| Reverse((rank(node), node)))
            .collect();
        let mut order = Vec::with_capacity(self.included.len());
        let mut done = vec![false; self.nodes as usize];
        while let Some(Reverse((_, node))) = ready.pop() {
            done[node as usize] = true;
            if node < count {
                order.push(node);
            }
            for (_, to, _) in &self.edges[starts[node as usize] as usize..starts[node as usize + 1] as usize]
            {
                waiting[*to as usize] -= 1;
                if waiting[*to as usize] == 0 {
                    ready.push(Reverse((rank(*to), *to)));
                }
            }
        }
        let left: Vec<u32> = all.filter(|&node| !done[node as usize]).collect();
        if left.is_empty() { Ok(order) } else { Err(left) }
    }

    /// The shortest cycle through one of the transactions that are left, helpers contracted.
    fn cycle(&mut self, left: &[u32]) -> Evidence {
        let starts = self.index();
        let count = self.history.operations.len() as u32;
        let mut best: Option<Vec<(u32, Why)>> = None;
        for &start in left.iter().filter(|&&node| node < count).take(CYCLE_STARTS_MAX) {
            if let Some(path) = self.shortest(&starts, start)
                && best.as_ref().is_none_or(|best| path.len() < best.len())
            {
                best = Some(path);
            }
        }
        // Nodes in turn, each with why the next one follows; only transactions are shown.
        let path = best.unwrap_or_default();
        let shown: Vec<(u32, Why)> = path.iter().copied().filter(|(node, _)| *node < count).collect();
        let mut operations: Vec<u32> = shown.iter().map(|(node, _)| *node).collect();
        let cycle = (0..shown.len())
            .map(|at| Edge { before: shown[at].0, after: shown[(at + 1) % shown.len()].0, why: shown[at].1 })
            .collect();
        operations.sort_unstable();
        operations.dedup();
        let reason = "what the transactions read puts each of them before the next, in a circle".to_string();
        Evidence { operations, cycle, reason, key: None, sufficient: false }
    }

    /// A shortest way from a node back to itself: each node of it, with why the next follows.
    fn shortest(&self, starts: &[u32], start: u32) -> Option<Vec<(u32, Why)>> {
        let mut from: Fast<u32, (u32, Why)> = HashMap::default();
        let mut queue = VecDeque::from([start]);
        while let Some(node) = queue.pop_front() {
            for &(_, to, why) in
                &self.edges[starts[node as usize] as usize..starts[node as usize + 1] as usize]
            {
                if to == start {
                    let mut path = vec![(node, why)];
                    let mut at = node;
                    while at != start {
                        let (before, why) = from[&at];
                        path.push((before, why));
                        at = before;
                    }
                    path.reverse();
                    return Some(path);
                }
                if !from.contains_key(&to) {
                    from.insert(to, (node, why));
                    queue.push_back(to);
                }
            }
        }
        None
    }
}

/// Whether every read agrees when the transactions take effect in this order.
fn replays(history: &History, order: &[u32]) -> bool {
    let mut lists: Fast<Key, Vec<Value>> = HashMap::default();
    let mut registers: Fast<Key, Value> = HashMap::default();
    order.iter().all(|&i| {
        let judged = history.operations[i as usize].is_ok();
        accesses(history, i).iter().all(|access| match &access.kind {
            AccessKind::Append(value) => {
                lists.entry(access.key).or_default().push(*value);
                true
            }
            AccessKind::Write(value) => {
                registers.insert(access.key, *value);
                true
            }
            AccessKind::ReadList(Some(read)) if judged => {
                lists.get(&access.key).map_or(&[][..], Vec::as_slice) == &**read
            }
            AccessKind::Read(Some(read)) if judged => match registers.get(&access.key) {
                Some(value) => value == read,
                None => *read == history.initial || *read == Value::NIL,
            },
            _ => true,
        })
    })
}
