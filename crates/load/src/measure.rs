//! What a run measures: latencies as a histogram, and what happened second by second.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;

/// Different errors that are told apart; the rest are "others".
const ERRORS_MAX: usize = 20;
/// Latencies above this count as this.
const LATENCY_MAX_NS: u64 = 600_000_000_000;

/// The account of one run, or of a part of it.
#[derive(Clone, Debug)]
pub struct Meter {
    /// Nanoseconds from the (intended) start to the end, of what went well.
    pub latencies: Histogram<u64>,
    /// What went well in each second, counted from the measured part's beginning.
    pub seconds: Vec<u64>,
    /// What went wrong, by what was said.
    pub errors: BTreeMap<String, u64>,
    /// Requests that an open loop could not even begin.
    pub dropped: u64,
    /// Bytes of answers.
    pub bytes: u64,
}

impl Default for Meter {
    fn default() -> Self {
        let latencies =
            Histogram::new_with_bounds(1, LATENCY_MAX_NS, 3).expect("three digits fit these bounds");
        Meter { latencies, seconds: Vec::new(), errors: BTreeMap::new(), dropped: 0, bytes: 0 }
    }
}

impl Meter {
    /// A request went well, so long after the measured part's beginning.
    pub fn well(&mut self, at: Duration, latency: Duration, bytes: u64) {
        let nanos = u64::try_from(latency.as_nanos()).unwrap_or(LATENCY_MAX_NS);
        self.latencies.saturating_record(nanos.clamp(1, LATENCY_MAX_NS));
        let second = at.as_secs() as usize;
        if self.seconds.len() <= second {
            self.seconds.resize(second + 1, 0);
        }
        self.seconds[second] += 1;
        self.bytes += bytes;
    }

    /// A request failed.
    pub fn badly(&mut self, what: &str) {
        let known = self.errors.len() < ERRORS_MAX || self.errors.contains_key(what);
        *self.errors.entry(if known { what } else { "others" }.to_owned()).or_default() += 1;
    }

    /// Takes another account in.
    pub fn merge(&mut self, other: &Meter) {
        self.latencies.add(&other.latencies).expect("both have the same bounds");
        if self.seconds.len() < other.seconds.len() {
            self.seconds.resize(other.seconds.len(), 0);
        }
        self.seconds.iter_mut().zip(&other.seconds).for_each(|(own, more)| *own += more);
        for (what, count) in &other.errors {
            *self.errors.entry(what.clone()).or_default() += count;
        }
        self.dropped += other.dropped;
        self.bytes += other.bytes;
    }

    /// How many went well.
    #[must_use]
    pub fn succeeded(&self) -> u64 {
        self.latencies.len()
    }

    /// How many went wrong.
    #[must_use]
    pub fn failed(&self) -> u64 {
        self.errors.values().sum()
    }

    /// The latency that so many in a hundred stayed below.
    #[must_use]
    pub fn percentile(&self, percent: f64) -> Duration {
        Duration::from_nanos(self.latencies.value_at_quantile(percent / 100.0))
    }
}
