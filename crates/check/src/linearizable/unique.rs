//! Registers whose written values are unique: every read says which write it saw, so blocks can be told in one pass.
//!
//! A value's block is its write and its reads. A compare-and-set that succeeded reads one value and writes another with
//! nothing in between, so it chains two blocks into one (see [`super::blocks`]). Operations of unknown outcome belong to
//! the history only if someone saw what they wrote: leaving out a write that nobody saw never hurts. Declined, for the
//! search: values written twice, and answered failed comparisons, which say only what the value was not.

use hashbrown::HashMap;

use super::blocks::Member;
use super::{Impossible, Placement};
use crate::history::{Call, History, Outcome, Reply, Value};

/// What is known about one value of one key.
#[derive(Clone, Copy, Default)]
struct Known {
    /// Who wrote it; nobody for the initial value.
    writer: Option<u32>,
    /// The value that the writing compare-and-set replaced.
    replaced: Option<Value>,
    /// The compare-and-set that replaced it.
    replacer: Option<u32>,
    /// An operation that surely saw it.
    seen: Option<u32>,
    /// Block and depth in its chain, once known.
    place: Option<(u32, u32)>,
}

type Values = HashMap<Value, Known, foldhash::fast::FixedState>;

/// Places the operations of one register in blocks.
pub(super) fn place(history: &History, part: &[u32]) -> Placement {
    let mut values = match writers(history, part) {
        Ok(values) => values,
        Err(declined) => return declined,
    };
    if let Err(impossible) = sightings(history, part, &mut values) {
        return Placement::Impossible(impossible);
    }
    let mut members = Vec::with_capacity(part.len());
    let mut blocks = 1;
    for &i in part {
        let operation = &history.operations[i as usize];
        let (value, reading) = match (&operation.call, &operation.outcome) {
            (_, Outcome::Failed) => continue,
            (Call::Read, Outcome::Ok(Reply::Value(value))) => (*value, 1),
            (Call::Write(value) | Call::Cas { new: value, .. }, outcome) => {
                if *outcome == Outcome::Unknown && values[value].seen.is_none() {
                    continue;
                }
                (*value, 0)
            }
            _ => continue,
        };
        match block_of(history, &mut values, value, &mut blocks) {
            Some((block, depth)) => {
                members.push(Member { operation: i, block, position: 2 * depth + reading })
            }
            None => {
                let reason = "compare-and-sets replace one another's values in a circle".to_string();
                return Placement::Impossible(Impossible { operations: vec![i], reason });
            }
        }
    }
    Placement::Blocks { members, blocks: blocks as usize }
}

/// Who wrote each value, if every value has one writer and nothing else stands in the way.
fn writers(history: &History, part: &[u32]) -> Result<Values, Placement> {
    let mut values = Values::with_capacity_and_hasher(part.len() / 2, Default::default());
    values.insert(history.initial, Known { place: Some((0, 0)), ..Known::default() });
    for &i in part {
        let operation = &history.operations[i as usize];
        let (value, replaced) = match (&operation.call, &operation.outcome) {
            (_, Outcome::Failed) | (Call::Read, _) => continue,
            (Call::Cas { .. }, Outcome::Ok(Reply::Flag(false))) => {
                return Err(Placement::Declined("a failed comparison was answered"));
            }
            (Call::Write(value), _) => (*value, None),
            (Call::Cas { expected, new }, _) => (*new, Some(*expected)),
            _ => return Err(Placement::Declined("not only reads, writes and compare-and-sets")),
        };
        let known = values.entry(value).or_default();
        if known.writer.is_some() || value == history.initial {
            return Err(Placement::Declined("a value was written twice"));
        }
        (known.writer, known.replaced) = (Some(i), replaced);
    }
    Ok(values)
}

/// Who saw each value: reads, and the compare-and-sets that surely happened.
fn sightings(history: &History, part: &[u32], values: &mut Values) -> Result<(), Impossible> {
    let mut happened: Vec<u32> = Vec::new();
    for &i in part {
        let operation = &history.operations[i as usize];
        match (&operation.call, &operation.outcome) {
            (Call::Read, Outcome::Ok(Reply::Value(value))) => see(history, values, *value, i, &mut happened)?,
            (Call::Cas { .. }, Outcome::Ok(_)) => happened.push(i),
            _ => {}
        }
        while let Some(cas) = happened.pop() {
            let Call::Cas { expected, .. } = history.operations[cas as usize].call else { continue };
            match values.get(&expected).and_then(|known| known.replacer) {
                Some(other) if other == cas => continue,
                Some(other) => {
                    let reason = "two compare-and-sets replaced the same value, which was written only once"
                        .to_string();
                    return Err(Impossible { operations: vec![other.min(cas), other.max(cas)], reason });
                }
                None => {}
            }
            see(history, values, expected, cas, &mut happened)?;
            if let Some(known) = values.get_mut(&expected) {
                known.replacer = Some(cas);
            }
        }
    }
    Ok(())
}

/// `who` surely saw `value`; if an operation of unknown outcome wrote it, that one happened.
fn see(
    history: &History,
    values: &mut Values,
    value: Value,
    who: u32,
    happened: &mut Vec<u32>,
) -> Result<(), Impossible> {
    let initial = value == history.initial;
    match values.get_mut(&value) {
        Some(known) if known.writer.is_some() || initial => {
            if known.seen.is_none() {
                known.seen = Some(who);
                if let (Some(writer), Some(_)) = (known.writer, known.replaced)
                    && history.operations[writer as usize].is_unknown()
                {
                    happened.push(writer);
                }
            }
            Ok(())
        }
        _ => {
            let reason = format!("{} was seen, but nobody wrote it", history.value(value));
            Err(Impossible { operations: vec![who], reason })
        }
    }
}

/// The block of a value and its depth in the chain; `None` if the chain is a circle.
fn block_of(history: &History, values: &mut Values, value: Value, blocks: &mut u32) -> Option<(u32, u32)> {
    let mut chain = Vec::new();
    let mut at = value;
    let (block, mut depth) = loop {
        if let Some(place) = values[&at].place {
            break place;
        }
        if chain.len() > history.operations.len() {
            return None;
        }
        chain.push(at);
        match values[&at].replaced {
            Some(replaced) => at = replaced,
            None => {
                *blocks += 1;
                let place = (*blocks - 1, 0);
                values.get_mut(&at)?.place = Some(place);
                chain.pop();
                break place;
            }
        }
    };
    for value in chain.into_iter().rev() {
        depth += 1;
        values.get_mut(&value)?.place = Some((block, depth));
    }
    Some((block, depth))
}
