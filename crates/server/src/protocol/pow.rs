//! Proof of work behind the server.
//!
//! How fast members hash is no rule of the chain: each may choose for itself, and the difficulty follows what all of them do together. The
//! first difficulty fits as many members as the cluster was founded with, hashing as they do when nobody chooses.

use std::time::Duration;

use synod_protocols::pow::{self, Mining, Options, Pow, Record};

use super::{Amnesia, Chosen, House, Row, Served, Sizes, Told};
use crate::config::ConfigError;
use crate::config::Flag;
use crate::contract::{Cell, Offer};

/// From one slice of hashing to the next: whoever else wants the member's thread has it in between.
const SLICE_EVERY: Duration = Duration::from_millis(5);

/// Hashes in a slice when nobody chooses: a few hundredths of a core.
const HASHES: u32 = 256;

/// A slice of more than this would keep clients waiting.
const HASHES_MAX: i64 = 8192;

/// A block's time counts seconds and must pass the median of eleven: six blocks a second is the most that a chain can hold.
const SPACING_MIN: Duration = Duration::from_millis(250);
const SPACING_MAX: Duration = Duration::from_secs(3600);

const CONFIRMATIONS_MAX: i64 = 100;

/// A write is given up when it has waited for so many times what it should take: most members may be gone, and the rest
/// find blocks more slowly for a while.
const PATIENCE_TIMES: u32 = 20;

impl Served for Pow {
    const ROW: Row = Row {
        name: "pow",
        about: "proof of work: nobody votes, every member mines, and the chain with the most work counts; nothing is ever certain",
        flags: &[
            Flag::value(
                "confirmations",
                "3",
                "Blocks that must stand on a write, its own counted, before it is answered",
            ),
            Flag::value(
                "block-spacing",
                "2s",
                "How long all members together should take for a block; the same for all, and for good",
            ),
            Flag::value(
                "mining-hashes",
                "256",
                "Hashes that this member tries every 5 ms, when nothing else is to be done; 0: it only follows",
            ),
        ],
        sizes: Sizes::ANY,
        losses: |members, _| members.saturating_sub(1),
        house: House::Anyone,
        variants: &[],
    };

    const AMNESIA: Amnesia = Amnesia::Harmless;

    fn check(flags: &Chosen) -> Result<(), ConfigError> {
        confirmations(flags)?;
        spacing(flags)?;
        hashes(flags)?;
        Ok(())
    }

    fn options(told: &Told<'_>) -> Result<Options, ConfigError> {
        let (flags, spacing) = (told.flags, spacing(told.flags)?);
        let miners = u32::try_from(told.founders.voters.len()).unwrap_or(u32::MAX);
        let mut options = Options::paced(spacing, miners, HASHES, SLICE_EVERY);
        options.mining = match hashes(flags)? {
            0 => Mining::Off,
            hashes => Mining::Hashing { hashes, every: SLICE_EVERY },
        };
        options.confirmations = confirmations(flags)?;
        options.settled_after = options.settled_after.max(options.confirmations);
        options.gossip_every = spacing.clamp(Duration::from_millis(100), Duration::from_secs(1));
        options.unix_at_zero = told.zero;
        options.chain = format!("{:x}", told.cluster);
        options.check().map_err(|wrong| ConfigError::new(wrong.to_string()))?;
        Ok(options)
    }

    fn check_found(options: &Options, records: &[Record]) -> Result<(), ConfigError> {
        pow::check_chain_of(options, records).map_err(|wrong| {
            ConfigError::new(format!("{wrong}; --block-spacing must be what it was at the start"))
        })
    }

    fn patience(flags: &Chosen) -> Duration {
        let expected = spacing(flags).unwrap_or_default() * confirmations(flags).map_or(1, |it| it as u32);
        (expected * PATIENCE_TIMES).max(super::PATIENCE)
    }

    fn offer(flags: &Chosen) -> Offer {
        const WRITES: Cell = Cell::Noted(
            "answered when its block has the number of confirmations that synod-confirmations in the response says, all of them on this \
             member's disk; a chain with more work may still take it back, and then it is mined again",
        );
        const TAKEN_BACK: &str =
            "a reorganisation may take back what a session has seen; ask for an eventual read";
        Offer {
            writes: WRITES,
            groups: WRITES,
            compares: Cell::Noted(
                "compared where its block stands in the chain; a reorganisation takes both back, and may decide otherwise",
            ),
            linearizable: Cell::No(
                "finality is a probability, and a chain with more work may be on its way; ask for an eventual read",
            ),
            sequential: Cell::No(TAKEN_BACK),
            causal: Cell::No(TAKEN_BACK),
            revisions: Cell::Noted("a reorganisation takes back revisions: watches are then canceled"),
            leases: Cell::No(
                "there is no leader whose clock could end a lease, and a block's time is what its miner says",
            ),
            reconfigure: Cell::No(
                "there is no membership to vote on; a member that has lost its disk starts with its old flags and an empty folder, and \
                 catches up by itself",
            ),
            transfer: Cell::No("all members mine, and none leads"),
            confirmations: confirmations(flags).ok(),
            ..Offer::EVERYTHING
        }
    }
}

fn confirmations(flags: &Chosen) -> Result<u64, ConfigError> {
    Ok(flags.integer("confirmations", 1, CONFIRMATIONS_MAX)?.unsigned_abs())
}

fn hashes(flags: &Chosen) -> Result<u32, ConfigError> {
    Ok(u32::try_from(flags.integer("mining-hashes", 0, HASHES_MAX)?).unwrap_or(HASHES))
}

fn spacing(flags: &Chosen) -> Result<Duration, ConfigError> {
    let spacing = flags.span("block-spacing")?;
    if (SPACING_MIN..=SPACING_MAX).contains(&spacing) {
        return Ok(spacing);
    }
    let text = flags.text("block-spacing");
    Err(ConfigError::new(format!("--block-spacing={text}: allowed is a span from 250ms to 1h")))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every value out of range is refused with what is allowed; the patience grows with what a write takes.
    #[test]
    fn flags_are_checked() {
        let chosen = |given: &[(&str, &str)]| Chosen::of(&Pow::ROW, given).expect("its own flags");
        for (flag, value, why) in [
            ("confirmations", "0", "allowed is a whole number from 1 to 100"),
            ("confirmations", "many", "allowed is a whole number from 1 to 100"),
            ("block-spacing", "100ms", "allowed is a span from 250ms to 1h"),
            ("block-spacing", "2", "the unit is missing"),
            ("block-spacing", "2h", "allowed is a span from 250ms to 1h"),
            ("mining-hashes", "-1", "allowed is a whole number from 0 to 8192"),
            ("mining-hashes", "100000", "allowed is a whole number from 0 to 8192"),
        ] {
            let wrong = Pow::check(&chosen(&[(flag, value)])).expect_err("it is out of range").to_string();
            assert!(wrong.contains(&format!("--{flag}={value}")) && wrong.contains(why), "{wrong}");
        }
        assert_eq!(Pow::check(&chosen(&[("mining-hashes", "0")])), Ok(()));
        assert_eq!(Pow::patience(&chosen(&[])), Duration::from_secs(120));
        assert_eq!(
            Pow::patience(&chosen(&[("confirmations", "1"), ("block-spacing", "250ms")])),
            super::super::PATIENCE
        );
    }
}
