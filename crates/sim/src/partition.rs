//! The eight shapes in which a network falls apart.
//!
//! Source of the shapes: Jepsen's nemeses (halves, bridge, ring of majorities, one alone), TigerBeetle's asymmetric cuts, and the
//! partial partitions of the Cloudflare incident of 2020-11-02 (a leader that some still hear, chained switches).

use synod_core::{NodeId, Rng};

/// How the links are cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// One replica hears and reaches nobody.
    OneAlone,
    /// Two groups, a majority and the rest.
    Halves,
    /// Two groups that both reach one replica in the middle.
    Bridge,
    /// Every replica reaches a majority, and no two the same one.
    MajoritiesRing,
    /// What some send to the others is lost; the other direction works.
    OneWay,
    /// The leader is heard but hears nothing, or hears everything and is not heard.
    LeaderOneWay,
    /// One replica's links come and go.
    Flapping,
    /// Each replica reaches only its neighbours in a line.
    Chained,
}

impl Shape {
    /// All of them.
    pub const ALL: [Shape; 8] = [
        Shape::OneAlone,
        Shape::Halves,
        Shape::Bridge,
        Shape::MajoritiesRing,
        Shape::OneWay,
        Shape::LeaderOneWay,
        Shape::Flapping,
        Shape::Chained,
    ];

    /// Its name in traces and reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Shape::OneAlone => "one alone",
            Shape::Halves => "halves",
            Shape::Bridge => "bridge",
            Shape::MajoritiesRing => "ring of majorities",
            Shape::OneWay => "one way",
            Shape::LeaderOneWay => "leader one way",
            Shape::Flapping => "flapping",
            Shape::Chained => "chained",
        }
    }

    /// The links that this shape cuts among `nodes` (from, to). `leader` is who leads now, if anybody does.
    #[must_use]
    pub fn cuts(self, nodes: &[NodeId], leader: Option<NodeId>, rng: &mut Rng) -> Vec<(NodeId, NodeId)> {
        let mut order = nodes.to_vec();
        for i in (1..order.len()).rev() {
            order.swap(i, rng.below(i as u64 + 1) as usize);
        }
        let n = order.len();
        if n < 2 {
            return Vec::new();
        }
        // Every other time it is the leader that is alone, in the minority, or the bridge.
        if let Some(place) = leader.and_then(|leader| order.iter().position(|node| *node == leader))
            && rng.chance(0.5)
        {
            order.swap(0, place);
        }
        let place = |node: NodeId| order.iter().position(|other| *other == node).unwrap_or(0);
        let chosen = leader.filter(|leader| order.contains(leader)).unwrap_or(order[0]);
        let sense = rng.below(2);
        let minority = 1 + rng.below((n as u64 / 2).max(1)) as usize;
        let is_cut = |from: NodeId, to: NodeId| {
            let (a, b) = (place(from), place(to));
            match self {
                Shape::OneAlone | Shape::Flapping => a == 0 || b == 0,
                Shape::Halves => (a < minority) != (b < minority),
                // With fewer than three there is nobody to be the bridge: it is a cut.
                Shape::Bridge => (a != 0 || n < 3) && b != 0 && (a <= n / 2) != (b <= n / 2),
                // Among three, two neighbours are already everybody: there the ring is cut in one direction.
                Shape::MajoritiesRing if n <= 3 => (b + n - a) % n == 1,
                Shape::MajoritiesRing => {
                    let apart = (a + n - b) % n;
                    apart.min(n - apart) > (n / 2).div_ceil(2)
                }
                Shape::OneWay => a < minority && b >= minority,
                Shape::LeaderOneWay if sense == 0 => from == chosen,
                Shape::LeaderOneWay => to == chosen,
                Shape::Chained => a.abs_diff(b) > 1,
            }
        };
        let pairs = nodes.iter().flat_map(|from| nodes.iter().map(move |to| (*from, *to)));
        pairs.filter(|(from, to)| from != to && is_cut(*from, *to)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every shape cuts something among five replicas, never a replica from itself; the ring leaves everybody a majority.
    #[test]
    fn shapes_are_what_they_say() {
        let nodes: Vec<NodeId> = (1..=5).map(NodeId).collect();
        let mut rng = Rng::new(7);
        for shape in Shape::ALL {
            let cuts = shape.cuts(&nodes, Some(NodeId(3)), &mut rng);
            assert!(!cuts.is_empty(), "{shape:?} cuts nothing");
            assert!(cuts.iter().all(|(from, to)| from != to));
            if shape == Shape::MajoritiesRing {
                for node in &nodes {
                    let lost = cuts.iter().filter(|(from, _)| from == node).count();
                    assert_eq!(lost, 2, "{node:?} reaches itself and two others");
                }
            }
            if shape == Shape::LeaderOneWay {
                let about = |(from, to): &(NodeId, NodeId)| *from == NodeId(3) || *to == NodeId(3);
                assert!(cuts.iter().all(about) && cuts.len() == 4);
            }
        }
    }
}
