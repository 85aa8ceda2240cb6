//! Raft behind the server.

use std::time::Duration;

use synod_protocols::raft::{Options, Raft};

use super::{Chosen, House, Row, Served, Sizes, Told, minority};
use crate::config::{ConfigError, Flag};
use crate::contract::Offer;

impl Served for Raft {
    const ROW: Row = Row {
        name: "raft",
        about: "Raft: an elected leader orders everything; the default",
        flags: &[
            Flag::switch("pre-vote", "true", "Ask before an election whether it could be won"),
            Flag::switch(
                "initial-election-tick-advance",
                "true",
                "Wait for a leader for a few heartbeats after the start, not for a whole election timeout",
            ),
        ],
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
        }
        options.pre_vote = told.flags.switch("pre-vote")?;
        options.eager_start = told.flags.switch("initial-election-tick-advance")?;
        options.check().map_err(|wrong| ConfigError::new(wrong.to_string()))?;
        Ok(options)
    }

    fn offer(_: &Chosen) -> Offer {
        Offer::EVERYTHING
    }
}
