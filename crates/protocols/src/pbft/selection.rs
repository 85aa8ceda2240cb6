//! What a new view begins with (4.4): from the view changes of a quorum, what may have been decided.
//!
//! The 1999 paper proves that a request prepared by showing 2f signed prepares. Its section 5.3 replaces signatures by
//! MACs, which convince no third party, and refers to the technical report for the view change that goes with them; that
//! one is also in Castro and Liskov, "Practical Byzantine Fault Tolerance and Proactive Recovery" (2002), section
//! 4.5.2, and it is what stands here. Replicas merely *claim* what prepared (P) and what pre-prepared (Q); a choice
//! for a sequence number is made when the claims leave only one:
//!
//! - **A**: a proposal that somebody claims to have prepared in view v is chosen if (A1) a quorum claims nothing else in v
//!   or later, and (A2) f + 1 claim to have pre-prepared it in v or later, so that an honest replica really did.
//! - **B**: nothing is chosen, and a null request takes the place, if a quorum claims to have prepared nothing there.
//!
//! If neither holds the primary waits for further view changes; those of all honest replicas are always enough.
//! Backups make the same choice from the same view changes, and so see whether the primary was honest.
//!
//! Why a decided proposal is always chosen: a quorum prepared it, so any quorum of view changes holds a claim of
//! an honest replica among them; B cannot hold, and A1 holds for nothing older; for something newer A2 would need an
//! honest replica that pre-prepared something else in a later view, which no new view has let it.

use std::collections::BTreeSet;

use synod_core::Index;

use super::keys::Digest;
use super::message::{Certificate, Claim, Proposal, View, ViewChange};
use super::quorum::Quorums;

/// How a new view begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Beginning {
    /// The newest stable checkpoint that somebody could prove.
    pub(super) stable: Certificate,
    /// What is proposed anew right above it, in order.
    pub(super) selection: Vec<Digest>,
}

/// Which rules of the choice apply: all, but for a mutant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rules {
    All,
    /// Without A2.
    AnyClaim,
}

/// Chooses; nothing while the view changes leave it open.
///
/// The caller has checked that every view change is well formed, is for the same view, and that no two are by the same
/// replica.
pub(super) fn choose(view_changes: &[&ViewChange], quorums: Quorums, rules: Rules) -> Option<Beginning> {
    if view_changes.len() < quorums.strong() {
        return None;
    }
    let stable = view_changes.iter().map(|it| &it.stable).max_by_key(|it| it.point.at)?.clone();
    let low = stable.point.at;
    let high = view_changes.iter().filter_map(|it| it.prepared.last()).map(|claim| claim.at).max();
    let mut selection = Vec::new();
    for at in low.0 + 1..=high.map_or(0, |high| high.0) {
        selection.push(choose_at(Index(at), view_changes, quorums, rules)?);
    }
    Some(Beginning { stable, selection })
}

fn choose_at(at: Index, view_changes: &[&ViewChange], quorums: Quorums, rules: Rules) -> Option<Digest> {
    // Every view change counts here: none knows a stable checkpoint beyond the one from which the new view begins.
    let prepared: Vec<Option<&Claim>> = view_changes.iter().map(|it| claim_at(&it.prepared, at)).collect();
    let candidates: BTreeSet<(View, Digest)> =
        prepared.iter().flatten().map(|claim| (claim.view, claim.digest)).collect();
    for (view, digest) in candidates.iter().rev() {
        let allows = |claim: &Option<&Claim>| {
            claim.is_none_or(|it| it.view < *view || it.view == *view && it.digest == *digest)
        };
        let a1 = prepared.iter().filter(|claim| allows(claim)).count() >= quorums.strong();
        let saw = |it: &&&ViewChange| {
            claims_at(&it.pre_prepared, at).any(|claim| claim.view >= *view && claim.digest == *digest)
        };
        let a2 = rules == Rules::AnyClaim || view_changes.iter().filter(saw).count() >= quorums.weak();
        if a1 && a2 {
            return Some(*digest);
        }
    }
    let nothing = prepared.iter().filter(|claim| claim.is_none()).count();
    (nothing >= quorums.strong()).then(|| Proposal::null().digest())
}

/// Claims are sorted by sequence number.
fn claims_at(claims: &[Claim], at: Index) -> impl Iterator<Item = &Claim> {
    let first = claims.partition_point(|claim| claim.at < at);
    claims[first..].iter().take_while(move |claim| claim.at == at)
}

fn claim_at(claims: &[Claim], at: Index) -> Option<&Claim> {
    claims_at(claims, at).next()
}

#[cfg(test)]
mod tests {
    use synod_core::NodeId;

    use super::super::keys::{Signature, digest};
    use super::*;

    fn claim(at: u64, view: u64, name: &str) -> Claim {
        Claim { at: Index(at), view: View(view), digest: digest(&[name.as_bytes()]) }
    }

    fn says(replica: u64, prepared: &[Claim], pre_prepared: &[Claim]) -> ViewChange {
        ViewChange {
            view: View(9),
            replica: NodeId(replica),
            stable: Certificate::default(),
            prepared: prepared.to_vec(),
            pre_prepared: pre_prepared.to_vec(),
            signature: Signature([0; 64]),
        }
    }

    fn chosen(view_changes: &[ViewChange]) -> Option<Vec<Digest>> {
        let refs: Vec<&ViewChange> = view_changes.iter().collect();
        choose(&refs, Quorums::of(4), Rules::All).map(|it| it.selection)
    }

    /// What a quorum prepared is chosen by every quorum of view changes, whatever the one liar among them claims.
    #[test]
    fn what_may_be_decided_is_chosen() {
        let a = claim(1, 0, "a");
        let b = claim(1, 0, "b");
        // n1 is the primary that told n2, n3 of a, and n4 of b; a is decided by n1, n2, n3.
        let honest = [says(2, &[a], &[a]), says(3, &[a], &[a]), says(4, &[], &[b])];
        assert_eq!(chosen(&honest), Some(vec![a.digest]));
        // n1 lies: it claims to have prepared b, in the same view or in one that nobody saw.
        for lie in [claim(1, 0, "b"), claim(1, 5, "b")] {
            let liar = says(1, &[lie], &[lie]);
            let quorum = [liar.clone(), honest[0].clone(), honest[2].clone()];
            assert_eq!(chosen(&quorum), None, "n1 or n2 lies, and three cannot tell which");
            let all = [liar, honest[0].clone(), honest[1].clone(), honest[2].clone()];
            assert_eq!(chosen(&all), Some(vec![a.digest]));
        }
    }

    /// A gap is filled with the null request when a quorum prepared nothing there; a claim that only one backs is nothing.
    #[test]
    fn gaps_are_filled() {
        let (a, c) = (claim(1, 0, "a"), claim(3, 0, "c"));
        let all =
            [says(1, &[a, c], &[a, c]), says(2, &[a, c], &[a, c]), says(3, &[], &[a, c]), says(4, &[], &[])];
        let null = Proposal::null().digest();
        assert_eq!(chosen(&all), Some(vec![a.digest, null, c.digest]));
        let lone = [says(1, &[a], &[a]), says(2, &[], &[]), says(3, &[], &[])];
        assert_eq!(chosen(&lone), None, "n4 may have prepared it, too");
        let enough = [says(1, &[a], &[a]), says(2, &[], &[]), says(3, &[], &[]), says(4, &[], &[])];
        assert_eq!(chosen(&enough), Some(vec![null]));
    }
}
