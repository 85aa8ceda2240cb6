//! Every algorithm agrees with the definitions on random tiny histories; where one does not, the history is shrunk and printed.

use synod_check::brute;
use synod_check::budget::Budget;
use synod_check::causal;
use synod_check::eventual;
use synod_check::generate::{Random, tiny};
use synod_check::history::{Call, History};
use synod_check::reads_from::ReadsFrom;
use synod_check::sequential;
use synod_check::verdict::Level;

const HISTORIES: u64 = if cfg!(debug_assertions) { 3_000 } else { 100_000 };

/// What an algorithm says: whether the level holds.
type Judge = fn(&History, Level) -> Option<bool>;

fn by_patterns(history: &History, level: Level) -> Option<bool> {
    let reads_from = ReadsFrom::of(history).ok()?;
    causal::violates(&reads_from, level, &Budget::default()).ok().map(|violates| !violates)
}

fn by_gradual_checking(history: &History, _: Level) -> Option<bool> {
    let reads_from = ReadsFrom::of(history).ok()?;
    sequential::violates(&reads_from, &Budget::default()).ok().map(|violates| !violates)
}

fn by_last_reads(history: &History, _: Level) -> Option<bool> {
    assert_eq!(brute::last_reads_agree(history), Some(eventual::last_reads_agree(history)));
    eventual::check(history, &Budget::default()).0.decided()
}

fn spelt(history: &History) -> String {
    let mut out = String::new();
    for op in &history.operations {
        let what = match &op.call {
            Call::Read => {
                format!("read {}", op.value_read().map_or(String::new(), |v| history.value(v).to_string()))
            }
            Call::Write(value) => format!("write {}", history.value(*value)),
            Call::Cas { expected, new } => {
                format!("cas {} {}", history.value(*expected), history.value(*new))
            }
            other => format!("{other:?}"),
        };
        let (process, key) = (history.process(op.process), history.key(op.key));
        out += &format!("  {process} {key} {what}   [{}, {}]\n", op.invoked, op.completed);
    }
    out
}

fn assert_agreement(level: Level, judge: Judge) {
    let mut holding = 0;
    for seed in 0..HISTORIES {
        let history = tiny(&mut Random::new(seed));
        let disagree = |history: &History| {
            let (ours, theirs) = (judge(history, level), brute::holds(history, level));
            ours.is_some() && theirs.is_some() && ours != theirs
        };
        if disagree(&history) {
            let mut keep: Vec<u32> = (0..history.operations.len() as u32).collect();
            let mut at = 0;
            while at < keep.len() {
                let mut fewer = keep.clone();
                fewer.remove(at);
                if disagree(&history.restricted(&fewer)) { keep = fewer } else { at += 1 }
            }
            let small = history.restricted(&keep);
            panic!(
                "{}: the algorithm says {:?}, the definition {:?}, for seed {seed}:\n{}",
                level.name(),
                judge(&small, level),
                brute::holds(&small, level),
                spelt(&small)
            );
        }
        holding += u64::from(brute::holds(&history, level) == Some(true));
    }
    let fewest = holding.min(HISTORIES - holding);
    assert!(fewest >= HISTORIES / 500, "{}: {holding} of {HISTORIES} hold; see both sides", level.name());
}

macro_rules! agreement {
    ($($name:ident $level:ident $judge:ident;)*) => { $(
        #[test]
        fn $name() {
            assert_agreement(Level::$level, $judge);
        }
    )* };
}

agreement! {
    sequential_consistency_agrees_with_its_definition Sequential by_gradual_checking;
    convergence_at_rest_agrees_with_its_definition Eventual by_last_reads;
    weak_causal_agrees_with_its_definition Causal by_patterns;
    causal_memory_agrees_with_its_definition CausalMemory by_patterns;
    causal_convergence_agrees_with_its_definition CausalConvergence by_patterns;
    pipelined_memory_agrees_with_its_definition Pram by_patterns;
    read_your_writes_agrees_with_its_definition ReadYourWrites by_patterns;
    monotonic_reads_agrees_with_its_definition MonotonicReads by_patterns;
    monotonic_writes_agrees_with_its_definition MonotonicWrites by_patterns;
    writes_follow_reads_agrees_with_its_definition WritesFollowReads by_patterns;
}
