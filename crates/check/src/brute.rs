//! Every level from its definition, by trying everything: the referee of the real algorithms, for tiny histories.
//!
//! Nothing here is clever, and nothing is shared with what it judges: no clocks, no patterns, no reads-from, only orders
//! that are enumerated and values that are replayed. Registers with reads, writes and compare-and-sets whose outcome is
//! known to be done, failed or unknown; at most [`OPERATIONS_MAX`] operations.
//!
//! - *linearizable*, *sequential*: some order of all operations that agrees with real time (with each session's order) and
//!   replays. An operation of unknown fate may be anywhere after its invocation or be absent.
//! - CC, CM, CCv (POPL'17, section 3): with the smallest causal order, `(po ∪ rf)+` (a larger one only demands more);
//!   CC: for each read an order of its past that explains it; CM: one that explains its session's earlier reads too;
//!   CCv: one order of all writes that explains every read by its past.
//! - PRAM: for each process an order of all writes and its own reads that explains these.
//! - session guarantees: the definitions of `causal::session`, as relations.
//! - eventual and "last reads agree": the definitions of `eventual`.

use hashbrown::HashSet;

use crate::history::{Call, Clock, History, Operation, Outcome, Reply, Value};
use crate::verdict::Level;

/// The largest history that is tried.
pub const OPERATIONS_MAX: usize = 16;

/// A register operation with a known effect.
#[derive(Clone, Copy, Debug)]
struct Tiny {
    process: u32,
    key: u32,
    read: Option<Value>,
    write: Option<Value>,
    invoked: i64,
    completed: i64,
    /// It may not have happened.
    optional: bool,
}

/// Whether a level holds, or `None` where the history is too large or is none of registers.
///
/// ```
/// use synod_check::{brute, generate::Script, verdict::Level};
///
/// let history = Script::new().write("p", "x", 1).read("q", "x", 1).read("q", "x", 0).history();
/// assert_eq!(brute::holds(&history, Level::Pram), Some(false));
/// assert_eq!(brute::holds(&history, Level::ReadYourWrites), Some(true));
/// ```
pub fn holds(history: &History, level: Level) -> Option<bool> {
    let all = tiny(history)?;
    // What reads and writes of unknown fate that nobody read amount to, for the levels without real time.
    let sure = || settled(&all);
    match level {
        Level::Linearizable => match history.clock {
            Clock::Shared => Some(linearizable(history, &all)),
            Clock::PerProcess => None,
        },
        Level::Sequential => Some(sequential(history, &sure())),
        Level::CausalConvergence => Some(Past::of(history, &sure()).is_some_and(|past| past.convergent())),
        Level::CausalMemory => {
            Some(Past::of(history, &sure()).is_some_and(|past| past.each_explained(Visible::Session)))
        }
        Level::Causal => {
            Some(Past::of(history, &sure()).is_some_and(|past| past.each_explained(Visible::Itself)))
        }
        Level::Pram => Some(pipelined(history, &sure())),
        Level::Eventual => Some(eventual(history, &all)),
        _ => Some(guarantee(history, &sure(), level)),
    }
}

/// Whether the last reads of each key by each process agree, whenever they were: the published class of that name.
pub fn last_reads_agree(history: &History) -> Option<bool> {
    let all = tiny(history)?;
    let last = |op: &Tiny| {
        all.iter()
            .rfind(|o| o.process == op.process && o.key == op.key && o.read.is_some())
            .and_then(|o| o.read)
    };
    Some(all.iter().all(|a| {
        all.iter().all(|b| a.key != b.key || a.read.is_none() || b.read.is_none() || last(a) == last(b))
    }))
}

fn tiny(history: &History) -> Option<Vec<Tiny>> {
    let mut out = Vec::new();
    for operation in &history.operations {
        let Operation { process, key, invoked, completed, .. } = operation;
        let (read, write, optional) = match (&operation.call, &operation.outcome) {
            (_, Outcome::Failed) | (Call::Read, Outcome::Unknown) => continue,
            (Call::Read, Outcome::Ok(Reply::Value(value))) => (Some(*value), None, false),
            (Call::Write(value), outcome) => (None, Some(*value), *outcome == Outcome::Unknown),
            (Call::Cas { expected, new }, Outcome::Unknown) => (Some(*expected), Some(*new), true),
            (Call::Cas { expected, new }, Outcome::Ok(Reply::Flag(true) | Reply::Done)) => {
                (Some(*expected), Some(*new), false)
            }
            _ => return None,
        };
        out.push(Tiny {
            process: process.0,
            key: key.0,
            read,
            write,
            invoked: *invoked,
            completed: *completed,
            optional,
        });
    }
    (out.len() <= OPERATIONS_MAX).then_some(out)
}

/// Operations of unknown fate settled for the levels without real time: those whose value was read happened, in a session
/// of their own unless they were their process's last; the others did not.
fn settled(all: &[Tiny]) -> Vec<Tiny> {
    let mut happened: Vec<bool> = all.iter().map(|op| !op.optional).collect();
    loop {
        let mut changed = false;
        for i in 0..all.len() {
            let read = (0..all.len())
                .any(|j| happened[j] && j != i && all[j].key == all[i].key && all[j].read == all[i].write);
            if !happened[i] && read {
                happened[i] = true;
                changed = true;
            }
        }
        if !changed {
            break;
        }
    }
    let mut out: Vec<Tiny> =
        all.iter().zip(&happened).filter(|(_, happened)| **happened).map(|(op, _)| *op).collect();
    for i in 0..out.len() {
        let later = out[i + 1..].iter().any(|op| op.process == out[i].process);
        if out[i].optional && later {
            out[i].process = u32::MAX - i as u32;
        }
        out[i].optional = false;
    }
    out
}

/// Whether some order of the operations in `set` replays. `before(a, b)`: a must not come after b. `visible`: whose reads count.
fn replays(
    history: &History,
    all: &[Tiny],
    set: u32,
    before: &dyn Fn(usize, usize) -> bool,
    visible: u32,
) -> bool {
    let keys = history.keys.len();
    let mut failed = HashSet::new();
    let mut state = vec![history.initial; keys];
    try_next(all, set, before, visible, &mut state, &mut failed)
}

fn try_next(
    all: &[Tiny],
    rest: u32,
    before: &dyn Fn(usize, usize) -> bool,
    visible: u32,
    state: &mut Vec<Value>,
    failed: &mut HashSet<(u32, Vec<Value>)>,
) -> bool {
    if (0..all.len()).all(|i| rest & (1 << i) == 0 || all[i].optional) {
        return true;
    }
    if failed.contains(&(rest, state.clone())) {
        return false;
    }
    for i in (0..all.len()).filter(|i| rest & (1 << i) != 0) {
        let op = &all[i];
        let key = op.key as usize;
        let first = (0..all.len()).all(|j| j == i || rest & (1 << j) == 0 || !before(j, i));
        let returns = visible & (1 << i) == 0 || op.read.is_none_or(|value| value == state[key]);
        if first && returns {
            let old = state[key];
            state[key] = op.write.unwrap_or(old);
            if try_next(all, rest & !(1 << i), before, visible, state, failed) {
                return true;
            }
            state[key] = old;
        }
    }
    failed.insert((rest, state.clone()));
    false
}

fn everything(all: &[Tiny]) -> u32 {
    ((1u64 << all.len()) - 1) as u32
}

fn linearizable(history: &History, all: &[Tiny]) -> bool {
    // An operation that may be absent is not waited for: its completion is never.
    let before = |a: usize, b: usize| all[a].completed < all[b].invoked;
    replays(history, all, everything(all), &before, u32::MAX)
}

fn program_order(all: &[Tiny]) -> impl Fn(usize, usize) -> bool + '_ {
    |a, b| a < b && all[a].process == all[b].process
}

fn sequential(history: &History, all: &[Tiny]) -> bool {
    replays(history, all, everything(all), &program_order(all), u32::MAX)
}

fn pipelined(history: &History, all: &[Tiny]) -> bool {
    let order = program_order(all);
    all.iter().all(|me| {
        let mine = mask(all, |op| op.process == me.process);
        let set = mine | mask(all, |op| op.write.is_some());
        replays(history, all, set, &order, mine)
    })
}

fn mask(all: &[Tiny], wanted: impl Fn(&Tiny) -> bool) -> u32 {
    all.iter().enumerate().filter(|(_, op)| wanted(op)).map(|(i, _)| 1 << i).sum()
}

/// The write that a read saw; `Ok(None)`: the initial value; `Err`: nobody wrote it.
fn source(history: &History, all: &[Tiny], read: usize) -> Result<Option<usize>, ()> {
    let value = all[read].read.ok_or(())?;
    match (0..all.len()).find(|&i| all[i].key == all[read].key && all[i].write == Some(value)) {
        Some(write) => Ok(Some(write)),
        None if value == history.initial => Ok(None),
        None => Err(()),
    }
}

/// Which reads of a causal past have to be explained.
#[derive(Clone, Copy)]
enum Visible {
    Itself,
    Session,
}

/// The smallest causal order, as the set of operations before or at each.
struct Past<'a> {
    history: &'a History,
    all: &'a [Tiny],
    past: Vec<u32>,
}

impl<'a> Past<'a> {
    /// `None` where causality is cyclic or something was read that nobody wrote.
    fn of(history: &'a History, all: &'a [Tiny]) -> Option<Past<'a>> {
        let past = closure(history, all, &program_order(all), &|_| true)?;
        Some(Past { history, all, past })
    }

    fn before(&self, a: usize, b: usize) -> bool {
        a != b && self.past[b] & (1 << a) != 0
    }

    fn each_explained(&self, visible: Visible) -> bool {
        (0..self.all.len()).all(|o| {
            let visible = match visible {
                Visible::Itself => 1 << o,
                Visible::Session => self.past[o] & mask(self.all, |op| op.process == self.all[o].process),
            };
            replays(self.history, self.all, self.past[o], &|a, b| self.before(a, b), visible)
        })
    }

    /// Some order of all writes that contains causality and makes each read return the last write of its past.
    fn convergent(&self) -> bool {
        let writes = mask(self.all, |op| op.write.is_some());
        let mut order = Vec::new();
        self.arbitrate(writes, &mut order)
    }

    fn arbitrate(&self, rest: u32, order: &mut Vec<usize>) -> bool {
        if rest == 0 {
            return (0..self.all.len()).all(|read| {
                let last = order
                    .iter()
                    .rev()
                    .find(|&&w| self.all[w].key == self.all[read].key && self.before(w, read));
                self.all[read].read.is_none_or(|value| {
                    value == last.map_or(self.history.initial, |&w| self.all[w].write.unwrap_or(Value::NIL))
                })
            });
        }
        (0..self.all.len()).any(|w| {
            let first = rest & (1 << w) != 0
                && (0..self.all.len()).all(|v| rest & (1 << v) == 0 || !self.before(v, w));
            if !first {
                return false;
            }
            order.push(w);
            let found = self.arbitrate(rest & !(1 << w), order);
            order.pop();
            found
        })
    }
}

/// The transitive closure of program order and the reads-from edges into some operations; `None` where it is cyclic or a read has no source.
fn closure(
    history: &History,
    all: &[Tiny],
    program: &dyn Fn(usize, usize) -> bool,
    counts: &dyn Fn(usize) -> bool,
) -> Option<Vec<u32>> {
    let mut past: Vec<u32> =
        (0..all.len()).map(|b| (0..all.len()).filter(|&a| program(a, b)).map(|a| 1 << a).sum()).collect();
    for read in (0..all.len()).filter(|&read| all[read].read.is_some()) {
        let source = source(history, all, read).ok()?;
        if let Some(write) = source.filter(|_| counts(read)) {
            past[read] |= 1 << write;
        }
    }
    for _ in 0..all.len() {
        for b in 0..all.len() {
            for a in 0..all.len() {
                if past[b] & (1 << a) != 0 {
                    past[b] |= past[a];
                }
            }
        }
    }
    if (0..all.len()).any(|op| past[op] & (1 << op) != 0) {
        return None;
    }
    Some(past.iter().enumerate().map(|(i, past)| past | 1 << i).collect())
}

/// The session guarantees, as `causal::session` defines them.
fn guarantee(history: &History, all: &[Tiny], level: Level) -> bool {
    let n = all.len();
    if (0..n).any(|read| all[read].read.is_some() && source(history, all, read).is_err()) {
        return false;
    }
    let order = program_order(all);
    let causal = closure(history, all, &order, &|_| true);
    if level == Level::WritesFollowReads && causal.is_none() {
        return false;
    }
    let saw = |read: usize| source(history, all, read).ok().flatten();
    (0..n).filter(|&r| all[r].read.is_some()).all(|r| {
        let me = all[r].process;
        let key = |w: usize| all[w].key == all[r].key && all[w].write.is_some();
        // What the process knows before r: its own operations so far, what these and r saw, and what came before that in its session.
        let shown: Vec<usize> =
            (0..=r).filter(|&o| all[o].process == me && all[o].read.is_some()).filter_map(saw).collect();
        let known = |w: usize| {
            if all[w].process == me { w < r } else { shown.iter().any(|&s| s == w || order(w, s)) }
        };
        // Newer than what r saw, in the process's own eyes.
        let newer = |w: usize| match saw(r) {
            None => true,
            Some(s) if all[s].process == all[w].process => s < w,
            Some(s) => {
                all[w].process == me
                    && all[s].process != me
                    && (0..=w)
                        .filter(|&o| all[o].process == me && all[o].read.is_some())
                        .filter_map(saw)
                        .any(|t| t == s || order(s, t))
            }
        };
        let last_of = |process: u32, wanted: &dyn Fn(usize) -> bool| {
            (0..n).rfind(|&w| key(w) && all[w].process == process && wanted(w))
        };
        let read_before =
            |w: usize| (0..r).any(|o| all[o].process == me && all[o].read.is_some() && saw(o) == Some(w));
        let processes: Vec<u32> = all.iter().map(|op| op.process).collect();
        match level {
            Level::ReadYourWrites => !last_of(me, &|w| w < r).is_some_and(newer),
            Level::MonotonicWrites => processes.iter().filter(|&&p| p != me).all(|&p| {
                !last_of(p, &known).is_some_and(|w| newer(w) && !read_before(w) && saw(r) != Some(w))
            }),
            Level::MonotonicReads => {
                let forward = processes
                    .iter()
                    .all(|&p| !last_of(p, &read_before).is_some_and(|w| saw(r) != Some(w) && newer(w)));
                let again = saw(r).is_some_and(|s| {
                    let first =
                        (0..r).find(|&o| all[o].process == me && all[o].read.is_some() && saw(o) == Some(s));
                    let between = |o: usize| {
                        all[o].process == me
                            && all[o].read.is_some()
                            && all[o].key == all[r].key
                            && saw(o) != Some(s)
                    };
                    first.is_some_and(|first| (first..r).any(between))
                });
                forward && !again
            }
            _ => {
                let Some(past) = &causal else { return false };
                let before = |a: usize, b: usize| a != b && past[b] & (1 << a) != 0;
                processes.iter().all(|&p| {
                    let newest = last_of(p, &|w| before(w, r));
                    !newest.is_some_and(|w| saw(r).is_none_or(|s| before(s, w)) && !(known(w) && newer(w)))
                })
            }
        }
    })
}

/// After the last write of a key had completed, the processes' last reads agree, and on something that was written.
fn eventual(history: &History, all: &[Tiny]) -> bool {
    let sure = settled(all);
    if (0..sure.len()).any(|read| sure[read].read.is_some() && source(history, &sure, read).is_err()) {
        return false;
    }
    let quiet = |r: &Tiny| {
        r.read.is_some()
            && match history.clock {
                Clock::Shared => {
                    all.iter().all(|w| w.write.is_none() || w.key != r.key || w.completed < r.invoked)
                }
                Clock::PerProcess => true,
            }
    };
    let last = |op: &Tiny| {
        all.iter().rfind(|o| o.process == op.process && o.key == op.key && quiet(o)).and_then(|o| o.read)
    };
    all.iter().all(|a| all.iter().all(|b| a.key != b.key || !quiet(a) || !quiet(b) || last(a) == last(b)))
}
