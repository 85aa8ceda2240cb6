//! The commands of scripts: parsing a line, and doing what it says.

use std::fmt::Write as _;
use std::time::Duration;

use bytes::Bytes;
use synod_core::{Change, Command, Index, Members, NodeId, Protocol, Time};

use super::cluster::{Cluster, Flight, Order, show, show_members};

/// Sets one option of a protocol from its name and value in a script; false when there is no such option.
pub type OptionParser<P> = fn(&mut <P as Protocol>::Options, &str, &str) -> bool;

/// What is wrong with a script, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{line}:{column}: {problem}")]
pub struct ScriptError {
    /// Counted from 1.
    pub line: usize,
    /// Counted from 1.
    pub column: usize,
    /// What was found, and what is allowed.
    pub problem: String,
}

/// A script at work: the cluster that it has started, if any.
pub(super) struct Runner<P: Protocol> {
    cluster: Option<Cluster<P>>,
    order: Order,
    options: OptionParser<P>,
}

/// A step that no effect may follow for ever: `settle` ends with an error instead of running on.
const SETTLE_ROUNDS_MAX: usize = 10_000;

impl<P: Protocol> Runner<P> {
    pub(super) fn new(order: Order, options: OptionParser<P>) -> Self {
        Runner { cluster: None, order, options }
    }

    /// Runs one line and appends its effects.
    pub(super) fn line(
        &mut self,
        number: usize,
        text: &str,
        effects: &mut String,
    ) -> Result<(), ScriptError> {
        let (quiet, rest) = match text.strip_prefix("quietly ") {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let line = Line::new(number, rest);
        if line.words.first().is_some_and(|(_, word)| *word == "cluster") {
            self.cluster = Some(line.cluster(self.options)?);
        } else {
            let Some(cluster) = &mut self.cluster else {
                return Err(line.wrong(0, "no cluster yet: a script begins with `cluster N`"));
            };
            line.run(cluster)?;
        }
        let Some(cluster) = &mut self.cluster else { return Ok(()) };
        if let Some(disagreement) = cluster.disagreement(self.order) {
            return Err(line.wrong(0, &format!("agreement is violated: {disagreement}")));
        }
        let happened = std::mem::take(&mut cluster.effects);
        if !quiet {
            effects.push_str(&happened);
        }
        Ok(())
    }
}

/// A command line, cut into words with their columns.
struct Line<'a> {
    number: usize,
    words: Vec<(usize, &'a str)>,
}

impl<'a> Line<'a> {
    fn new(number: usize, text: &'a str) -> Line<'a> {
        let column = |word: &str| word.as_ptr() as usize - text.as_ptr() as usize + 1;
        Line { number, words: text.split_whitespace().map(|word| (column(word), word)).collect() }
    }

    fn wrong(&self, word: usize, problem: &str) -> ScriptError {
        let column = self.words.get(word).or(self.words.last()).map_or(1, |(column, _)| *column);
        ScriptError { line: self.number, column, problem: problem.to_owned() }
    }

    fn word(&self, word: usize, expected: &str) -> Result<&'a str, ScriptError> {
        self.words
            .get(word)
            .map(|(_, text)| *text)
            .ok_or_else(|| self.wrong(word, &format!("the line ends early: {expected} expected")))
    }

    fn name(&self, word: usize) -> Result<NodeId, ScriptError> {
        let text = self.word(word, "a node")?;
        parse_node(text)
            .ok_or_else(|| self.wrong(word, &format!("`{text}` is not a node: n1, n2, ... expected")))
    }

    fn node<P: Protocol>(&self, word: usize, cluster: &Cluster<P>) -> Result<NodeId, ScriptError> {
        let id = self.name(word)?;
        if cluster.nodes.contains_key(&id) {
            Ok(id)
        } else {
            Err(self.wrong(word, &format!("there is no node {id:?}")))
        }
    }

    /// The nodes named from `word` on; everybody for `all` or nothing.
    fn nodes<P: Protocol>(&self, word: usize, cluster: &Cluster<P>) -> Result<Vec<NodeId>, ScriptError> {
        if self.words.len() <= word || self.words[word].1 == "all" {
            return Ok(cluster.nodes.keys().copied().collect());
        }
        (word..self.words.len()).map(|word| self.node(word, cluster)).collect()
    }

    fn duration(&self, word: usize) -> Result<Duration, ScriptError> {
        let text = self.word(word, "a duration")?;
        let number = |suffix: &str| text.strip_suffix(suffix).and_then(|number| number.parse::<u64>().ok());
        let duration =
            number("us").map(Duration::from_micros).or_else(|| number("ms").map(Duration::from_millis));
        let duration = duration.or_else(|| number("s").map(Duration::from_secs));
        duration.ok_or_else(|| {
            self.wrong(word, &format!("`{text}` is not a duration: 10ms, 2s or 50us expected"))
        })
    }

    fn cluster<P: Protocol>(&self, parse: OptionParser<P>) -> Result<Cluster<P>, ScriptError> {
        let text = self.word(1, "the number of replicas")?;
        let voters: u64 =
            text.parse().ok().filter(|n| (1..=9).contains(n)).ok_or_else(|| {
                self.wrong(1, &format!("`{text}` replicas are not possible: 1 to 9 expected"))
            })?;
        let mut members = Members::of((1..=voters).map(NodeId));
        let (mut options, mut seed, mut snapshot_every) = (P::Options::default(), 1, u64::MAX);
        for (word, (_, text)) in self.words.iter().enumerate().skip(2) {
            let (key, value) = text.split_once('=').ok_or_else(|| self.wrong(word, "key=value expected"))?;
            let number =
                || value.parse::<u64>().map_err(|_| self.wrong(word, &format!("`{value}` is not a number")));
            match key {
                "seed" => seed = number()?,
                "snapshot-every" => snapshot_every = number()?,
                "learners" => {
                    members.learners = (voters + 1..=voters + number()?.min(9)).map(NodeId).collect()
                }
                _ if parse(&mut options, key, value) => {}
                _ => return Err(self.wrong(word, &format!("`{text}`: no such option, or not such a value"))),
            }
        }
        let everybody: Vec<NodeId> = members.all().collect();
        let mut cluster = Cluster::new(options, members, seed, snapshot_every);
        for id in everybody {
            cluster.start(id);
        }
        Ok(cluster)
    }

    fn run<P: Protocol>(&self, cluster: &mut Cluster<P>) -> Result<(), ScriptError> {
        match self.word(0, "a command")? {
            "add" => cluster.start(self.name(1)?),
            "submit" => self.submit(cluster)?,
            "read" => {
                let id = self.node(1, cluster)?;
                let read = cluster.read_id(id).ok_or_else(|| self.wrong(1, "there is no such node"))?;
                cluster.with(id, |replica, _| replica.read(read));
            }
            "tick" => {
                let duration = self.duration(1)?;
                pass(cluster, cluster.now + duration);
            }
            "timeout" => {
                let id = self.node(1, cluster)?;
                let deadline = cluster.nodes[&id].replica.as_ref().and_then(|replica| replica.deadline());
                cluster.now =
                    cluster.now.max(deadline.ok_or_else(|| self.wrong(1, "the node waits for nothing"))?);
                cluster.with(id, |replica, now| replica.tick(now));
            }
            "deliver" => {
                for flight in self.take_flights(cluster)? {
                    deliver_or_keep(cluster, flight);
                }
            }
            "drop" => {
                for flight in self.take_flights(cluster)? {
                    let _ = writeln!(
                        cluster.effects,
                        "{:?} -> {:?} lost {}",
                        flight.from,
                        flight.to,
                        show(&flight.packet)
                    );
                }
            }
            "double" => {
                for flight in self.take_flights(cluster)? {
                    cluster.flights.push_back(flight.clone());
                    cluster.flights.push_back(flight);
                }
            }
            "flights" => {
                for flight in &cluster.flights {
                    let _ = writeln!(
                        cluster.effects,
                        "{:?} -> {:?} {}",
                        flight.from,
                        flight.to,
                        show(&flight.packet)
                    );
                }
            }
            "sync" => {
                for id in self.nodes(1, cluster)? {
                    cluster.sync(id);
                }
            }
            "stick" | "unstick" => {
                let id = self.node(1, cluster)?;
                if let Some(node) = cluster.nodes.get_mut(&id) {
                    node.disk.stuck = self.words[0].1 == "stick";
                }
            }
            "settle" => self.settle(cluster)?,
            "run" => self.run_for(cluster)?,
            "pause" | "resume" => {
                let id = self.node(1, cluster)?;
                if let Some(node) = cluster.nodes.get_mut(&id) {
                    node.paused = self.words[0].1 == "pause";
                }
            }
            "crash" => cluster.crash(self.node(1, cluster)?),
            "restart" => {
                let id = self.node(1, cluster)?;
                cluster.crash(id);
                cluster.start(id);
            }
            "wipe" => {
                let id = self.node(1, cluster)?;
                cluster.crash(id);
                if let Some(node) = cluster.nodes.get_mut(&id) {
                    node.disk = super::cluster::Disk::default();
                }
            }
            "partition" => self.partition(cluster)?,
            "cut" => {
                let (from, to) = (self.node(1, cluster)?, self.node(3, cluster)?);
                if self.word(2, "`->`")? != "->" {
                    return Err(self.wrong(2, "`->` expected"));
                }
                cluster.cut.insert((from, to));
            }
            "heal" => cluster.cut.clear(),
            "transfer" => {
                let (id, to) = (self.node(1, cluster)?, self.name(2)?);
                cluster.with(id, |replica, now| replica.transfer_leadership(now, to));
            }
            "reconfigure" => self.reconfigure(cluster)?,
            "status" => {
                for id in self.nodes(1, cluster)? {
                    show_status(cluster, id);
                }
            }
            "log" => {
                let id = self.node(1, cluster)?;
                for record in &cluster.nodes[&id].disk.records {
                    let _ = writeln!(cluster.effects, "{id:?} holds {record:?}");
                }
            }
            "state" => {
                for id in self.nodes(1, cluster)? {
                    show_state(cluster, id);
                }
            }
            other => {
                return Err(
                    self.wrong(0, &format!("`{other}` is not a command (see the script module's table)"))
                );
            }
        }
        Ok(())
    }

    fn submit<P: Protocol>(&self, cluster: &mut Cluster<P>) -> Result<(), ScriptError> {
        let id = self.node(1, cluster)?;
        self.word(2, "what to submit")?;
        let mut commands = Vec::new();
        for (_, word) in &self.words[2..] {
            let name = cluster.command_id(id).ok_or_else(|| self.wrong(1, "there is no such node"))?;
            commands.push(Command { id: name, payload: Bytes::copy_from_slice(word.as_bytes()) });
        }
        cluster.with(id, |replica, _| {
            for command in commands {
                replica.submit(command).expect("a script submits less than a replica may hold");
            }
        });
        Ok(())
    }

    /// Takes out the flights that the line describes: `[FROM -> TO] [KIND] [max=N]`.
    fn take_flights<P: Protocol>(&self, cluster: &mut Cluster<P>) -> Result<Vec<Flight<P>>, ScriptError> {
        let (mut from, mut to, mut kind, mut left) = (None, None, None, usize::MAX);
        let mut word = 1;
        while word < self.words.len() {
            let text = self.words[word].1;
            if let Some(max) = text.strip_prefix("max=") {
                left = max.parse().map_err(|_| self.wrong(word, "max=N expected"))?;
            } else if text == "->" {
                word += 1;
                to = Some(self.node(word, cluster)?);
            } else if parse_node(text).is_some() {
                from = Some(self.node(word, cluster)?);
            } else {
                kind = Some(text);
            }
            word += 1;
        }
        let (mut taken, mut kept) = (Vec::new(), std::collections::VecDeque::new());
        for flight in std::mem::take(&mut cluster.flights) {
            let shown = show(&flight.packet);
            let name = shown.split([' ', '{', '(']).next().unwrap_or_default();
            let fits = from.is_none_or(|from| from == flight.from) && to.is_none_or(|to| to == flight.to);
            if fits && kind.is_none_or(|kind| kind == name) && left > 0 {
                left -= 1;
                taken.push(flight);
            } else {
                kept.push_back(flight);
            }
        }
        cluster.flights = kept;
        Ok(taken)
    }

    fn settle<P: Protocol>(&self, cluster: &mut Cluster<P>) -> Result<(), ScriptError> {
        for _ in 0..SETTLE_ROUNDS_MAX {
            let ids: Vec<NodeId> = cluster.nodes.keys().copied().collect();
            let mut moved = false;
            for id in ids {
                moved |= cluster.sync(id);
            }
            for flight in std::mem::take(&mut cluster.flights) {
                moved |= deliver_or_keep(cluster, flight);
            }
            if !moved {
                return Ok(());
            }
        }
        Err(self.wrong(0, "the cluster does not settle: it goes on talking for ever"))
    }

    fn run_for<P: Protocol>(&self, cluster: &mut Cluster<P>) -> Result<(), ScriptError> {
        let end = cluster.now + self.duration(1)?;
        self.settle(cluster)?;
        loop {
            let deadlines = cluster.nodes.values().filter(|node| !node.paused);
            let next = deadlines.filter_map(|node| node.replica.as_ref()?.deadline()).min();
            match next {
                Some(next) if next < end => {
                    // Time must move, or a deadline that stays in the past would hold it for ever.
                    let next = next.max(cluster.now + Duration::from_micros(1));
                    pass(cluster, next);
                    self.settle(cluster)?;
                }
                _ => break,
            }
        }
        pass(cluster, end);
        self.settle(cluster)
    }

    fn partition<P: Protocol>(&self, cluster: &mut Cluster<P>) -> Result<(), ScriptError> {
        let mut group = 0;
        let mut groups = Vec::new();
        for (word, (_, text)) in self.words.iter().enumerate().skip(1) {
            if *text == "/" {
                group += 1;
            } else {
                groups.push((self.node(word, cluster)?, group));
            }
        }
        for (a, group_a) in &groups {
            for (b, group_b) in &groups {
                if group_a != group_b {
                    cluster.cut.insert((*a, *b));
                }
            }
        }
        Ok(())
    }

    fn reconfigure<P: Protocol>(&self, cluster: &mut Cluster<P>) -> Result<(), ScriptError> {
        let id = self.node(1, cluster)?;
        let mut changes = Vec::new();
        for (word, (_, text)) in self.words.iter().enumerate().skip(2) {
            let change = text.split_once('=').and_then(|(key, value)| {
                let node = parse_node(value)?;
                match key {
                    "add-learner" => Some(Change::AddLearner(node)),
                    "add-voter" => Some(Change::AddVoter(node)),
                    "remove" => Some(Change::Remove(node)),
                    _ => None,
                }
            });
            changes.push(change.ok_or_else(|| {
                self.wrong(word, "add-learner=NODE, add-voter=NODE or remove=NODE expected")
            })?);
        }
        cluster.with(id, |replica, now| replica.reconfigure(now, changes));
        Ok(())
    }
}

fn parse_node(text: &str) -> Option<NodeId> {
    let id = u64::from_str_radix(text.strip_prefix('n')?, 16).ok()?;
    (id > 0).then_some(NodeId(id))
}

/// Lets time pass for all who see it, and lets them act where it is due.
fn pass<P: Protocol>(cluster: &mut Cluster<P>, until: Time) {
    cluster.now = cluster.now.max(until);
    let ids: Vec<NodeId> = cluster.nodes.keys().copied().collect();
    for id in ids {
        cluster.with(id, |replica, now| replica.tick(now));
    }
}

/// Delivers a packet; for a paused receiver it stays under way. Whether it was delivered or lost.
fn deliver_or_keep<P: Protocol>(cluster: &mut Cluster<P>, flight: Flight<P>) -> bool {
    if cluster.nodes.get(&flight.to).is_some_and(|node| node.paused) {
        cluster.flights.push_back(flight);
        return false;
    }
    cluster.deliver(flight);
    true
}

fn show_status<P: Protocol>(cluster: &mut Cluster<P>, id: NodeId) {
    let Some(replica) = &cluster.nodes[&id].replica else {
        let _ = writeln!(cluster.effects, "{id:?} is down");
        return;
    };
    let status = replica.status();
    let leader = status.leader.map_or("nobody".to_owned(), |leader| format!("{leader:?}"));
    let _ = writeln!(
        cluster.effects,
        "{id:?} is {:?}, term {}, follows {leader}, decided {:?}, last {:?}, applied {:?}, {}",
        status.role,
        status.term,
        status.decided,
        status.last,
        replica.applied(),
        show_members(&status.members)
    );
}

fn show_state<P: Protocol>(cluster: &mut Cluster<P>, id: NodeId) {
    let Some(replica) = &cluster.nodes[&id].replica else {
        let _ = writeln!(cluster.effects, "{id:?} is down");
        return;
    };
    let applied: Vec<String> =
        replica.machine().applied.iter().map(|(at, _, payload)| show_applied(*at, payload)).collect();
    let _ = writeln!(cluster.effects, "{id:?} applied {}", applied.join(" "));
}

fn show_applied(at: Index, payload: &Bytes) -> String {
    format!("{at:?}={}", String::from_utf8_lossy(payload))
}
