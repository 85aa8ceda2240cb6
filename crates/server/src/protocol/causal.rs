//! Causal broadcast behind the server.

use std::time::Duration;

use synod_protocols::causal::{Causal, Options};

use super::{Chosen, House, Order, Row, Served, Sizes, Told};
use crate::config::ConfigError;
use crate::contract::{Cell, Offer};

impl Served for Causal {
    const ROW: Row = Row {
        name: "causal",
        about: "causal broadcast: every member takes writes alone, and all hold the same once they have heard of everything",
        flags: &[],
        sizes: Sizes::ANY,
        losses: |members, _| members.saturating_sub(1),
        house: House::Anyone,
        variants: &[],
    };
    const ORDER: Order = Order::Stamped;

    fn options(told: &Told<'_>) -> Result<Options, ConfigError> {
        let mut options = Options::timed(told.settings.heartbeat.max(Duration::from_millis(1)));
        options.zero = told.zero;
        options.check().map_err(|wrong| ConfigError::new(wrong.to_string()))?;
        Ok(options)
    }

    fn offer(_: &Chosen) -> Offer {
        const NO_ORDER: &str = "there is no single order of writes that a read could be up to date with";
        Offer {
            writes: Cell::Noted(
                "answered when this member's own disk has them; of two that do not know of one another, one wins at all members",
            ),
            linearizable: Cell::No(NO_ORDER),
            sequential: Cell::No(NO_ORDER),
            compares: Cell::No("what is compared may be different at another replica"),
            revisions: Cell::No("each member counts what it delivers, in an order of its own"),
            leases: Cell::No(
                "there is no leader whose clock could end a lease, and no single order in which it would end",
            ),
            reconfigure: Cell::Noted(
                "there are no learners: a new member is a full one at once, and catches up by itself",
            ),
            transfer: Cell::No("all members are equal, and none leads"),
            alarms: Cell::Noted(
                "the list is empty: each member refuses writes by its own quota, and raising or lowering is refused",
            ),
            ..Offer::EVERYTHING
        }
    }
}
