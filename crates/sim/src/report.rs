//! What a campaign came to: figures that add up, over seeds and over shards.
//!
//! A report is written as JSON, one object; [`Report::merge`] adds the reports of shards up, and refuses to mix what does not
//! belong together. Of every seed its trace hash is kept: two machines that disagree about one have found a bug in
//! the simulator itself.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use crate::family::Family;
use crate::oracle::Violation;
use crate::oracle::history::Judged;
use crate::shrink;
use crate::swarm::{WishError, Wishes};
use crate::world::{LIVENESS_ELECTIONS_MAX, Outcome, Recovery};

/// The figures of a campaign.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Which protocol.
    pub protocol: String,
    /// The faults that seeds could draw from.
    pub faults_allowed: String,
    /// How many replicas were asked for; none: drawn per seed.
    pub nodes: Option<u64>,
    /// The length of each safety phase, in seconds.
    pub safety_seconds: f64,
    /// Each seed and its trace hash.
    pub seeds: Vec<Seed>,
    /// What failed.
    pub failures: Vec<Failure>,
    /// Time simulated, in seconds.
    pub simulated_seconds: f64,
    /// Plain counts by name.
    pub counts: BTreeMap<String, u64>,
    /// Faults carried out, by kind.
    pub faults: BTreeMap<String, u64>,
    /// Partitions, by shape and number of replicas.
    #[serde(default)]
    pub partitions: BTreeMap<String, u64>,
    /// Crash points: how often each site was passed, and how often the power was cut there.
    pub crash_points: BTreeMap<String, CrashPoint>,
    /// The slowest recovery of a healed core, in election timeouts.
    pub worst_recovery_elections: f64,
    /// All recoveries together, in election timeouts.
    pub recovery_elections: f64,
}

/// One seed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seed {
    /// Which.
    pub seed: u64,
    /// The digest over everything that happened, in hexadecimal.
    pub hash: String,
}

/// One crash point.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CrashPoint {
    /// How often it was passed.
    pub passed: u64,
    /// How often the power was cut there.
    pub cut: u64,
}

/// One failing seed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Which seed.
    pub seed: u64,
    /// Which property broke.
    pub property: String,
    /// What was seen.
    pub what: String,
    /// The command that replays it as it was found.
    pub replay: String,
    /// The command that replays it with the fewest faults.
    pub smallest: String,
    /// How many single faults are left in that.
    pub faults_left: usize,
}

impl Failure {
    /// Shrinks a failing seed and says how to replay it.
    ///
    /// # Errors
    /// When the wishes cannot be met.
    pub fn of<F: Family>(seed: u64, wishes: &Wishes, violation: &Violation) -> Result<Failure, WishError> {
        let shrunk = shrink::shrink::<F>(seed, wishes, violation)?;
        Ok(Failure {
            seed,
            property: violation.property.to_owned(),
            what: violation.what.clone(),
            replay: command(F::NAME, seed, wishes),
            smallest: command(F::NAME, seed, &shrunk.wishes),
            faults_left: shrunk.faults,
        })
    }
}

/// The command that runs a seed under these wishes.
#[must_use]
pub fn command(protocol: &str, seed: u64, wishes: &Wishes) -> String {
    let mut line = format!("synod simulate --protocol {protocol} --seed {seed}");
    if let Some(nodes) = wishes.nodes {
        let _ = write!(line, " --nodes {nodes}");
    }
    let _ = write!(line, " --faults={} --seconds {}", wishes.faults, wishes.safety.as_secs());
    for (name, value) in &wishes.options {
        let _ = write!(line, " --option {name}={value}");
    }
    if let Some(liars) = wishes.liars {
        let _ = write!(line, " --liars {liars}");
    }
    if let Some(keep) = &wishes.keep {
        let numbers: Vec<String> = keep.iter().map(ToString::to_string).collect();
        let _ = write!(line, " --keep={}", numbers.join(","));
    }
    line
}

/// Why reports do not add up.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MergeError {
    /// They speak of different campaigns.
    #[error("the reports differ in their {what}: `{one}` and `{other}`")]
    Different {
        /// In what.
        what: &'static str,
        /// The first's.
        one: String,
        /// The other's.
        other: String,
    },
    /// One seed is in two reports, with different hashes.
    #[error("seed {seed} has the trace hashes {one} and {other}: the same seed must happen alike everywhere")]
    Hash {
        /// Which seed.
        seed: u64,
        /// The first's hash.
        one: String,
        /// The other's.
        other: String,
    },
    /// There is nothing to add up.
    #[error("no reports")]
    Nothing,
}

impl Report {
    /// A report on no seeds yet.
    #[must_use]
    pub fn new(protocol: &str, wishes: &Wishes) -> Report {
        Report {
            protocol: protocol.to_owned(),
            faults_allowed: wishes.faults.to_string(),
            nodes: wishes.nodes,
            safety_seconds: wishes.safety.as_secs_f64(),
            ..Report::default()
        }
    }

    fn count(&mut self, name: &str, more: u64) {
        *self.counts.entry(name.to_owned()).or_default() += more;
    }

    /// Adds one seed.
    pub fn add(&mut self, seed: u64, outcome: &Outcome, failure: Option<Failure>) {
        self.seeds.push(Seed { seed, hash: format!("{:016x}", outcome.hash) });
        self.simulated_seconds += outcome.simulated.as_secs_f64();
        let counts = &outcome.counts;
        for (name, more) in [
            ("events", counts.events),
            ("packets", counts.packets),
            ("frames refused", counts.frames_refused),
            ("starts", counts.starts),
            ("torn batches dropped", counts.torn),
            ("stops with a named error", counts.stopped),
            ("snapshots saved", counts.saved),
            ("snapshots received", counts.installed),
            ("acknowledged and revoked", counts.revoked),
            ("cannot follow in the end", counts.estranged),
            ("operations", outcome.operations),
            ("operations answered", outcome.answered),
            ("commands decided", outcome.decided),
            ("terms with a leader", outcome.leaders),
            ("histories judged", u64::from(outcome.judged == Some(Judged::Holds))),
            ("histories too hard", u64::from(outcome.judged == Some(Judged::Unknown))),
        ] {
            self.count(name, more);
        }
        for (kind, more) in &counts.faults {
            *self.faults.entry(kind.name().to_owned()).or_default() += more;
        }
        for ((shape, nodes), more) in &counts.partitions {
            *self.partitions.entry(format!("{shape} of {nodes}")).or_default() += more;
        }
        for (site, passed, cut) in &outcome.coverage.sites {
            let point = self.crash_points.entry(site.to_string()).or_default();
            point.passed += passed;
            point.cut += cut;
        }
        for ((moment, kind), cut) in &counts.send_crashes {
            let point = self.crash_points.entry(format!("{moment} sending {kind}")).or_default();
            point.passed += cut;
            point.cut += cut;
        }
        if let Recovery::After(took) = outcome.recovery {
            let elections = took.as_secs_f64() / outcome.election.as_secs_f64();
            self.count("recoveries", 1);
            self.recovery_elections += elections;
            self.worst_recovery_elections = self.worst_recovery_elections.max(elections);
        }
        self.failures.extend(failure);
    }

    /// Adds the reports of shards up.
    ///
    /// # Errors
    /// When they speak of different campaigns, or disagree about a seed.
    pub fn merge(reports: impl IntoIterator<Item = Report>) -> Result<Report, MergeError> {
        let mut reports = reports.into_iter();
        let mut sum = reports.next().ok_or(MergeError::Nothing)?;
        let mut hashes: BTreeMap<u64, String> =
            sum.seeds.iter().map(|seed| (seed.seed, seed.hash.clone())).collect();
        for other in reports {
            let nodes = |report: &Report| report.nodes.map_or("any".to_owned(), |nodes| nodes.to_string());
            for (what, one, two) in [
                ("protocol", sum.protocol.clone(), other.protocol.clone()),
                ("faults", sum.faults_allowed.clone(), other.faults_allowed.clone()),
                ("number of replicas", nodes(&sum), nodes(&other)),
                ("seconds", sum.safety_seconds.to_string(), other.safety_seconds.to_string()),
            ] {
                if one != two {
                    return Err(MergeError::Different { what, one, other: two });
                }
            }
            for seed in &other.seeds {
                if let Some(known) = hashes.insert(seed.seed, seed.hash.clone())
                    && known != seed.hash
                {
                    return Err(MergeError::Hash { seed: seed.seed, one: known, other: seed.hash.clone() });
                }
            }
            sum.seeds.extend(other.seeds);
            sum.failures.extend(other.failures);
            sum.simulated_seconds += other.simulated_seconds;
            sum.recovery_elections += other.recovery_elections;
            sum.worst_recovery_elections = sum.worst_recovery_elections.max(other.worst_recovery_elections);
            for (name, more) in other.counts {
                *sum.counts.entry(name).or_default() += more;
            }
            for (name, more) in other.faults {
                *sum.faults.entry(name).or_default() += more;
            }
            for (name, more) in other.partitions {
                *sum.partitions.entry(name).or_default() += more;
            }
            for (name, more) in other.crash_points {
                let point = sum.crash_points.entry(name).or_default();
                point.passed += more.passed;
                point.cut += more.cut;
            }
        }
        sum.seeds.sort_by_key(|seed| seed.seed);
        sum.failures.sort_by_key(|failure| failure.seed);
        Ok(sum)
    }

    /// As a table for people.
    #[must_use]
    pub fn table(&self) -> String {
        let mut out = String::new();
        let mut row = |name: &str, value: String| {
            let _ = writeln!(out, "  {name:<38}{value:>16}");
        };
        row("protocol", self.protocol.clone());
        row("seeds", self.seeds.len().to_string());
        row("failures", self.failures.len().to_string());
        row("simulated seconds", format!("{:.0}", self.simulated_seconds));
        for (name, count) in &self.counts {
            row(name, count.to_string());
        }
        let recoveries = self.counts.get("recoveries").copied().unwrap_or_default();
        row(
            "recovery, mean (election timeouts)",
            format!("{:.2}", self.recovery_elections / recoveries.max(1) as f64),
        );
        row("recovery, worst (election timeouts)", format!("{:.2}", self.worst_recovery_elections));
        row("recovery, limit (election timeouts)", LIVENESS_ELECTIONS_MAX.to_string());
        row("faults", String::new());
        for (name, count) in &self.faults {
            row(&format!("  {name}"), count.to_string());
        }
        row("partitions", String::new());
        for (name, count) in &self.partitions {
            row(&format!("  {name}"), count.to_string());
        }
        let hit = self.crash_points.values().filter(|point| point.cut > 0).count();
        row("crash points hit", format!("{hit} of {}", self.crash_points.len()));
        let often = self.crash_points.values().filter(|point| point.cut >= 100).count();
        row("crash points hit a hundred times", often.to_string());
        for (name, point) in self.crash_points.iter().filter(|(_, point)| point.cut > 0) {
            row(&format!("  {name}"), point.cut.to_string());
        }
        for failure in &self.failures {
            let _ = writeln!(
                out,
                "\nseed {} violates {}: {}\n  replay:   {}\n  smallest: {}   ({} faults)",
                failure.seed,
                failure.property,
                failure.what,
                failure.replay,
                failure.smallest,
                failure.faults_left
            );
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(seed: u64, hash: &str) -> Report {
        let mut report = Report::new("raft", &Wishes::default());
        report.seeds.push(Seed { seed, hash: hash.to_owned() });
        report.count("events", 2);
        report
    }

    /// Shards add up; a seed that happened differently on two machines is named, and so are different campaigns.
    #[test]
    fn shards_add_up() {
        let sum = Report::merge([report(2, "b"), report(1, "a")]).expect("they fit");
        assert_eq!((sum.seeds[0].seed, sum.counts["events"]), (1, 4));
        let broken = Report::merge([report(1, "a"), report(1, "b")]);
        assert!(matches!(broken, Err(MergeError::Hash { seed: 1, .. })));
        let other = Report { protocol: "pbft".to_owned(), ..report(3, "c") };
        assert!(matches!(
            Report::merge([report(1, "a"), other]),
            Err(MergeError::Different { what: "protocol", .. })
        ));
        assert_eq!(Report::merge([]), Err(MergeError::Nothing));
    }
}
