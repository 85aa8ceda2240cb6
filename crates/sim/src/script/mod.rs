//! Golden traces: a cluster's life as a text file.
//!
//! A file is a sequence of blocks. A block is one or more commands, a line `---`, and what happened: one
//! line for each effect. Lines that start with `#` before a block are its story. Running a file replays its
//! commands and compares the effects; with `SYNOD_UPDATE=1` in the environment the file is written anew
//! instead, for a person to read and commit.
//!
//! ```text
//! # Three replicas start; the first to time out asks for votes.
//! cluster 3
//! timeout n1
//! ---
//! n1 records Vote { .. }
//! ```
//!
//! The disk is a character in the story: nothing is durable before `sync`, and a crash loses what is not.
//!
//! | command | what it does |
//! |---|---|
//! | `cluster N [learners=N] [snapshot-every=N] [seed=N] [key=value ...]` | starts N replicas; other keys are the protocol's options |
//! | `add NODE` | starts one more replica, with an empty disk, that belongs to nothing yet |
//! | `submit NODE WORD ...` | a client gives the node commands, one for each word, in one batch |
//! | `read NODE` | a client asks the node for a linearizable read |
//! | `tick DURATION` | time passes for all who are up and not paused |
//! | `timeout NODE` | time passes until the node's own deadline; only the node notices |
//! | `deliver [FROM -> TO] [KIND] [max=N]` | delivers what is under way now, in order, not what follows from it |
//! | `drop [FROM -> TO] [KIND] [max=N]` | loses it |
//! | `double [FROM -> TO] [KIND] [max=N]` | puts a copy behind it |
//! | `flights` | shows what is under way |
//! | `sync NODE ... / sync all` | the disk finishes everything written so far, snapshots too |
//! | `stick NODE`, `unstick NODE` | the disk stops finishing anything, or goes on (sync and settle pass it by) |
//! | `settle` | sync all and deliver, over and over, until nothing is under way |
//! | `run DURATION` | time passes from deadline to deadline, settling at each |
//! | `pause NODE`, `resume NODE` | the node takes no input and sees no time pass, or does again |
//! | `crash NODE`, `restart NODE` | loses memory and everything unsynced, starts again from the disk |
//! | `wipe NODE` | a crashed node's disk is replaced by an empty one |
//! | `partition A B / C D` | cuts every link between the groups; `cut A -> B` cuts one direction; `heal` mends all |
//! | `transfer NODE TO`, `reconfigure NODE add-learner=X add-voter=Y remove=Z` | asks the node for it |
//! | `status [NODE ...]`, `log NODE`, `state [NODE ...]` | shows roles and positions, durable records, what was applied |
//! | `quietly COMMAND` | the same, but its effects are not shown |
//!
//! Whatever is replayed, agreement is checked after every command: no two replicas may have applied
//! different commands at one position (for protocols that promise a total order).

mod cluster;
mod command;
mod file;

pub(crate) use cluster::show as show_packet;
pub use cluster::{Cluster, Flight, Order};
pub use command::{OptionParser, ScriptError};
pub use file::{check_file, check_folder, replay};
