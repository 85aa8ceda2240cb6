//! Multi-Paxos behind the server.

use std::time::Duration;

use synod_protocols::multipaxos::{MultiPaxos, Options};

use super::{Chosen, House, Row, Served, Sizes, Told, minority};
use crate::config::{ConfigError, Flag};
use crate::contract::Offer;

impl Served for MultiPaxos {
    const ROW: Row = Row {
        name: "multipaxos",
        about: "Multi-Paxos: phase 1 once, then a stable leader orders slot by slot",
        flags: &[Flag::switch(
            "lease-reads",
            "false",
            "Serve linearizable reads by the leader's lease, which needs clocks that run alike to a tenth",
        )],
        sizes: Sizes::ANY,
        losses: minority,
        house: House::Leader,
        variants: &[],
    };

    fn options(told: &Told<'_>) -> Result<Options, ConfigError> {
        let settings = told.settings;
        let mut options = Options::timed(settings.heartbeat, settings.election_timeout);
        if told.founders.voters.len() == 1 {
            // There is nobody whose silence would have to be waited for: a restart serves that much sooner.
            options.election_timeout = settings.heartbeat * 2;
            options.election_jitter = Duration::ZERO;
            options.clock_drift_max = options.election_timeout / 10;
        }
        options.lease_reads = told.flags.switch("lease-reads")?;
        options.check().map_err(|wrong| ConfigError::new(wrong.to_string()))?;
        Ok(options)
    }

    fn offer(_: &Chosen) -> Offer {
        Offer::EVERYTHING
    }
}
