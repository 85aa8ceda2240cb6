//! The contract: what each protocol gives, and in which words it refuses the rest.
//!
//! A protocol states what it lacks once, in its [`Offer`]. Every service asks [`Contract::check`] before it acts, and `synod contract`
//! prints what the very same function answers for every [`Call`] and [`Level`]: the table cannot say anything but what the server
//! does. A guarantee that a protocol cannot give is refused with the sentence that says why, and never silently weakened.

use std::fmt::Write as _;

use crate::protocol::{Chosen, FAMILY, House, Kin};
use crate::status::{Code, Status};

/// Whether something is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cell {
    /// It is, as etcd gives it.
    Yes,
    /// It is, with something to know about it.
    Noted(&'static str),
    /// It is refused with this sentence, which says what the protocol lacks: `there is no single order to read up to`.
    No(&'static str),
}

/// What a protocol gives to clients. Rows say only what differs from [`Offer::EVERYTHING`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Writes: when they are answered, and what an answer is worth.
    pub writes: Cell,
    /// Reads that see every write acknowledged anywhere before them.
    pub linearizable: Cell,
    /// Reads in one order for all, that see the client's own writes.
    pub sequential: Cell,
    /// Reads that see whatever was seen before what they depend upon.
    pub causal: Cell,
    /// Transactions with comparisons: the comparison and the writes are one step, for all replicas.
    pub compares: Cell,
    /// Several writes in one transaction without comparisons.
    pub groups: Cell,
    /// Revisions: the same number means the same state everywhere. Reads at a revision, watches from one, compaction.
    pub revisions: Cell,
    /// Leases: keys that go when nobody renews them, never early.
    pub leases: Cell,
    /// Adding, removing and replacing members.
    pub reconfigure: Cell,
    /// Handing leadership over when asked to.
    pub transfer: Cell,
    /// Alarms that hold for all members: who is over the quota, or damaged, stops all writes.
    pub alarms: Cell,
    /// How many blocks stand on a write, its own counted, when it is answered; none where an answer is final. Responses to writes say
    /// it, as `synod-confirmations`.
    pub confirmations: Option<u64>,
}

impl Offer {
    /// All that etcd gives.
    pub const EVERYTHING: Offer = Offer {
        writes: Cell::Yes,
        linearizable: Cell::Yes,
        sequential: Cell::Yes,
        causal: Cell::Yes,
        compares: Cell::Yes,
        groups: Cell::Yes,
        revisions: Cell::Yes,
        leases: Cell::Yes,
        reconfigure: Cell::Yes,
        transfer: Cell::Yes,
        alarms: Cell::Yes,
        confirmations: None,
    };
}

/// The level at which a read is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// What is here, now.
    Eventual,
    /// Everything that the client's tokens stand for, and what that depends upon.
    Causal,
    /// The same, in one order for all clients.
    Sequential,
    /// Sees everything that was acknowledged anywhere before the call.
    Linearizable,
}

impl Level {
    /// All of them, the strongest first.
    pub const ALL: [Level; 4] = [Level::Linearizable, Level::Sequential, Level::Causal, Level::Eventual];

    /// As `synod-consistency` spells it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Level::Linearizable => "linearizable",
            Level::Sequential => "sequential",
            Level::Causal => "causal",
            Level::Eventual => "eventual",
        }
    }

    /// The level of this name.
    #[must_use]
    pub fn named(name: &[u8]) -> Option<Level> {
        Level::ALL.into_iter().find(|level| level.name().as_bytes() == name)
    }
}

/// What a client can ask for, as far as protocols differ about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// Range, RangeStream, a Txn that only reads.
    Read,
    /// The same at a revision of the past.
    ReadAt,
    /// An eventual read with `synod-max-staleness`.
    ReadBounded,
    /// Put, DeleteRange.
    Write,
    /// Put with a lease.
    WriteLeased,
    /// A Txn that writes, without comparisons.
    Group,
    /// A Txn that compares and writes.
    Compare,
    /// Compact.
    Compact,
    /// Watch, from now on.
    Watch,
    /// Watch, from a revision of the past.
    WatchFrom,
    /// LeaseGrant, LeaseRevoke, LeaseKeepAlive, LeaseTimeToLive, LeaseLeases.
    Lease,
    /// Lock, Unlock, Campaign, Proclaim, Leader, Observe, Resign: keys in the order in which they were created.
    Line,
    /// MemberAdd, MemberRemove, MemberUpdate, MemberPromote.
    Reconfigure,
    /// MemberList.
    Members,
    /// MoveLeader.
    Transfer,
    /// Alarm.
    Alarm,
    /// HashKV.
    HashKv,
    /// Status, Defragment, Hash, Snapshot, health.
    Local,
}

/// How a call is shown.
struct Shown {
    call: Call,
    name: &'static str,
    methods: &'static str,
    /// Whether a client can choose the level.
    leveled: bool,
}

const fn shown(call: Call, name: &'static str, methods: &'static str) -> Shown {
    Shown { call, name, methods, leveled: matches!(call, Call::Read | Call::ReadAt) }
}

/// Every call, in the order of the table.
const CALLS: [Shown; 18] = [
    shown(Call::Read, "read", "Range, RangeStream, Txn (reads only)"),
    shown(Call::ReadAt, "read at a revision", "Range, RangeStream, Txn (reads only)"),
    shown(Call::ReadBounded, "read with synod-max-staleness", "Range, RangeStream, Txn (reads only)"),
    shown(Call::Write, "write", "Put, DeleteRange"),
    shown(Call::WriteLeased, "write with a lease", "Put"),
    shown(Call::Group, "writes without comparison", "Txn"),
    shown(Call::Compare, "compare and write", "Txn"),
    shown(Call::Compact, "compact", "Compact"),
    shown(Call::Watch, "watch from now on", "Watch"),
    shown(Call::WatchFrom, "watch from a revision", "Watch"),
    shown(Call::Lease, "leases", "LeaseGrant, LeaseRevoke, LeaseKeepAlive, LeaseTimeToLive, LeaseLeases"),
    shown(Call::Line, "locks and elections", "Lock, Unlock, Campaign, Proclaim, Leader, Observe, Resign"),
    shown(Call::Reconfigure, "change the members", "MemberAdd, MemberRemove, MemberUpdate, MemberPromote"),
    shown(Call::Members, "list the members", "MemberList"),
    shown(Call::Transfer, "move the leader", "MoveLeader"),
    shown(Call::Alarm, "alarms", "Alarm"),
    shown(Call::HashKv, "compare replicas", "HashKV"),
    shown(Call::Local, "look at one member", "Status, Defragment, Hash, Snapshot, Health"),
];

/// What one protocol, with its flags, gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Contract {
    /// The protocol's name.
    pub protocol: &'static str,
    /// What it gives.
    pub offer: Offer,
}

impl Contract {
    /// That of a protocol with these flags.
    #[must_use]
    pub fn of(kin: &Kin, flags: &Chosen) -> Contract {
        let mut offer = (kin.offer)(flags);
        if kin.row.house != House::Leader && !matches!(offer.leases, Cell::No(_)) {
            // Two members that do not see each other would both keep house.
            offer.leases =
                Cell::No("no member alone keeps the time, so the end of a lease could overtake its renewal");
        }
        Contract { protocol: kin.row.name, offer }
    }

    /// What the protocol says to a call at a level, and what it is that is given or lacks. The level matters to reads alone.
    fn cell(&self, call: Call, level: Level) -> (&'static str, Cell) {
        let offer = &self.offer;
        let read = match level {
            Level::Linearizable => ("linearizable reads", offer.linearizable),
            Level::Sequential => ("sequential reads", offer.sequential),
            Level::Causal => ("causal reads", offer.causal),
            Level::Eventual => ("eventual reads", Cell::Yes),
        };
        let revisions = ("revisions that mean the same everywhere", offer.revisions);
        match call {
            Call::Read => read,
            Call::ReadAt => worse(read, revisions),
            // How far a replica lags is known by asking the others, as a linearizable read does.
            Call::ReadBounded => ("a bound on staleness", offer.linearizable),
            Call::Write => ("writes", offer.writes),
            Call::WriteLeased => worse(("writes", offer.writes), ("leases", offer.leases)),
            Call::Group => ("several writes as one step", offer.groups),
            Call::Compare => ("comparisons in transactions", offer.compares),
            Call::Compact | Call::WatchFrom | Call::HashKv => revisions,
            Call::Lease => ("leases", offer.leases),
            Call::Line => {
                let compares = ("comparisons in transactions", offer.compares);
                worse(compares, worse(("leases", offer.leases), ("linearizable reads", offer.linearizable)))
            }
            Call::Reconfigure => ("changes of the members", offer.reconfigure),
            Call::Transfer => ("a leader that can be moved", offer.transfer),
            Call::Alarm => ("alarms", offer.alarms),
            Call::Watch | Call::Members | Call::Local => ("this", Cell::Yes),
        }
    }

    /// Whether the call may go on.
    ///
    /// # Errors
    /// The refusal that the client gets: FAILED_PRECONDITION, and what the protocol lacks.
    pub fn check(&self, call: Call, level: Level) -> Result<(), Status> {
        match self.cell(call, level) {
            (_, Cell::Yes | Cell::Noted(_)) => Ok(()),
            (what, Cell::No(why)) => Err(self.refusal(what, why)),
        }
    }

    #[cold]
    fn refusal(&self, what: &str, why: &str) -> Status {
        let sentence = format!("synod: protocol {} does not give {what}: {why}", self.protocol);
        Status::new(Code::FailedPrecondition, sentence)
    }

    /// Whether the protocol has one order that a read can be held against.
    #[must_use]
    pub fn has_fences(&self) -> bool {
        !matches!(self.offer.linearizable, Cell::No(_))
    }
}

/// The refusal of the two, if there is one; else the note.
fn worse(one: (&'static str, Cell), other: (&'static str, Cell)) -> (&'static str, Cell) {
    match (one.1, other.1) {
        (Cell::No(_), _) | (Cell::Noted(_), Cell::Yes | Cell::Noted(_)) => one,
        _ => other,
    }
}

/// How the table is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For a terminal.
    Table,
    /// For the documents.
    Markdown,
    /// For programs.
    Json,
}

/// A protocol with flags, as the table shows it.
struct Entry {
    title: String,
    about: &'static str,
    contract: Contract,
}

fn entries(only: Option<&str>) -> Vec<Entry> {
    let mut entries = Vec::new();
    for kin in FAMILY.iter().filter(|kin| only.is_none_or(|only| only == kin.row.name)) {
        let row = &kin.row;
        let mut add = |title: String, flags: &Chosen| {
            entries.push(Entry { title, about: row.about, contract: Contract::of(kin, flags) });
        };
        if row.variants.is_empty() {
            add(row.name.to_owned(), &Chosen::defaults(row));
        }
        for variant in row.variants {
            // A test holds that a variant's flags are good.
            if let Ok(flags) = Chosen::of(row, variant.flags) {
                add(format!("{} ({})", row.name, variant.name), &flags);
            }
        }
    }
    entries
}

/// The contract of one protocol, or of all, as text.
#[must_use]
pub fn print(only: Option<&str>, format: Format) -> String {
    let entries = entries(only);
    match format {
        Format::Json => json(&entries),
        Format::Markdown => markdown(&entries),
        Format::Table => entries.iter().map(|entry| table(entry, "", &pad)).collect::<Vec<_>>().join("\n"),
    }
}

/// The line of one entry of the table, column by column.
fn pad(columns: &[&str]) -> String {
    let mut line = String::new();
    for (column, width) in columns.iter().zip([31, 14, 14, 14, 14]) {
        // Formatting into a string does not fail.
        let _ = write!(line, "{column:<width$}");
    }
    line.trim_end().to_owned()
}

fn pipes(columns: &[&str]) -> String {
    format!("| {} |", columns.join(" | "))
}

/// One protocol: a line for each call, a column for each level, and a list of what is behind the numbers.
fn table(entry: &Entry, heading: &str, line: &dyn Fn(&[&str]) -> String) -> String {
    let mut text = format!("{heading}{}\n\n{}.\n\n", entry.title, entry.about);
    let mut head = vec!["call"];
    head.extend(Level::ALL.map(Level::name));
    text.push_str(&line(&head));
    text.push('\n');
    if !heading.is_empty() {
        text.push_str("|---|---|---|---|---|\n");
    }
    let mut notes: Vec<String> = Vec::new();
    for shown in &CALLS {
        let mut columns = vec![shown.name.to_owned()];
        for level in Level::ALL {
            let (what, cell) = entry.contract.cell(shown.call, level);
            let (word, note) = match cell {
                Cell::Yes => ("yes", None),
                Cell::Noted(note) => ("yes", Some(note.to_owned())),
                Cell::No(why) => ("no", Some(entry.contract.refusal(what, why).message.into_owned())),
            };
            let number = note.map(|note| {
                let at = notes.iter().position(|known| *known == note).unwrap_or_else(|| {
                    notes.push(note);
                    notes.len() - 1
                });
                format!(" ({})", at + 1)
            });
            columns.push(format!("{word}{}", number.unwrap_or_default()));
            if !shown.leveled {
                columns.extend(["", "", ""].map(str::to_owned));
                break;
            }
        }
        let columns: Vec<&str> = columns.iter().map(String::as_str).collect();
        text.push_str(&line(&columns));
        text.push('\n');
    }
    if !notes.is_empty() {
        text.push('\n');
    }
    for (number, note) in notes.iter().enumerate() {
        let _ = writeln!(text, "{}. {note}", number + 1);
    }
    text
}

fn markdown(entries: &[Entry]) -> String {
    let mut text = "# The contract\n\n\
        What each protocol gives to clients, by call and consistency level (`synod-consistency`; without it a read is linearizable, and etcd's\n\
        `serializable` is eventual). `no` is answered with FAILED_PRECONDITION and exactly the sentence below the table. Calls without levels have one\n\
        cell. This file is printed by `synod contract --format markdown`, from the code that decides; a test holds the two together.\n\n\
        The calls, by their gRPC methods:\n\n"
        .to_owned();
    for shown in &CALLS {
        let _ = writeln!(text, "- {}: {}", shown.name, shown.methods);
    }
    text.push_str(
        "\nUsers and roles are not part of this release, whatever the protocol: they answer UNIMPLEMENTED.\n",
    );
    for entry in entries {
        text.push('\n');
        text.push_str(&table(entry, "## ", &pipes));
    }
    text
}

fn json(entries: &[Entry]) -> String {
    let mut cells = Vec::new();
    for entry in entries {
        for shown in &CALLS {
            for level in Level::ALL {
                let (what, cell) = entry.contract.cell(shown.call, level);
                let (answer, text) = match cell {
                    Cell::Yes => ("yes", None),
                    Cell::Noted(note) => ("yes", Some(note.to_owned())),
                    Cell::No(why) => ("no", Some(entry.contract.refusal(what, why).message.into_owned())),
                };
                cells.push(serde_json::json!({
                    "protocol": entry.title,
                    "call": shown.name,
                    "methods": shown.methods.split(", ").collect::<Vec<_>>(),
                    "level": shown.leveled.then_some(level.name()),
                    "answer": answer,
                    "text": text,
                }));
                if !shown.leveled {
                    break;
                }
            }
        }
    }
    // One cell a line, so that two tables can be compared with ordinary tools.
    let lines: Vec<String> = cells.iter().map(|cell| format!("  {cell}")).collect();
    format!("[\n{}\n]\n", lines.join(",\n"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use synod_api::Method;

    const BARE: Contract = Contract {
        protocol: "bare",
        offer: Offer {
            linearizable: Cell::No("there is no single order"),
            leases: Cell::No("nobody keeps the time"),
            ..Offer::EVERYTHING
        },
    };

    /// What lacks is refused with the sentence, what does not depend upon it is given.
    #[test]
    fn what_lacks_is_refused_by_name() {
        let wrong = BARE.check(Call::Read, Level::Linearizable).expect_err("no order");
        assert_eq!(wrong.code, Code::FailedPrecondition);
        assert_eq!(
            wrong.message,
            "synod: protocol bare does not give linearizable reads: there is no single order"
        );
        assert_eq!(BARE.check(Call::Read, Level::Causal), Ok(()));
        assert_eq!(BARE.check(Call::Write, Level::Linearizable), Ok(()));
        assert!(BARE.check(Call::WriteLeased, Level::Eventual).is_err());
        assert!(BARE.check(Call::ReadBounded, Level::Eventual).is_err());
    }

    /// Every method of the API that this release has stands in some line of the table.
    #[test]
    fn every_method_is_in_the_table() {
        for method in Method::ALL.iter().filter(|method| crate::service::is_supported(**method)) {
            if matches!(method.service(), "etcdserverpb.Auth" | "grpc.health.v1.Health")
                || method.service().starts_with("grpc.reflection")
                // What it gives beyond is for `synod proxy` alone, and said in docs/protocols/pbft.md.
                || *method == Method::Testify
            {
                continue;
            }
            let name = method.name();
            let shown = CALLS.iter().any(|shown| shown.methods.split([',', ' ']).any(|word| word == name));
            assert!(shown, "{name}");
        }
    }

    /// The committed table is what the code says.
    #[test]
    fn the_documents_say_what_the_code_does() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/contract.md");
        let printed = print(None, Format::Markdown);
        if std::env::var_os("SYNOD_WRITE_CONTRACT").is_some() {
            std::fs::write(path, &printed).expect("written");
        }
        let committed = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            committed == printed,
            "docs/contract.md is not what `synod contract --format markdown` prints: write it anew"
        );
    }
}
