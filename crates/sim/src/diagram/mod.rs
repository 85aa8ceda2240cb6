//! A recorded run as a space-time diagram: one page, nothing to load, to be opened from a disk.
//!
//! Processes are lines, time runs to the right, messages are arrows (those that were lost end in a cross). Syncs,
//! roles with their terms, decisions and faults are marks on the lines. The page draws on a canvas only what can be seen, so a hundred
//! thousand events can be zoomed and dragged; keys step from event to event, and a field filters.
//! The page's program is in `page.html` beside this file; this module writes the data into it.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use synod_core::NodeId;

use crate::trace::{Happening, What};

const PAGE: &str = include_str!("page.html");

/// The page for a recorded run.
#[must_use]
pub fn page(title: &str, happenings: &[Happening]) -> String {
    let mut data = String::from("{");
    let nodes: std::collections::BTreeSet<NodeId> = happenings.iter().filter_map(|it| it.node).collect();
    let names: Vec<String> = nodes.iter().map(|node| json(&format!("{node:?}"))).collect();
    let _ = write!(data, "\"title\":{},\"nodes\":[{}],\"marks\":[", json(title), names.join(","));
    let row = |node: Option<NodeId>| {
        node.and_then(|node| nodes.iter().position(|other| *other == node)).map_or(-1, |row| row as i64)
    };
    let mut flights: BTreeMap<u64, Flight> = BTreeMap::new();
    let mut first = true;
    for happening in happenings {
        let at = happening.at.0;
        match &happening.what {
            What::Sent { flight, to, text } => {
                let (from, to) = (row(happening.node), row(Some(*to)));
                flights.insert(*flight, Flight { from, to, sent: at, ends: Vec::new(), text: text.clone() });
            }
            What::Arrived { flight, .. } => {
                if let Some(flight) = flights.get_mut(flight) {
                    flight.ends.push((at, true));
                }
            }
            What::Lost { flight, why, .. } => {
                if let Some(flight) = flights.get_mut(flight) {
                    flight.ends.push((at, false));
                    let _ = write!(flight.text, " (lost: {why})");
                }
            }
            what => {
                let separator = if std::mem::take(&mut first) { "" } else { "," };
                let (kind, text) = (what.kind(), what.text());
                let _ = write!(
                    data,
                    "{separator}[{},{},\"{kind}\",{}]",
                    micros(at),
                    row(happening.node),
                    json(&text)
                );
            }
        }
    }
    data.push_str("],\"messages\":[");
    let mut first = true;
    for flight in flights.values() {
        let (text, sent) = (json(&flight.text), flight.sent);
        let unfinished = [(sent, false)];
        let ends = if flight.ends.is_empty() { &unfinished[..] } else { &flight.ends };
        for (at, arrived) in ends {
            let separator = if std::mem::take(&mut first) { "" } else { "," };
            let (from, to, arrived) = (flight.from, flight.to, u8::from(*arrived));
            let _ =
                write!(data, "{separator}[{},{from},{},{to},{arrived},{text}]", micros(sent), micros(*at));
        }
    }
    data.push_str("]}");
    PAGE.replace("/*DATA*/", &data)
}

struct Flight {
    from: i64,
    to: i64,
    sent: u64,
    ends: Vec<(u64, bool)>,
    text: String,
}

fn micros(nanos: u64) -> String {
    format!("{}.{:03}", nanos / 1000, nanos % 1000)
}

/// A JSON string that is safe inside a script element.
fn json(text: &str) -> String {
    let quoted = serde_json::to_string(text).unwrap_or_default();
    quoted.replace('<', "\\u003c")
}

#[cfg(test)]
mod tests {
    use super::*;
    use synod_core::Time;

    /// The page holds every mark and every message, the lost one too, and loads nothing from anywhere.
    #[test]
    fn the_page_is_whole() {
        let happening = |at, node, what| Happening { at: Time(at), node: Some(NodeId(node)), what };
        let page = page(
            "</script> is harmless",
            &[
                happening(1_500, 1, What::Sent { flight: 1, to: NodeId(2), text: "Vote".to_owned() }),
                happening(2_000, 1, What::Lost { flight: 1, from: NodeId(1), to: NodeId(2), why: "cut" }),
                happening(3_000, 2, What::Stands { role: "Leader".to_owned(), term: 3 }),
            ],
        );
        assert!(page.contains("[1.500,0,2.000,1,0,\"Vote (lost: cut)\"]"));
        assert!(page.contains("[3.000,1,\"stands\",\"is Leader in term 3\"]"));
        assert!(!page.contains("src=") && !page.contains("http") && page.matches("</script>").count() == 1);
    }
}
