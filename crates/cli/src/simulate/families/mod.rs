//! Every protocol that the simulator runs: one module and one row each.
//!
//! A row is the protocol's name on the command line and the type that describes it to the simulator ([`Family`]). Whoever adds a
//! protocol adds both lines; `synod simulate`, its scripts and the sweeps of `crates/sim/tests/sweeps.rs` read the table, and need no
//! further word. The tests include this module by its path, so it sees protocols and simulator alone.
//!
//! [`Family`]: synod_sim::family::Family

#![allow(dead_code, reason = "whoever includes the table may use a part of it")]

mod backup;
mod causal;
mod multipaxos;
mod paxos;
mod pbft;
mod pow;
mod raft;

pub(crate) use backup::BackupFamily;
pub(crate) use causal::CausalFamily;
pub(crate) use multipaxos::MultiPaxosFamily;
pub(crate) use paxos::PaxosFamily;
pub(crate) use pbft::PbftFamily;
pub(crate) use pow::PowFamily;
pub(crate) use raft::RaftFamily;

/// Calls another macro with every row.
macro_rules! each_family {
    ($then:ident) => {
        $then! {
            backup: BackupFamily,
            raft: RaftFamily,
            pbft: PbftFamily,
            multipaxos: MultiPaxosFamily,
            paxos: PaxosFamily,
            causal: CausalFamily,
            pow: PowFamily,
        }
    };
}

pub(crate) use each_family;
