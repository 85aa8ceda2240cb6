//! Before a member opens its folder: asking the cluster who it is, when the folder does not know.
//!
//! A member that was added while the cluster runs (`--initial-cluster-state=existing`) learns its id, the cluster's and the founders
//! from any other member's peer port. And a *founder* whose folder is empty asks, too: if it has run before, its memory is gone, and with
//! it the votes and promises that it gave. It must not vote again under its old name, or two leaders can be elected (Raft 5.1 needs
//! `votedFor` on stable storage; so does every other protocol here but proof of work, in which nobody votes). Nobody answers when a cluster is founded, and that is fine.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;
use synod_core::NodeId;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::MemberError;
use super::folder::Membership;
use crate::config::{Address, ClusterState, Settings};
use crate::protocol::Amnesia;

/// A member that does not answer within this time is passed over.
const ANSWER_MAX: Duration = Duration::from_secs(1);
/// No page of a real cluster is longer.
const PAGE_BYTES_MAX: u64 = 1 << 20;
/// Rounds of asking all others, when joining.
const ROUNDS: usize = 5;

/// A member as another one describes it.
struct Described {
    id: NodeId,
    name: String,
    urls: Vec<Address>,
    started: bool,
}

/// What another member says of the cluster.
struct Page {
    cluster: u64,
    protocol: String,
    founders: Vec<Described>,
    members: Vec<Described>,
}

/// Who this member is: what its folder says, or else what the flags and the cluster say.
///
/// # Errors
/// One sentence: what is wrong, and what to do.
pub(crate) async fn find(settings: &Settings) -> Result<Membership, MemberError> {
    if Membership::is_known(settings) {
        return Ok(Membership::find(settings)?);
    }
    let others: Vec<&Address> = settings
        .initial_cluster
        .members
        .iter()
        .filter(|(name, _)| **name != settings.name)
        .flat_map(|(_, urls)| urls)
        .collect();
    match settings.cluster_state {
        ClusterState::Existing => join(settings, &others).await,
        ClusterState::New => {
            let membership = Membership::find(settings)?;
            if settings.protocol.amnesia == Amnesia::Forbidden {
                forbid_amnesia(settings, &membership, &others).await?;
            }
            Ok(membership)
        }
    }
}

/// The sentence for somebody who has lost his memory.
fn lost(settings: &Settings, id: NodeId) -> MemberError {
    MemberError::Join(format!(
        "{} is empty, but member {id} has run before, and its promises and votes are gone with its data: it must not vote again \
         under its old name. Remove it (etcdctl member remove {id}), add it anew (etcdctl member add {} --peer-urls=...), and start \
         it with --initial-cluster-state=existing",
        settings.data_dir.display(),
        settings.name
    ))
}

/// Asks everybody at once whether this founder has run before.
async fn forbid_amnesia(
    settings: &Settings,
    membership: &Membership,
    others: &[&Address],
) -> Result<(), MemberError> {
    let mut asking = tokio::task::JoinSet::new();
    for address in others {
        let address = (*address).clone();
        asking.spawn(async move { ask(&address).await });
    }
    while let Some(answer) = asking.join_next().await {
        let Ok(Ok(page)) = answer else { continue };
        let me = |described: &&Described| described.id == membership.member;
        if page.cluster == membership.cluster {
            match page.members.iter().find(me) {
                Some(known) if known.started => return Err(lost(settings, membership.member)),
                // Founded once, and removed since.
                None => return Err(MemberError::Removed),
                Some(_) => {}
            }
        }
    }
    Ok(())
}

async fn join(settings: &Settings, others: &[&Address]) -> Result<Membership, MemberError> {
    let page = any_page(others).await?;
    let protocol = settings.protocol.row.name;
    if page.protocol != protocol {
        return Err(MemberError::Join(format!(
            "--protocol={protocol}, but the cluster that answers at the addresses of --initial-cluster runs {}",
            page.protocol
        )));
    }
    let mut ours = settings.initial_cluster.members.get(&settings.name).cloned().unwrap_or_default();
    ours.sort();
    let known = page.members.iter().find(|member| member.urls == ours);
    let Some(known) = known else {
        let urls: Vec<String> = ours.iter().map(Address::to_string).collect();
        return Err(MemberError::Join(format!(
            "the cluster does not know a member at {}: add it first (etcdctl member add {} --peer-urls={})",
            urls.join(","),
            settings.name,
            urls.join(",")
        )));
    };
    if known.started {
        return Err(lost(settings, known.id));
    }
    tracing::info!(member_id = %known.id, cluster_id = format!("{:x}", page.cluster), "joining a running cluster");
    let founders =
        page.founders.into_iter().map(|founder| (founder.id, founder.name, founder.urls)).collect();
    let id = known.id;
    let peers: BTreeMap<_, _> = page.members.into_iter().map(|member| (member.id, member.urls)).collect();
    Ok(Membership::of_joined(settings, page.cluster, id, founders, peers)?)
}

/// What the first of the others says that answers.
async fn any_page(others: &[&Address]) -> Result<Page, MemberError> {
    if others.is_empty() {
        return Err(MemberError::Join(
            "--initial-cluster-state=existing: --initial-cluster names nobody to ask; it must list the running members, too"
                .to_owned(),
        ));
    }
    let mut troubles = Vec::new();
    for round in 0..ROUNDS {
        troubles.clear();
        for address in others {
            match ask(address).await {
                Ok(page) => return Ok(page),
                Err(why) => troubles.push(format!("{address}: {why}")),
            }
        }
        tracing::warn!(round, troubles = troubles.join("; "), "no member of the cluster answers yet");
        tokio::time::sleep(ANSWER_MAX).await;
    }
    Err(MemberError::Join(format!(
        "--initial-cluster-state=existing: no member of the cluster answers: {}",
        troubles.join("; ")
    )))
}

async fn ask(address: &Address) -> Result<Page, String> {
    let asking = async {
        let mut stream = TcpStream::connect(address.authority()).await?;
        let request = format!("GET /synod/cluster HTTP/1.1\r\nHost: {}\r\n\r\n", address.authority());
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.take(PAGE_BYTES_MAX).read_to_string(&mut answer).await?;
        Ok::<String, std::io::Error>(answer)
    };
    let answer = timeout(ANSWER_MAX, asking).await.map_err(|_| format!("no answer within {ANSWER_MAX:?}"))?;
    let answer = answer.map_err(|error| error.to_string())?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or("this is not HTTP")?;
    if head.split(' ').nth(1) != Some("200") {
        return Err("it is no member of a Synod cluster, or an older one".to_owned());
    }
    parse(body).ok_or_else(|| "what it says of its cluster cannot be understood".to_owned())
}

fn parse(body: &str) -> Option<Page> {
    let value: Value = serde_json::from_str(body).ok()?;
    let hex = |value: &Value| u64::from_str_radix(value.as_str()?, 16).ok();
    let described = |value: &Value| {
        let urls =
            value["peerURLs"].as_array()?.iter().map(|url| Address::parse("peer-urls", url.as_str()?).ok());
        let mut urls = urls.collect::<Option<Vec<_>>>()?;
        urls.sort();
        Some(Described {
            id: NodeId(hex(&value["id"])?),
            name: value["name"].as_str()?.to_owned(),
            urls,
            started: value["started"].as_bool()?,
        })
    };
    let list = |value: &Value| value.as_array()?.iter().map(described).collect::<Option<Vec<_>>>();
    Some(Page {
        cluster: hex(&value["cluster"])?,
        protocol: value["protocol"].as_str()?.to_owned(),
        founders: list(&value["founders"])?,
        members: list(&value["members"])?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A page is understood whole or not at all.
    #[test]
    fn pages() {
        let member = r#"{"id":"a1","name":"m","peerURLs":["http://h:2","http://h:1"],"started":true}"#;
        let page = format!(r#"{{"cluster":"ff","protocol":"raft","founders":[],"members":[{member}]}}"#);
        let read = parse(&page).expect("a page");
        assert_eq!((read.cluster, read.members[0].id, read.members[0].urls.len()), (255, NodeId(0xa1), 2));
        assert!(read.members[0].urls.is_sorted() && read.members[0].started);
        for (good, bad) in [("\"ff\"", "7"), ("true", "1"), ("http://h:2", "h"), ("\"founders\"", "\"f\"")] {
            assert!(parse(&page.replace(good, bad)).is_none(), "{bad}");
        }
    }
}
