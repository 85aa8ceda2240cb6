//! What a person may choose about causal broadcast, with units and limits.

use std::time::Duration;

/// The options. [`Options::check`] tells whether they fit together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// How often replicas tell one another what they hold, while there is news; without any a tenth as often.
    pub gossip: Duration,
    /// How long a cast may be under way before it is said again to who has not confirmed it, and before others than its origin say it.
    pub resend: Duration,
    /// A message stops growing once it holds so many bytes of casts; a larger one travels alone.
    pub cast_bytes_max: usize,
    /// Casts that all members have not confirmed stay in memory, and in checkpoints, up to this many bytes. A member that
    /// lacks what was dropped gets a snapshot.
    pub retain_bytes_max: usize,
    /// Casts that came before what they depend on wait, up to this many bytes; beyond it they are dropped, and said again
    /// later.
    pub waiting_bytes_max: usize,
    /// Casts that the own disk does not hold yet fill at most this many bytes: beyond it proposals are refused as busy, and others' casts
    /// ignored, which are then said again.
    pub backlog_bytes_max: usize,
    /// How many own casts may wait for the disk at once; what is proposed meanwhile becomes one cast. At least 1.
    pub inflight_max: usize,
    /// The time since 1970 at the replica's time zero: what its watch said then. Zero is allowed; the clock is then one of Lamport's
    /// that time pulls along.
    pub zero: Duration,
    /// The rule that is left out, to see whether tests notice.
    #[cfg(feature = "mutants")]
    pub mutant: Option<super::Mutant>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            gossip: Duration::from_millis(100),
            resend: Duration::from_millis(300),
            cast_bytes_max: 512 << 10,
            retain_bytes_max: 16 << 20,
            waiting_bytes_max: 16 << 20,
            backlog_bytes_max: 256 << 20,
            inflight_max: 2,
            zero: Duration::ZERO,
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
    /// Options with this gossip interval, and what follows from it in proportion.
    #[must_use]
    pub fn timed(gossip: Duration) -> Options {
        Options { gossip, resend: gossip * 3, ..Options::default() }
    }

    /// Sets the option `name` from text, as command lines and scripts write it: `150ms`, `2s`, `64`.
    ///
    /// False when there is no such option, or the value is none for it.
    pub fn set(&mut self, name: &str, value: &str) -> bool {
        let changed = match name.replace('-', "_").as_str() {
            "gossip" => duration(value).map(|it| self.gossip = it),
            "resend" => duration(value).map(|it| self.resend = it),
            "cast_bytes_max" => value.parse().ok().map(|it| self.cast_bytes_max = it),
            "retain_bytes_max" => value.parse().ok().map(|it| self.retain_bytes_max = it),
            "waiting_bytes_max" => value.parse().ok().map(|it| self.waiting_bytes_max = it),
            "backlog_bytes_max" => value.parse().ok().map(|it| self.backlog_bytes_max = it),
            "inflight_max" => value.parse().ok().map(|it| self.inflight_max = it),
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
        let rules = [
            (self.gossip.is_zero(), "gossip must be longer than zero"),
            (self.gossip > Duration::from_secs(3600), "gossip must be at most an hour"),
            (self.resend < self.gossip, "resend must be at least one round of gossip"),
            (self.resend > Duration::from_secs(3600), "resend must be at most an hour"),
            (self.cast_bytes_max == 0, "cast_bytes_max must be at least 1"),
            (self.waiting_bytes_max == 0, "waiting_bytes_max must be at least 1"),
            (self.backlog_bytes_max == 0, "backlog_bytes_max must be at least 1"),
            (self.inflight_max == 0, "inflight_max must be at least 1"),
            (self.zero > ZERO_MAX, "the clock says that it is later than the year 3000"),
        ];
        match rules.into_iter().find(|(broken, _)| *broken) {
            Some((_, rule)) => Err(OptionsError(rule)),
            None => Ok(()),
        }
    }
}

/// Clocks beyond this are wrong, and would leave no room for others to go on.
const ZERO_MAX: Duration = Duration::from_secs(32_503_680_000);

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

    /// Every option can be set by name, what is none is told, the defaults fit together and broken rules are named.
    #[test]
    fn options_are_set_by_name_and_checked() {
        let mut options = Options::default();
        assert_eq!(options.check(), Ok(()));
        assert!(options.set("gossip", "150ms") && options.set("retain-bytes-max", "7"));
        assert_eq!((options.gossip, options.retain_bytes_max), (Duration::from_millis(150), 7));
        assert!(!options.set("gossip", "soon") && !options.set("colour", "red"));
        options.resend = Duration::from_millis(100);
        assert_eq!(options.check(), Err(OptionsError("resend must be at least one round of gossip")));
    }
}
