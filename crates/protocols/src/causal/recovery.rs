//! From what the disk held to a replica.
//!
//! The log's records are casts in the order in which they were delivered; the checkpoint's base says what came before them. So replaying
//! gives the same vector, the same positions and the same clock, and what lies behind the snapshot is delivered again. What was
//! recorded and not yet synced before a crash may be among it, or may be gone: nobody was shown it.
//!
//! What others hold is not recorded: they tell it in their first round of gossip, and until then nothing is let go.

use synod_core::{Config, Index, Lsn, NodeId, Recovered, Time};

use super::clock::Clock;
use super::compaction::{Compaction, saved};
use super::log::{Entry, Log, Past};
use super::membership::Membership;
use super::{Causal, Mutant, Options, Peer, Record, Waiting};

impl Causal {
    pub(super) fn recover(config: &Config<Options>, found: Recovered<Record>, now: Time) -> Causal {
        if let Err(error) = config.options.check() {
            panic!("the caller checks options before it opens a replica: {error}");
        }
        let founded = Past { members: Membership::of(&config.members), ..Past::default() };
        let mut log = Log::new(founded);
        for record in found.records {
            match record {
                Record::Base { vector, clock, members } => log = Log::new(Past { vector, clock, members }),
                Record::Cast(cast) => log.push(Entry { cast, lsn: Lsn::ZERO, since: now }),
            }
        }
        let state = found.snapshot.as_ref().map_or(Index::ZERO, |snapshot| snapshot.at);
        assert!(
            state >= log.base().at() && state <= log.last(),
            "the log begins behind {:?} and ends at {:?}, but the state is that of {state:?}",
            log.base().at(),
            log.last()
        );
        let mut clock = Clock::new(config.options.zero);
        if !config.options.has(Mutant::ClockNotDurable) {
            clock.observe(log.base().clock);
            log.entries().for_each(|entry| clock.observe(entry.cast.last_clock()));
        }
        let delivered = log.past_at(state);
        let compaction = Compaction::new(saved(&log, found.snapshot.as_ref()));
        let others = |id: &NodeId| *id != config.id;
        let mut peers = std::collections::BTreeMap::new();
        for id in delivered.members.iter().filter(others) {
            let mut peer = Peer::new(now);
            peer.renumber(log.base().at(), now);
            peers.insert(id, peer);
        }
        Causal {
            id: config.id,
            options: config.options.clone(),
            now,
            clock,
            sent: log.last(),
            delivered,
            durable: Lsn::ZERO,
            proposed: Vec::new(),
            waiting: Waiting::default(),
            peers,
            gossip_due: now + config.options.gossip / 8,
            quiet_rounds: 0,
            told: Past::default(),
            compaction,
            adopting: None,
            again: None,
            log,
        }
    }
}
