//! A key that texts are appended to: a get spells out the whole order of the appends before it.
//!
//! If no text that was put or appended is a prefix of another, every answer can be cut into the texts that made it in one
//! way only. Then a put with the appends that followed it and the gets between them is one block in the sense of
//! [`super::blocks`], with every position known. An append that no get shows can go to the end of any block: it is a
//! block of its own. Declined, for the search: texts that are prefixes of one another, deletions, compare-and-sets.

use hashbrown::HashMap;

use super::blocks::Member;
use super::{Impossible, Placement};
use crate::history::{Call, Datum, History, Outcome, Reply};

/// A text that was put or appended, and by whom.
struct Token<'a> {
    text: &'a str,
    operation: u32,
    put: bool,
    /// Where it was seen: block and number of texts in that block up to and with it.
    seen: Option<(u32, u32)>,
}

/// One block: how it reads so far.
struct Chain<'a> {
    text: &'a str,
    tokens: u32,
    /// The get that showed it.
    shown_by: u32,
}

/// Places the operations of one key in blocks.
pub(super) fn place(history: &History, part: &[u32]) -> Placement {
    let mut tokens: Vec<Token<'_>> = Vec::new();
    let mut gets: Vec<(&str, u32)> = Vec::new();
    if !text_of(history.value(history.initial)).is_some_and(str::is_empty) {
        return Placement::Declined("the initial text is not empty");
    }
    for &i in part {
        let operation = &history.operations[i as usize];
        match (&operation.call, &operation.outcome) {
            (_, Outcome::Failed) => {}
            (Call::Read, Outcome::Ok(Reply::Value(value))) => match text_of(history.value(*value)) {
                Some(text) => gets.push((text, i)),
                None => return Placement::Declined("not all values are texts"),
            },
            (Call::Read, _) => {}
            (Call::Write(value) | Call::Append(value), _) => match text_of(history.value(*value)) {
                Some(text) if !text.is_empty() => {
                    let put = matches!(operation.call, Call::Write(_));
                    tokens.push(Token { text, operation: i, put, seen: None });
                }
                _ => return Placement::Declined("not all values are texts, or one is empty"),
            },
            _ => return Placement::Declined("not only gets, puts and appends"),
        }
    }
    tokens.sort_unstable_by_key(|token| token.text);
    if tokens.windows(2).any(|pair| pair[1].text.starts_with(pair[0].text)) {
        return Placement::Declined("one text is a prefix of another");
    }
    // Shortest first: then what a block reads so far is always the longest text known of it.
    gets.sort_by_key(|(text, _)| text.len());
    match chain(history, tokens, &gets) {
        Ok((members, blocks)) => Placement::Blocks { members, blocks },
        Err(impossible) => Placement::Impossible(impossible),
    }
}

fn text_of(datum: &Datum) -> Option<&str> {
    match datum {
        Datum::Nil => Some(""),
        Datum::Text(text) => Some(text),
        _ => None,
    }
}

/// The only token that `text` can begin with: no token is a prefix of another, so it is the last one not above `text`.
fn first_token(tokens: &[Token<'_>], text: &str) -> Option<usize> {
    let at = tokens.partition_point(|token| token.text <= text).checked_sub(1)?;
    text.starts_with(tokens[at].text).then_some(at)
}

fn chain<'a>(
    history: &History,
    mut tokens: Vec<Token<'a>>,
    gets: &[(&'a str, u32)],
) -> Result<(Vec<Member>, usize), Impossible> {
    let mut members = Vec::with_capacity(tokens.len() + gets.len());
    // By the put that begins it; the block of the empty text first.
    let mut chains: Vec<Chain<'a>> = vec![Chain { text: "", tokens: 0, shown_by: 0 }];
    let mut begun: HashMap<u32, u32, foldhash::fast::FixedState> = HashMap::default();
    for &(text, get) in gets {
        let head = if text.is_empty() { None } else { first_token(&tokens, text) };
        let block = match head.map(|head| &tokens[head]) {
            Some(head) if head.put => *begun.entry(head.operation).or_insert_with(|| {
                chains.push(Chain { text: "", tokens: 0, shown_by: get });
                chains.len() as u32 - 1
            }),
            _ => 0,
        };
        let chain = &mut chains[block as usize];
        let Some(mut rest) = text.strip_prefix(chain.text) else {
            let reason = "two gets show the appends to one key in different orders".to_string();
            return Err(Impossible {
                operations: vec![chain.shown_by.min(get), chain.shown_by.max(get)],
                reason,
            });
        };
        while !rest.is_empty() {
            let Some(at) = first_token(&tokens, rest) else {
                let reason = format!("{text:?} was read, which no puts and appends of this key make");
                return Err(Impossible { operations: vec![get], reason });
            };
            let token = &mut tokens[at];
            if token.seen.is_some() || (token.put && chain.tokens > 0) {
                let reason = if token.put {
                    "a put is shown after other texts, which it should have replaced".to_string()
                } else {
                    "an append is shown in two places".to_string()
                };
                let mut operations = vec![token.operation, get];
                operations.sort_unstable();
                return Err(Impossible { operations, reason });
            }
            chain.tokens += 1;
            token.seen = Some((block, chain.tokens));
            rest = &rest[token.text.len()..];
        }
        (chain.text, chain.shown_by) = (text, get);
        members.push(Member { operation: get, block, position: 2 * chain.tokens + 1 });
    }
    let mut blocks = chains.len() as u32;
    for token in &tokens {
        let unknown = history.operations[token.operation as usize].is_unknown();
        match token.seen {
            Some((block, place)) => {
                members.push(Member { operation: token.operation, block, position: 2 * place })
            }
            None if unknown => {}
            None => {
                members.push(Member { operation: token.operation, block: blocks, position: 0 });
                blocks += 1;
            }
        }
    }
    Ok((members, blocks as usize))
}
