//! Figures for `/metrics`, in the prometheus text format, under etcd's names (`etcd-api.md` section 13).
//!
//! A registry of our own, for two reasons: etcd has gauges whose names end in `_total`, which libraries that
//! know better refuse or rename; and a counter on the hot path is one relaxed addition into an array, without a look-up of
//! labels. What the node counts (disk, peers, protocol) it writes itself, onto the same [`Page`].

use std::fmt::{Display, Write};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use parking_lot::Mutex;
use synod_api::Method;

use crate::service::payload::Payload;
use crate::status::{CODES, Code, Status};

/// What prometheus calls the type of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down. Some of etcd's are named `_total` all the same.
    Gauge,
    /// Counts values into buckets.
    Histogram,
}

/// The page being written.
#[derive(Debug, Default)]
pub struct Page {
    text: String,
}

impl Page {
    /// Begins a metric; its samples must follow before the next one begins.
    pub fn family(&mut self, name: &str, kind: Kind, help: &str) {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    /// A sample, with labels.
    pub fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        self.text.push_str(name);
        for (place, (label, text)) in labels.iter().enumerate() {
            self.text.push(if place == 0 { '{' } else { ',' });
            let _ = write!(self.text, "{label}=\"");
            for c in text.chars() {
                match c {
                    '\\' => self.text.push_str("\\\\"),
                    '"' => self.text.push_str("\\\""),
                    '\n' => self.text.push_str("\\n"),
                    c => self.text.push(c),
                }
            }
            self.text.push('"');
        }
        if !labels.is_empty() {
            self.text.push('}');
        }
        let _ = writeln!(self.text, " {value}");
    }

    /// A counter without labels.
    pub fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.family(name, Kind::Counter, help);
        self.sample(name, &[], value);
    }

    /// A gauge without labels.
    pub fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.family(name, Kind::Gauge, help);
        self.sample(name, &[], value);
    }

    /// A histogram of seconds without labels.
    pub fn histogram(&mut self, name: &str, help: &str, histogram: &Histogram) {
        self.family(name, Kind::Histogram, help);
        self.histogram_samples(name, &[], histogram);
    }

    /// The samples of a histogram with labels; its family has begun.
    pub fn histogram_samples(&mut self, name: &str, labels: &[(&str, &str)], histogram: &Histogram) {
        let mut below = 0;
        for (place, count) in histogram.buckets.iter().enumerate() {
            below += count.load(Relaxed);
            let bound = match place + 1 == histogram.buckets.len() {
                true => "+Inf".to_owned(),
                false => format!("{}", histogram.first.as_secs_f64() * (1u64 << place) as f64),
            };
            let mut with_bound = labels.to_vec();
            with_bound.push(("le", &bound));
            self.sample(&format!("{name}_bucket"), &with_bound, below);
        }
        let seconds = Duration::from_nanos(histogram.nanos.load(Relaxed)).as_secs_f64();
        self.sample(&format!("{name}_sum"), labels, seconds);
        self.sample(&format!("{name}_count"), labels, below);
    }

    /// The whole text.
    #[must_use]
    pub fn into_text(self) -> String {
        self.text
    }
}

/// Durations in buckets whose bounds double, as etcd has them.
#[derive(Debug)]
pub struct Histogram {
    first: Duration,
    /// One for each bound, and one for everything above.
    buckets: Box<[AtomicU64]>,
    nanos: AtomicU64,
}

impl Histogram {
    /// Bounds at `first`, twice that, and so on, `bounds` of them.
    ///
    /// # Panics
    /// For no bound or more than 63.
    #[must_use]
    pub fn doubling(first: Duration, bounds: usize) -> Histogram {
        assert!((1..64).contains(&bounds), "a histogram has 1 to 63 bounds, not {bounds}");
        let buckets = (0..=bounds).map(|_| AtomicU64::new(0)).collect();
        Histogram { first, buckets, nanos: AtomicU64::new(0) }
    }

    /// The bounds of disk latencies: 1 ms to 8 s.
    #[must_use]
    pub fn of_disk() -> Histogram {
        Histogram::doubling(Duration::from_millis(1), 14)
    }

    /// Counts a duration.
    pub fn observe(&self, duration: Duration) {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let first = self.first.as_nanos() as u64;
        // The first bound that is not below the duration.
        let place = nanos.div_ceil(first.max(1)).max(1).next_power_of_two().trailing_zeros() as usize;
        self.buckets[place.min(self.buckets.len() - 1)].fetch_add(1, Relaxed);
        self.nanos.fetch_add(nanos, Relaxed);
    }
}

/// Different values of `client-api-version` than so many are counted together.
const CLIENT_VERSIONS_MAX: usize = 32;

/// What the client-facing side counts.
pub struct Metrics {
    started: Box<[AtomicU64]>,
    handled: Box<[[AtomicU64; CODES]]>,
    /// Times, when `--metrics=extensive`.
    handling: Option<Box<[Histogram]>>,
    /// Kind of call, version, count: few enough to be searched one by one.
    client_versions: Mutex<Vec<(&'static str, Box<str>, u64)>>,
    /// Bytes of messages from clients.
    pub received_bytes: AtomicU64,
    /// Bytes of messages to clients.
    pub sent_bytes: AtomicU64,
    /// `/health` said yes.
    pub health_successes: AtomicU64,
    /// `/health` said no.
    pub health_failures: AtomicU64,
    checks: Mutex<HashMap<(&'static str, &'static str), [u64; 2], RandomState>>,
    /// Fences that were refused or timed out.
    pub fences_failed: AtomicU64,
    /// Leases that clients of this member renewed.
    pub leases_renewed: AtomicU64,
    /// Proposals under way.
    pub proposals_pending: AtomicU64,
    /// Proposals that failed before an outcome.
    pub proposals_failed: AtomicU64,
}

impl Metrics {
    /// Nothing counted yet; `handling_times`: with a histogram for each method.
    #[must_use]
    pub fn new(detail: Detail) -> Metrics {
        let handling = match detail {
            Detail::Basic => None,
            Detail::Extensive => Some(
                Method::ALL.iter().map(|_| Histogram::doubling(Duration::from_micros(100), 17)).collect(),
            ),
        };
        Metrics {
            started: Method::ALL.iter().map(|_| AtomicU64::new(0)).collect(),
            handled: Method::ALL.iter().map(|_| std::array::from_fn(|_| AtomicU64::new(0))).collect(),
            handling,
            client_versions: Mutex::default(),
            received_bytes: AtomicU64::new(0),
            sent_bytes: AtomicU64::new(0),
            health_successes: AtomicU64::new(0),
            health_failures: AtomicU64::new(0),
            checks: Mutex::default(),
            fences_failed: AtomicU64::new(0),
            leases_renewed: AtomicU64::new(0),
            proposals_pending: AtomicU64::new(0),
            proposals_failed: AtomicU64::new(0),
        }
    }

    /// A call begins; it is counted as handled when the tally ends.
    pub fn start(self: &std::sync::Arc<Self>, method: Method, client_version: Option<&str>) -> Tally {
        self.started[method as usize].fetch_add(1, Relaxed);
        if let Some(version) = client_version {
            self.count_client(method, version);
        }
        let begun = self.handling.is_some().then(Instant::now);
        Tally { metrics: self.clone(), method, begun, code: Code::Canceled }
    }

    /// A health check was made.
    pub fn count_check(&self, kind: &'static str, name: &'static str, ok: bool) {
        self.checks.lock().entry((kind, name)).or_default()[usize::from(ok)] += 1;
    }

    fn count_client(&self, method: Method, version: &str) {
        let kind = method.shape().name();
        let mut versions = self.client_versions.lock();
        // What clients say must not fill the memory.
        let full = versions.len() >= CLIENT_VERSIONS_MAX;
        let version =
            if full && !versions.iter().any(|known| &*known.1 == version) { "other" } else { version };
        match versions.iter_mut().find(|known| known.0 == kind && &*known.1 == version) {
            Some(known) => known.2 += 1,
            None => versions.push((kind, version.into(), 1)),
        }
    }

    /// Writes everything counted here.
    pub fn write(&self, page: &mut Page) {
        page.family(
            "grpc_server_started_total",
            Kind::Counter,
            "Total number of RPCs started on the server.",
        );
        for &method in Method::ALL {
            let started = self.started[method as usize].load(Relaxed);
            page.sample("grpc_server_started_total", &labels(method), started);
        }
        page.family(
            "grpc_server_handled_total",
            Kind::Counter,
            "Total number of RPCs completed on the server.",
        );
        for &method in Method::ALL {
            for code in Code::ALL {
                let handled = self.handled[method as usize][code as usize].load(Relaxed);
                if handled > 0 {
                    let [kind, service, name] = labels(method);
                    let labels = [kind, service, name, ("grpc_code", code.name())];
                    page.sample("grpc_server_handled_total", &labels, handled);
                }
            }
        }
        // etcd counts where its store does the work; here, calls of this member's clients that went well.
        for (name, method) in [
            ("etcd_mvcc_range_total", Method::Range),
            ("etcd_mvcc_put_total", Method::Put),
            ("etcd_mvcc_delete_total", Method::DeleteRange),
            ("etcd_mvcc_txn_total", Method::Txn),
            ("etcd_debugging_lease_granted_total", Method::LeaseGrant),
            ("etcd_debugging_lease_revoked_total", Method::LeaseRevoke),
        ] {
            let done = self.handled[method as usize][Code::Ok as usize].load(Relaxed);
            page.counter(
                name,
                &format!("Total number of {} calls of this member's clients.", method.name()),
                done,
            );
        }
        page.counter(
            "etcd_debugging_lease_renewed_total",
            "The number of renewed leases, by clients of this member.",
            self.leases_renewed.load(Relaxed),
        );
        if let Some(handling) = &self.handling {
            page.family("grpc_server_handling_seconds", Kind::Histogram, "Response latency of RPCs.");
            for &method in Method::ALL {
                page.histogram_samples(
                    "grpc_server_handling_seconds",
                    &labels(method),
                    &handling[method as usize],
                );
            }
        }
        let name = "etcd_server_client_requests_total";
        page.family(name, Kind::Counter, "The total number of client requests per client version.");
        for (kind, version, count) in self.client_versions.lock().iter() {
            page.sample(name, &[("type", kind), ("client_api_version", version)], count);
        }
        page.counter(
            "etcd_network_client_grpc_received_bytes_total",
            "The total number of bytes received from grpc clients.",
            self.received_bytes.load(Relaxed),
        );
        page.counter(
            "etcd_network_client_grpc_sent_bytes_total",
            "The total number of bytes sent to grpc clients.",
            self.sent_bytes.load(Relaxed),
        );
        page.counter(
            "etcd_server_health_success",
            "The total number of successful health checks.",
            self.health_successes.load(Relaxed),
        );
        page.counter(
            "etcd_server_health_failures",
            "The total number of failed health checks.",
            self.health_failures.load(Relaxed),
        );
        let checks = self.checks.lock().clone();
        page.family("etcd_server_healthchecks_total", Kind::Counter, "Health checks by outcome.");
        for ((kind, name), [failed, passed]) in &checks {
            for (status, count) in [("success", passed), ("error", failed)] {
                let labels = [("type", *kind), ("name", *name), ("status", status)];
                page.sample("etcd_server_healthchecks_total", &labels, count);
            }
        }
        page.counter(
            "etcd_server_read_indexes_failed_total",
            "The total number of failed read indexes seen.",
            self.fences_failed.load(Relaxed),
        );
        page.gauge(
            "etcd_server_proposals_pending",
            "The current number of pending proposals to commit.",
            self.proposals_pending.load(Relaxed),
        );
        page.counter(
            "etcd_server_proposals_failed_total",
            "The total number of failed proposals seen.",
            self.proposals_failed.load(Relaxed),
        );
    }
}

/// How much is measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Detail {
    /// Counts.
    #[default]
    Basic,
    /// Counts, and a histogram of times for each method.
    Extensive,
}

fn labels(method: Method) -> [(&'static str, &'static str); 3] {
    [("grpc_type", method.shape().name()), ("grpc_service", method.service()), ("grpc_method", method.name())]
}

/// A call that has begun; counts it as handled when dropped, as cancelled unless somebody said otherwise.
pub struct Tally {
    metrics: std::sync::Arc<Metrics>,
    method: Method,
    begun: Option<Instant>,
    code: Code,
}

impl Tally {
    /// Where it is counted.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// The call ends with this code.
    pub fn end(mut self, code: Code) {
        self.code = code;
    }

    /// The call ends with this answer.
    pub(crate) fn end_with(self, answer: &Result<Payload, Status>) {
        match answer {
            Ok(payload) => {
                self.metrics.sent_bytes.fetch_add(payload.len() as u64, Relaxed);
                self.end(Code::Ok);
            }
            Err(status) => self.end(status.code),
        }
    }
}

impl Drop for Tally {
    fn drop(&mut self) {
        self.metrics.handled[self.method as usize][self.code as usize].fetch_add(1, Relaxed);
        if let (Some(begun), Some(handling)) = (self.begun, &self.metrics.handling) {
            handling[self.method as usize].observe(begun.elapsed());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    /// Durations fall into the bucket whose bound is the first not below them, and the sum is theirs.
    #[test]
    fn histogram_buckets() {
        let histogram = Histogram::of_disk();
        for micros in [1, 1000, 1001, 2000, 8_192_000, 8_192_001] {
            histogram.observe(Duration::from_micros(micros));
        }
        let mut page = Page::default();
        page.histogram("h", "help", &histogram);
        let text = page.into_text();
        for line in [
            "# TYPE h histogram",
            "h_bucket{le=\"0.001\"} 2",
            "h_bucket{le=\"0.002\"} 4",
            "h_bucket{le=\"8.192\"} 5",
            "h_bucket{le=\"+Inf\"} 6",
            "h_count 6",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} in\n{text}");
        }
    }

    /// A call counts as started at once and as handled at its end; one that is dropped counts as cancelled.
    #[test]
    fn calls_are_tallied() {
        let metrics = Arc::new(Metrics::new(Detail::Basic));
        metrics.start(Method::Put, Some("3.6")).end(Code::Ok);
        let watch = metrics.start(Method::Watch, None);
        let text = |metrics: &Metrics| {
            let mut page = Page::default();
            metrics.write(&mut page);
            page.into_text()
        };
        let watch_labels =
            "grpc_type=\"bidi_stream\",grpc_service=\"etcdserverpb.Watch\",grpc_method=\"Watch\"";
        let before = text(&metrics);
        assert!(before.contains(&format!("grpc_server_started_total{{{watch_labels}}} 1")));
        assert!(!before.contains(&format!("grpc_server_handled_total{{{watch_labels}")));
        drop(watch);
        assert!(
            text(&metrics).contains(&format!("handled_total{{{watch_labels},grpc_code=\"Canceled\"}} 1"))
        );
        assert!(before.contains("grpc_code=\"OK\"} 1"));
        assert!(
            before.contains("etcd_server_client_requests_total{type=\"unary\",client_api_version=\"3.6\"} 1")
        );
    }

    /// What clients call themselves cannot fill the memory.
    #[test]
    fn client_versions_are_bounded() {
        let metrics = Arc::new(Metrics::new(Detail::Basic));
        for number in 0..1000 {
            metrics.start(Method::Put, Some(&number.to_string())).end(Code::Ok);
        }
        assert!(metrics.client_versions.lock().len() <= CLIENT_VERSIONS_MAX + 3);
    }
}
