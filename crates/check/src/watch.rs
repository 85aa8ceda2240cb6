//! The nine watch guarantees and lease timing, over recorded watch streams.

use crate::verdict::Verdict;

/// The verdict on one watch guarantee.
#[derive(Clone, Debug)]
pub struct WatchFinding {
    /// The guarantee's name.
    pub guarantee: &'static str,
    /// Whether it holds; evidence names positions of operations, and the reason the streams and revisions.
    pub verdict: Verdict,
}
