//! Leaders and logs: the properties of Raft's figure 3 that need not wait for anything to be applied.
//!
//! Election safety is checked at every change of role; log matching and leader completeness whenever somebody
//! becomes leader, over all logs in memory. Protocols without terms or logs simply have nothing to check.

use std::collections::BTreeMap;

use synod_core::{Index, NodeId};

use super::ledger::Broken;
use crate::family::LogEntry;

/// Who led when, and what was decided by which entries.
#[derive(Default)]
pub struct Leaders {
    by_term: BTreeMap<u64, NodeId>,
    /// What the logs said at places that were decided when somebody looked.
    committed: BTreeMap<Index, Committed>,
}

/// A decided entry.
#[derive(Clone, Copy, Debug)]
struct Committed {
    made_in: u64,
    digest: u64,
    /// It was decided in this term or before: the oldest term of those who knew of it. An entry may be decided long after the term that
    /// made it (figure 8), and a leader of a term between may come to lead still later, from votes that were under way.
    decided_by: u64,
}

impl Leaders {
    /// A replica thinks that it leads in this term.
    ///
    /// # Errors
    /// When another one led in it.
    pub fn leads(&mut self, node: NodeId, term: u64) -> Result<(), Broken> {
        match self.by_term.insert(term, node) {
            Some(other) if other != node => {
                Err(("election safety", format!("{other:?} and {node:?} both lead in term {term}")))
            }
            _ => Ok(()),
        }
    }

    /// The newest term that had a leader; 0 when none had.
    #[must_use]
    pub fn newest(&self) -> u64 {
        self.by_term.last_key_value().map_or(0, |(term, _)| *term)
    }

    /// How many terms had a leader.
    #[must_use]
    pub fn count(&self) -> usize {
        self.by_term.len()
    }

    /// Notes what is decided, from a log whose owner, in this term, knows everything up to `decided` to be so.
    ///
    /// # Errors
    /// When something else was decided at such a place before.
    pub fn note_committed(
        &mut self,
        node: NodeId,
        term: u64,
        log: &[LogEntry],
        decided: Index,
    ) -> Result<(), Broken> {
        for entry in log.iter().rev().skip_while(|entry| entry.at > decided) {
            let new = Committed { made_in: entry.term, digest: entry.digest, decided_by: term };
            let known = self.committed.entry(entry.at).or_insert(new);
            known.decided_by = known.decided_by.min(term);
            if (known.made_in, known.digest) != (entry.term, entry.digest) {
                return Err((
                    "state machine safety",
                    format!("{node:?} holds another decided entry at {:?} than was decided before", entry.at),
                ));
            }
            if self.committed.contains_key(&entry.at.previous()) && entry.at.0 % 16 != 0 {
                // Further down it was compared before, but for a sample.
                break;
            }
        }
        while self.committed.len() > COMMITTED_MAX {
            self.committed.pop_first();
        }
        Ok(())
    }

    /// Leader completeness: whoever becomes leader holds every entry decided so far (Raft 5.4.3). What lies before
    /// its log's first entry is in its snapshot, which the ledger judges.
    ///
    /// # Errors
    /// When one is missing.
    pub fn complete(&self, node: NodeId, term: u64, log: &[LogEntry]) -> Result<(), Broken> {
        let Some(first) = log.first() else { return Ok(()) };
        for (at, &Committed { made_in, digest, decided_by }) in self.committed.range(first.at..) {
            if decided_by >= term {
                continue;
            }
            let held = log.get((at.0 - first.at.0) as usize);
            if held.is_none_or(|held| (held.term, held.digest) != (made_in, digest)) {
                let what = format!(
                    "{node:?} leads in term {term} without the entry of term {made_in} at {at:?}, decided by term \
                     {decided_by}"
                );
                return Err(("leader completeness", what));
            }
        }
        Ok(())
    }
}

/// Only so many of the newest decided entries are remembered.
const COMMITTED_MAX: usize = 20_000;

/// Log matching: two logs that agree on a place and its term agree on everything before it (Raft 5.3).
///
/// # Errors
/// When they do not.
pub fn logs_match(a: (NodeId, &[LogEntry]), b: (NodeId, &[LogEntry])) -> Result<(), Broken> {
    let (Some(first_a), Some(first_b)) = (a.1.first(), b.1.first()) else { return Ok(()) };
    let from = first_a.at.max(first_b.at);
    let to = a.1[a.1.len() - 1].at.min(b.1[b.1.len() - 1].at);
    let entry = |log: &[LogEntry], at: u64| log[(at - log[0].at.0) as usize];
    let mut agreed = false;
    for at in (from.0..=to.0).rev() {
        let (x, y) = (entry(a.1, at), entry(b.1, at));
        agreed |= x.term == y.term;
        if agreed && x != y {
            return Err((
                "log matching",
                format!(
                    "{:?} and {:?} differ at {:?}, before a place where their terms agree",
                    a.0, b.0, x.at
                ),
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(terms: &[u64]) -> Vec<LogEntry> {
        let entry = |(place, term): (usize, &u64)| LogEntry {
            at: Index(place as u64 + 1),
            term: *term,
            digest: *term,
        };
        terms.iter().enumerate().map(entry).collect()
    }

    /// Logs may differ at their ends, but not before a place where their terms agree.
    #[test]
    fn a_broken_log_is_seen() {
        let (a, b) = (log(&[1, 1, 2]), log(&[1, 1, 3, 3]));
        assert_eq!(logs_match((NodeId(1), &a), (NodeId(2), &b)), Ok(()));
        let c = log(&[1, 2, 3, 3]);
        assert!(logs_match((NodeId(2), &b), (NodeId(3), &c)).is_err());
    }

    /// Two leaders in one term, and a leader without a decided entry, are seen.
    #[test]
    fn a_wrong_leader_is_seen() {
        let mut leaders = Leaders::default();
        assert_eq!(leaders.leads(NodeId(1), 2), Ok(()));
        assert!(leaders.leads(NodeId(2), 2).is_err());
        assert_eq!(leaders.note_committed(NodeId(1), 2, &log(&[1, 1]), Index(2)), Ok(()));
        assert_eq!(leaders.complete(NodeId(2), 3, &log(&[1, 1, 3])), Ok(()));
        assert!(leaders.complete(NodeId(2), 3, &log(&[1])).is_err());
        // One of the same term as those who decided, or before, need not have it.
        assert_eq!(leaders.complete(NodeId(2), 2, &log(&[1])), Ok(()));
    }
}
