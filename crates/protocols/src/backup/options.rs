//! What a person may choose about primary-backup, with units and limits.

use std::time::Duration;

use super::Replication;

/// Primary-backup's options. [`Options::check`] tells whether they fit together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// When a write is decided. A view keeps what it began with; the next one goes by its proposer's choice.
    pub replication: Replication,
    /// How often a primary speaks at least.
    pub heartbeat: Duration,
    /// How long a member waits at least for its primary before it seeks another, and a primary for a majority before it
    /// steps down. For so long after it confirmed a heartbeat, a member helps nobody else to power.
    pub election_timeout: Duration,
    /// The width of the random part: a member waits between `election_timeout` and `election_timeout + election_jitter`.
    pub election_jitter: Duration,
    /// A backup that owes the primary something, and has not got any further for so long, is left out of the next view.
    /// Until then, under synchronous replication, it blocks every write.
    pub backup_timeout: Duration,
    /// Serve linearizable reads by the primary's lease, without a round of messages. Asynchronous primaries always do,
    /// because they need the lease for their writes.
    pub lease_reads: bool,
    /// How far two replicas' clocks may run apart within one election timeout. The lease is shorter by so much.
    pub clock_drift_max: Duration,
    /// What becomes of linearizable reads once a failover may have lost decided writes.
    pub after_loss: AfterLoss,
    /// A message stops growing once its entries hold this many bytes; a larger entry travels alone.
    pub replicate_bytes_max: usize,
    /// How many messages with entries may be under way to one backup; at least 1.
    pub inflight_max: usize,
    /// Delivered entries stay in memory, for backups that lag, up to this many bytes. One that needs older ones gets a
    /// snapshot.
    pub log_bytes_max: usize,
    /// Entries that must not be dropped yet fill at most this many bytes. Past it a primary refuses proposals as busy. At
    /// least twice `log_bytes_max`.
    pub backlog_bytes_max: usize,
    /// A primary whose own records have not become durable for so long steps down.
    pub disk_stuck_after: Duration,
    /// The rule that is left out, to see whether tests notice.
    #[cfg(feature = "mutants")]
    pub mutant: Option<super::Mutant>,
}

/// What becomes of linearizable reads once a failover may have lost decided writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum AfterLoss {
    /// They are refused: a client may have seen what is gone.
    #[default]
    Refuse,
    /// They are served: whoever sets this has taken note, and history begins anew with the view that lost.
    Serve,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            replication: Replication::Sync,
            heartbeat: Duration::from_millis(100),
            election_timeout: Duration::from_secs(1),
            election_jitter: Duration::from_secs(1),
            backup_timeout: Duration::from_secs(1),
            lease_reads: false,
            clock_drift_max: Duration::from_millis(100),
            after_loss: AfterLoss::Refuse,
            replicate_bytes_max: 512 << 10,
            inflight_max: 64,
            log_bytes_max: 16 << 20,
            backlog_bytes_max: 256 << 20,
            disk_stuck_after: Duration::from_secs(2),
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
    /// Options with these timings, and everything that follows from them in proportion.
    #[must_use]
    pub fn timed(heartbeat: Duration, election_timeout: Duration) -> Options {
        Options {
            heartbeat,
            election_timeout,
            election_jitter: election_timeout,
            backup_timeout: election_timeout,
            clock_drift_max: election_timeout / 10,
            disk_stuck_after: election_timeout * 2,
            ..Options::default()
        }
    }

    /// Whether a primary goes by its lease: for its writes, its reads, or both.
    pub(super) fn lease(&self) -> Duration {
        self.election_timeout.saturating_sub(self.clock_drift_max)
    }

    /// Sets the option `name` from text, as command lines and scripts write it: `150ms`, `2s`, `64`, `on`, `async`.
    ///
    /// False when there is no such option, or the value is none for it.
    pub fn set(&mut self, name: &str, value: &str) -> bool {
        let changed = match name.replace('-', "_").as_str() {
            "replication" => replication(value).map(|it| self.replication = it),
            "after_loss" => after_loss(value).map(|it| self.after_loss = it),
            "heartbeat" => duration(value).map(|it| self.heartbeat = it),
            "election_timeout" => duration(value).map(|it| self.election_timeout = it),
            "election_jitter" => duration(value).map(|it| self.election_jitter = it),
            "backup_timeout" => duration(value).map(|it| self.backup_timeout = it),
            "lease_reads" => switch(value).map(|it| self.lease_reads = it),
            "clock_drift_max" => duration(value).map(|it| self.clock_drift_max = it),
            "replicate_bytes_max" => value.parse().ok().map(|it| self.replicate_bytes_max = it),
            "inflight_max" => value.parse().ok().map(|it| self.inflight_max = it),
            "log_bytes_max" => value.parse().ok().map(|it| self.log_bytes_max = it),
            "backlog_bytes_max" => value.parse().ok().map(|it| self.backlog_bytes_max = it),
            "disk_stuck_after" => duration(value).map(|it| self.disk_stuck_after = it),
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
        let leases = self.lease_reads || self.replication == Replication::Async;
        let rules = [
            (self.heartbeat.is_zero(), "heartbeat must be longer than zero"),
            (self.election_timeout < self.heartbeat * 2, "election_timeout must be at least two heartbeats"),
            (self.election_timeout > hour, "election_timeout must be at most an hour"),
            (self.election_jitter > hour, "election_jitter must be at most an hour"),
            (self.backup_timeout < self.heartbeat * 2, "backup_timeout must be at least two heartbeats"),
            (self.backup_timeout > hour, "backup_timeout must be at most an hour"),
            (
                leases && self.clock_drift_max >= self.election_timeout,
                "clock_drift_max must be below election_timeout",
            ),
            (self.replicate_bytes_max == 0, "replicate_bytes_max must be at least 1"),
            (self.inflight_max == 0, "inflight_max must be at least 1"),
            (
                self.backlog_bytes_max / 2 < self.log_bytes_max,
                "backlog_bytes_max must be at least twice log_bytes_max",
            ),
            (self.disk_stuck_after < self.heartbeat, "disk_stuck_after must be at least one heartbeat"),
        ];
        match rules.into_iter().find(|(broken, _)| *broken) {
            Some((_, rule)) => Err(OptionsError(rule)),
            None => Ok(()),
        }
    }
}

fn replication(value: &str) -> Option<Replication> {
    match value {
        "sync" => Some(Replication::Sync),
        "async" => Some(Replication::Async),
        _ => None,
    }
}

fn after_loss(value: &str) -> Option<AfterLoss> {
    match value {
        "refuse" => Some(AfterLoss::Refuse),
        "serve" => Some(AfterLoss::Serve),
        _ => None,
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
        assert!(options.set("backup-timeout", "150ms") && options.set("replication", "async"));
        assert_eq!(
            (options.backup_timeout, options.replication),
            (Duration::from_millis(150), Replication::Async)
        );
        assert!(options.set("after-loss", "serve") && options.after_loss == AfterLoss::Serve);
        assert!(!options.set("heartbeat", "soon") && !options.set("replication", "both"));
        assert!(!options.set("colour", "red") && !options.set("lease_reads", "maybe"));
    }

    /// The defaults fit together, and each broken rule is named.
    #[test]
    fn broken_rules_are_named() {
        assert_eq!(Options::default().check(), Ok(()));
        let lease = Options {
            replication: Replication::Async,
            clock_drift_max: Duration::from_secs(1),
            ..Options::default()
        };
        assert_eq!(lease.check(), Err(OptionsError("clock_drift_max must be below election_timeout")));
        let window = Options { inflight_max: 0, ..Options::default() };
        assert_eq!(window.check(), Err(OptionsError("inflight_max must be at least 1")));
    }
}
