//! What is open: questions and watches, and the lines over which members speak of them.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use synod_core::{NodeId, Wire as _};
use synod_kv::once::{ClientId, Wish};
use synod_kv::op::{Op, Reply, Txn};
use synod_kv::watch::WatchRequest;
use synod_protocols::pbft::{Digest, Keys, Signature, Subject};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::Settings;
use super::line::talk;
use super::vote::{Lie, News, Poll, Tally, Voter};
use crate::config::ConfigError;
use crate::service::backend::Failure;
use crate::witness::words::{Ask, Item, Testimony, decode_items, statement};

/// Decided questions whose late answers are still compared.
const PAST_MAX: usize = 4096;
/// Questions under way, at most: far fewer than a member remembers of one proxy.
const POLLS_MAX: usize = 2048;
/// Watches, at most.
const WATCHES_MAX: usize = 4096;
/// Revisions of one client's watches that wait to be taken, at most; beyond it the watch is canceled.
const NEWS_MAX: usize = 16_384;
/// Between two tries to connect.
const AGAIN: Duration = Duration::from_millis(200);

/// A proxy.
pub struct Proxy {
    client: ClientId,
    names: Vec<String>,
    public: BTreeMap<NodeId, [u8; 32]>,
    endpoints: Vec<String>,
    weak: usize,
    patience: Duration,
    retry: Duration,
    cluster: OnceLock<u64>,
    known: Notify,
    revision: AtomicI64,
    board: Mutex<Board>,
}

struct Board {
    next_number: u64,
    polls: HashMap<u64, Open>,
    past: VecDeque<(u64, Poll)>,
    next_watch: i64,
    watches: HashMap<i64, Held>,
    lines: Vec<Line>,
}

struct Open {
    poll: Poll,
    done: Option<oneshot::Sender<Bytes>>,
    refused: Arc<Notify>,
}

struct Held {
    tally: Tally,
    request: WatchRequest,
    /// The client's own name for it, and where its news go.
    local: i64,
    news: mpsc::Sender<Watched>,
}

#[derive(Default)]
struct Line {
    asks: Option<mpsc::UnboundedSender<Ask>>,
    voter: Option<Voter>,
    cluster: u64,
    trouble: String,
}

/// What a client's watch comes to.
pub(crate) struct Watched {
    /// The client's name for it.
    pub(crate) local: i64,
    /// What happened.
    pub(crate) news: News,
}

/// A watch of a client; dropping it ends it at all members.
pub(crate) struct ProxyWatch {
    proxy: Arc<Proxy>,
    watch: i64,
}

impl ProxyWatch {
    /// Up to where everything has been told on, as f + 1 members say.
    pub(crate) fn agreed(&self) -> i64 {
        self.proxy.board.lock().watches.get(&self.watch).map_or(i64::MAX, |held| held.tally.agreed())
    }
}

impl Drop for ProxyWatch {
    fn drop(&mut self) {
        let mut board = self.proxy.board.lock();
        board.watches.remove(&self.watch);
        board.tell_all(&Ask::Unwatch(self.watch));
    }
}

impl Board {
    /// Asks every member that has shown who it is.
    fn tell_all(&self, ask: &Ask) {
        for line in &self.lines {
            line.tell(ask.clone());
        }
    }
}

impl Line {
    /// Whether there was somebody to be asked.
    fn tell(&self, ask: Ask) -> bool {
        match (&self.asks, self.voter) {
            (Some(asks), Some(_)) => asks.send(ask).is_ok(),
            _ => false,
        }
    }
}

/// One connection, as far as it has come.
struct Connection {
    line: usize,
    nonce: u64,
    place: u64,
    keys: Option<(u64, Keys)>,
    voter: Option<Voter>,
}

impl Proxy {
    pub(super) fn new(
        client: ClientId,
        keys: &BTreeMap<String, [u8; 32]>,
        settings: &Settings,
    ) -> Result<Arc<Proxy>, ConfigError> {
        let public: BTreeMap<NodeId, [u8; 32]> =
            keys.values().enumerate().map(|(place, key)| (NodeId(place as u64), *key)).collect();
        let names: Vec<String> = keys.keys().cloned().collect();
        if let Err(wrong) = Keys::public_only(0, &public) {
            return Err(ConfigError::new(format!("--pbft-peers-keys={}: {wrong}", settings.keys.display())));
        }
        let board = Board {
            next_number: 0,
            polls: HashMap::new(),
            past: VecDeque::new(),
            next_watch: 0,
            watches: HashMap::new(),
            lines: settings.endpoints.iter().map(|_| Line::default()).collect(),
        };
        Ok(Arc::new(Proxy {
            client,
            weak: (names.len() - 1) / 3 + 1,
            names,
            public,
            endpoints: settings.endpoints.clone(),
            patience: settings.patience,
            retry: settings.retry,
            cluster: OnceLock::new(),
            known: Notify::new(),
            revision: AtomicI64::new(0),
            board: Mutex::new(board),
        }))
    }

    /// Keeps a line to each endpoint, for as long as what is returned lives.
    pub(super) fn connect(self: Arc<Self>) -> JoinSet<()> {
        let mut lines = JoinSet::new();
        for line in 0..self.endpoints.len() {
            let proxy = self.clone();
            lines.spawn(async move {
                for nonce in 1.. {
                    proxy.hold(line, nonce).await;
                    tokio::time::sleep(AGAIN).await;
                }
            });
        }
        lines
    }

    /// One connection, from its beginning to its end.
    async fn hold(&self, line: usize, nonce: u64) {
        let (sender, mut asks) = mpsc::unbounded_channel();
        self.board.lock().lines[line].asks = Some(sender);
        let mut connection = Connection { line, nonce, place: 0, keys: None, voter: None };
        let hello = Ask::Hello { client: self.client, nonce };
        let endpoint = &self.endpoints[line];
        let why = talk(endpoint, hello, &mut asks, |said| self.hear(&mut connection, said)).await;
        let mut board = self.board.lock();
        if let Some(voter) = connection.voter {
            board.watches.values_mut().for_each(|held| held.tally.lost(voter));
        }
        let before = std::mem::take(&mut board.lines[line]);
        if before.trouble != why {
            tracing::warn!(endpoint, why, "no word from this member; trying again and again");
        }
        board.lines[line].trouble = why;
    }

    /// Returns when f + 1 members have shown who they are and name the same cluster.
    pub(super) async fn cluster_known(self: Arc<Self>) -> Result<(), ConfigError> {
        let known = tokio::time::timeout(self.patience, async {
            while self.cluster.get().is_none() {
                self.known.notified().await;
            }
        });
        if known.await.is_ok() {
            return Ok(());
        }
        let board = self.board.lock();
        let each = self.endpoints.iter().zip(&board.lines).map(|(endpoint, line)| match line.voter {
            Some(voter) => format!("{endpoint}: {} of cluster {:x}", self.names[voter], line.cluster),
            None => format!("{endpoint}: {}", line.trouble),
        });
        Err(ConfigError::new(format!(
            "fewer than {} of {} members show by their signature that they are of one cluster: {}",
            self.weak,
            self.names.len(),
            each.collect::<Vec<_>>().join("; ")
        )))
    }

    /// The cluster that f + 1 members name.
    pub(super) fn cluster(&self) -> u64 {
        self.cluster.get().copied().unwrap_or_default()
    }

    /// The highest revision that f + 1 members have said.
    pub(crate) fn revision(&self) -> i64 {
        self.revision.load(Relaxed)
    }

    /// Whether as many members are there as must agree.
    pub(super) fn has_enough(&self) -> bool {
        self.board.lock().lines.iter().filter(|line| line.voter.is_some()).count() >= self.weak
    }

    /// How many members may lie, and how many there are.
    pub(crate) fn sizes(&self) -> (usize, usize) {
        (self.weak - 1, self.names.len())
    }

    /// A member has spoken.
    fn hear(&self, connection: &mut Connection, said: Testimony) -> Result<(), String> {
        let place = self.names.iter().position(|name| *name == said.name);
        let Some(voter) = place else {
            return Err(format!("it calls itself {:?}, and there is no key of that name", said.name));
        };
        if connection.keys.as_ref().is_none_or(|(cluster, _)| *cluster != said.cluster) {
            let keys = Keys::public_only(said.cluster, &self.public).map_err(|error| error.to_string())?;
            connection.keys = Some((said.cluster, keys));
        }
        let (_, keys) = connection.keys.as_ref().expect("it was just made");
        let what = Digest(statement(self.client, connection.nonce, connection.place, &said.items));
        let signature = Signature(said.signature);
        let is_next = said.place == connection.place;
        if !is_next || !keys.verify(NodeId(voter as u64), Subject::Reply, what, &signature) {
            return Err(format!("what it says is not signed by {}, as whom it speaks", said.name));
        }
        connection.place += 1;
        if self.cluster.get().is_some_and(|cluster| *cluster != said.cluster) {
            return Err(format!("it is of cluster {:x}, the others of {:x}", said.cluster, self.cluster()));
        }
        let items =
            decode_items(said.items).map_err(|error| format!("what it says means nothing: {error}"))?;
        let mut lies = Vec::new();
        let mut board = self.board.lock();
        match connection.voter {
            None => self.welcome(&mut board, connection, voter, said.cluster)?,
            Some(known) if known != voter => {
                return Err("it speaks as one member and then as another".to_owned());
            }
            Some(_) => {}
        }
        for item in items {
            self.on_item(&mut board, connection.line, voter, item, &mut lies);
        }
        drop(board);
        for Lie { voter, about } in lies {
            tracing::error!(
                member = self.names[voter],
                about,
                "this member has signed something else than f + 1 others"
            );
        }
        Ok(())
    }

    /// A member has shown who it is: it is asked what is open.
    fn welcome(
        &self,
        board: &mut Board,
        connection: &mut Connection,
        voter: Voter,
        cluster: u64,
    ) -> Result<(), String> {
        if board.lines.iter().any(|line| line.voter == Some(voter)) {
            return Err(format!(
                "it speaks as {}, who is heard at another endpoint already",
                self.names[voter]
            ));
        }
        connection.voter = Some(voter);
        let line = &mut board.lines[connection.line];
        (line.voter, line.cluster) = (Some(voter), cluster);
        line.trouble.clear();
        tracing::info!(
            endpoint = self.endpoints[connection.line],
            member = self.names[voter],
            "a member is heard"
        );
        let same = board.lines.iter().filter(|line| line.voter.is_some() && line.cluster == cluster).count();
        if same >= self.weak && self.cluster.set(cluster).is_ok() {
            self.known.notify_one();
        }
        let line = &board.lines[connection.line];
        if !board.polls.is_empty() {
            line.tell(Ask::Lacking(board.polls.keys().copied().collect()));
        }
        for held in board.watches.values() {
            line.tell(Ask::Watch(held.begun_here()));
        }
        Ok(())
    }

    fn on_item(&self, board: &mut Board, line: usize, voter: Voter, item: Item, lies: &mut Vec<Lie>) {
        match item {
            Item::Answer { number, bytes } => {
                if let Some(open) = board.polls.get_mut(&number) {
                    if let Some(decided) = open.poll.vote(voter, bytes, self.weak, lies) {
                        let open = board.polls.remove(&number).expect("it was just there");
                        // Whoever asked may have gone.
                        open.done.map(|done| done.send(decided));
                        board.past.push_back((number, open.poll));
                        if board.past.len() > PAST_MAX {
                            board.past.pop_front();
                        }
                    }
                } else if let Some((_, poll)) = board.past.iter_mut().rev().find(|(past, _)| *past == number)
                {
                    poll.vote(voter, bytes, self.weak, lies);
                }
            }
            Item::Refused { number, why } => {
                if let Some(open) = board.polls.get_mut(&number) {
                    open.poll.refused.insert(voter, why);
                    open.refused.notify_one();
                }
            }
            Item::Watching(watch) => {
                if let Some(held) = board.watches.get_mut(&watch) {
                    held.tally.begin(voter);
                }
            }
            Item::Progress(revision) => {
                board.watches.values_mut().for_each(|held| held.tally.progress(voter, revision));
            }
            Item::Event { watch, revision, bytes } => {
                let Some(held) = board.watches.get_mut(&watch) else { return };
                let mut news = Vec::new();
                if !held.tally.event(voter, revision, bytes, &mut news, lies) {
                    board.lines[line].tell(Ask::Unwatch(watch));
                    board.lines[line].tell(Ask::Watch(held.begun_here()));
                }
                let untold = news.into_iter().any(|news| held.tell(news).is_err());
                if untold {
                    // Its client does not take it: the end of the channel tells so.
                    board.watches.remove(&watch);
                    board.tell_all(&Ask::Unwatch(watch));
                }
            }
            Item::Compacted { watch, revision } => {
                let Some(held) = board.watches.get_mut(&watch) else { return };
                if let Some(news) = held.tally.compacted(voter, revision) {
                    // A client that has gone needs not hear it.
                    let _ = held.tell(news);
                    board.watches.remove(&watch);
                    board.tell_all(&Ask::Unwatch(watch));
                }
            }
        }
    }

    /// Has a wish carried out, and gives what f + 1 members say came of it.
    pub(crate) async fn carry_out(&self, wish: &Wish) -> Result<Reply, Failure> {
        let wish = wish.to_bytes();
        let bytes = self.ask(false, |number| Ask::Wish { number, wish: wish.clone() }).await?;
        let reply = Reply::decode_all(bytes).map_err(|error| {
            Failure::NoAgreement(format!("synod: the members' answer means nothing to this version: {error}"))
        })?;
        self.revision.fetch_max(reply.revision, Relaxed);
        Ok(reply)
    }

    /// A linearizable read of the revision, and of nothing else.
    pub(crate) async fn read_revision(&self) -> Result<i64, Failure> {
        Ok(self.carry_out(&Wish::Op(Op::Txn(Txn::default()))).await?.revision)
    }

    /// Seconds that f + 1 members name alike; none when they say that there is no such lease.
    pub(crate) async fn seconds(&self, lease: i64, renew: bool) -> Result<Option<i64>, Failure> {
        let ask = |number| match renew {
            true => Ask::Renew { number, lease },
            false => Ask::TimeLeft { number, lease },
        };
        let bytes = self.ask(true, ask).await?;
        let seconds = bytes[..].try_into().map(i64::from_le_bytes).unwrap_or(0);
        Ok((seconds > 0).then_some(seconds - 1))
    }

    /// Asks one member after the other, or all at once, until f + 1 have said the same.
    async fn ask(&self, all: bool, ask: impl Fn(u64) -> Ask) -> Result<Bytes, Failure> {
        let (sender, mut done) = oneshot::channel();
        let refused = Arc::new(Notify::new());
        let (number, _open) = {
            let mut board = self.board.lock();
            if board.polls.len() >= POLLS_MAX {
                return Err(Failure::Busy);
            }
            board.next_number += 1;
            let number = board.next_number;
            let open = Open { poll: Poll::default(), done: Some(sender), refused: refused.clone() };
            board.polls.insert(number, open);
            (number, Asked { proxy: self, number })
        };
        let deadline = Instant::now() + self.patience;
        let count = self.endpoints.len();
        for turn in 0.. {
            self.put(all, number as usize + turn, &ask(number));
            let wait = tokio::time::sleep_until(deadline.min(Instant::now() + self.retry));
            tokio::select! {
                biased;
                Ok(bytes) = &mut done => return Ok(bytes),
                () = refused.notified(), if !all && turn < count => {}
                () = wait => {}
            }
            if Instant::now() >= deadline {
                break;
            }
        }
        Err(Failure::NoAgreement(self.disagreement(number)))
    }

    /// Puts a question to all members, or to the first that is there from this turn on.
    fn put(&self, all: bool, turn: usize, ask: &Ask) {
        let board = self.board.lock();
        if all {
            return board.tell_all(ask);
        }
        let count = board.lines.len();
        for place in 0..count {
            if board.lines[(turn + place) % count].tell(ask.clone()) {
                return;
            }
        }
    }

    /// Who said what, where too few said the same.
    fn disagreement(&self, number: u64) -> String {
        let board = self.board.lock();
        let Some(open) = board.polls.get(&number) else {
            return "synod: the answer came too late".to_owned();
        };
        let (voted, same) = open.poll.standing();
        let mut parts = Vec::new();
        for (voter, name) in self.names.iter().enumerate() {
            let line = board.lines.iter().find(|line| line.voter == Some(voter));
            match open.poll.refused.get(&voter) {
                _ if voted.contains(&voter) => {}
                Some(why) => parts.push(format!("{name} refused ({why})")),
                None if line.is_some() => parts.push(format!("{name} is silent")),
                None => parts.push(format!("{name} is not reached")),
            }
        }
        if voted.len() > same {
            let names: Vec<&str> = voted.iter().map(|voter| &self.names[*voter][..]).collect();
            parts.push(format!("{} do not say the same", names.join(", ")));
        }
        format!(
            "synod: {same} of {} members agree on an answer, and {} are needed within {:?}: {}; the request may have been carried out",
            self.names.len(),
            self.weak,
            self.patience,
            parts.join(", ")
        )
    }

    /// Opens a watch at all members; it begins at a revision that is known.
    pub(crate) fn watch(
        self: &Arc<Self>,
        local: i64,
        mut request: WatchRequest,
        news: mpsc::Sender<Watched>,
    ) -> Result<ProxyWatch, Failure> {
        let mut board = self.board.lock();
        if board.watches.len() >= WATCHES_MAX {
            return Err(Failure::Busy);
        }
        board.next_watch += 1;
        let watch = board.next_watch;
        request.watch_id = watch;
        let tally = Tally::new(self.weak, request.start_revision);
        let held = Held { tally, request, local, news };
        board.tell_all(&Ask::Watch(held.begun_here()));
        board.watches.insert(watch, held);
        Ok(ProxyWatch { proxy: self.clone(), watch })
    }

    /// A channel for the news of one client's watches.
    pub(crate) fn news() -> (mpsc::Sender<Watched>, mpsc::Receiver<Watched>) {
        mpsc::channel(NEWS_MAX)
    }

    /// Asks all members how far they have come with their watches.
    pub(crate) fn ask_progress(&self) {
        self.board.lock().tell_all(&Ask::Progress);
    }
}

impl Held {
    /// What a member is asked whose word begins now.
    fn begun_here(&self) -> WatchRequest {
        WatchRequest { start_revision: self.tally.next, ..self.request.clone() }
    }

    fn tell(&self, news: News) -> Result<(), ()> {
        self.news.try_send(Watched { local: self.local, news }).map_err(drop)
    }
}

/// A question that is open; it is forgotten with this.
struct Asked<'a> {
    proxy: &'a Proxy,
    number: u64,
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        self.proxy.board.lock().polls.remove(&self.number);
    }
}
