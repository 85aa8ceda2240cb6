//! Who is in the cluster at its beginning, and the ids that follow from it.
//!
//! Ids are the first eight bytes of SHA-256 over what every member is told alike: a member's peer URLs and
//! the cluster's token, and all member ids for the cluster. So members agree on them without a word.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};
use synod_core::NodeId;

use super::ConfigError;
use super::address::Address;

/// The members that a cluster starts with, by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InitialCluster {
    /// What sets this cluster apart from others of the same addresses.
    pub token: String,
    /// Each member's peer URLs, sorted.
    pub members: BTreeMap<String, Vec<Address>>,
}

impl InitialCluster {
    /// Reads `name=url,name=url,...`; a name may come several times, with another URL each time.
    ///
    /// # Errors
    /// One sentence for the first thing that is wrong.
    pub fn parse(text: &str, token: &str) -> Result<InitialCluster, ConfigError> {
        const FLAG: &str = "initial-cluster";
        let mut members: BTreeMap<String, Vec<Address>> = BTreeMap::new();
        let mut owners: BTreeMap<Address, String> = BTreeMap::new();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let Some((name, url)) = part.split_once('=').filter(|(name, _)| !name.is_empty()) else {
                return Err(ConfigError::new(format!(
                    "--{FLAG}: '{part}': allowed is NAME=http://HOST:PORT,..."
                )));
            };
            let address = Address::parse(FLAG, url)?;
            if let Some(owner) = owners.insert(address.clone(), name.to_owned()) {
                return Err(ConfigError::new(if owner == name {
                    format!("--{FLAG}: '{part}' stands there twice")
                } else {
                    format!(
                        "--{FLAG}: both '{owner}' and '{name}' claim {address}: each URL belongs to one member"
                    )
                }));
            }
            members.entry(name.to_owned()).or_default().push(address);
        }
        if members.is_empty() {
            return Err(ConfigError::new(format!(
                "--{FLAG}: there is no member; allowed is NAME=http://HOST:PORT,..."
            )));
        }
        if members.len() > MEMBERS_MAX {
            return Err(ConfigError::new(format!(
                "--{FLAG}: {} members; at most {MEMBERS_MAX} are allowed",
                members.len()
            )));
        }
        for addresses in members.values_mut() {
            addresses.sort();
        }
        Ok(InitialCluster { token: token.to_owned(), members })
    }

    /// The id of the member of this name, if there is one.
    #[must_use]
    pub fn member_id(&self, name: &str) -> Option<NodeId> {
        let mut hash = Sha256::new();
        hash.update(b"synod member");
        for address in self.members.get(name)? {
            hash.update(address.to_string());
            hash.update([0]);
        }
        hash.update(&self.token);
        Some(NodeId(first_eight(hash)))
    }

    /// The cluster's id.
    #[must_use]
    pub fn cluster_id(&self) -> u64 {
        let mut hash = Sha256::new();
        hash.update(b"synod cluster");
        for (id, _, _) in self.by_id() {
            hash.update(id.0.to_be_bytes());
        }
        hash.update(&self.token);
        first_eight(hash)
    }

    /// Every member: id, name, peer URLs; by ascending id.
    #[must_use]
    pub fn by_id(&self) -> Vec<(NodeId, &str, &[Address])> {
        let mut all: Vec<_> = self
            .members
            .iter()
            .filter_map(|(name, urls)| Some((self.member_id(name)?, name.as_str(), urls.as_slice())))
            .collect();
        all.sort();
        all
    }
}

/// The id of a member that is added while the cluster runs: nobody had it before.
#[must_use]
pub(crate) fn added_member_id(urls: &[Address], cluster: u64, nanos: u128) -> NodeId {
    let mut hash = Sha256::new();
    hash.update(b"synod added member");
    for address in urls {
        hash.update(address.to_string());
        hash.update([0]);
    }
    hash.update(cluster.to_be_bytes());
    hash.update(nanos.to_be_bytes());
    NodeId(first_eight(hash))
}

/// More members than this are refused: every one of them is written to for every command.
const MEMBERS_MAX: usize = 31;

fn first_eight(hash: Sha256) -> u64 {
    let digest = hash.finalize();
    let mut first = [0; 8];
    first.copy_from_slice(&digest[..8]);
    // Zero means "nobody"; one in 2^64 hashes would say that.
    u64::from_be_bytes(first).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The ids depend on names' URLs and the token, not on the order in which a person wrote them.
    #[test]
    fn ids_do_not_depend_on_the_order() {
        let one = InitialCluster::parse("a=http://h:1,b=http://h:2,a=http://h:3", "t").unwrap();
        let other = InitialCluster::parse("a=http://h:3,a=http://h:1,b=http://h:2", "t").unwrap();
        assert_eq!((one.cluster_id(), one.by_id()), (other.cluster_id(), other.by_id()));
        let third = InitialCluster::parse("a=http://h:1,b=http://h:2,a=http://h:3", "u").unwrap();
        assert_ne!(one.cluster_id(), third.cluster_id());
        assert_eq!(one.member_id("c"), None);
    }

    /// Lists that contradict themselves are refused with the culprits' names.
    #[test]
    fn contradictions_are_refused() {
        for (bad, why) in [
            ("", "there is no member"),
            ("a", "NAME=http"),
            ("=http://h:1", "NAME=http"),
            ("a=http://h:1,a=http://h:1", "twice"),
            ("a=http://h:1,b=http://h:1", "both 'a' and 'b'"),
            ("a=http://h:0", "out of range"),
        ] {
            let wrong = InitialCluster::parse(bad, "t").unwrap_err().to_string();
            assert!(wrong.contains(why), "{bad}: {wrong}");
        }
    }
}
