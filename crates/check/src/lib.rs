//! `synod-check`: which consistency level does this history have, and why not the next.
//!
//! Give it a history in any of the formats of [`formats`], or build one with [`builder`], and [`ladder::check`] answers
//! with a verdict on each [`Level`](verdict::Level): it holds, it is violated (with the few operations that show it), or
//! it is unknown (with the budget that ran out).
//!
//! What each part is:
//! - [`history`] operations, with interned keys and values; [`etcd`] the words of etcd's store
//! - [`builder`] from events to a history, with warnings for what is odd
//! - [`verdict`] levels, verdicts, evidence and the report; [`budget`] what a check may spend
//!
//! The contract of each level's checker, so that [`ladder`] can call it: it holds no state, never panics, asks the budget
//! every [`STEPS_BETWEEN_LOOKS`](budget::STEPS_BETWEEN_LOOKS) steps, and names its algorithm:
//! - `linearizable::check(&History, &Budget) -> (Verdict, String)`
//! - `sequential::check(&History, &Budget) -> (Verdict, String)`
//! - `causal::check(&History, &Budget) -> Vec<(Level, Verdict, String)>`: ccv, cm, cc, pram and the session guarantees
//! - `eventual::check(&History, &Budget) -> (Verdict, String, Option<Staleness>)`
//! - `explain::explain(&History, &Finding) -> String` and `html::page(&History, &Report) -> String`

pub mod brute;
pub mod budget;
pub mod builder;
pub mod causal;
pub mod etcd;
pub mod eventual;
pub mod explain;
pub mod formats;
pub mod generate;
pub mod history;
pub mod html;
pub mod json;
pub mod ladder;
pub mod linearizable;
pub mod model;
pub mod reads_from;
pub mod registers;
pub mod sequential;
pub mod verdict;
pub mod watch;
pub mod workload;
