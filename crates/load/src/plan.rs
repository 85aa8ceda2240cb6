//! What is to be run.

use std::net::SocketAddr;
use std::time::Duration;

/// What requests do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Writes a key.
    Put,
    /// Reads a key, linearizably.
    Get,
    /// Reads a key from the member that is asked, as it is there.
    SerializableGet,
    /// Writes and linearizable reads; so many reads in a hundred.
    Mixed {
        /// Reads, in percent.
        reads: u8,
    },
    /// Reads so many neighbouring keys, linearizably.
    Range {
        /// The most keys of one answer.
        limit: u64,
    },
    /// Compares a key's version, then writes it, or reads it.
    Txn,
    /// Grants a lease and revokes it: two calls, counted as one each.
    Lease,
}

impl Kind {
    /// The name on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Kind::Put => "put",
            Kind::Get => "get",
            Kind::SerializableGet => "get-serializable",
            Kind::Mixed { .. } => "mixed",
            Kind::Range { .. } => "range",
            Kind::Txn => "txn",
            Kind::Lease => "lease",
        }
    }
}

/// Which key a request takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Choice {
    /// Each equally often.
    Uniform,
    /// One after the other.
    Sequential,
    /// The k-th most popular one in proportion to 1 / k^s.
    Zipf(f64),
}

/// When requests begin.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pace {
    /// When one ends.
    Closed,
    /// So many a second over all connections, evenly spread.
    Open {
        /// Requests a second.
        rate: f64,
    },
}

/// When it ends: whichever comes first.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct End {
    /// After this time.
    pub after: Duration,
    /// After so many requests, warm-up excluded.
    pub requests: u64,
}

/// One run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Connections go to these in turn.
    pub endpoints: Vec<SocketAddr>,
    /// Connections, at least 1.
    pub connections: usize,
    /// Requests under way on each connection, at most.
    pub streams: usize,
    /// What requests do.
    pub kind: Kind,
    /// When they begin.
    pub pace: Pace,
    /// When it ends.
    pub end: End,
    /// What comes first and is not counted.
    pub warmup: Duration,
    /// How many keys there are.
    pub keys: u64,
    /// The length of a key, in bytes; at least as many as the number of the last key has digits.
    pub key_bytes: usize,
    /// The length of a value, in bytes.
    pub value_bytes: usize,
    /// Which key a request takes.
    pub choice: Choice,
    /// Where randomness starts.
    pub seed: u64,
    /// Requests of an open loop that may wait for a stream on each connection; more are dropped, and counted.
    pub backlog_max: usize,
}

impl Default for Plan {
    fn default() -> Self {
        Plan {
            endpoints: Vec::new(),
            connections: 1,
            streams: 1,
            kind: Kind::Put,
            pace: Pace::Closed,
            end: End { after: Duration::from_secs(10), requests: u64::MAX },
            warmup: Duration::from_secs(1),
            keys: 10_000,
            key_bytes: 16,
            value_bytes: 256,
            choice: Choice::Uniform,
            seed: 1,
            backlog_max: 100_000,
        }
    }
}

impl Plan {
    /// What is impossible about it, if anything.
    ///
    /// # Errors
    /// A sentence for whoever chose it.
    pub fn check(&self) -> Result<(), String> {
        let digits = self.keys.max(1).to_string().len();
        let no = |sentence: String| Err(sentence);
        match self {
            plan if plan.endpoints.is_empty() => no("no endpoint is given".to_owned()),
            plan if plan.connections == 0 || plan.streams == 0 => {
                no("connections and streams are at least 1".to_owned())
            }
            plan if plan.keys == 0 => no("there must be one key at least".to_owned()),
            plan if plan.key_bytes < digits => {
                no(format!("{} keys need names of {digits} bytes at least", plan.keys))
            }
            plan if plan.key_bytes > 1024 => no("a key has at most 1,024 bytes here".to_owned()),
            plan if plan.value_bytes > 16 << 20 => no("a value has at most 16 MiB here".to_owned()),
            Plan { pace: Pace::Open { rate }, .. } if !(0.1..=1e7).contains(rate) => {
                no(format!("a rate of {rate} a second is not between 0.1 and 10,000,000"))
            }
            Plan { kind: Kind::Mixed { reads }, .. } if *reads > 100 => {
                no(format!("{reads} % of reads: allowed is 0 to 100"))
            }
            Plan { choice: Choice::Zipf(s), .. } if !(0.01..=5.0).contains(s) => {
                no(format!("an exponent of {s} is not between 0.01 and 5"))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What cannot be run is refused by a sentence before anything is sent.
    #[test]
    fn impossible_plans() {
        let good = Plan { endpoints: vec![([127, 0, 0, 1], 1).into()], ..Plan::default() };
        assert_eq!(good.check(), Ok(()));
        let wrong = |change: fn(&mut Plan)| {
            let mut plan = good.clone();
            change(&mut plan);
            plan.check().unwrap_err()
        };
        assert!(wrong(|plan| plan.endpoints.clear()).contains("endpoint"));
        assert!(wrong(|plan| plan.streams = 0).contains("at least 1"));
        assert!(wrong(|plan| plan.key_bytes = 4).contains("5 bytes"));
        assert!(wrong(|plan| plan.pace = Pace::Open { rate: f64::NAN }).contains("rate"));
        assert!(wrong(|plan| plan.kind = Kind::Mixed { reads: 101 }).contains("101"));
        assert!(wrong(|plan| plan.choice = Choice::Zipf(9.0)).contains("exponent"));
    }
}
