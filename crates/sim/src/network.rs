//! The network between replicas: late, lossy, doubling, reordering, corrupting, clogged and cut.
//!
//! A packet's fate is drawn when it is sent; a link that is cut when the packet would arrive loses it, too. Delays have a
//! heavy tail by bit-counting (each doubling is half as likely), which needs no logarithm: the same seed must
//! give the same nanosecond on every machine.

use std::time::Duration;

use synod_core::{NodeId, Rng, Time};

/// The most replicas that ever take part in one world, replaced ones included.
pub const NODES_MAX: usize = 4096;

/// How the network behaves, apart from cuts and clogs.
#[derive(Clone, Copy, Debug)]
pub struct Rates {
    /// The shortest way from one replica to another.
    pub delay_min: Duration,
    /// What the tail of delays doubles from.
    pub delay_step: Duration,
    /// How often the tail may double: the longest delay is `delay_min + delay_step * 2^doublings_max`.
    pub doublings_max: u32,
    /// The share of packets that vanish.
    pub loss: f64,
    /// The share of packets that come twice.
    pub duplication: f64,
    /// The share of packets that arrive with flipped bits.
    pub corruption: f64,
    /// The share of packets that cross the network as bytes, through the real encoder and decoder.
    pub encoded: f64,
    /// Whether a link keeps the order of its packets.
    pub order: LinkOrder,
}

/// Whether later packets may overtake earlier ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkOrder {
    /// As TCP: never.
    Kept,
    /// As a datagram: at will.
    Free,
}

impl Rates {
    /// A quiet network with the given delays.
    #[must_use]
    pub fn calm(delay_min: Duration, delay_step: Duration) -> Rates {
        Rates {
            delay_min,
            delay_step,
            doublings_max: 3,
            loss: 0.0,
            duplication: 0.0,
            corruption: 0.0,
            encoded: 0.05,
            order: LinkOrder::Kept,
        }
    }

    /// One delay.
    pub fn delay(&self, rng: &mut Rng) -> Duration {
        let bits = rng.next_u64();
        let doublings = bits.trailing_zeros().min(self.doublings_max);
        let span = (self.delay_step.as_nanos() as u64) << doublings;
        self.delay_min + Duration::from_nanos(((u128::from(bits) * u128::from(span)) >> 64) as u64)
    }
}

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It vanishes on the way.
    Lost,
    /// It arrives.
    Arrives {
        /// When.
        at: Time,
        /// The second copy, if there is one.
        again: Option<Time>,
        /// In which shape.
        form: Form,
    },
}

/// How a packet crosses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// As a value, never encoded.
    Value,
    /// Encoded, and decoded on arrival.
    Encoded,
    /// Encoded, with a bit flipped.
    Corrupt,
}

/// All links.
pub struct Network {
    /// How links behave that are not treated specially.
    pub rates: Rates,
    rng: Rng,
    /// By sender, then by receiver; grows with the names that are used.
    links: Vec<Vec<Link>>,
}

/// One direction between two replicas.
#[derive(Clone, Copy, Debug, Default)]
struct Link {
    /// For how many reasons nothing passes.
    cuts: u16,
    clogged_until: Time,
    last_arrival: Time,
}

impl Network {
    /// A network whose fates come from `rng`.
    #[must_use]
    pub fn new(rates: Rates, rng: Rng) -> Network {
        Network { rates, rng, links: Vec::new() }
    }

    fn link(&mut self, from: NodeId, to: NodeId) -> &mut Link {
        let (from, to) = (from.0 as usize, to.0 as usize);
        assert!(from < NODES_MAX && to < NODES_MAX, "a world has fewer replicas than that");
        if self.links.len() <= from {
            self.links.resize(from + 1, Vec::new());
        }
        let row = &mut self.links[from];
        if row.len() <= to {
            row.resize(to + 1, Link::default());
        }
        &mut row[to]
    }

    /// One more reason for which nothing goes from `from` to `to`.
    pub fn cut(&mut self, from: NodeId, to: NodeId) {
        self.link(from, to).cuts += 1;
    }

    /// One reason less.
    pub fn mend(&mut self, from: NodeId, to: NodeId) {
        let link = self.link(from, to);
        link.cuts = link.cuts.saturating_sub(1);
    }

    /// No cuts and no clogs any more.
    pub fn mend_all(&mut self) {
        for link in self.links.iter_mut().flatten() {
            (link.cuts, link.clogged_until) = (0, Time::ZERO);
        }
    }

    /// Whether nothing goes from `from` to `to`.
    #[must_use]
    pub fn is_cut(&self, from: NodeId, to: NodeId) -> bool {
        let row = self.links.get(from.0 as usize);
        row.and_then(|row| row.get(to.0 as usize)).is_some_and(|link| link.cuts > 0)
    }

    /// Packets that enter the link arrive after `until` at the earliest.
    pub fn clog(&mut self, from: NodeId, to: NodeId, until: Time) {
        let link = self.link(from, to);
        link.clogged_until = link.clogged_until.max(until);
    }

    /// Draws the fate of a packet that is sent now.
    pub fn fate(&mut self, now: Time, from: NodeId, to: NodeId) -> Fate {
        let rates = self.rates;
        if self.link(from, to).cuts > 0 || rates.loss > 0.0 && self.rng.chance(rates.loss) {
            return Fate::Lost;
        }
        let mut at = now + rates.delay(&mut self.rng);
        let link = self.link(from, to);
        at = at.max(link.clogged_until);
        if rates.order == LinkOrder::Kept {
            at = at.max(Time(link.last_arrival.0 + 1));
            link.last_arrival = at;
        }
        let again = (rates.duplication > 0.0 && self.rng.chance(rates.duplication))
            .then(|| at + rates.delay(&mut self.rng));
        let form = if rates.corruption > 0.0 && self.rng.chance(rates.corruption) {
            Form::Corrupt
        } else if self.rng.chance(rates.encoded) {
            Form::Encoded
        } else {
            Form::Value
        };
        Fate::Arrives { at, again, form }
    }

    /// A number for flipping bits, from the network's own generator.
    pub fn draw(&mut self, bound: u64) -> u64 {
        self.rng.below(bound)
    }
}
