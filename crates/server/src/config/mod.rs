//! How a member is told what to be: etcd's flags and `ETCD_*` variables, checked before anything starts.
//!
//! [`parse`] reads words into [`Values`], [`Settings::from_values`] turns them into what the server works
//! with. Whatever is wrong becomes one sentence: what, where, and what would be allowed.

mod address;
pub(crate) mod cluster;
mod flag;
mod help;
mod parse;
mod settings;
#[cfg(test)]
mod tests;
pub(crate) mod units;
mod unsupported;

pub use address::Address;
pub use cluster::InitialCluster;
pub use flag::{Flag, Kind, Support, all as all_flags, variable};
pub use help::usage;
pub use parse::{Invocation, Values, parse};
pub use settings::{AutoCompaction, ClusterState, LogFormat, LogOutput, MetricsDetail, Settings};

/// Why the settings cannot be used, in one sentence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{sentence}")]
pub struct ConfigError {
    sentence: String,
}

impl ConfigError {
    /// An error of this sentence.
    #[must_use]
    pub fn new(sentence: impl Into<String>) -> ConfigError {
        ConfigError { sentence: sentence.into() }
    }

    /// The same, said of a variable that stands for the flag.
    #[must_use]
    fn through(self, variable: &str) -> ConfigError {
        ConfigError { sentence: format!("{variable} in the environment: {}", self.sentence) }
    }
}
