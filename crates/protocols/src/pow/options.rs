//! What a person may choose. All replicas of a chain must choose alike: all but the last group are part of the genesis
//! block, and a chain with another genesis block is another chain.

use std::time::Duration;

use super::header::{Hash, Header, double_sha};
#[cfg(feature = "mutants")]
use super::mutants::Mutant;
use super::work::{U256, bits_of, target_for, target_of};

/// How blocks are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mining {
    /// By hashing, a slice at a time: so the load on a processor is bounded, and everything else comes first.
    Hashing {
        /// Hashes in a slice.
        hashes: u32,
        /// From one slice to the next.
        every: Duration,
    },
    /// The moment is drawn, as if hashes were tried at this rate; then, at once, a nonce is searched for. For
    /// simulations, whose difficulty is so low that the search costs nothing: hashing has no memory, so the time
    /// between blocks is exponential either way.
    Drawn {
        /// Millionths of a hash a second.
        rate: u64,
    },
    /// Not at all: this replica only follows.
    Off,
}

/// A proof-of-work replica's options.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// A block is delivered when it has so many confirmations, itself counted: `k`.
    pub confirmations: u64,
    /// How long the chain should take for a block.
    pub spacing: Duration,
    /// The difficulty is adjusted after so many blocks (Bitcoin: 2016).
    pub retarget_blocks: u64,
    /// The first target, in compact form.
    pub genesis_bits: u32,
    /// No target is easier than this.
    pub limit_bits: u32,
    /// The genesis block's time, in seconds since 1970.
    pub genesis_time: u32,
    /// A block's time may be so far ahead of one's own clock (Bitcoin: two hours).
    pub future_max: Duration,
    /// Bytes of commands in one block; a larger one is invalid.
    pub block_bytes_max: usize,
    /// Something that tells chains with the same rules apart.
    pub chain: String,

    /// What the wall clock showed when this replica's own clock stood at zero.
    pub unix_at_zero: Duration,
    /// How blocks are found.
    pub mining: Mining,
    /// How often everybody is told of one's best block, and of commands that are still to be mined.
    pub gossip_every: Duration,
    /// What lies so many blocks deep is settled: snapshots hold that, and a reorganisation from below a snapshot is refused.
    pub settled_after: u64,
    /// Bytes of commands that wait to be mined; beyond it clients are told that this replica is busy.
    pub pool_bytes_max: usize,
    /// Bytes of blocks above the last snapshot; beyond it a snapshot is asked for.
    pub tree_bytes_max: usize,
    /// Bytes of blocks below the last snapshot that are kept for those who lag behind.
    pub past_bytes_max: usize,
    /// Bytes of blocks that one request is answered with.
    pub answer_bytes_max: usize,
    /// A rule that is left out, for tests that must notice.
    #[cfg(feature = "mutants")]
    pub mutant: Option<Mutant>,
}

/// Bitcoin's first day, as a homage: the genesis block's time is no measurement.
const GENESIS_TIME: u32 = 1_231_006_505;

impl Default for Options {
    fn default() -> Self {
        Options::paced(Duration::from_secs(2), 3, 256, Duration::from_millis(5))
    }
}

impl Options {
    /// A chain with a block every `spacing` when `miners` mine, each trying `hashes` hashes every `every`.
    #[must_use]
    pub fn paced(spacing: Duration, miners: u32, hashes: u32, every: Duration) -> Options {
        let rate = f64::from(hashes) / every.as_secs_f64().max(1e-6);
        let work = rate * f64::from(miners.max(1)) * spacing.as_secs_f64();
        let limit = target_for(1 << 10);
        Options {
            genesis_bits: bits_of(target_for(work as u64).min(limit)),
            limit_bits: bits_of(limit),
            mining: Mining::Hashing { hashes, every },
            spacing,
            ..Options::plain()
        }
    }

    /// A chain for simulations: its limit is so easy that a search takes a dozen hashes, and one miner alone finds a block
    /// about every `alone`.
    #[must_use]
    pub fn drawn(spacing: Duration, alone: Duration) -> Options {
        let work = 16u64;
        let rate = (work as f64 * 1e6 / alone.as_secs_f64().max(1e-3)) as u64;
        Options {
            genesis_bits: bits_of(target_for(work)),
            limit_bits: bits_of(target_for(2)),
            mining: Mining::Drawn { rate },
            spacing,
            gossip_every: spacing,
            ..Options::plain()
        }
    }

    fn plain() -> Options {
        Options {
            confirmations: 3,
            spacing: Duration::from_secs(2),
            retarget_blocks: 30,
            genesis_bits: 0,
            limit_bits: 0,
            genesis_time: GENESIS_TIME,
            future_max: Duration::from_secs(7200),
            block_bytes_max: 1 << 20,
            chain: String::new(),
            unix_at_zero: Duration::from_secs(u64::from(GENESIS_TIME) + 1000),
            mining: Mining::Off,
            gossip_every: Duration::from_secs(1),
            settled_after: 100,
            pool_bytes_max: 32 << 20,
            tree_bytes_max: 64 << 20,
            past_bytes_max: 8 << 20,
            answer_bytes_max: 1 << 20,
            #[cfg(feature = "mutants")]
            mutant: None,
        }
    }

    /// The easiest target that is allowed.
    pub(super) fn limit(&self) -> U256 {
        target_of(self.limit_bits).unwrap_or(U256::MAX)
    }

    /// How long a period between two adjustments should take, in seconds.
    pub(super) fn timespan(&self) -> u64 {
        (self.spacing.as_millis() as u64).saturating_mul(self.retarget_blocks) / 1000
    }

    /// The block that everything is built upon. It proves no work, and nobody sends it.
    #[must_use]
    pub fn genesis(&self) -> Header {
        let rules = format!(
            // Confirmations are not among the rules: they are a matter between a replica and its clients.
            "synod: {} spacing={:?} retarget={} limit={:08x} future={:?} bytes={}",
            self.chain,
            self.spacing,
            self.retarget_blocks,
            self.limit_bits,
            self.future_max,
            self.block_bytes_max,
        );
        let (version, previous, nonce) = (1, Hash::default(), 0);
        let merkle = double_sha(rules.as_bytes());
        Header { version, previous, merkle, time: self.genesis_time, bits: self.genesis_bits, nonce }
    }

    /// Sets an option by its name, as a script or a command line writes it; false when there is no such option or no such
    /// value.
    pub fn set(&mut self, name: &str, value: &str) -> bool {
        let name = name.replace('-', "_");
        let changed = match name.as_str() {
            "confirmations" => value.parse().ok().map(|it| self.confirmations = it),
            "spacing" => duration(value).map(|it| self.spacing = it),
            "retarget_blocks" => value.parse().ok().map(|it| self.retarget_blocks = it),
            "genesis_bits" => bits(value).map(|it| self.genesis_bits = it),
            "limit_bits" => bits(value).map(|it| self.limit_bits = it),
            "future_max" => duration(value).map(|it| self.future_max = it),
            "block_bytes_max" => value.parse().ok().map(|it| self.block_bytes_max = it),
            "chain" => {
                value.clone_into(&mut self.chain);
                Some(())
            }
            "gossip_every" => duration(value).map(|it| self.gossip_every = it),
            "settled_after" => value.parse().ok().map(|it| self.settled_after = it),
            "pool_bytes_max" => value.parse().ok().map(|it| self.pool_bytes_max = it),
            "tree_bytes_max" => value.parse().ok().map(|it| self.tree_bytes_max = it),
            "past_bytes_max" => value.parse().ok().map(|it| self.past_bytes_max = it),
            "answer_bytes_max" => value.parse().ok().map(|it| self.answer_bytes_max = it),
            "drawn" => duration(value).map(|alone| *self = Options::drawn(self.spacing, alone)),
            "rate" => value.parse().ok().map(|rate| self.mining = Mining::Drawn { rate }),
            #[cfg(feature = "mutants")]
            "mutant" => {
                let found = Mutant::ALL.iter().find(|mutant| mutant.name() == value);
                found.map(|it| self.mutant = Some(*it))
            }
            _ => None,
        };
        changed.is_some()
    }

    /// Whether the options fit together.
    ///
    /// # Errors
    /// [`OptionsError`] says which rule is broken.
    pub fn check(&self) -> Result<(), OptionsError> {
        let limit = target_of(self.limit_bits);
        let rules = [
            (self.confirmations == 0, "confirmations must be at least 1"),
            (self.confirmations > 1000, "confirmations must be at most 1000"),
            (self.settled_after < self.confirmations, "settled_after must be at least confirmations"),
            (self.retarget_blocks < 2, "retarget_blocks must be at least 2"),
            (self.retarget_blocks > 1 << 16, "retarget_blocks must be at most 65536"),
            (
                self.timespan() < 4,
                "retarget_blocks times spacing must be at least 4 s: a block's time counts seconds",
            ),
            (self.spacing > Duration::from_secs(86_400), "spacing must be at most a day"),
            (limit.is_err(), "limit_bits must stand for a target"),
            (
                target_of(self.genesis_bits).ok().is_none_or(|it| limit.is_ok_and(|limit| it > limit)),
                "genesis_bits must stand for a target within limit_bits",
            ),
            (self.block_bytes_max < 1024, "block_bytes_max must be at least 1024"),
            (
                self.block_bytes_max > 8 << 20,
                "block_bytes_max must be at most 8 MiB: a block travels as one message",
            ),
            (self.gossip_every.is_zero(), "gossip_every must be longer than zero"),
            (
                self.future_max < Duration::from_secs(60),
                "future_max must be at least a minute: clocks differ",
            ),
            (
                matches!(self.mining, Mining::Hashing { hashes: 0, .. } | Mining::Drawn { rate: 0 }),
                "a miner must hash: turn mining off instead",
            ),
        ];
        match rules.into_iter().find(|(broken, _)| *broken) {
            Some((_, rule)) => Err(OptionsError(rule)),
            None => Ok(()),
        }
    }
}

/// Options that do not fit together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct OptionsError(pub &'static str);

fn bits(value: &str) -> Option<u32> {
    u32::from_str_radix(value, 16).ok()
}

fn duration(value: &str) -> Option<Duration> {
    let digits = value.find(|c: char| !c.is_ascii_digit())?;
    let number: u64 = value[..digits].parse().ok()?;
    match &value[digits..] {
        "ms" => Some(Duration::from_millis(number)),
        "s" => Some(Duration::from_secs(number)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The defaults fit together, options are set by name, and each broken rule is named.
    #[test]
    fn options_are_checked() {
        let mut options = Options::default();
        assert_eq!(options.check(), Ok(()));
        assert_eq!(Options::drawn(Duration::from_secs(1), Duration::from_secs(3)).check(), Ok(()));
        assert!(options.set("confirmations", "6") && options.set("settled-after", "50"));
        assert!(!options.set("confirmations", "few") && !options.set("colour", "red"));
        options.confirmations = 51;
        assert_eq!(options.check(), Err(OptionsError("settled_after must be at least confirmations")));
        let easy = Options { genesis_bits: 0x207f_ffff, ..Options::default() };
        assert_eq!(easy.check(), Err(OptionsError("genesis_bits must stand for a target within limit_bits")));
    }

    /// Other rules make another chain; how many confirmations somebody waits for does not.
    #[test]
    fn the_rules_are_in_the_genesis_block() {
        let hash = |options: Options| options.genesis().hash();
        let plain = hash(Options::default());
        assert_eq!(hash(Options { confirmations: 6, ..Options::default() }), plain);
        assert_ne!(hash(Options { retarget_blocks: 31, ..Options::default() }), plain);
        assert_ne!(hash(Options { chain: "other".into(), ..Options::default() }), plain);
    }
}
