//! The data folder's own memory of who it belongs to: the file `member`.
//!
//! A short text, sealed with a checksum, replaced by renaming a synced copy over it. It says which cluster and
//! member the folder belongs to, and whom the cluster was founded with, so that a restart needs no
//! `--initial-cluster` and a folder that was mixed up is noticed before anything is written.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use synod_core::NodeId;

use crate::config::{Address, ClusterState, InitialCluster, Settings};

const FILE: &str = "member";
const FIRST_LINE: &str = "synod-member 1";
/// No real file comes near: what is longer is not ours.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// How many numbers one run of a member may give to its commands before they could meet those of a later run.
const NUMBERS_PER_RUN: u64 = 1 << 40;

/// What is wrong with a data folder.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// The system said no.
    #[error("{path}: {action} failed: {source}")]
    Io {
        /// Where.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The file is not what this program writes.
    #[error(
        "{path} is damaged ({what}): restore it from a copy; it says which member this folder belongs to"
    )]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong in it.
        what: String,
    },
    /// The folder belongs to another cluster or member than the flags say.
    #[error("{0}")]
    Mismatch(String),
}

/// Who a data folder belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Membership {
    /// The cluster.
    pub(crate) cluster: u64,
    /// This member.
    pub(crate) member: NodeId,
    /// The replication protocol.
    pub(crate) protocol: String,
    /// The members that the cluster was founded with: id, name, peer URLs.
    pub(crate) founders: Vec<(NodeId, String, Vec<Address>)>,
    /// Whether the member was added to a running cluster: it is none of the founders.
    pub(crate) joined: bool,
    /// Where the members were reached last; empty until somebody was added, removed or moved.
    pub(crate) peers: BTreeMap<NodeId, Vec<Address>>,
    /// The data folder.
    pub(crate) path: PathBuf,
    /// Numbers of commands from here on were never used by an earlier run.
    pub(crate) first_number: u64,
    /// Whether the folder knew all this already.
    pub(crate) was_known: bool,
}

impl Membership {
    /// Reads the folder's file and checks it against the settings; founds the folder when it is new.
    /// Nothing is written yet: see [`Membership::save`].
    ///
    /// # Errors
    /// One sentence: what is wrong, and where.
    pub(crate) fn find(settings: &Settings) -> Result<Membership, FolderError> {
        make_folder(&settings.data_dir)?;
        let path = settings.data_dir.join(FILE);
        let told = Membership::told(settings);
        let mut found = match read(&path)? {
            Some(text) => {
                let parsed = parse(&text, &settings.data_dir);
                parsed.map_err(|what| FolderError::Damaged { path: path.clone(), what })?
            }
            None => {
                let checked = settings.protocol.row.check_size(told.founders.len());
                checked.map_err(|wrong| FolderError::Mismatch(wrong.to_string()))?;
                told.clone()
            }
        };
        // Who has joined was described by other flags than these would describe it now.
        let given = settings.cluster_given && settings.cluster_state == ClusterState::New && !found.joined;
        if given && (found.cluster, found.member) != (told.cluster, told.member) {
            return Err(FolderError::Mismatch(format!(
                "{} belongs to member {} of cluster {:x}, but the flags describe member {} of cluster {:x}: \
                 choose another --data-dir, or leave --initial-cluster and --initial-cluster-token as they were at the start",
                settings.data_dir.display(),
                found.member,
                found.cluster,
                told.member,
                told.cluster
            )));
        }
        if found.protocol != told.protocol {
            return Err(FolderError::Mismatch(format!(
                "{} was written by --protocol={}, not {}: a cluster keeps its protocol; choose another --data-dir for another one",
                settings.data_dir.display(),
                found.protocol,
                told.protocol
            )));
        }
        found.first_number = number_after(found.first_number);
        Ok(found)
    }

    /// Whether the folder remembers a member already.
    pub(crate) fn is_known(settings: &Settings) -> bool {
        fs::symlink_metadata(settings.data_dir.join(FILE)).is_ok()
    }

    /// The membership of somebody who was added to a running cluster, in a new folder.
    pub(crate) fn of_joined(
        settings: &Settings,
        cluster: u64,
        member: NodeId,
        founders: Vec<(NodeId, String, Vec<Address>)>,
        peers: BTreeMap<NodeId, Vec<Address>>,
    ) -> Result<Membership, FolderError> {
        make_folder(&settings.data_dir)?;
        Ok(Membership {
            cluster,
            member,
            founders,
            peers,
            joined: true,
            first_number: number_after(0),
            ..Membership::told(settings)
        })
    }

    /// Where the members are reached, as far as the folder knows.
    pub(crate) fn addresses(&self) -> BTreeMap<NodeId, Vec<Address>> {
        match self.peers.is_empty() {
            true => self.founders.iter().map(|(id, _, urls)| (*id, urls.clone())).collect(),
            false => self.peers.clone(),
        }
    }

    /// Remembers where the members are reached now.
    ///
    /// # Errors
    /// When it may not have been written.
    pub(crate) fn save_peers(&mut self, peers: &BTreeMap<NodeId, Vec<Address>>) -> Result<(), FolderError> {
        self.peers.clone_from(peers);
        self.save(&self.path)
    }

    fn told(settings: &Settings) -> Membership {
        let cluster: &InitialCluster = &settings.initial_cluster;
        let founders = cluster.by_id();
        Membership {
            cluster: cluster.cluster_id(),
            member: cluster.member_id(&settings.name).unwrap_or_default(),
            protocol: settings.protocol.row.name.to_owned(),
            founders: founders
                .into_iter()
                .map(|(id, name, urls)| (id, name.to_owned(), urls.to_vec()))
                .collect(),
            joined: false,
            peers: BTreeMap::new(),
            path: settings.data_dir.clone(),
            first_number: 0,
            was_known: false,
        }
    }

    /// Writes the file, durably. The folder must be locked.
    ///
    /// # Errors
    /// When it may not have been written.
    pub(crate) fn save(&self, folder: &Path) -> Result<(), FolderError> {
        let fresh = folder.join("member.new");
        let fail = |action| {
            let path = fresh.clone();
            move |source| FolderError::Io { path, action, source }
        };
        // What a stop has left there, or whatever else: a link would be followed, a pipe would never open.
        match fs::remove_file(&fresh) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(fail("removing")(error)),
            _ => {}
        }
        let mut file = File::create_new(&fresh).map_err(fail("creating"))?;
        file.write_all(self.text().as_bytes()).map_err(fail("writing"))?;
        file.sync_all().map_err(fail("syncing"))?;
        fs::rename(&fresh, folder.join(FILE)).map_err(fail("renaming"))?;
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(fail("syncing the folder of"))
    }

    fn text(&self) -> String {
        let mut text = format!(
            "{FIRST_LINE}\ncluster {:016x}\nmember {:016x}\nprotocol {}\nnumber {}\n",
            self.cluster, self.member.0, self.protocol, self.first_number
        );
        for (id, name, urls) in &self.founders {
            let urls: Vec<_> = urls.iter().map(Address::to_string).collect();
            text.push_str(&format!("founder {:016x} {} {name}\n", id.0, urls.join(",")));
        }
        if self.joined {
            text.push_str("joined later\n");
        }
        for (id, urls) in &self.peers {
            let urls: Vec<_> = urls.iter().map(Address::to_string).collect();
            text.push_str(&format!("peer {:016x} {}\n", id.0, urls.join(",")));
        }
        let sum = crc32c::crc32c(text.as_bytes());
        text.push_str(&format!("sum {sum:08x}\n"));
        text
    }
}

fn make_folder(folder: &Path) -> Result<(), FolderError> {
    let fail = |action| move |source| FolderError::Io { path: folder.to_owned(), action, source };
    match fs::metadata(folder) {
        Ok(found) if !found.is_dir() => {
            Err(FolderError::Mismatch(format!("--data-dir={}: this is not a folder", folder.display())))
        }
        Ok(found) => {
            let mode = found.permissions().mode() & 0o777;
            if mode & 0o022 != 0 {
                tracing::warn!(folder = %folder.display(), mode = format!("{mode:o}"), "others may write to the data folder: it should have mode 700");
            }
            Ok(())
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(fail("making the data folder")),
        Err(error) => Err(fail("looking at the data folder")(error)),
    }
}

fn read(path: &Path) -> Result<Option<String>, FolderError> {
    let fail = |source| FolderError::Io { path: path.to_owned(), action: "reading", source };
    let damaged = |what: &str| FolderError::Damaged { path: path.to_owned(), what: what.to_owned() };
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(fail(error)),
        Ok(found) if !found.is_file() => return Err(damaged("it is not a regular file")),
        Ok(found) if found.len() > FILE_BYTES_MAX => return Err(damaged("it is too long")),
        Ok(_) => {}
    }
    let bytes = fs::read(path).map_err(fail)?;
    String::from_utf8(bytes).map(Some).map_err(|_| damaged("it is not text"))
}

/// The first number of a run after one that may have used numbers from `last` on: the clock as a rule, the last run's when it went back.
fn number_after(last: u64) -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
    (now << 20).max(last + NUMBERS_PER_RUN)
}

fn parse_urls(text: &str) -> Result<Vec<Address>, String> {
    let urls: Result<Vec<_>, _> = text.split(',').map(|url| Address::parse("peer", url)).collect();
    urls.map_err(|wrong| wrong.to_string())
}

fn parse(text: &str, folder: &Path) -> Result<Membership, String> {
    let (body, sum) = text
        .strip_suffix('\n')
        .and_then(|text| text.rsplit_once("\nsum "))
        .map(|(body, sum)| (format!("{body}\n"), sum))
        .ok_or("the sum is missing")?;
    if u32::from_str_radix(sum, 16) != Ok(crc32c::crc32c(body.as_bytes())) {
        return Err("the sum does not match".to_owned());
    }
    let mut lines = body.lines();
    match lines.next() {
        Some(FIRST_LINE) => {}
        Some(other) => return Err(format!("'{other}' is not a format that this version knows")),
        None => return Err("it is empty".to_owned()),
    }
    let mut found = Membership {
        cluster: 0,
        member: NodeId(0),
        protocol: String::new(),
        founders: Vec::new(),
        joined: false,
        peers: BTreeMap::new(),
        path: folder.to_owned(),
        first_number: 0,
        was_known: true,
    };
    let hex = |text: &str| u64::from_str_radix(text, 16).map_err(|_| format!("'{text}' is not a number"));
    for line in lines {
        match line.split_once(' ') {
            Some(("cluster", id)) => found.cluster = hex(id)?,
            Some(("member", id)) => found.member = NodeId(hex(id)?),
            Some(("protocol", name)) => found.protocol = name.to_owned(),
            Some(("number", number)) => {
                found.first_number = number.parse().map_err(|_| format!("'{number}' is not a number"))?;
            }
            Some(("founder", rest)) => {
                let mut words = rest.splitn(3, ' ');
                let (Some(id), Some(urls), Some(name)) = (words.next(), words.next(), words.next()) else {
                    return Err(format!("'{line}' is not a founder"));
                };
                found.founders.push((NodeId(hex(id)?), name.to_owned(), parse_urls(urls)?));
            }
            Some(("joined", "later")) => found.joined = true,
            Some(("peer", rest)) => {
                let (id, urls) = rest.split_once(' ').ok_or_else(|| format!("'{line}' is not a peer"))?;
                found.peers.insert(NodeId(hex(id)?), parse_urls(urls)?);
            }
            _ => return Err(format!("'{line}' is unknown")),
        }
    }
    let is_founder = found.founders.iter().any(|(id, _, _)| *id == found.member);
    if found.cluster == 0 || !(is_founder || found.joined) {
        return Err("this member is not among the founders".to_owned());
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Invocation, parse as parse_words};

    fn settings(folder: &Path, words: &[&str]) -> Settings {
        let mut all = vec![format!("--data-dir={}", folder.display())];
        all.extend(words.iter().map(|word| (*word).to_owned()));
        match parse_words(&all, std::iter::empty()) {
            Ok(Invocation::Run(values)) => Settings::from_values(&values, "etcd").expect("good settings"),
            other => panic!("{other:?}"),
        }
    }

    const TWO: &str = "--initial-cluster=default=http://localhost:2380,b=http://localhost:2480";

    /// A folder remembers its cluster: a restart needs no list, and another list is refused.
    #[test]
    fn a_folder_remembers_whose_it_is() {
        let folder = tempfile::tempdir().expect("a folder");
        let told = Membership::find(&settings(folder.path(), &[TWO])).expect("new");
        told.save(folder.path()).expect("saved");
        let again = Membership::find(&settings(folder.path(), &[])).expect("known");
        assert_eq!(
            (again.cluster, again.member, &again.founders),
            (told.cluster, told.member, &told.founders)
        );
        assert!(again.first_number >= told.first_number + NUMBERS_PER_RUN, "numbers are never used twice");
        let other = settings(folder.path(), &[TWO, "--initial-cluster-token=other"]);
        let wrong = Membership::find(&other).expect_err("another cluster").to_string();
        assert!(wrong.contains("belongs to member"), "{wrong}");
    }

    /// Who has joined later, and where the peers are now, is remembered too.
    #[test]
    fn a_folder_remembers_who_came_later() {
        let folder = tempfile::tempdir().expect("a folder");
        let settings = settings(folder.path(), &[TWO]);
        let founders = Membership::find(&settings).expect("new").founders;
        let mut joined =
            Membership::of_joined(&settings, 7, NodeId(9), founders, BTreeMap::new()).expect("a folder");
        joined.save(folder.path()).expect("saved");
        let peers = BTreeMap::from([(NodeId(9), parse_urls("http://h:1,http://h:2").expect("addresses"))]);
        joined.save_peers(&peers).expect("saved");
        let again = Membership::find(&settings).expect("known");
        assert!(again.joined && again.was_known && again.member == NodeId(9) && again.cluster == 7);
        assert_eq!(again.addresses(), peers);
    }

    /// Every flipped byte of the file, and every cut, is noticed.
    #[test]
    fn damage_is_noticed() {
        let folder = tempfile::tempdir().expect("a folder");
        let text = Membership::find(&settings(folder.path(), &[TWO])).expect("new").text();
        let parse = |text: &str| parse(text, folder.path());
        assert!(parse(&text).is_ok());
        for at in 0..text.len() {
            assert!(parse(&text[..at]).is_err(), "cut at {at}");
            let mut bytes = text.clone().into_bytes();
            bytes[at] ^= 1;
            assert!(String::from_utf8(bytes).map_or(true, |text| parse(&text).is_err()), "byte {at}");
        }
    }

    /// A file is no folder.
    #[test]
    fn impossible_folders_are_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("file");
        fs::write(&file, "x").expect("written");
        assert!(
            Membership::find(&settings(&file, &[])).expect_err("a file").to_string().contains("not a folder")
        );
    }
}
