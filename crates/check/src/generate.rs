//! Histories made to order: scripts for examples and tests, random ones, and large ones with a planted violation.

use crate::builder::Builder;
use crate::history::{Call, Clock, Datum, History, ModelKind, Operation, Outcome, Reply};

/// A small history spelt out, one operation after another; the initial value of every key is 0.
///
/// Operations that are given no times get none: only the order inside each process counts.
///
/// ```
/// use synod_check::generate::Script;
///
/// let history = Script::new().write("p", "x", 1).read("q", "x", 1).history();
/// assert_eq!(history.operations.len(), 2);
/// ```
#[derive(Default)]
pub struct Script {
    operations: Vec<Line>,
}

/// One operation of a script.
struct Line {
    process: String,
    key: String,
    action: Action,
    times: Option<(i64, i64)>,
}

enum Action {
    Read(i64),
    Write(i64),
    Cas(i64, i64),
}

impl Script {
    /// No operations yet.
    pub fn new() -> Script {
        Script::default()
    }

    fn push(mut self, process: &str, key: &str, action: Action) -> Script {
        self.operations.push(Line { process: process.into(), key: key.into(), action, times: None });
        self
    }

    /// A process writes a value.
    pub fn write(self, process: &str, key: &str, value: i64) -> Script {
        self.push(process, key, Action::Write(value))
    }

    /// A process reads a value.
    pub fn read(self, process: &str, key: &str, value: i64) -> Script {
        self.push(process, key, Action::Read(value))
    }

    /// A process replaces one value by another, which succeeds.
    pub fn cas(self, process: &str, key: &str, expected: i64, new: i64) -> Script {
        self.push(process, key, Action::Cas(expected, new))
    }

    /// When the last operation was called and when it was answered. Real time then counts, so give times to all.
    pub fn at(mut self, invoked: i64, completed: i64) -> Script {
        if let Some(last) = self.operations.last_mut() {
            last.times = Some((invoked, completed));
        }
        self
    }

    /// The history.
    pub fn history(self) -> History {
        let mut builder = Builder::new("script", "script", ModelKind::Register);
        let initial = builder.value(Datum::Int(0));
        let timed = self.operations.iter().any(|line| line.times.is_some());
        builder.history_mut().initial = initial;
        builder.history_mut().clock = if timed { Clock::Shared } else { Clock::PerProcess };
        for (i, line) in self.operations.into_iter().enumerate() {
            let Line { process, key, action, times } = line;
            let (invoked, completed) = times.unwrap_or((2 * i as i64, 2 * i as i64 + 1));
            let (call, reply) = match action {
                Action::Read(value) => (Call::Read, Reply::Value(builder.value(Datum::Int(value)))),
                Action::Write(value) => (Call::Write(builder.value(Datum::Int(value))), Reply::Done),
                Action::Cas(expected, new) => {
                    let expected = builder.value(Datum::Int(expected));
                    (Call::Cas { expected, new: builder.value(Datum::Int(new)) }, Reply::Flag(true))
                }
            };
            let process = builder.process(Datum::text(process));
            let key = builder.key(Datum::text(key));
            let id = builder.id(None);
            let outcome = Outcome::Ok(reply);
            builder.push(Operation { process, key, call, outcome, invoked, completed, id, line: 0 });
        }
        builder.finish()
    }
}

/// A small deterministic source of random numbers (SplitMix64: Steele, Lea, Flood 2014). The same seed, the same history.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// From a seed.
    pub fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(0x632b_e59b_d9b4_e019))
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `limit`, which must not be zero.
    pub fn below(&mut self, limit: usize) -> usize {
        assert!(limit > 0, "there is no number below zero");
        ((u128::from(self.bits()) * limit as u128) >> 64) as usize
    }

    /// True so many times out of a hundred.
    pub fn percent(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }
}

/// A random history of at most ten operations over one or two keys, with unique values and overlapping operations, of
/// which every level holds now and then and fails now and then.
pub fn tiny(random: &mut Random) -> History {
    let processes = 1 + random.below(4);
    let keys = 1 + random.below(2);
    let operations = 3 + random.below(8);
    let wildness = [0, 10, 30, 60][random.below(4)];
    let with_cas = random.percent(20);
    let mut script = Script::new();
    let mut clock = vec![0i64; processes];
    // The plan comes first, so that a read may return what is written later.
    let plan: Vec<(usize, usize, bool)> =
        (0..operations).map(|_| (random.below(processes), random.below(keys), random.percent(45))).collect();
    let mut current = vec![0i64; keys];
    let mut now = 0;
    for (i, &(process, key, writes)) in plan.iter().enumerate() {
        now += random.below(4) as i64;
        let invoked = now.max(clock[process]) + 1 + random.below(3) as i64;
        let completed = invoked + 1 + random.below(6) as i64;
        clock[process] = completed;
        let (process, name) = (["p", "q", "r", "s"][process], ["x", "y"][key]);
        let seen = if random.percent(wildness) {
            let written: Vec<i64> = (0..operations)
                .filter(|&j| j != i && plan[j].2 && plan[j].1 == key)
                .map(|j| j as i64 + 1)
                .collect();
            let choice = random.below(written.len() + 1);
            written.get(choice).copied().unwrap_or(0)
        } else {
            current[key]
        };
        let value = i as i64 + 1;
        script = match (writes, with_cas && random.percent(40)) {
            (true, true) => script.cas(process, name, seen, value),
            (true, false) => script.write(process, name, value),
            (false, _) => script.read(process, name, seen),
        };
        if writes && !random.percent(wildness / 2) {
            current[key] = value;
        }
        script = script.at(invoked, completed);
    }
    script.history()
}
