//! What a person may choose about Raft, with units and limits.

use std::time::Duration;

/// Raft's options. [`Options::check`] tells whether they fit together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// How long a follower waits at least for its leader, and a leader for a quorum (with
    /// [`check_quorum`](Options::check_quorum)). At least twice the heartbeat; ten times is usual.
    pub election_timeout: Duration,
    /// The width of the random part: a follower waits between `election_timeout` and `election_timeout +
    /// election_jitter`. Too little and votes are split (figure 16 of the paper).
    pub election_jitter: Duration,
    /// How often a leader speaks at least.
    pub heartbeat: Duration,
    /// Ask whether votes would be given before asking for votes: a replica that comes back from a partition
    /// disturbs nobody (Ongaro's thesis, 9.6).
    pub pre_vote: bool,
    /// A replica that was just opened does not wait for a whole election timeout (etcd's `--initial-election-tick-advance`): it
    /// asks within a heartbeat whether it would be elected, and again every one to three heartbeats during its first election
    /// timeout, because where all are being restarted the others come one by one. Has an effect with `pre_vote` alone, without
    /// which it would disturb a leader that is slow to speak, and without `lease_reads`.
    pub eager_start: bool,
    /// A leader that has not heard of a quorum for an election timeout steps down; a follower that has heard
    /// of a leader within that time gives no vote against it (thesis, 6.2 and 4.2.3).
    pub check_quorum: bool,
    /// Serve linearizable reads by the leader's lease, without a round of messages. Correct only while clocks
    /// drift less than [`clock_drift_max`](Options::clock_drift_max); needs `check_quorum`.
    pub lease_reads: bool,
    /// How far two replicas' clocks may run apart within one election timeout. The lease is shorter by so
    /// much. Below the election timeout.
    pub clock_drift_max: Duration,
    /// An append message stops growing once it holds this many bytes; a larger entry travels alone.
    pub append_bytes_max: usize,
    /// How many append messages may be under way to one peer; further entries wait for answers. At least 1.
    pub inflight_max: usize,
    /// Delivered entries stay in memory, for peers that lag, up to this many bytes. A peer that needs older
    /// ones gets a snapshot.
    pub log_bytes_max: usize,
    /// Entries that must not be dropped yet (not decided, or above a snapshot that is being written) fill at
    /// most this many bytes. Past it a leader refuses proposals as busy, and at twice as much a follower
    /// ignores appends, which are then sent again. At least twice `log_bytes_max`.
    pub backlog_bytes_max: usize,
    /// A leader whose own records have not become durable for so long steps down, and a replica in this
    /// state does not campaign until its disk moves again.
    pub disk_stuck_after: Duration,
    /// The rule that is left out, to see whether tests notice.
    #[cfg(feature = "mutants")]
    pub mutant: Option<super::Mutant>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            election_timeout: Duration::from_secs(1),
            election_jitter: Duration::from_secs(1),
            heartbeat: Duration::from_millis(100),
            pre_vote: true,
            eager_start: false,
            check_quorum: true,
            lease_reads: false,
            clock_drift_max: Duration::from_millis(100),
            append_bytes_max: 512 << 10,
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
            clock_drift_max: election_timeout / 10,
            disk_stuck_after: election_timeout * 2,
            ..Options::default()
        }
    }

    /// Sets the option `name` from text, as command lines and scripts write it: `150ms`, `2s`, `64`, `on`, `off`.
    ///
    /// False when there is no such option, or the value is none for it.
    pub fn set(&mut self, name: &str, value: &str) -> bool {
        let changed = match name.replace('-', "_").as_str() {
            "election_timeout" => duration(value).map(|it| self.election_timeout = it),
            "election_jitter" => duration(value).map(|it| self.election_jitter = it),
            "heartbeat" => duration(value).map(|it| self.heartbeat = it),
            "pre_vote" => switch(value).map(|it| self.pre_vote = it),
            "eager_start" => switch(value).map(|it| self.eager_start = it),
            "check_quorum" => switch(value).map(|it| self.check_quorum = it),
            "lease_reads" => switch(value).map(|it| self.lease_reads = it),
            "clock_drift_max" => duration(value).map(|it| self.clock_drift_max = it),
            "append_bytes_max" => value.parse().ok().map(|it| self.append_bytes_max = it),
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
        let rules = [
            (self.heartbeat.is_zero(), "heartbeat must be longer than zero"),
            (self.election_timeout < self.heartbeat * 2, "election_timeout must be at least two heartbeats"),
            (self.election_timeout > Duration::from_secs(3600), "election_timeout must be at most an hour"),
            (self.election_jitter > Duration::from_secs(3600), "election_jitter must be at most an hour"),
            (self.lease_reads && !self.check_quorum, "lease_reads needs check_quorum"),
            (
                self.lease_reads && self.clock_drift_max >= self.election_timeout,
                "clock_drift_max must be below election_timeout",
            ),
            (self.append_bytes_max == 0, "append_bytes_max must be at least 1"),
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
        assert!(options.set("election-timeout", "150ms") && options.set("pre_vote", "off"));
        assert_eq!((options.election_timeout, options.pre_vote), (Duration::from_millis(150), false));
        assert!(options.set("inflight_max", "3") && options.inflight_max == 3);
        assert!(!options.set("heartbeat", "soon") && !options.set("heartbeat", "10"));
        assert!(!options.set("colour", "red") && !options.set("lease_reads", "maybe"));
    }

    /// The defaults fit together, and each broken rule is named.
    #[test]
    fn broken_rules_are_named() {
        assert_eq!(Options::default().check(), Ok(()));
        let lease = Options { lease_reads: true, check_quorum: false, ..Options::default() };
        assert_eq!(lease.check(), Err(OptionsError("lease_reads needs check_quorum")));
        let window = Options { inflight_max: 0, ..Options::default() };
        assert_eq!(window.check(), Err(OptionsError("inflight_max must be at least 1")));
    }
}
