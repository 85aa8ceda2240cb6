//! An attacker's race against the honest chain (section 11): the formulas, the race, and a real replica before it.
//!
//! A merchant waits until the payment's block has `z` confirmations. Meanwhile the attacker, with a share `q` of all hashing power, mines
//! another chain in secret. If it ever gets ahead, the payment is undone. Nakamoto takes the number of blocks that the attacker has
//! when the honest chain has `z` to be Poisson with mean `z q / p`, as if the honest blocks had taken exactly the average time. They
//! have not; the number is negative binomial (Rosenfeld, "Analysis of hashrate-based double spending", 2012), and the paper's
//! table is too low. In both, who is level has won, because one block is on the attacker's side before the race begins.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use synod_core::{
    Batch, Command, CommandId, Config, Delivery, Index, Input, Members, NodeId, Output, Protocol, Recovered,
    Rng, Time, empty_batch,
};

use super::block::Block;
use super::header::{Hash, Header, Search};
use super::message::Message;
use super::options::Mining;
use super::work::target_of;
use super::{Options, Pow};

/// Nakamoto's own calculation (the program at the end of section 11).
#[must_use]
pub fn nakamoto(q: f64, z: u32) -> f64 {
    let p = 1.0 - q;
    let lambda = f64::from(z) * (q / p);
    let (mut sum, mut poisson) = (1.0, (-lambda).exp());
    for k in 0..=z {
        if k > 0 {
            poisson *= lambda / f64::from(k);
        }
        sum -= poisson * (1.0 - (q / p).powi((z - k).cast_signed()));
    }
    sum
}

/// The chance with the negative binomial: 1 - sum over m = 0..=z of C(m + z - 1, m) (p^z q^m - p^m q^z).
#[must_use]
pub fn exact(q: f64, z: u32) -> f64 {
    let p = 1.0 - q;
    if z == 0 || q >= p {
        return 1.0;
    }
    // The attacker has m blocks when the honest chain has z: C(m + z - 1, m) p^z q^m.
    let mut share = p.powi(z.cast_signed());
    let mut sum = 0.0;
    for m in 0..=z {
        if m > 0 {
            share *= q * f64::from(m + z - 1) / f64::from(m);
        }
        sum += share * (1.0 - (q / p).powi((z - m).cast_signed()));
    }
    1.0 - sum
}

/// Who found a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Those who follow the rules.
    Honest,
    /// The attacker, in secret.
    Attacker,
}

/// One race: who found which block, up to the moment when it was decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Race {
    /// How many confirmations the merchant waits for.
    pub z: u32,
    /// The blocks, in order; the attacker's first, found before the race began, is not among them.
    pub found: Vec<Side>,
    /// Whether the attacker's chain had more work at some time after the merchant delivered.
    pub is_won: bool,
}

impl Race {
    /// Lets two sides race, block by block: each block is the attacker's with chance `q`. The attacker gives up when it is so far behind
    /// that its chance to come back is below one in 10^10.
    #[must_use]
    pub fn run(q: f64, z: u32, rng: &mut Rng) -> Race {
        assert!(q > 0.0 && q < 0.5, "a majority always wins: shares between 0 and 1/2 are of interest");
        let behind_max = (1e-10f64.ln() / (q / (1.0 - q)).ln()).ceil() as u32;
        let (mut honest, mut attacker) = (0u32, 1u32);
        let mut found = Vec::new();
        loop {
            let is_delivered = honest >= z;
            if is_delivered && attacker > honest {
                return Race { z, found, is_won: true };
            }
            if is_delivered && honest - attacker > behind_max {
                return Race { z, found, is_won: false };
            }
            if rng.chance(q) {
                attacker += 1;
                found.push(Side::Attacker);
            } else {
                honest += 1;
                found.push(Side::Honest);
            }
        }
    }

    /// The same race with real blocks before a real replica, which waits for `z` confirmations: whether it delivered the payment, and
    /// whether that was taken back when the attacker showed its chain. The payment is in the first honest block.
    #[must_use]
    pub fn replay(&self) -> (bool, bool) {
        let mut options = Options::drawn(Duration::from_secs(600), Duration::from_secs(600));
        options.genesis_bits = options.limit_bits;
        options.retarget_blocks = 2016;
        (options.confirmations, options.settled_after) = (u64::from(self.z.max(1)), 1_000_000);
        options.mining = Mining::Off;
        let genesis = options.genesis();
        let config = Config { id: NodeId(1), members: Members::of([NodeId(1)]), seed: 1, options };
        let mut out = Output::default();
        let mut merchant = Pow::open(&config, Recovered::default(), Time::ZERO, &mut out);
        let id = CommandId { origin: NodeId(2), number: 1 };
        let payment = Batch::from([Command { id, payload: Bytes::from_static(b"payment") }]);
        let honest = self.found.iter().filter(|side| **side == Side::Honest).count();
        let attacker = self.found.len() - honest + 1;
        let mut hear = |miner, count: usize, first: Batch| {
            let mut before = genesis;
            for height in 1..=count as u64 {
                let batch = if height == 1 { first.clone() } else { empty_batch() };
                let block = Block::on(&before, height, miner, batch);
                before = block.header;
                let message = Message::Block(Arc::new(block));
                merchant.step(Time::ZERO, Input::Message { from: miner, message }, &mut out);
                merchant.step(Time::ZERO, Input::Durable(out.written()), &mut out);
                merchant.flush(Time::ZERO, &mut out);
            }
        };
        hear(NodeId(2), honest, payment);
        if self.is_won {
            hear(NodeId(3), attacker, empty_batch());
        }
        let pays =
            |delivery: &Delivery| matches!(delivery, Delivery::Batch { batch, .. } if !batch.is_empty());
        let delivered = out.deliveries.iter().any(pays);
        (delivered, out.deliveries.iter().any(|it| matches!(it, Delivery::Rewind { at: Index(0) })))
    }
}

impl Block {
    /// A block behind another, mined here and now, a second later and with the same bits: for tests and experiments with easy targets.
    ///
    /// # Panics
    /// When the target is so hard that no nonce will do.
    #[must_use]
    pub fn on(before: &Header, height: u64, miner: NodeId, batch: Batch) -> Block {
        let header = Header {
            previous: before.hash(),
            merkle: Hash::default(),
            time: before.time + 1,
            nonce: 0,
            ..*before
        };
        let mut block = Block { header, height, miner, extra: 0, batch };
        block.mine();
        block
    }

    /// Makes the merkle root right, and finds a nonce.
    ///
    /// # Panics
    /// As [`Block::on`].
    pub fn mine(&mut self) {
        assert!(self.mine_within(u32::MAX), "an easy target");
    }

    /// The same, but gives up after so many hashes; whether a nonce was found.
    pub fn mine_within(&mut self, hashes: u32) -> bool {
        self.header.merkle = self.merkle_root();
        let Ok(target) = target_of(self.header.bits) else { return false };
        let mut search = Search::new(&self.header, target);
        let found = (0..hashes).find(|nonce| search.tries(*nonce));
        self.header.nonce = found.unwrap_or_default();
        found.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The paper's own table, to the digits that it prints, and the exact column beside it.
    #[test]
    fn the_formulas_give_the_tables() {
        for (q, z, printed) in [
            (0.1, 1, 0.204_587_3),
            (0.1, 5, 0.000_913_7),
            (0.1, 10, 0.000_001_2),
            (0.3, 5, 0.177_352_3),
            (0.3, 50, 0.000_000_6),
        ] {
            assert!((nakamoto(q, z) - printed).abs() < 5e-8, "q={q} z={z}: {}", nakamoto(q, z));
        }
        for (q, z, known) in [(0.1, 1, 0.2), (0.1, 2, 0.056), (0.1, 6, 0.000_591_4), (0.3, 5, 0.197_617_3)] {
            assert!((exact(q, z) - known).abs() < 5e-8, "q={q} z={z}: {}", exact(q, z));
        }
        assert!((exact(0.3, 50) - 3.11e-5).abs() < 1e-7);
        assert_eq!((nakamoto(0.1, 0), exact(0.1, 0), exact(0.5, 9)), (1.0, 1.0, 1.0));
    }

    /// Races converge to the exact chance, within three standard deviations, and away from the paper's where the two differ.
    #[test]
    fn races_converge_to_the_exact_chance() {
        let mut rng = Rng::new(2008);
        for (q, z) in [(0.1, 1), (0.1, 2), (0.1, 3), (0.3, 1), (0.3, 5), (0.3, 10)] {
            let trials = 60_000;
            let won = (0..trials).filter(|_| Race::run(q, z, &mut rng).is_won).count();
            let (expected, rate) = (exact(q, z), won as f64 / f64::from(trials));
            let sigma = (expected * (1.0 - expected) / f64::from(trials)).sqrt();
            assert!((rate - expected).abs() < 3.0 * sigma, "q={q} z={z}: {rate} against {expected}");
            assert!(
                (rate - nakamoto(q, z)).abs() > 2.0 * sigma,
                "q={q} z={z}: the paper's chance would do as well"
            );
        }
    }

    /// A real replica agrees with the arithmetic: it delivers at `z` confirmations, and takes the payment back in each race that is won.
    #[test]
    fn a_real_replica_agrees() {
        let mut rng = Rng::new(7);
        let mut won = 0;
        for z in [1, 2, 3, 6] {
            for _ in 0..60 {
                let race = Race::run(0.3, z, &mut rng);
                assert_eq!(race.replay(), (true, race.is_won), "{race:?}");
                won += u32::from(race.is_won);
            }
        }
        assert!(won > 20);
    }
}
