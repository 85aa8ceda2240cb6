//! What makes a block valid (section 5, step 5; the rules are Bitcoin's `CheckBlock` and `ContextualCheckBlock`).
//!
//! Whoever breaks a rule has wasted its work: nobody builds on such a block. Every rule depends on the block and its chain
//! alone, and is judged alike by all, with one exception: how far a block's time may lie ahead is measured with one's own
//! clock. So a block from the future is not invalid for ever; it is not taken now, and may be asked for again.

use synod_core::{CommandId, Time};

use super::block::Block;
use super::header::BadWork;
use super::mutants::Mutant;
use super::seen::{ORIGINS_MAX, is_too_old, raised};
use super::tree::Tree;
use super::work::U256;
use super::{Options, header::Hash};

/// Why a block is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// The header proves no work.
    #[error("{0}")]
    Work(#[from] BadWork),
    /// The height is not its parent's plus one.
    #[error("the height is {said}, behind a block of height {parent}")]
    Height {
        /// What the coinbase says.
        said: u64,
        /// Its parent's.
        parent: u64,
    },
    /// The difficulty is another.
    #[error("bits are {said:08x} where {expected:08x} are due")]
    Difficulty {
        /// What the header says.
        said: u32,
        /// What the chain says.
        expected: u32,
    },
    /// Not later than the median of the eleven blocks before.
    #[error("its time {time} is not later than the median {median} of the blocks before")]
    TooEarly {
        /// The header's.
        time: u32,
        /// The chain's.
        median: u32,
    },
    /// Too far ahead of this replica's clock.
    #[error("its time {time} is more than {ahead_max} s ahead of {now}")]
    TooLate {
        /// The header's.
        time: u32,
        /// This replica's.
        now: u64,
        /// What is allowed.
        ahead_max: u64,
    },
    /// The merkle root does not stand for the body.
    #[error("the merkle root does not stand for the body")]
    Merkle,
    /// Too many bytes.
    #[error("it has {bytes} bytes where {bytes_max} are allowed")]
    TooLarge {
        /// How many.
        bytes: usize,
        /// How many are allowed.
        bytes_max: usize,
    },
    /// A command is in the chain already, or twice in the block.
    #[error("{0:?} is in the chain already")]
    Repeated(CommandId),
    /// A command's number lies too far below others of its origin.
    #[error("{0:?} is too old")]
    TooOld(CommandId),
    /// The chain would know too many origins.
    #[error("more than {ORIGINS_MAX} origins")]
    TooManyOrigins,
}

/// What this replica's wall clock shows, in seconds since 1970.
pub(super) fn unix(now: Time, options: &Options) -> u64 {
    options.unix_at_zero.saturating_add(std::time::Duration::from_nanos(now.0)).as_secs()
}

/// What can be said of a block by itself, whatever it stands on.
pub(super) fn check_alone(block: &Block, options: &Options) -> Result<(), Invalid> {
    let limit = if options.has(Mutant::AnyBits) { U256::MAX } else { options.limit() };
    match block.header.check_work(limit) {
        Err(BadWork::TooLittle) if options.has(Mutant::NoWork) => {}
        other => other?,
    }
    let bytes = block.bytes();
    if bytes > options.block_bytes_max && block.batch.len() > 1 {
        return Err(Invalid::TooLarge { bytes, bytes_max: options.block_bytes_max });
    }
    if block.repeats() && !options.has(Mutant::MinedTwice) {
        return Err(Invalid::Repeated(block.batch[0].id));
    }
    if !options.has(Mutant::NoMerkle) && block.merkle_root() != block.header.merkle {
        return Err(Invalid::Merkle);
    }
    Ok(())
}

/// What can be said of a block behind its parent.
pub(super) fn check_behind(block: &Block, now: Time, tree: &Tree, options: &Options) -> Result<(), Invalid> {
    let parent: Hash = block.header.previous;
    let height = tree.height(parent).expect("the parent is known");
    if block.height != height + 1 {
        return Err(Invalid::Height { said: block.height, parent: height });
    }
    let (said, expected) = (block.header.bits, tree.next_bits(parent, options));
    if said != expected && !options.has(Mutant::AnyBits) {
        return Err(Invalid::Difficulty { said, expected });
    }
    let (time, median) = (block.header.time, tree.median_time(parent));
    if time <= median && !options.has(Mutant::NoMedianTime) {
        return Err(Invalid::TooEarly { time, median });
    }
    let (now, ahead_max) = (unix(now, options), options.future_max.as_secs());
    if u64::from(time) > now.saturating_add(ahead_max) && !options.has(Mutant::NoTwoHours) {
        return Err(Invalid::TooLate { time, now, ahead_max });
    }
    let highest = tree.highest(parent);
    for command in block.batch.iter() {
        if is_too_old(highest, command.id) {
            return Err(Invalid::TooOld(command.id));
        }
        if tree.holds(command.id, parent) && !options.has(Mutant::MinedTwice) {
            return Err(Invalid::Repeated(command.id));
        }
    }
    if raised(highest, block.batch.iter().map(|command| command.id)).len() > ORIGINS_MAX {
        return Err(Invalid::TooManyOrigins);
    }
    Ok(())
}
