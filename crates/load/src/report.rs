//! A run's results, as text for people and as JSON for programs.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Value, json};

use crate::drive::Outcome;
use crate::plan::{Pace, Plan};
use crate::process::Usage;

/// The percentiles that are told.
pub const PERCENTILES: [f64; 6] = [50.0, 90.0, 95.0, 99.0, 99.9, 99.99];

/// A run with what it was and what it cost.
#[derive(Clone, Debug)]
pub struct Report {
    /// What was run.
    pub plan: Plan,
    /// What it came to.
    pub outcome: Outcome,
    /// What the servers' processes used meanwhile, where they are known.
    pub used: Option<Usage>,
}

/// A time as people write it.
#[must_use]
pub fn short(time: Duration) -> String {
    let micros = time.as_nanos() as f64 / 1e3;
    match micros {
        m if m < 1e3 => format!("{m:.0} us"),
        m if m < 1e6 => format!("{:.2} ms", m / 1e3),
        m => format!("{:.2} s", m / 1e6),
    }
}

impl Report {
    /// What went well, a second.
    #[must_use]
    pub fn rate(&self) -> f64 {
        self.outcome.meter.succeeded() as f64 / self.outcome.elapsed.as_secs_f64().max(1e-9)
    }

    /// The servers' CPU time for each request that went well.
    #[must_use]
    pub fn cpu_per_request(&self) -> Option<Duration> {
        let requests = self.outcome.meter.succeeded();
        let used = self.used?;
        (requests > 0).then(|| Duration::from_secs_f64(used.cpu.as_secs_f64() / requests as f64))
    }

    /// For a terminal.
    #[must_use]
    pub fn text(&self) -> String {
        let (plan, meter) = (&self.plan, &self.outcome.meter);
        let mut out = String::new();
        let pace = match plan.pace {
            Pace::Closed => "closed loop".to_owned(),
            Pace::Open { rate } => format!("open loop at {rate:.0}/s"),
        };
        let _ = writeln!(
            out,
            "{}: {} connections x {} streams, {pace}, {} keys, values of {} bytes",
            plan.kind.name(),
            plan.connections,
            plan.streams,
            plan.keys,
            plan.value_bytes
        );
        let _ = writeln!(
            out,
            "  {} in {:.2} s: {:.0}/s",
            meter.succeeded(),
            self.outcome.elapsed.as_secs_f64(),
            self.rate()
        );
        let told: Vec<String> = PERCENTILES
            .iter()
            .map(|percent| format!("p{percent} {}", short(meter.percentile(*percent))))
            .collect();
        let max = Duration::from_nanos(meter.latencies.max());
        let _ = writeln!(out, "  latency: {}, max {}", told.join(", "), short(max));
        if let Some(cpu) = self.cpu_per_request() {
            let resident = self.used.map_or(0, |used| used.resident) >> 20;
            let _ = writeln!(out, "  servers: {} of CPU for each, {resident} MiB resident", short(cpu));
        }
        if meter.dropped > 0 {
            let _ = writeln!(out, "  dropped: {} whose time came while too many waited", meter.dropped);
        }
        for (what, count) in &meter.errors {
            let _ = writeln!(out, "  failed: {count} x {what}");
        }
        out
    }

    /// For programs: rates in requests a second, times in microseconds, memory in bytes.
    #[must_use]
    pub fn json(&self) -> Value {
        let (plan, meter) = (&self.plan, &self.outcome.meter);
        let micros = |time: Duration| time.as_nanos() as f64 / 1e3;
        let percentiles: serde_json::Map<String, Value> = PERCENTILES
            .iter()
            .map(|percent| (format!("p{percent}"), json!(micros(meter.percentile(*percent)))))
            .collect();
        json!({
            "kind": plan.kind.name(),
            "connections": plan.connections,
            "streams": plan.streams,
            "rate_wanted": match plan.pace { Pace::Closed => Value::Null, Pace::Open { rate } => json!(rate) },
            "keys": plan.keys,
            "key_bytes": plan.key_bytes,
            "value_bytes": plan.value_bytes,
            "seed": plan.seed,
            "seconds": self.outcome.elapsed.as_secs_f64(),
            "succeeded": meter.succeeded(),
            "failed": meter.failed(),
            "dropped": meter.dropped,
            "errors": meter.errors,
            "rate": self.rate(),
            "latency_us": percentiles,
            "latency_mean_us": meter.latencies.mean() / 1e3,
            "latency_max_us": meter.latencies.max() as f64 / 1e3,
            "each_second": meter.seconds,
            "server_cpu_us_per_request": self.cpu_per_request().map(micros),
            "server_resident_bytes": self.used.map(|used| used.resident),
        })
    }
}
