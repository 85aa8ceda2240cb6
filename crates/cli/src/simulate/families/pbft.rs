//! PBFT, as the simulator sees it, and as its liars speak it.

use std::sync::Arc;
use std::time::Duration;

use synod_check::verdict::Level;
use synod_core::{Index, NodeId, Rng, Role};
use synod_protocols::pbft::{
    Base, Certificate, Digest, Keys, Message, Mutant, NewView, Options, Pbft, Point, Proposal, Request,
    Sealed, Signature, Subject, View, ViewChange, digest,
};
use synod_sim::byzantine::{Heard, Lie, States, Zeal};
use synod_sim::family::{Family, Promise};
use synod_sim::script::Order;

/// PBFT with whatever options a seed draws.
pub(crate) struct PbftFamily;

impl Family for PbftFamily {
    type Protocol = Pbft;
    const NAME: &'static str = "pbft";
    const ORDER: Order = Order::Total;
    const LEVEL: Level = Level::Linearizable;
    const STATES: States = States::Bent;

    /// Of each place: in which view it was agreed to (no term for what it held), and what prepared there. Of all: which views are over.
    fn promise(sealed: &Sealed, _: &Pbft) -> Option<Promise> {
        let (place, view, prepared) = match &sealed.message {
            Message::PrePrepare { view, at, .. } | Message::Prepare { view, at, .. } => {
                (Some(*at), view, None)
            }
            Message::Commit { view, at, digest } => (Some(*at), view, Some((*at, short(digest)))),
            Message::ViewChange(said) => (None, &said.view, None),
            _ => return None,
        };
        Some(Promise { place, term: view.0, holds: prepared })
    }

    fn forgot(promised: &Promise, protocol: &Pbft) -> Option<String> {
        let (_, now) = protocol.standing();
        let view = promised.term;
        if now.0 < view {
            return Some(format!("it took part in view {view}, and is in {now:?}"));
        }
        let at = promised.place.filter(|at| *at > protocol.stable())?;
        let (accepted, prepared) = protocol.agreed_at(at);
        if accepted.is_none_or(|accepted| accepted.0 < view) {
            return Some(format!(
                "it has agreed to something at {at:?} in view {view}, and knows of {accepted:?}"
            ));
        }
        let (_, digest) = promised.holds?;
        let what =
            || format!("it has committed to {digest:x} at {at:?} in view {view}, and knows of {prepared:?}");
        let is_there =
            |(in_view, what): (View, Digest)| in_view.0 > view || in_view.0 == view && short(&what) == digest;
        (!prepared.is_some_and(is_there)).then(what)
    }

    fn nodes() -> std::ops::RangeInclusive<u64> {
        4..=10
    }

    fn losses_max(nodes: usize) -> usize {
        // What a quorum leaves: f, and one more for some n that are not 3f + 1.
        let liars = Self::liars_max(nodes);
        nodes - ((nodes + liars) / 2 + 1)
    }

    fn liars_max(nodes: usize) -> usize {
        nodes.saturating_sub(1) / 3
    }

    fn options(rng: &mut Rng) -> Options {
        let view_timeout = Duration::from_millis([300, 500, 1000, 1000, 2000][rng.below(5) as usize]);
        let mut options = Options {
            view_timeout,
            heartbeat: view_timeout / [4, 8, 10, 20][rng.below(4) as usize],
            checkpoint_every: rng.between(1, 40),
            ..Options::default()
        };
        options.window = options.checkpoint_every * rng.between(2, 6);
        options.inflight_max = rng.between(1, 16);
        options.requests_max = rng.between(1, 16) as usize;
        options.snapshot_every = [3, 10, 30, 100, 1000][rng.below(5) as usize];
        options.snapshot_bytes = 0;
        if rng.chance(0.4) {
            // Little of everything: memory and messages at their limits.
            options.proposal_bytes_max = rng.between(1, 2_000) as usize;
            options.log_bytes_max = 100 << rng.below(8);
        }
        options
    }

    fn set(options: &mut Options, name: &str, value: &str) -> bool {
        options.set(name, value)
    }

    fn mutants() -> Vec<(&'static str, &'static str)> {
        Mutant::ALL.iter().map(|mutant| (mutant.name(), mutant.story().trim())).collect()
    }

    fn election_timeout(options: &Options) -> Duration {
        // A request goes to all after a quarter of the time, or with the next heartbeat.
        options.view_timeout + options.view_timeout / 4 + options.heartbeat
    }

    fn standing(protocol: &Pbft) -> (Role, u64) {
        let (role, view) = protocol.standing();
        (role, view.0)
    }

    /// A new view that forgets needs more than its primary: everything that liars say of such a view, and in it, fits together.
    fn zeal(sealed: &Sealed) -> Zeal {
        let view = match &sealed.message {
            Message::ViewChange(said) => said.view,
            Message::NewView(new_view) => new_view.view,
            Message::Prepare { view, .. } | Message::Commit { view, .. } => *view,
            _ => return Zeal::Usual,
        };
        if is_plotted(view) { Zeal::Insists } else { Zeal::Usual }
    }

    /// One heartbeat in fifty comes with a state that is a little further than whoever hears it, and that nobody else vouches for.
    fn unasked_state(sealed: &Sealed, lie: Lie<'_, Sealed>, rng: &mut Rng) -> Option<(Index, Sealed)> {
        let Message::Status(_) = &sealed.message else { return None };
        if !rng.chance(0.02) {
            return None;
        }
        let executed = lie.heard.of(lie.to).find_map(|sealed| match &sealed.message {
            Message::Status(progress) => Some(progress.executed),
            _ => None,
        })?;
        let at = Index(executed.0 + 1 + rng.below(8));
        let point = Point { at, history: fancy(rng) };
        let base = Arc::new(Base { point, ..Base::default() });
        let (keys, sum) = (Keys::from_names().of(lie.from), fancy(rng));
        let proof = vec![(lie.from, keys.sign(Subject::Saved, sum))];
        Some((at, Sealed::new(Message::InstallSnapshot { base, sum, proof }, lie.to, &keys)))
    }

    fn bend(sealed: &Sealed, lie: Lie<'_, Sealed>, rng: &mut Rng) -> Option<Sealed> {
        let keys = Keys::from_names().of(lie.from);
        let bent = bend(&sealed.message, &lie, &keys, rng)?;
        // Sometimes the MAC does not fit, either.
        Some(if rng.chance(0.95) {
            Sealed::new(bent, lie.to, &keys)
        } else {
            Sealed { message: bent, mac: sealed.mac }
        })
    }
}

/// The beginning of a digest: enough to tell two apart.
fn short(digest: &Digest) -> u64 {
    digest.0.iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// In every other view the liars work towards one end: what was decided before is to be forgotten.
fn is_plotted(view: View) -> bool {
    view.0 > 0 && Rng::new(view.0 ^ 0x9107).chance(0.5)
}

/// What a liar says instead.
fn bend(message: &Message, lie: &Lie<'_, Sealed>, keys: &Keys, rng: &mut Rng) -> Option<Message> {
    Some(match message {
        Message::PrePrepare { view, at, proposal } => {
            let proposal = Arc::new(another(proposal, lie.heard, rng)?);
            Message::PrePrepare { view: *view, at: *at, proposal }
        }
        Message::Prepare { view, at, digest } => {
            let (view, at, digest) = agreed(*view, *at, *digest, lie, rng);
            Message::Prepare { view, at, digest }
        }
        Message::Commit { view, at, digest } => {
            let (view, at, digest) = agreed(*view, *at, *digest, lie, rng);
            Message::Commit { view, at, digest }
        }
        Message::Request(request) => {
            // In another's name, or changed on the way.
            let origin = if rng.chance(0.5) { lie.to } else { request.origin };
            let number = request.number + rng.below(3);
            let batch = request.batch.iter().skip(1).cloned().collect();
            let only_in = request.only_in.map(|view| View(view.0 + number - request.number));
            Message::Request(Arc::new(Request::received(only_in, origin, number, batch, request.signature)))
        }
        Message::Checkpoint { point, .. } => {
            let at = Index(point.at.0 + rng.below(2) * 1_000);
            let history = if rng.chance(0.7) { fancy(rng) } else { point.history };
            let point = Point { at, history };
            let signature = keys.sign(Subject::Checkpoint, point.digest());
            Message::Checkpoint { point, signature }
        }
        Message::Stable(certificate) => Message::Stable(Arc::new(forged(certificate, lie.from, rng))),
        Message::Saved { at, .. } => {
            let state = fancy(rng);
            Message::Saved { at: *at, state, signature: keys.sign(Subject::Saved, state) }
        }
        Message::ViewChange(said) => Message::ViewChange(Arc::new(bend_view_change(said, lie, rng))),
        Message::NewView(new_view) => Message::NewView(Arc::new(bend_new_view(new_view, lie))),
        Message::Status(progress) => {
            let mut progress = *progress;
            progress.executed = Index(progress.executed.0.saturating_add(rng.below(200)));
            progress.stable = Index(progress.stable.0.saturating_sub(rng.below(50)));
            progress.view = View(progress.view.0 + rng.below(3));
            Message::Status(progress)
        }
        Message::Decided { from, digests, proposals } => {
            let mut proposals = proposals.clone();
            for proposal in &mut proposals {
                if rng.chance(0.5)
                    && let Some(other) = another(proposal, lie.heard, rng)
                {
                    *proposal = Arc::new(other);
                }
            }
            // With contents that fit the lie, or with names alone that the other liars tell, too.
            let digests = digests.iter().enumerate().map(|(place, digest)| match proposals.get(place) {
                Some(proposal) => proposal.digest(),
                None if rng.chance(0.5) => Proposal::null().digest(),
                None => *digest,
            });
            let digests = digests.collect();
            Message::Decided { from: *from, digests, proposals }
        }
        Message::Fetched { at, proposal } => {
            Message::Fetched { at: *at, proposal: Arc::new(another(proposal, lie.heard, rng)?) }
        }
        Message::Fetch { .. } | Message::FetchProposal { .. } | Message::InstallSnapshot { .. } => {
            return None;
        }
    })
}

/// Another proposal that could stand in this one's place: fewer requests, or those of somebody else. Whoever made them
/// signed them, so a backup cannot tell by itself.
fn another(proposal: &Proposal, heard: &Heard<Sealed>, rng: &mut Rng) -> Option<Proposal> {
    if proposal.requests.len() > 1 && rng.chance(0.5) {
        let mut requests = proposal.requests.clone();
        requests.reverse();
        requests.truncate(1 + rng.below(requests.len() as u64) as usize);
        return Some(Proposal::new(requests));
    }
    let known: Vec<&Arc<Request>> = heard
        .all()
        .filter_map(|sealed| match &sealed.message {
            Message::Request(request) => Some(request),
            Message::PrePrepare { proposal, .. } => proposal.requests.first(),
            _ => None,
        })
        .filter(|request| !proposal.requests.contains(request))
        .take(8)
        .collect();
    if known.is_empty() {
        return None;
    }
    Some(Proposal::new(vec![known[rng.below(known.len() as u64) as usize].clone()]))
}

/// What the other one wants to hear of this place, if that is known; else something of fancy.
fn agreed(
    view: View,
    at: Index,
    mine: Digest,
    lie: &Lie<'_, Sealed>,
    rng: &mut Rng,
) -> (View, Index, Digest) {
    let wanted = lie.heard.of(lie.to).find_map(|sealed| match &sealed.message {
        Message::Prepare { view: said_in, at: said_of, digest }
        | Message::Commit { view: said_in, at: said_of, digest }
            if (*said_in, *said_of) == (view, at) =>
        {
            Some(*digest)
        }
        _ => None,
    });
    match (wanted, rng.below(8)) {
        (Some(wanted), draw) if draw < 7 || is_plotted(view) => (view, at, wanted),
        _ if is_plotted(view) => (view, at, mine),
        (_, 0) => (view, at, fancy(rng)),
        (_, 1) => (View(view.0 + rng.below(4)), Index(at.0 + rng.below(4)), mine),
        (_, 2) => (View(view.0 << 20), Index(at.0 + 100_000), mine),
        _ => (view, at, mine),
    }
}

fn fancy(rng: &mut Rng) -> Digest {
    digest(&[&rng.next_u64().to_le_bytes()])
}

/// A proof that proves nothing: by one signer many times, by nobody, of something else, or of too few.
fn forged(certificate: &Certificate, liar: NodeId, rng: &mut Rng) -> Certificate {
    let mut certificate = certificate.clone();
    match rng.below(4) {
        0 => {
            let point = Point { at: Index(certificate.point.at.0 + 40), history: fancy(rng) };
            let signature = Keys::from_names().of(liar).sign(Subject::Checkpoint, point.digest());
            let count = certificate.signatures.len().max(3);
            certificate = Certificate { point, signatures: vec![(liar, signature); count] };
        }
        1 => certificate.signatures.iter_mut().for_each(|it| it.1 = Signature([7; 64])),
        2 => certificate.point.at = Index(certificate.point.at.0 + 1),
        _ => certificate.signatures.truncate(1),
    }
    certificate
}

fn bend_view_change(said: &ViewChange, lie: &Lie<'_, Sealed>, rng: &mut Rng) -> ViewChange {
    let mut bent = said.clone();
    if is_plotted(said.view) {
        // Null requests prepared everywhere, in the latest view that there can have been. To everybody the same, and well signed.
        for claim in bent.prepared.iter_mut().chain(&mut bent.pre_prepared) {
            claim.digest = Proposal::null().digest();
            claim.view = View(bent.view.0 - 1);
        }
        bent.signature = Keys::from_names().of(lie.from).sign(Subject::ViewChange, bent.digest());
        return bent;
    }
    match rng.below(6) {
        // Nothing prepared here, and nothing was proposed.
        0 => bent.prepared.clear(),
        1 => {
            bent.prepared.clear();
            bent.pre_prepared.clear();
        }
        // Something else prepared here, in a later view: what nobody has, or nothing at all.
        2 => {
            let other = if rng.chance(0.5) { fancy(rng) } else { Proposal::null().digest() };
            for claim in bent.prepared.iter_mut().chain(&mut bent.pre_prepared) {
                claim.digest = other;
                claim.view = View(bent.view.0.saturating_sub(1));
            }
        }
        3 => {
            let null = Proposal::null().digest();
            for claim in bent.prepared.iter_mut().chain(&mut bent.pre_prepared) {
                claim.digest = null;
            }
        }
        4 => bent.stable = forged(&bent.stable, lie.from, rng),
        _ => bent.view = View(bent.view.0 + rng.below(3)),
    }
    if rng.chance(0.8) {
        bent.replica = lie.from;
        bent.signature = Keys::from_names().of(lie.from).sign(Subject::ViewChange, bent.digest());
    }
    bent
}

fn bend_new_view(new_view: &NewView, lie: &Lie<'_, Sealed>) -> NewView {
    let mut bent = new_view.clone();
    let null = Proposal::null().digest();
    // Of one view it tells everybody the same, or no quorum would believe it.
    match Rng::new(new_view.view.0).below(5) {
        // All of it, or the first half.
        _ if is_plotted(new_view.view) => {
            let half = if new_view.view.0.is_multiple_of(2) { 1 } else { 2 };
            let count = bent.selection.len().div_ceil(half);
            bent.selection.iter_mut().take(count).for_each(|it| *it = null);
        }
        0 => bent.selection.clear(),
        1 => bent.selection.iter_mut().for_each(|it| *it = Proposal::null().digest()),
        2 => bent.selection.push(Proposal::null().digest()),
        3 => {
            // One view change many times.
            if let Some(first) = bent.view_changes.first().cloned() {
                bent.view_changes.iter_mut().for_each(|it| *it = first.clone());
            }
        }
        _ => {
            bent.view_changes.pop();
        }
    }
    bent.signature = Keys::from_names().of(lie.from).sign(Subject::NewView, bent.digest());
    bent
}
