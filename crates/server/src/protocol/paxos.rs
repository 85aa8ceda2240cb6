//! Basic Paxos behind the server.

use std::time::Duration;

use synod_protocols::paxos::{Options, Paxos};

use super::{Chosen, House, Row, Served, Sizes, Told, minority};
use crate::config::{ConfigError, Flag};
use crate::contract::{Cell, Offer};

impl Served for Paxos {
    const ROW: Row = Row {
        name: "paxos",
        about: "Basic Paxos: no leader, every member proposes; two round trips for each decision",
        flags: &[Flag::switch(
            "jitter",
            "true",
            "Wait for a random time before outbidding another proposer; without, two may duel for ever",
        )],
        sizes: Sizes::ANY,
        losses: minority,
        house: House::Majority,
        variants: &[],
    };

    fn options(told: &Told<'_>) -> Result<Options, ConfigError> {
        // Nobody is elected, so nobody's silence is waited for: what was not answered for a heartbeat is said again, and
        // a slot that stays open for two is taken up by somebody else.
        let mut options = Options::timed(told.settings.heartbeat.max(Duration::from_millis(1)));
        options.jitter = told.flags.switch("jitter")?;
        options.check().map_err(|wrong| ConfigError::new(wrong.to_string()))?;
        Ok(options)
    }

    fn offer(_: &Chosen) -> Offer {
        Offer { transfer: Cell::No("every member proposes, and none leads"), ..Offer::EVERYTHING }
    }
}
