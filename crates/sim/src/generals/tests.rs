//! What the paper proves, played.

use super::impossible::{self, Scene, View};
use super::*;

fn rules(generals: usize, traitors: usize, rounds: usize, algorithm: Algorithm) -> Rules {
    Rules::new(generals, traitors, rounds, algorithm).expect("possible")
}

/// Of all plots, or of those of so many seeds: how many games, in how many IC1 breaks, in how many IC2.
fn count(rules: Rules, seeds: Option<u64>) -> (u64, u64, u64) {
    let mut game = Game::new(rules);
    let space = Space::new(&rules);
    let all = seeds.unwrap_or_else(|| space.count().expect("countable"));
    let (mut split, mut disobeyed) = (0, 0);
    for number in 0..all {
        let plot = match seeds {
            Some(_) => Plot::drawn(&rules, number),
            None => space.plot(number).expect("below the count"),
        };
        let outcome = game.play(plot);
        assert_eq!(outcome.traitors.len(), rules.traitors());
        split += u64::from(!outcome.agrees());
        disobeyed += u64::from(!outcome.obeys());
    }
    (all, split, disobeyed)
}

fn oral(generals: usize, traitors: usize, rounds: usize, seeds: Option<u64>) -> (u64, u64, u64) {
    count(rules(generals, traitors, rounds, Algorithm::Oral), seeds)
}

fn signed(generals: usize, traitors: usize, rounds: usize, seeds: Option<u64>) -> (u64, u64, u64) {
    count(rules(generals, traitors, rounds, Algorithm::Signed), seeds)
}

/// Theorem 1 for m = 1: four generals and more agree whatever one traitor does, and all that he can do is tried.
#[test]
fn four_generals_cope_with_one_traitor() {
    // The commander lies to three; or one of three lieutenants lies to two, under either order.
    assert_eq!(oral(4, 1, 1, None), (8 + 3 * 2 * 4, 0, 0));
    for generals in 5..=GENERALS_MAX {
        let (games, split, disobeyed) = oral(generals, 1, 1, None);
        assert!(games > 0 && split == 0 && disobeyed == 0, "{generals} generals");
    }
}

/// Theorem 1 for m = 2 and m = 3, by seeds.
#[test]
fn three_m_and_one_cope_with_m() {
    assert_eq!(oral(7, 2, 2, Some(20_000)), (20_000, 0, 0));
    assert_eq!(oral(8, 2, 2, Some(5_000)), (5_000, 0, 0));
    assert_eq!(oral(10, 3, 3, Some(2_000)), (2_000, 0, 0));
    // Fewer traitors than it was made for are no harm.
    assert_eq!(oral(7, 1, 2, Some(5_000)), (5_000, 0, 0));
}

/// 3m are too few: three generals with one traitor, six with two, nine with three.
#[test]
fn three_m_do_not() {
    let (games, _, disobeyed) = oral(3, 1, 1, None);
    assert_eq!(games, 4 + 2 * 2 * 2);
    assert!(disobeyed > 0);
    for (generals, traitors, seeds) in [(6, 2, 2_000), (9, 3, 2_000)] {
        let (_, split, disobeyed) = oral(generals, traitors, traitors, Some(seeds));
        assert!(split + disobeyed > 0, "{generals} generals");
    }
}

/// Too few rounds break, however many generals there are; too many rounds among too few generals break, too, because the lemma 1 that
/// bears the theorem wants more than 2k + m generals for k traitors.
#[test]
fn rounds_matter() {
    assert!(oral(4, 1, 0, None).1 > 0);
    assert!(oral(7, 2, 1, None).1 > 0);
    assert!(oral(10, 3, 2, Some(20_000)).1 > 0);
    assert!(oral(4, 1, 2, None).2 > 0);
}

/// Lemma 1: OM(m) satisfies IC2 among more than 2k + m generals with k traitors, for any k and m; and not in every game among fewer.
#[test]
fn lemma_one_holds() {
    for (generals, traitors, rounds) in [(4, 1, 1), (5, 1, 2), (6, 2, 1), (7, 2, 2), (8, 3, 1), (9, 3, 2)] {
        assert_eq!(oral(generals, traitors, rounds, Some(5_000)).2, 0, "{generals} {traitors} {rounds}");
    }
    for (generals, traitors, rounds) in [(3, 1, 1), (4, 1, 2), (5, 2, 1), (6, 2, 2), (7, 3, 1), (8, 3, 2)] {
        assert!(oral(generals, traitors, rounds, Some(5_000)).2 > 0, "{generals} {traitors} {rounds}");
    }
}

/// Theorem 2: with signatures any number of generals copes with m traitors in m rounds; all that traitors can do is tried.
#[test]
fn signatures_help_any_number() {
    for (generals, traitors) in [(3, 1), (4, 1), (4, 2), (5, 2), (5, 3), (6, 4), (7, 1)] {
        let (games, split, disobeyed) = signed(generals, traitors, traitors, None);
        assert!(games > 0 && split == 0 && disobeyed == 0, "{generals} generals, {traitors} traitors");
    }
    // What is not planned, too: replays, late and early letters, false openings.
    for (generals, traitors) in [(3, 1), (5, 3), (7, 3), (10, 3), (10, 8)] {
        let (_, split, disobeyed) = signed(generals, traitors, traitors, Some(2_000));
        assert!(split == 0 && disobeyed == 0, "{generals} generals, {traitors} traitors");
    }
}

/// With fewer rounds than traitors a traitorous commander splits the lieutenants, and a loyal one is obeyed all the same.
#[test]
fn signatures_need_their_rounds() {
    for (generals, traitors, rounds) in [(3, 1, 0), (4, 2, 1), (5, 3, 2), (5, 2, 1)] {
        let (_, split, disobeyed) = signed(generals, traitors, rounds, None);
        assert!(split > 0 && disobeyed == 0, "{generals} generals, {traitors} traitors");
        assert!(signed(generals, traitors, rounds, Some(5_000)).1 > 0, "seeds do not find it");
    }
}

/// Messages are as many as the formulas say when nobody is silent: 9, 156 and 3,609 for one, two and three traitors.
#[test]
fn messages_are_counted() {
    for (generals, rounds, formula) in
        [(4, 1, 3 + 3 * 2), (7, 2, 6 + 6 * 5 + 6 * 5 * 4), (10, 3, 9 + 72 + 504 + 3024)]
    {
        let rules = rules(generals, 0, rounds, Algorithm::Oral);
        assert_eq!(rules.messages(), formula);
        assert_eq!(Game::new(rules).play(Plot::drawn(&rules, 1)).messages, formula);
    }
    for (generals, rounds, formula) in [(3, 0, 2), (3, 1, 4), (5, 1, 16), (5, 3, 16), (10, 8, 81)] {
        let rules = rules(generals, 0, rounds, Algorithm::Signed);
        assert_eq!(rules.messages(), formula);
        assert_eq!(Game::new(rules).play(Plot::drawn(&rules, 1)).messages, formula);
    }
}

/// Figures 1 and 2: a lieutenant hears the same in a game in which he must attack and in one in which nothing is right for him; and of all
/// pairs of rules for two lieutenants none holds.
#[test]
fn no_rule_saves_three_generals() {
    use Order::{Attack, Retreat};
    let figure_1 = Scene { told: [Attack, Attack], liar: Some((General(2), Retreat)) };
    let figure_2 = Scene { told: [Attack, Retreat], liar: None };
    assert_eq!(figure_1.views()[0], View { told: Attack, reported: Retreat });
    assert_eq!(figure_1.views()[0], figure_2.views()[0]);
    assert_eq!(Scene::all().len(), 12);
    assert_eq!(impossible::pairs(), (256, 0));
}

/// Taken together, all games come to what they come to one by one.
#[test]
fn together_as_one_by_one() {
    for (generals, traitors, rounds) in [
        (2, 1, 0),
        (3, 0, 1),
        (3, 1, 1),
        (3, 2, 1),
        (4, 1, 0),
        (4, 1, 1),
        (4, 1, 2),
        (5, 2, 1),
        (5, 1, 2),
        (5, 4, 1),
        (7, 2, 1),
    ] {
        let (games, split, disobeyed) = oral(generals, traitors, rounds, None);
        let shares =
            every::shares(&rules(generals, traitors, rounds, Algorithm::Oral)).expect("few outcomes");
        for (share, counted) in [(shares.split, split), (shares.disobeyed, disobeyed)] {
            let expected = counted as f64 / games as f64;
            assert!((share - expected).abs() < 1e-9, "{generals} {traitors} {rounds}: {share}, {expected}");
            assert_eq!(share > 0.0, counted > 0);
        }
    }
}

/// Theorem 1 for two and for three traitors, and every game counts: none of them is broken.
#[test]
fn no_game_of_seven_or_ten_is_broken() {
    for (generals, traitors) in [(7, 2), (8, 2), (10, 3)] {
        let shares = every::shares(&rules(generals, traitors, traitors, Algorithm::Oral));
        assert_eq!(
            shares,
            Some(every::Shares { is_broken: false, split: 0.0, disobeyed: 0.0 }),
            "{generals} generals"
        );
    }
}

/// A seed plays alike for ever, and every story ends with its verdict.
#[test]
fn a_seed_tells_the_same_story() {
    for algorithm in [Algorithm::Oral, Algorithm::Signed] {
        let rules = rules(5, 2, 2, algorithm);
        for seed in 0..50 {
            let mut game = Game::new(rules);
            let first = (game.tell(Plot::drawn(&rules, seed)), game.play(Plot::drawn(&rules, seed)));
            assert_eq!(first, (game.tell(Plot::drawn(&rules, seed)), game.play(Plot::drawn(&rules, seed))));
            let (story, outcome) = first;
            assert_eq!(story.ends_with("IC1 and IC2 hold\n"), outcome.agrees() && outcome.obeys(), "{story}");
        }
    }
}

/// What is not possible is refused with what is; and a space that is too large to count says how large.
#[test]
fn impossible_numbers_are_refused() {
    let refused = |generals, traitors, rounds| {
        Rules::new(generals, traitors, rounds, Algorithm::Oral).map_err(|error| error.to_string()).err()
    };
    assert_eq!(refused(1, 0, 0).as_deref(), Some("generals 1: 2 to 10 are possible"));
    assert!(
        refused(4, 4, 0).is_some_and(|error| error.starts_with("traitors 4: 0 to 3 are possible among 4"))
    );
    assert!(refused(4, 1, 3).is_some_and(|error| error.starts_with("rounds 3: 0 to 2 are possible among 4")));
    let space = Space::new(&rules(10, 3, 3, Algorithm::Oral));
    assert_eq!(space.count(), None);
    assert!(space.bits() > 400.0, "{}", space.bits());
}
