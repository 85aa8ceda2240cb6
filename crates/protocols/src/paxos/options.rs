//! What a person may choose about Paxos, with units and limits.

use std::time::Duration;

/// Paxos' options. [`Options::check`] tells whether they fit together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// A proposer says again what was not answered for so long.
    pub retry: Duration,
    /// A slot that stays open for so long while later ones wait behind it is taken up by whoever notices; with
    /// [`jitter`](Options::jitter) up to twice as long.
    pub patience: Duration,
    /// How often a replica says how far it has come.
    pub gossip: Duration,
    /// A proposer that was outbid after it had proposed a value waits up to so long before it outbids in turn; twice as long
    /// each further time.
    pub backoff_min: Duration,
    /// It never waits longer than this.
    pub backoff_max: Duration,
    /// Whether waits are random. Without, an outbid proposer outbids at once: two of them can duel for ever (Paxos Made
    /// Simple, 2.4), which is what this switch is there to show.
    pub jitter: bool,
    /// How many slots a proposer may have its own values in at a time; what else comes gathers into larger batches.
    /// At most [`ALPHA`](super::ALPHA) have an effect.
    pub inflight_max: usize,
    /// A value that is gathered from several batches stops growing at so many bytes.
    pub batch_bytes_max: usize,
    /// An answer to Learn stops growing once it holds this many bytes; a larger value travels alone.
    pub learn_bytes_max: usize,
    /// Delivered values stay in memory, for replicas that lag, up to this many bytes. Who needs older ones gets a snapshot.
    pub log_bytes_max: usize,
    /// Proposals that wait for a slot fill at most this many bytes; past it they are refused as busy. An acceptor that holds
    /// so much takes nothing beyond its own window.
    pub backlog_bytes_max: usize,
    /// The rule that is left out, to see whether tests notice.
    #[cfg(feature = "mutants")]
    pub mutant: Option<super::Mutant>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            retry: Duration::from_millis(100),
            patience: Duration::from_millis(200),
            gossip: Duration::from_millis(100),
            backoff_min: Duration::from_millis(5),
            backoff_max: Duration::from_millis(500),
            jitter: true,
            inflight_max: 4,
            batch_bytes_max: 1 << 20,
            learn_bytes_max: 512 << 10,
            log_bytes_max: 16 << 20,
            backlog_bytes_max: 256 << 20,
            #[cfg(feature = "mutants")]
            mutant: None,
        }
    }
}

/// Why options do not fit together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OptionsError(pub &'static str);

impl std::fmt::Display for OptionsError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for OptionsError {}

impl Options {
    /// Options with this time before a message is said again, and everything that follows from it in proportion.
    #[must_use]
    pub fn timed(retry: Duration) -> Options {
        Options {
            retry,
            patience: retry * 2,
            gossip: retry,
            backoff_min: retry / 20,
            backoff_max: retry * 5,
            ..Options::default()
        }
    }

    /// Sets the option `name` from text, as command lines and scripts write it: `150ms`, `2s`, `64`, `on`, `off`.
    ///
    /// False when there is no such option, or the value is none for it.
    pub fn set(&mut self, name: &str, value: &str) -> bool {
        let changed = match name.replace('-', "_").as_str() {
            "retry" => duration(value).map(|it| self.retry = it),
            "patience" => duration(value).map(|it| self.patience = it),
            "gossip" => duration(value).map(|it| self.gossip = it),
            "backoff_min" => duration(value).map(|it| self.backoff_min = it),
            "backoff_max" => duration(value).map(|it| self.backoff_max = it),
            "jitter" => switch(value).map(|it| self.jitter = it),
            "inflight_max" => value.parse().ok().map(|it| self.inflight_max = it),
            "batch_bytes_max" => value.parse().ok().map(|it| self.batch_bytes_max = it),
            "learn_bytes_max" => value.parse().ok().map(|it| self.learn_bytes_max = it),
            "log_bytes_max" => value.parse().ok().map(|it| self.log_bytes_max = it),
            "backlog_bytes_max" => value.parse().ok().map(|it| self.backlog_bytes_max = it),
            #[cfg(feature = "mutants")]
            "mutant" => {
                let found = super::Mutant::ALL.iter().find(|mutant| mutant.name() == value);
                found.map(|it| self.mutant = Some(*it))
            }
            _ => None,
        };
        changed.is_some()
    }

    /// Whether the options fit together.
    ///
    /// # Errors
    /// [`OptionsError`] says which rule is broken.
    pub fn check(&self) -> Result<(), OptionsError> {
        let hour = Duration::from_secs(3600);
        let rules = [
            (self.retry.is_zero() || self.retry > hour, "retry must be above zero and at most an hour"),
            (self.patience < self.retry, "patience must be at least as long as retry"),
            (self.patience > hour, "patience must be at most an hour"),
            (self.gossip.is_zero() || self.gossip > hour, "gossip must be above zero and at most an hour"),
            (self.backoff_min.is_zero(), "backoff_min must be above zero"),
            (self.backoff_max < self.backoff_min, "backoff_max must be at least as long as backoff_min"),
            (self.backoff_max > hour, "backoff_max must be at most an hour"),
            (self.inflight_max == 0, "inflight_max must be at least 1"),
            (self.batch_bytes_max == 0, "batch_bytes_max must be at least 1"),
            (self.learn_bytes_max == 0, "learn_bytes_max must be at least 1"),
            (
                self.backlog_bytes_max / 2 < self.log_bytes_max,
                "backlog_bytes_max must be at least twice log_bytes_max",
            ),
        ];
        match rules.into_iter().find(|(broken, _)| *broken) {
            Some((_, rule)) => Err(OptionsError(rule)),
            None => Ok(()),
        }
    }
}

fn switch(value: &str) -> Option<bool> {
    match value {
        "on" | "true" => Some(true),
        "off" | "false" => Some(false),
        _ => None,
    }
}

fn duration(value: &str) -> Option<Duration> {
    let digits = value.find(|c: char| !c.is_ascii_digit())?;
    let number: u64 = value[..digits].parse().ok()?;
    match &value[digits..] {
        "us" => Some(Duration::from_micros(number)),
        "ms" => Some(Duration::from_millis(number)),
        "s" => Some(Duration::from_secs(number)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every option can be set by name, and what is no option, or no value for it, is told.
    #[test]
    fn options_are_set_by_name() {
        let mut options = Options::default();
        assert!(options.set("backoff-min", "150ms") && options.set("jitter", "off"));
        assert_eq!((options.backoff_min, options.jitter), (Duration::from_millis(150), false));
        assert!(options.set("inflight_max", "3") && options.inflight_max == 3);
        assert!(!options.set("retry", "soon") && !options.set("retry", "10"));
        assert!(!options.set("colour", "red") && !options.set("jitter", "maybe"));
    }

    /// The defaults fit together, and so do those in proportion; each broken rule is named.
    #[test]
    fn broken_rules_are_named() {
        assert_eq!(Options::default().check(), Ok(()));
        assert_eq!(Options::timed(Duration::from_millis(7)).check(), Ok(()));
        let window = Options { inflight_max: 0, ..Options::default() };
        assert_eq!(window.check(), Err(OptionsError("inflight_max must be at least 1")));
    }
}
