//! Writes a long linearizable history as JSON lines, the same one every time, to measure the checker with.
//!
//! `cargo run --release -p synod-check --example million -- register 1000000 > register.jsonl`, or `etcd` for etcd's store
//! with revisions. A third word `stale` plants one stale read in the middle: the history is then not linearizable.
//! Twenty processes are at work at once; each operation takes effect at a random moment between its two times.

use std::io::Write;

/// A small deterministic generator (xorshift).
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % n
    }
}

const PROCESSES: usize = 20;
const KEYS: usize = 100;

#[derive(Clone, Copy)]
struct Slot {
    value: u64,
    create: u64,
    modified: u64,
    version: u64,
}

fn main() -> std::io::Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let kind = words.first().map_or("register", String::as_str);
    let count: u64 = words.get(1).and_then(|word| word.parse().ok()).unwrap_or(1_000_000);
    let stale = words.get(2).is_some_and(|word| word == "stale").then_some(count / 2);
    let mut out = std::io::BufWriter::with_capacity(1 << 20, std::io::stdout().lock());
    match kind {
        "register" => register(&mut out, count, stale)?,
        "etcd" => etcd(&mut out, count, stale)?,
        _ => eprintln!("register or etcd, not {kind}"),
    }
    out.flush()
}

/// The next operation in the order of effect: its process, when it was called and when answered.
///
/// Effects happen at the even moments 2i; an operation begins after its process's last one ended and ends later than its effect.
fn interval(dice: &mut Dice, free: &mut [u64; PROCESSES], i: u64) -> (usize, u64, u64) {
    let moment = 100 + 2 * i;
    // A process whose last operation is over; with twenty of them and short operations there always is one.
    let mut process = dice.below(PROCESSES as u64) as usize;
    while free[process] >= moment {
        process = (process + 1) % PROCESSES;
    }
    let start = (free[process] + 1).max(moment.saturating_sub(dice.below(16)));
    let end = moment + dice.below(16);
    free[process] = end;
    (process, start, end)
}

fn register(out: &mut impl Write, count: u64, stale: Option<u64>) -> std::io::Result<()> {
    let mut dice = Dice(0x5eed);
    let mut free = [0u64; PROCESSES];
    let (mut value, mut old) = (0u64, 0u64);
    for i in 0..count {
        let (process, start, end) = interval(&mut dice, &mut free, i);
        if dice.below(2) == 0 {
            if i % 1000 == 0 {
                old = value;
            }
            value = i + 1;
            writeln!(
                out,
                r#"{{"process":{process},"f":"write","key":"x","value":{value},"start":{start},"end":{end}}}"#
            )?;
        } else {
            let read =
                if stale.is_some_and(|at| i >= at && i < at + 20 && old != value) { old } else { value };
            let read = if read == 0 { "null".to_string() } else { read.to_string() };
            writeln!(
                out,
                r#"{{"process":{process},"f":"read","key":"x","value":{read},"start":{start},"end":{end}}}"#
            )?;
        }
    }
    Ok(())
}

fn etcd(out: &mut impl Write, count: u64, stale: Option<u64>) -> std::io::Result<()> {
    let mut dice = Dice(0x5eed);
    let mut free = [0u64; PROCESSES];
    let mut slots: Vec<Option<Slot>> = vec![None; KEYS];
    let mut revision = 1u64;
    for i in 0..count {
        let (process, start, end) = interval(&mut dice, &mut free, i);
        let key = dice.below(KEYS as u64) as usize;
        let begin = format!(r#"{{"process":{process},"start":{start},"end":{end}"#);
        let pairs = |slot: Option<Slot>| match slot {
            Some(Slot { value, create, modified, version }) => format!(
                r#""pairs":[{{"key":"k{key}","value":"{value}","create":{create},"mod":{modified},"version":{version}}}],"count":1"#
            ),
            None => r#""pairs":[],"count":0"#.to_string(),
        };
        let put = |slots: &mut Vec<Option<Slot>>, revision: u64| {
            let (create, version) = slots[key].map_or((revision, 0), |slot| (slot.create, slot.version));
            slots[key] = Some(Slot { value: i, create, modified: revision, version: version + 1 });
        };
        match dice.below(10) {
            0..4 => {
                revision += 1;
                put(&mut slots, revision);
                writeln!(
                    out,
                    r#"{begin},"request":{{"put":{{"key":"k{key}","value":"{i}"}}}},"reply":{{"revision":{revision}}}}}"#
                )?;
            }
            4..8 => {
                // A stale read says an old revision: the store as it was before most of what is complete.
                let said =
                    if stale.is_some_and(|at| i >= at && i < at + 5) { revision - 100 } else { revision };
                let pairs = pairs(slots[key]);
                writeln!(
                    out,
                    r#"{begin},"request":{{"range":{{"key":"k{key}"}}}},"reply":{{"revision":{said},{pairs}}}}}"#
                )?;
            }
            8 => {
                let deleted = u64::from(slots[key].take().is_some());
                revision += deleted;
                writeln!(
                    out,
                    r#"{begin},"request":{{"delete":{{"key":"k{key}"}}}},"reply":{{"revision":{revision},"deleted":{deleted}}}}}"#
                )?;
            }
            _ => {
                let to = slots[key].map_or(0, |slot| slot.modified);
                let holds = dice.below(4) > 0;
                let (to, reply) = if holds {
                    revision += 1;
                    put(&mut slots, revision);
                    (to, r#"{"put":{}}"#.to_string())
                } else {
                    (to + 1_000_000_000, format!(r#"{{"range":{{{}}}}}"#, pairs(slots[key])))
                };
                writeln!(
                    out,
                    r#"{begin},"request":{{"txn":{{"compare":[{{"key":"k{key}","target":"mod","to":{to}}}],"then":[{{"put":{{"key":"k{key}","value":"{i}"}}}}],"else":[{{"range":{{"key":"k{key}"}}}}]}}}},"reply":{{"revision":{revision},"succeeded":{holds},"replies":[{reply}]}}}}"#
                )?;
            }
        }
    }
    Ok(())
}
