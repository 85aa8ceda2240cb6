//! Proof of work, as the simulator sees it, and as its liars speak it.
//!
//! Nothing is certain here, so what is asked for is what a replica can know of itself, computed anew whenever its best chain changes
//! (`Pow::examine`): the chain is valid and has the most work, and what was delivered is its beginning, has its confirmations and is
//! on the disk. In the end all have gone the same way, and what was answered has been mined again where its block has lost.

use std::sync::Arc;
use std::time::Duration;

use synod_check::verdict::Level;
use synod_core::{Rng, Role};
use synod_protocols::pow::{Block, Hash, Message, Mutant, Options, Pow};
use synod_sim::byzantine::Lie;
use synod_sim::family::{Clocks, Family, Finality, Reads};
use synod_sim::script::Order;

/// Proof of work with whatever options a seed draws.
pub(crate) struct PowFamily;

impl Family for PowFamily {
    type Protocol = Pow;
    const NAME: &'static str = "pow";
    const ORDER: Order = Order::Total;
    /// Until they have gone the same way, replicas may differ.
    const SCRIPTS: Order = Order::Causal;
    const LEVEL: Level = Level::Eventual;
    const READS: Reads = Reads::Local;
    /// Next to two hours it is nothing; next to the time between two adjustments, which is seconds here, more would be much.
    const CLOCKS_APART: Duration = Duration::from_millis(500);

    /// Each goes on alone.
    fn losses_max(nodes: usize) -> usize {
        nodes.saturating_sub(1)
    }

    /// A lie is known for what it is by whoever hears it, however many lie. But they hash, too: so fewer than half.
    fn liars_max(nodes: usize) -> usize {
        nodes.saturating_sub(1) / 2
    }

    fn finality(_: &Options) -> Finality {
        Finality::Probable
    }

    fn options(rng: &mut Rng) -> Options {
        // A block's time counts seconds, and six blocks a second is what a chain can hold.
        let spacing = Duration::from_millis([250, 300, 400, 500, 500, 1000][rng.below(6) as usize]);
        let alone = spacing * rng.between(1, 5) as u32;
        let mut options = Options::drawn(spacing, alone);
        options.confirmations = rng.between(1, 6);
        options.gossip_every = spacing * [1, 1, 2, 4][rng.below(4) as usize] / 2;
        let fewest = 4_000u64.div_ceil(spacing.as_millis() as u64);
        options.retarget_blocks = fewest + rng.below(20);
        options.settled_after = options.confirmations + [5, 20, 40, 60, 60, 100][rng.below(6) as usize];
        if rng.chance(0.4) {
            // Who was away for long finds the blocks that it lacks forgotten, and is sent a snapshot.
            options.past_bytes_max = rng.between(1, 2_000) as usize;
        }
        if rng.chance(0.3) {
            // Little of everything: blocks, memory and messages at their limits.
            options.block_bytes_max = rng.between(1_024, 3_000) as usize;
            options.pool_bytes_max = rng.between(500, 10_000) as usize;
            options.tree_bytes_max = rng.between(1_000, 20_000) as usize;
            options.answer_bytes_max = rng.between(1, 5_000) as usize;
        }
        options
    }

    fn set(options: &mut Options, name: &str, value: &str) -> bool {
        options.set(name, value)
    }

    fn mutants() -> Vec<(&'static str, &'static str)> {
        Mutant::ALL.iter().map(|mutant| (mutant.name(), mutant.story().trim())).collect()
    }

    /// Nobody is elected: faults come and go at the pace of blocks.
    fn election_timeout(options: &Options) -> Duration {
        options.spacing * 2
    }

    /// One of nine may be left, at the difficulty of nine.
    fn answer_within(options: &Options) -> Duration {
        options.spacing * 8 * (options.confirmations as u32 + 2)
    }

    /// Whose clocks are further apart than two hours do not agree: clocks may run apart, but not leap.
    fn clocks(_: &Options) -> Clocks {
        Clocks::Bounded(20_000)
    }

    fn admits_loss(protocol: &Pow) -> bool {
        protocol.admits_loss()
    }

    fn is_estranged(protocol: &Pow) -> bool {
        protocol.counts().refused > 0
    }

    fn examine(protocol: &Pow) -> Result<(), String> {
        protocol.examine()
    }

    fn standing(protocol: &Pow) -> (Role, u64) {
        (Role::Miner, protocol.switches())
    }

    fn bend(message: &Message, lie: Lie<'_, Message>, rng: &mut Rng) -> Option<Message> {
        match message {
            Message::Block(block) => Some(Message::Block(Arc::new(bend(block, &lie, rng)?))),
            // Of a block that nobody has.
            Message::Tip { height, work, .. } => {
                let mut hash = [0; 32];
                hash.iter_mut().for_each(|byte| *byte = rng.below(256) as u8);
                Some(Message::Tip { hash: Hash(hash), height: height + rng.below(3), work: *work })
            }
            Message::Want { known, root_height } => {
                let known = known.iter().copied().skip(rng.below(3) as usize).collect();
                Some(Message::Want { known, root_height: *root_height })
            }
            // What a client of some replica asks for is signed by nobody: who invents commands is not defended against. Nor is who
            // lies about what lies before a snapshot.
            Message::Commands(_) | Message::Root(_) | Message::Apart { .. } => None,
        }
    }
}

/// A target above every limit: a block costs one hash or two.
const FREE_BITS: u32 = 0x2100_ffff;

/// A block that breaks one rule, and as a rule proves its work all the same.
fn bend(block: &Block, lie: &Lie<'_, Message>, rng: &mut Rng) -> Option<Block> {
    let mut bent = block.clone();
    match rng.below(8) {
        0 => bent.header.time = bent.header.time.saturating_sub(1_000),
        1 => bent.header.time = bent.header.time.saturating_add(10_000),
        2 => bent.header.bits = FREE_BITS,
        // Twice, or many times, as easy as it should be; or harder, which is not due either.
        3 => bent.header.bits = bent.header.bits.wrapping_add(1 << (24 * rng.below(2))).min(0x207f_ffff),
        4 => bent.height += 1 + rng.below(2),
        5 => {
            bent.header.nonce = bent.header.nonce.wrapping_add(1);
            return Some(bent);
        }
        6 => {
            // The root stands for another body.
            bent.batch = heard(lie).find(|other| other.batch != bent.batch)?.batch.clone();
            return Some(bent);
        }
        _ => {
            // What is in the chain already, or in the same block.
            let again = heard(lie).find(|other| !other.batch.is_empty() && other.height < bent.height)?;
            bent.batch = bent.batch.iter().chain(again.batch.iter()).cloned().collect();
        }
    }
    bent.mine_within(MINED_WITHIN).then_some(bent)
}

/// Harder targets are left alone.
const MINED_WITHIN: u32 = 1 << 14;

fn heard<'a>(lie: &'a Lie<'_, Message>) -> impl Iterator<Item = &'a Arc<Block>> {
    lie.heard.all().filter_map(|message| match message {
        Message::Block(block) => Some(block),
        _ => None,
    })
}
