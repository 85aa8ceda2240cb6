//! What was said in a game, for people: who betrayed, who told whom what, what each loyal lieutenant made of it.

use std::fmt::Write as _;

use super::oral::Council;
use super::signed::{Fate, Letter};
use super::{General, Group, Order, Outcome, Rules};

/// So many messages are told; of more only the lies, and of these the first so many.
const TOLD_MAX: usize = 40;

/// A game of oral messages.
pub(super) fn oral(rules: &Rules, council: &Council, outcome: &Outcome) -> String {
    let mut said = Vec::new();
    let order = outcome.order.unwrap_or(Order::Retreat);
    for path in 0..council.paths.len() {
        let speaker = council.paths[path].speaker;
        let is_false = outcome.traitors.contains(speaker);
        for listener in council.listeners(path).iter() {
            let heard = council.heard[path][listener.place()];
            let truth = council.truth(path, order);
            let words = heard.map_or_else(|| "nothing".to_owned(), |heard| quote(council, path, heard));
            // A commander who is a traitor has no order that he could twist.
            let is_twisted = is_false && path > 0 && heard != Some(truth);
            let aside = if is_twisted { format!(" (he had heard {truth})") } else { String::new() };
            let from = named(speaker, outcome.traitors);
            // What traitors tell one another moves nobody.
            let is_lie = is_false && !outcome.traitors.contains(listener);
            said.push((is_lie, format!("{from} to {}: {words}{aside}", named(listener, outcome.traitors))));
        }
    }
    let mut story = head(rules, outcome);
    tell(&mut story, &said);
    for (general, decision) in decisions(outcome) {
        let own = council.heard[0][general.place()].unwrap_or(Order::Retreat);
        let _ = write!(story, "{general} has {own} from the commander");
        for order in Order::ALL {
            let others = council.others(0, general).filter(|(_, said)| *said == order);
            let others = others.fold(Group::default(), |group, (other, _)| group.with(other));
            if !others.is_empty() {
                let _ = write!(story, ", {order} by way of {}", listed(others));
            }
        }
        let _ = writeln!(story, ": he decides to {decision}");
    }
    end(&mut story, outcome);
    story
}

/// What is said along a path: "lieutenant 3 told me that the commander told him: attack".
fn quote(council: &Council, path: usize, order: Order) -> String {
    let (mut words, mut at, mut whom) = (String::new(), path, "me");
    while at > 0 {
        at = council.paths[at].parent;
        let that = if whom == "me" { "" } else { " that " };
        let _ = write!(words, "{that}{} told {whom}", council.paths[at].speaker);
        whom = "him";
    }
    if path > 0 { format!("{words}: {order}") } else { order.to_string() }
}

/// A game of signed messages.
pub(super) fn signed(rules: &Rules, letters: &[Letter], outcome: &Outcome) -> String {
    let mut said = Vec::new();
    for letter in letters {
        let aside = match letter.fate {
            Fate::New | Fate::Betrayed => "",
            Fate::Known => " (he has it already)",
            Fate::Late => " (too late for so few signatures)",
            Fate::Improper => " (no order of the commander's as it should be: ignored)",
        };
        let (from, to) = (named(letter.from, outcome.traitors), named(letter.to, outcome.traitors));
        let words = format!("round {}: {from} to {to}: {}{aside}", letter.round, letter.signed);
        said.push((outcome.traitors.contains(letter.from), words));
    }
    let mut story = head(rules, outcome);
    tell(&mut story, &said);
    for (general, decision) in decisions(outcome) {
        let has = |order: Order| {
            let new = |it: &&Letter| it.to == general && it.fate == Fate::New && it.signed.order() == order;
            letters.iter().find(new).map(|it| it.signed.to_string())
        };
        let all: Vec<String> = Order::ALL.into_iter().filter_map(has).collect();
        let all = if all.is_empty() { "no order".to_owned() } else { all.join(" and ") };
        let _ = writeln!(story, "{general} has {all}: he decides to {decision}");
    }
    end(&mut story, outcome);
    story
}

fn head(rules: &Rules, outcome: &Outcome) -> String {
    let traitors = match outcome.traitors {
        nobody if nobody.is_empty() => "all are loyal".to_owned(),
        one if one.len() == 1 => format!("{} is a traitor", listed(one)),
        many => format!("{} are traitors", listed(many)),
    };
    let order = outcome.order.map_or_else(String::new, |order| format!("; the commander orders: {order}"));
    format!("{rules}: {traitors}{order}\n")
}

/// "the commander, lieutenants 2, 5".
fn listed(group: Group) -> String {
    let lieutenants = group.without(Group::default().with(General::COMMANDER));
    let numbers: Vec<String> = lieutenants.iter().map(|it| it.0.to_string()).collect();
    let commander = group.contains(General::COMMANDER).then(|| General::COMMANDER.to_string());
    let lieutenants = match numbers.len() {
        0 => None,
        1 => Some(format!("lieutenant {}", numbers[0])),
        _ => Some(format!("lieutenants {}", numbers.join(", "))),
    };
    commander.into_iter().chain(lieutenants).collect::<Vec<_>>().join(", ")
}

fn named(general: General, traitors: Group) -> String {
    let traitor = if traitors.contains(general) { " (traitor)" } else { "" };
    format!("{general}{traitor}")
}

/// All that was said, or the lies.
fn tell(story: &mut String, said: &[(bool, String)]) {
    let told: Vec<_> = said.iter().filter(|(is_false, _)| *is_false || said.len() <= TOLD_MAX).collect();
    for (_, words) in told.iter().take(TOLD_MAX) {
        let _ = writeln!(story, "{words}");
    }
    let (lies, honest) = (told.len().saturating_sub(TOLD_MAX), said.len() - told.len());
    if lies + honest > 0 {
        let _ = writeln!(story, "(not told: {lies} more of the traitors' words, {honest} of loyal generals)");
    }
}

fn decisions(outcome: &Outcome) -> impl Iterator<Item = (General, Order)> {
    let all = outcome.decisions.iter().enumerate();
    all.filter_map(|(place, decision)| Some((General(place as u8), (*decision)?)))
}

/// What it cost, and whether the conditions hold.
fn end(story: &mut String, outcome: &Outcome) {
    let _ = writeln!(story, "{} messages", outcome.messages);
    let who = |order: Order| {
        let these = decisions(outcome).filter(|(_, decision)| *decision == order);
        listed(these.fold(Group::default(), |group, (general, _)| group.with(general)))
    };
    if !outcome.agrees() {
        let (attack, retreat) = (who(Order::Attack), who(Order::Retreat));
        let _ = writeln!(story, "IC1 is broken: {attack} to attack, {retreat} to retreat");
    }
    if let Some(order) = outcome.order.filter(|_| !outcome.obeys()) {
        let others = who(order.other());
        let _ = writeln!(
            story,
            "IC2 is broken: the commander is loyal and ordered {order}, {others} did not obey"
        );
    }
    if outcome.agrees() && outcome.obeys() {
        story.push_str("IC1 and IC2 hold\n");
    }
}
