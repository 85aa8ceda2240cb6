//! Every flag of etcd 3.4 to 3.7, by name: what Synod does with it.
//!
//! A flag is either *honoured*, or accepted only at the values that describe what Synod does anyway (its
//! etcd default, as a rule) and refused by name at every other, or the `--experimental-*` *twin* of an
//! honoured one. No flag is ever swallowed: someone who turns on TLS and gets plain text is worse off than
//! someone who gets an error.

use super::unsupported::UNSUPPORTED;
use crate::protocol;

/// One flag of the command line and its `ETCD_*` variable.
#[derive(Clone, Copy, Debug)]
pub struct Flag {
    /// Its name without dashes.
    pub name: &'static str,
    /// How its value is written.
    pub kind: Kind,
    /// The value when nobody sets it.
    pub default: &'static str,
    /// What Synod does with it.
    pub support: Support,
    /// One line for `--help`.
    pub help: &'static str,
}

/// How a flag's value is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `--flag` alone means true; a value needs the equals sign.
    Switch,
    /// `--flag value` or `--flag=value`.
    Value,
}

/// What Synod does with a flag.
#[derive(Clone, Copy, Debug)]
pub enum Support {
    /// Parsed, checked and acted upon.
    Honoured,
    /// Only these values are true of Synod; every other is refused by name.
    Only {
        /// The truthful values; the first is etcd's default.
        values: &'static [&'static str],
        /// What is missing for the others.
        lacks: &'static str,
    },
    /// An older spelling of an honoured flag.
    Twin(&'static str),
}

impl Flag {
    /// A flag that a protocol has for itself: `--name value` or `--name=value`.
    #[must_use]
    pub const fn value(name: &'static str, default: &'static str, help: &'static str) -> Flag {
        value(name, default, help)
    }

    /// A flag that a protocol has for itself: `--name` or `--name=false`.
    #[must_use]
    pub const fn switch(name: &'static str, default: &'static str, help: &'static str) -> Flag {
        switch(name, default, help)
    }
}

const fn value(name: &'static str, default: &'static str, help: &'static str) -> Flag {
    Flag { name, kind: Kind::Value, default, support: Support::Honoured, help }
}

const fn switch(name: &'static str, default: &'static str, help: &'static str) -> Flag {
    Flag { name, kind: Kind::Switch, default, support: Support::Honoured, help }
}

const fn twin(name: &'static str, of: &'static str) -> Flag {
    Flag { name, kind: Kind::Value, default: "", support: Support::Twin(of), help: "" }
}

/// The flags that do something, in the order of `--help`.
pub(crate) const HONOURED: &[Flag] = &[
    value("name", "default", "Name of this member, as in --initial-cluster"),
    value("data-dir", "", "Data folder [default: NAME.etcd; under the name synod: NAME.synod]"),
    value("listen-peer-urls", "http://localhost:2380", "Where to listen for the other members"),
    value(
        "listen-client-urls",
        "http://localhost:2379",
        "Where to listen for clients (gRPC and JSON on one port)",
    ),
    value("initial-advertise-peer-urls", "http://localhost:2380", "Where the other members reach this one"),
    value("advertise-client-urls", "http://localhost:2379", "Where clients reach this member"),
    value("initial-cluster", "", "All members: NAME=URL,NAME=URL,... [default: this member alone]"),
    value("initial-cluster-state", "new", "new; existing: join a cluster that runs, after `member add`"),
    value("initial-cluster-token", "etcd-cluster", "Goes into the cluster id: tells clusters apart"),
    value("heartbeat-interval", "100", "Milliseconds between a leader's heartbeats"),
    value(
        "election-timeout",
        "1000",
        "Milliseconds without a leader until an election; at least 5 heartbeats",
    ),
    value(
        "snapshot-count",
        "10000",
        "Applied commands between two snapshots; --snapshot-bytes counts as well",
    ),
    value("snapshot-bytes", "16777216", "Synod: bytes of applied commands between two snapshots, at least"),
    value("max-snapshots", "5", "Upper bound of snapshot files kept (0: no bound); at least 2"),
    value(
        "quota-backend-bytes",
        "0",
        "Size of the store that raises the NOSPACE alarm (0: 2 GiB, below 0: never)",
    ),
    value("max-txn-ops", "128", "Operations in one transaction, at most"),
    value("max-request-bytes", "1572864", "Size of one request, at most"),
    value("max-concurrent-streams", "4294967295", "Streams on one client connection, at most"),
    value("auto-compaction-mode", "periodic", "periodic or revision"),
    value(
        "auto-compaction-retention",
        "0",
        "What to keep: a span (periodic; a bare number means hours) or a number of revisions; 0: off",
    ),
    value("watch-progress-notify-interval", "10m", "How often an idle watch hears of progress"),
    value("cors", "*", "Origins allowed by the JSON gateway"),
    value("host-whitelist", "*", "Host names allowed by the JSON gateway"),
    value("listen-metrics-urls", "", "More addresses that serve /metrics and health"),
    value("metrics", "basic", "basic or extensive"),
    value("warning-apply-duration", "100ms", "Applying for longer than this is logged"),
    switch("strict-reconfig-check", "true", "Refuse changes of the members that leave too few running ones"),
    switch("socket-reuse-port", "false", "Set SO_REUSEPORT on the listeners"),
    switch("socket-reuse-address", "false", "Set SO_REUSEADDR on the listeners (always on)"),
    value("log-level", "info", "debug, info, warn, error, panic or fatal"),
    value("log-format", "json", "json or console"),
    value("log-outputs", "default", "default, stderr or stdout"),
    value("protocol", "raft", "Synod: the replication protocol; see below for the family"),
    twin("experimental-watch-progress-notify-interval", "watch-progress-notify-interval"),
    twin("experimental-warning-apply-duration", "warning-apply-duration"),
];

/// The flag of this name.
#[must_use]
pub(crate) fn find(name: &str) -> Option<&'static Flag> {
    all().find(|flag| flag.name == name)
}

/// Every flag there is; what two protocols share stands here twice.
pub fn all() -> impl Iterator<Item = &'static Flag> {
    HONOURED.iter().chain(UNSUPPORTED).chain(protocol::flags())
}

/// The environment variable that sets this flag.
#[must_use]
pub fn variable(name: &str) -> String {
    format!("ETCD_{}", name.to_uppercase().replace('-', "_"))
}

/// The known name that is nearest to a misspelt one, if any is near.
#[must_use]
pub(crate) fn nearest(misspelt: &str) -> Option<&'static str> {
    let (distance, name) = all().map(|flag| (edits(misspelt, flag.name), flag.name)).min()?;
    (distance <= 2 + misspelt.len() / 8).then_some(name)
}

/// Levenshtein's distance: how many letters to insert, delete or change.
fn edits(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let changed = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// No flag stands in the tables twice (but for what protocols share), and every twin points at an honoured flag.
    #[test]
    fn the_tables_are_consistent() {
        let mut own: Vec<_> = protocol::flags().map(|flag| flag.name).collect();
        own.sort_unstable();
        own.dedup();
        let mut names: Vec<_> = HONOURED.iter().chain(UNSUPPORTED).map(|flag| flag.name).collect();
        names.extend(own);
        names.sort_unstable();
        let total = names.len();
        names.dedup();
        assert_eq!(names.len(), total);
        for flag in all() {
            if let Support::Twin(of) = flag.support {
                assert!(matches!(find(of).map(|f| f.support), Some(Support::Honoured)), "{}", flag.name);
            }
        }
    }

    /// A misspelt flag finds its neighbour, and nonsense finds none.
    #[test]
    fn suggestions_are_near() {
        assert_eq!(nearest("listen-client-url"), Some("listen-client-urls"));
        assert_eq!(nearest("hartbeat-interval"), Some("heartbeat-interval"));
        assert_eq!(nearest("frobnicate"), None);
    }
}
