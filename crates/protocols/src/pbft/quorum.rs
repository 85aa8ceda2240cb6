//! How many must agree.
//!
//! The paper has n = 3f + 1 replicas and quorums of 2f + 1. For any other number of replicas the same two properties
//! decide: two quorums share an honest replica, so q > (n + f) / 2; and a quorum is there although f are silent, so
//! q <= n - f. With f = (n - 1) / 3 the smallest such q is `(n + f) / 2 + 1`, which is 2f + 1 where n = 3f + 1.

/// The numbers of one cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Quorums {
    /// Replicas.
    pub(super) n: usize,
    /// How many of them may lie.
    pub(super) f: usize,
}

impl Quorums {
    pub(super) fn of(n: usize) -> Quorums {
        Quorums { n, f: n.saturating_sub(1) / 3 }
    }

    /// So many agree when any two such groups share an honest replica.
    pub(super) fn strong(self) -> usize {
        (self.n + self.f) / 2 + 1
    }

    /// One of so many is honest.
    pub(super) fn weak(self) -> usize {
        self.f + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The paper's numbers where n = 3f + 1, and both properties for every other n.
    #[test]
    fn quorums_meet_in_an_honest_replica() {
        for f in 0..6 {
            let quorums = Quorums::of(3 * f + 1);
            assert_eq!((quorums.f, quorums.strong(), quorums.weak()), (f, 2 * f + 1, f + 1));
        }
        for n in 1..30 {
            let quorums = Quorums::of(n);
            assert!(2 * quorums.strong() > n + quorums.f, "{n}");
            assert!(quorums.strong() <= n - quorums.f, "{n}");
        }
    }
}
