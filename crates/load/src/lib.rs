//! The load generator: how fast does a store answer, and what does it cost?
//!
//! It speaks gRPC to any etcd v3 endpoint by its own lean HTTP/2 client, because on a small machine a generator's own cost is
//! taken from the store. Two ways to ask:
//!
//! - *closed loop*: so many requests are under way at any time; the next one begins when one ends. Measures throughput.
//! - *open loop*: requests begin when their time has come, whatever became of the others; latency counts from the
//!   *intended* start, so that a store that stalls cannot hide it by slowing the questions down.
//!
//! | file | what |
//! |---|---|
//! | `plan` | what is to be run: connections, streams, workload, pace, sizes |
//! | `workload` | requests: which keys, which values, which method |
//! | `wire` | one HTTP/2 connection of many streams, without a socket |
//! | `drive` | connections and their sockets: closed and open loops |
//! | `client` | one call at a time, for commands |
//! | `watch` | watchers, and how late their events come |
//! | `pace` | a clock that wakes in time |
//! | `measure` | histograms, and a second-by-second account |
//! | `process` | what the servers' processes used: CPU and memory, by the kernel's account |
//! | `cluster` | clusters of real processes, ours or etcd's, on loopback |
//! | `compare` | both side by side, in turn, with ratios |
//! | `family` | our own protocols side by side |
//! | `report`, `html` | results as text, JSON and a page with plots |

pub mod client;
pub mod cluster;
pub mod compare;
pub mod drive;
pub mod family;
pub mod html;
pub mod measure;
mod pace;
pub mod plan;
pub mod process;
pub mod report;
pub mod watch;
mod wire;
pub mod workload;
