//! One cluster, one long life: a simulated year, say, with a summary that can be committed.
//!
//! A campaign of seeds meets many clusters, each for a minute; what needs months to go wrong (numbers that grow, files that pile up, a
//! cluster none of whose first members is left) shows only here. The plan is [`swarm::long_life`]; the world's [`Steward`] replaces
//! lost machines; at the end everything is healed, must decide, and the whole life's history goes to the checker.

use std::fmt::Write as _;
use std::time::Duration;

use crate::family::Family;
use crate::oracle::history::Judged;
use crate::swarm::{self, WishError};
use crate::trace::Recorder;
use crate::world::{Outcome, Recovery, Steward, World};

const DAY: Duration = Duration::from_secs(86_400);

/// A life to be lived.
#[derive(Clone, Copy, Debug)]
pub struct Life {
    /// How many days.
    pub days: u64,
    /// The seed.
    pub seed: u64,
    /// Every kind of fault comes once in so many hours, on average; damage to disks in ten times as many.
    pub hours: u64,
}

/// What became of it.
pub struct Lived {
    /// What the oracles say, and the figures.
    pub outcome: Outcome,
    /// As a page for the documentation.
    pub summary: String,
}

impl Life {
    /// Lives it; `watch` is told how many days are over and how many commands are decided.
    ///
    /// # Errors
    /// When the protocol cannot run so.
    pub fn live<F: Family>(&self, mut watch: impl FnMut(u64, usize)) -> Result<Lived, WishError> {
        let pace = Duration::from_secs(3600 * self.hours);
        let plan = swarm::long_life::<F>(self.seed, DAY * self.days as u32, pace)?;
        let planned = plan.planned.len();
        let mut world = World::<F>::new(self.seed, plan, Recorder::default());
        world.employ();
        let mut days = 0;
        while days < self.days && world.violation().is_none() {
            world.live_for(DAY);
            days += 1;
            watch(days, world.decided());
        }
        let books = world.books().cloned().unwrap_or_default();
        let outcome = world.retire();
        let summary = self.summary(F::NAME, days, planned, &books, &outcome);
        Ok(Lived { outcome, summary })
    }

    fn summary(
        &self,
        protocol: &str,
        days: u64,
        planned: usize,
        books: &Steward,
        outcome: &Outcome,
    ) -> String {
        let mut out = format!(
            "# {days} simulated days of one {protocol} cluster\n\nMade by `synod simulate endure --protocol {protocol} --days {0} --seed {1} --hours {2}`. Three replicas far \
             apart (20 to 660 ms one way, heartbeats of 1 s, election timeouts of 10 to 20 s, one packet in a thousand lost, one doubled, one in ten thousand damaged, clocks that \
             differ by up to 200 parts in a million), four clients with one operation in 66 s each on average and a watcher; every kind of fault once in {2} hours on average, damage to a disk \
             (rot, misdirected and lost writes, an empty disk) once in {3} hours for each kind. An operator looks in once a minute and replaces what is lost. At the end a core is \
             healed and must decide, all replicas are compared, and the whole history is judged by the checker.\n\n",
            self.days,
            self.seed,
            self.hours,
            self.hours * 10
        );
        let verdict = match &outcome.violation {
            None => "no violation".to_owned(),
            Some(violation) => violation.to_string(),
        };
        let counts = &outcome.counts;
        let judged = match outcome.judged {
            Some(Judged::Holds) => "holds",
            Some(Judged::Unknown) => "too hard to judge",
            None => "not judged",
        };
        let recovery = match outcome.recovery {
            Recovery::After(took) => format!("{:.1} s", took.as_secs_f64()),
            Recovery::NotTried => "not tried".to_owned(),
        };
        let mut row = |name: &str, value: String| {
            let _ = writeln!(out, "| {name} | {value} |");
        };
        row("what", "figure".to_owned());
        row("---", "---".to_owned());
        row("verdict", verdict);
        row("simulated", format!("{:.0} s", outcome.simulated.as_secs_f64()));
        row("trace hash", format!("{:016x}", outcome.hash));
        row("events", counts.events.to_string());
        row("operations asked, answered", format!("{}, {}", outcome.operations, outcome.answered));
        row("commands decided", outcome.decided.to_string());
        row("the clients' history", judged.to_owned());
        row("terms with a leader", outcome.leaders.to_string());
        row("starts of replicas", counts.starts.to_string());
        row("torn batches dropped by recovery", counts.torn.to_string());
        row("stops with a named error", counts.stopped.to_string());
        row("snapshots saved, received", format!("{}, {}", counts.saved, counts.installed));
        row("damaged frames refused", counts.frames_refused.to_string());
        row("machines replaced by the operator", books.replaced.to_string());
        row("machines switched off", books.retired.to_string());
        row("damage spared, because the cluster was not whole", books.spared.to_string());
        row("longest time without a decision", format!("{:.0} s", books.longest_pause.as_secs_f64()));
        row("the healed core decided again after", recovery);
        row("faults planned", planned.to_string());
        for (kind, count) in &counts.faults {
            row(&format!("fault: {}", kind.name()), count.to_string());
        }
        let passed: Vec<_> = outcome.coverage.sites.iter().filter(|(_, _, cut)| *cut > 0).collect();
        row(
            "crash points at which the power was cut",
            format!("{}", passed.len() + counts.send_crashes.len()),
        );
        out
    }
}
