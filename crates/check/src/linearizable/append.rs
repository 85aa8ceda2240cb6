//! A key that texts are appended to: a get spells out the whole order of the appends before it.
//!
//! If no text that was put or appended is a prefix of another, every answer can be cut into the texts that made it in one
//! way only. Then a put with the appends that followed it and the gets between them is one block in the sense of
//! [`super::blocks`], with every position known. An append that no get shows can go to the end of any block: it is a
//! block of its own. A text that was appended several times is told apart by time: only an append that was called before
//! the first get that shows it, and was not over before what stands before it, can be the one. Declined, for the search:
//! what time does not tell apart, texts that are prefixes of one another, deletions, compare-and-sets.

use hashbrown::HashMap;

use super::blocks::Member;
use super::{Impossible, Placement};
use crate::history::{Call, Datum, History, NEVER, Outcome, Reply, Time};

/// A text, who put it, and who appended it.
struct Text<'a> {
    text: &'a str,
    puts: Vec<u32>,
    appends: Vec<u32>,
    /// Where it is shown behind the head of a block: block and place in it.
    shown: Vec<(u32, u32)>,
}

/// One block: what its gets show.
struct Block<'a> {
    /// The put that begins it; nobody for the empty text's.
    put: Option<u32>,
    /// The longest text known of it.
    text: &'a str,
    /// The get that showed it.
    shown_by: u32,
    /// Who made each text of it, as far as known, and the earliest completion of a get that shows it.
    places: Vec<(Option<u32>, Time)>,
}

/// Why placing did not come to an end.
enum Stop {
    Impossible(Impossible),
    Declined(&'static str),
}

fn impossible<T>(mut operations: Vec<u32>, reason: impl Into<String>) -> Result<T, Stop> {
    operations.sort_unstable();
    operations.dedup();
    Err(Stop::Impossible(Impossible { operations, reason: reason.into() }))
}

/// Places the operations of one key in blocks.
pub(super) fn place(history: &History, part: &[u32]) -> Placement {
    match (Blocks { history, texts: Vec::new(), blocks: Vec::new(), members: Vec::new() }).run(part) {
        Ok((members, blocks)) => Placement::Blocks { members, blocks },
        Err(Stop::Impossible(impossible)) => Placement::Impossible(impossible),
        Err(Stop::Declined(why)) => Placement::Declined(why),
    }
}

fn text_of(datum: &Datum) -> Option<&str> {
    match datum {
        Datum::Nil => Some(""),
        Datum::Text(text) => Some(text),
        _ => None,
    }
}

struct Blocks<'a> {
    history: &'a History,
    /// Ascending.
    texts: Vec<Text<'a>>,
    /// The empty text's first.
    blocks: Vec<Block<'a>>,
    members: Vec<Member>,
}

impl<'a> Blocks<'a> {
    fn run(mut self, part: &[u32]) -> Result<(Vec<Member>, usize), Stop> {
        let gets = self.collect(part)?;
        self.blocks.push(Block { put: None, text: "", shown_by: 0, places: Vec::new() });
        let mut begun: HashMap<u32, u32, foldhash::fast::FixedState> = HashMap::default();
        for (text, get) in gets {
            let block = match self.head(text, get)? {
                None => 0,
                Some(put) => *begun.entry(put).or_insert_with(|| {
                    self.blocks.push(Block { put: Some(put), text: "", shown_by: get, places: Vec::new() });
                    self.blocks.len() as u32 - 1
                }),
            };
            self.show(block, text, get)?;
        }
        self.tell_apart()?;
        self.put_down(part)
    }

    /// Sorts operations into texts and gets, the shortest get first: then what a block reads so far is always the
    /// longest text known of it.
    fn collect(&mut self, part: &[u32]) -> Result<Vec<(&'a str, u32)>, Stop> {
        let history = self.history;
        if !text_of(history.value(history.initial)).is_some_and(str::is_empty) {
            return Err(Stop::Declined("the initial text is not empty"));
        }
        let mut made: Vec<(&'a str, u32, bool)> = Vec::new();
        let mut gets: Vec<(&'a str, u32)> = Vec::new();
        for &i in part {
            let operation = &history.operations[i as usize];
            match (&operation.call, &operation.outcome) {
                (_, Outcome::Failed) => {}
                (Call::Read, Outcome::Ok(Reply::Value(value))) => match text_of(history.value(*value)) {
                    Some(text) => gets.push((text, i)),
                    None => return Err(Stop::Declined("not all values are texts")),
                },
                (Call::Read, _) => {}
                (Call::Write(value) | Call::Append(value), _) => match text_of(history.value(*value)) {
                    Some(text) if !text.is_empty() => {
                        made.push((text, i, matches!(operation.call, Call::Write(_))))
                    }
                    _ => return Err(Stop::Declined("not all values are texts, or one is empty")),
                },
                _ => return Err(Stop::Declined("not only gets, puts and appends")),
            }
        }
        made.sort_unstable();
        for (text, operation, put) in made {
            if self.texts.last().is_none_or(|last| last.text != text) {
                if self.texts.last().is_some_and(|last| text.starts_with(last.text)) {
                    return Err(Stop::Declined("one text is a prefix of another"));
                }
                self.texts.push(Text { text, puts: Vec::new(), appends: Vec::new(), shown: Vec::new() });
            }
            if let Some(last) = self.texts.last_mut() {
                if put { last.puts.push(operation) } else { last.appends.push(operation) }
            }
        }
        gets.sort_by_key(|(text, _)| text.len());
        Ok(gets)
    }

    /// The only text that `rest` can begin with: none is a prefix of another, so it is the last one not above `rest`.
    fn first_text(&self, rest: &str) -> Option<usize> {
        let at = self.texts.partition_point(|known| known.text <= rest).checked_sub(1)?;
        rest.starts_with(self.texts[at].text).then_some(at)
    }

    /// The put that a get's text began with; `None` for the empty text's block.
    fn head(&self, text: &str, get: u32) -> Result<Option<u32>, Stop> {
        if text.is_empty() {
            return Ok(None);
        }
        let Some(head) = self.first_text(text).map(|head| &self.texts[head]) else {
            return impossible(
                vec![get],
                format!("{text:?} was read, which no puts and appends of this key make"),
            );
        };
        match (&head.puts[..], head.appends.is_empty()) {
            ([], _) => Ok(None),
            ([put], true) => Ok(Some(*put)),
            ([put], false) if !self.may_come_first(&head.appends) => Ok(Some(*put)),
            ([_], false) => Err(Stop::Declined("a text was put and appended at about the same time")),
            _ => Err(Stop::Declined("a text was put twice")),
        }
    }

    /// Whether one of these appends can have come before every put.
    fn may_come_first(&self, appends: &[u32]) -> bool {
        let operations = &self.history.operations;
        let puts = self.texts.iter().flat_map(|text| &text.puts);
        let first_put = puts.map(|&put| operations[put as usize].completed).min().unwrap_or(NEVER);
        appends.iter().any(|&append| operations[append as usize].invoked <= first_put)
    }

    /// A get shows more of a block, or the same.
    fn show(&mut self, block: u32, text: &'a str, get: u32) -> Result<(), Stop> {
        let completed = self.history.operations[get as usize].completed;
        let known = &self.blocks[block as usize];
        let (head, shown_by) = (known.put, known.shown_by);
        let Some(mut rest) = text.strip_prefix(known.text) else {
            return impossible(
                vec![shown_by, get],
                "two gets show the appends to one key in different orders",
            );
        };
        let mut new: Vec<(Option<u32>, Time)> = Vec::new();
        let before = known.places.len();
        while !rest.is_empty() {
            let Some(at) = self.first_text(rest) else {
                return impossible(
                    vec![get],
                    format!("{text:?} was read, which no puts and appends of this key make"),
                );
            };
            rest = &rest[self.texts[at].text.len()..];
            let place = before + new.len();
            if place == 0 && head.is_some() {
                new.push((head, NEVER));
                continue;
            }
            if self.texts[at].appends.is_empty() {
                let put = self.texts[at].puts.first().copied().unwrap_or(get);
                return impossible(
                    vec![put, get],
                    "a put is shown after other texts, which it should have replaced",
                );
            }
            self.texts[at].shown.push((block, place as u32));
            new.push((None, NEVER));
        }
        let known = &mut self.blocks[block as usize];
        known.places.append(&mut new);
        (known.text, known.shown_by) = (text, get);
        let count = known.places.len();
        // What earlier gets show is shown by this one, too; `tell_apart` takes the earliest over all that come after.
        if let Some((_, earliest)) = known.places.last_mut() {
            *earliest = completed.min(*earliest);
        }
        self.members.push(Member { operation: get, block, position: 2 * count as u32 + 1 });
        Ok(())
    }

    /// Finds out who made each text that is shown.
    fn tell_apart(&mut self) -> Result<(), Stop> {
        for block in &mut self.blocks {
            let mut earliest = NEVER;
            for (_, completed) in block.places.iter_mut().rev() {
                earliest = earliest.min(*completed);
                *completed = earliest;
            }
        }
        let mut open: Vec<usize> =
            (0..self.texts.len()).filter(|&at| !self.texts[at].shown.is_empty()).collect();
        while !open.is_empty() {
            let before: usize = open.iter().map(|&at| self.texts[at].shown.len()).sum();
            for &at in &open {
                self.tell_one(at)?;
            }
            open.retain(|&at| !self.texts[at].shown.is_empty());
            if open.iter().map(|&at| self.texts[at].shown.len()).sum::<usize>() == before {
                return Err(Stop::Declined("one text was appended twice at about the same time"));
            }
        }
        Ok(())
    }

    /// Assigns the showings of one text that only one append can account for.
    fn tell_one(&mut self, at: usize) -> Result<(), Stop> {
        let operations = &self.history.operations;
        let mut i = 0;
        while i < self.texts[at].shown.len() {
            let (block, place) = self.texts[at].shown[i];
            let block = &self.blocks[block as usize];
            let (before, from) = block.places.split_at(place as usize);
            let began =
                before.iter().filter_map(|(who, _)| *who).map(|who| operations[who as usize].invoked).max();
            let seen = from.first().map_or(NEVER, |(_, completed)| *completed);
            let fits = |&&append: &&u32| {
                let append = &operations[append as usize];
                append.invoked <= seen && began.is_none_or(|began| append.completed >= began)
            };
            let mut fitting = self.texts[at].appends.iter().filter(fits);
            let (first, second) = (fitting.next().copied(), fitting.next());
            match (first, second) {
                (None, _) => {
                    let reason = "an append is shown in two places, or where it cannot have been";
                    let known = self.texts[at].appends.iter().copied().take(2);
                    return impossible(known.chain([block.shown_by]).collect(), reason);
                }
                (Some(append), None) => {
                    self.blocks[self.texts[at].shown[i].0 as usize].places[place as usize].0 = Some(append);
                    let text = &mut self.texts[at];
                    text.appends.retain(|other| *other != append);
                    text.shown.swap_remove(i);
                }
                (Some(_), Some(_)) => i += 1,
            }
        }
        Ok(())
    }

    fn put_down(mut self, part: &[u32]) -> Result<(Vec<Member>, usize), Stop> {
        let mut shown: HashMap<u32, (u32, u32), foldhash::fast::FixedState> = HashMap::default();
        for (at, block) in self.blocks.iter().enumerate() {
            for (place, (who, _)) in block.places.iter().enumerate() {
                if let Some(who) = who {
                    shown.insert(*who, (at as u32, 2 * (place as u32 + 1)));
                }
            }
        }
        let mut blocks = self.blocks.len() as u32;
        for &i in part {
            let operation = &self.history.operations[i as usize];
            if !matches!(operation.call, Call::Write(_) | Call::Append(_))
                || operation.outcome == Outcome::Failed
            {
                continue;
            }
            match shown.get(&i) {
                Some(&(block, position)) => self.members.push(Member { operation: i, block, position }),
                None if operation.is_unknown() => {}
                None => {
                    self.members.push(Member { operation: i, block: blocks, position: 0 });
                    blocks += 1;
                }
            }
        }
        Ok((self.members, blocks as usize))
    }
}
