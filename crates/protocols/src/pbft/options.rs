//! What a person may choose about PBFT, with units and limits.

use std::time::Duration;

use super::keys::Keys;

/// PBFT's options. [`Options::check`] tells whether they fit together. `checkpoint_every`, `snapshot_every` and
/// `snapshot_bytes` must be the same on all replicas: they decide where states are compared.
#[derive(Clone, Debug)]
pub struct Options {
    /// How long a replica waits for a request to be executed before it leaves the view; doubles with every view
    /// change that brings nothing, up to four times as much.
    pub view_timeout: Duration,
    /// How often a replica says how far it is, and what was lost is sent again.
    pub heartbeat: Duration,
    /// Sequence numbers between two checkpoints (the paper's K).
    pub checkpoint_every: u64,
    /// How far sequence numbers may run ahead of the last stable checkpoint (the paper's L). At least twice
    /// `checkpoint_every`.
    pub window: u64,
    /// Proposals that a primary has under way at once; requests that come meanwhile go together into the next.
    pub inflight_max: u64,
    /// Requests that a replica has under way for its own clients; what comes meanwhile goes together into the next.
    pub requests_max: usize,
    /// A proposal stops growing once it holds this many bytes; a larger request travels alone.
    pub proposal_bytes_max: usize,
    /// What waits at one replica for its own clients, in bytes; beyond it proposals are refused as busy.
    pub backlog_bytes_max: usize,
    /// A snapshot is due when so many deliveries came after the last one, and also so many bytes.
    pub snapshot_every: u64,
    /// See `snapshot_every`.
    pub snapshot_bytes: u64,
    /// Executed proposals below the last snapshot stay in memory, for replicas that lag, up to this many bytes.
    pub log_bytes_max: usize,
    /// This replica's secret key and the public keys of all.
    pub keys: Keys,
    /// The rule that is left out, to see whether tests notice.
    #[cfg(feature = "mutants")]
    pub mutant: Option<super::Mutant>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            view_timeout: Duration::from_secs(2),
            heartbeat: Duration::from_millis(200),
            checkpoint_every: 128,
            window: 512,
            inflight_max: 8,
            requests_max: 16,
            proposal_bytes_max: 1 << 20,
            backlog_bytes_max: 64 << 20,
            snapshot_every: 10_000,
            snapshot_bytes: 16 << 20,
            log_bytes_max: 16 << 20,
            keys: Keys::from_names(),
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
    /// Sets the option `name` from text, as command lines and scripts write it: `150ms`, `2s`, `64`.
    ///
    /// False when there is no such option, or the value is none for it.
    pub fn set(&mut self, name: &str, value: &str) -> bool {
        let changed = match name.replace('-', "_").as_str() {
            "view_timeout" => duration(value).map(|it| self.view_timeout = it),
            "heartbeat" => duration(value).map(|it| self.heartbeat = it),
            "checkpoint_every" => value.parse().ok().map(|it| self.checkpoint_every = it),
            "window" => value.parse().ok().map(|it| self.window = it),
            "inflight_max" => value.parse().ok().map(|it| self.inflight_max = it),
            "requests_max" => value.parse().ok().map(|it| self.requests_max = it),
            "proposal_bytes_max" => value.parse().ok().map(|it| self.proposal_bytes_max = it),
            "backlog_bytes_max" => value.parse().ok().map(|it| self.backlog_bytes_max = it),
            "snapshot_every" => value.parse().ok().map(|it| self.snapshot_every = it),
            "snapshot_bytes" => value.parse().ok().map(|it| self.snapshot_bytes = it),
            "log_bytes_max" => value.parse().ok().map(|it| self.log_bytes_max = it),
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
            (self.heartbeat.is_zero(), "heartbeat must be longer than zero"),
            (self.view_timeout < self.heartbeat * 2, "view_timeout must be at least two heartbeats"),
            (self.view_timeout > hour, "view_timeout must be at most an hour"),
            (self.checkpoint_every == 0, "checkpoint_every must be at least 1"),
            (self.window / 2 < self.checkpoint_every, "window must be at least twice checkpoint_every"),
            (self.window > WINDOW_MAX, "window must be at most 4096"),
            (self.inflight_max == 0, "inflight_max must be at least 1"),
            (self.requests_max == 0 || self.requests_max > 64, "requests_max must be 1 to 64"),
            (self.proposal_bytes_max == 0, "proposal_bytes_max must be at least 1"),
            (self.snapshot_every == 0, "snapshot_every must be at least 1"),
        ];
        match rules.into_iter().find(|(broken, _)| *broken) {
            Some((_, rule)) => Err(OptionsError(rule)),
            None => Ok(()),
        }
    }
}

/// No view change holds more claims than this.
pub(super) const WINDOW_MAX: u64 = 4096;

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

    /// Options are set by name, and what is no option, or no value for it, is told; broken rules are named.
    #[test]
    fn options_are_set_by_name_and_checked() {
        let mut options = Options::default();
        assert_eq!(options.check(), Ok(()));
        assert!(options.set("view-timeout", "150ms") && options.set("window", "64"));
        assert!(!options.set("heartbeat", "soon") && !options.set("colour", "red"));
        assert_eq!(options.check(), Err(OptionsError("view_timeout must be at least two heartbeats")));
        assert!(options.set("heartbeat", "10ms"));
        assert_eq!(options.check(), Err(OptionsError("window must be at least twice checkpoint_every")));
    }
}
