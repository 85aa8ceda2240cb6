//! PBFT behind the server.
//!
//! A member needs a secret key of its own and the public keys of all, as `synod keygen` writes them. Both files are read once, at the
//! start; a file that is missing, readable by others, malformed, or of other members is refused by name.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use synod_core::NodeId;
use synod_protocols::pbft::{Digest, Keys, Options, Pbft, Subject};

use super::pbft_keys::{read_public, read_secret};
use super::{Chosen, House, Row, Served, Sizes, Told};
use crate::config::{ConfigError, Flag};
use crate::contract::{Cell, Offer};
use crate::witness::voice::Signing;

/// The paper's f: how many may lie.
fn liars(members: usize) -> usize {
    members.saturating_sub(1) / 3
}

/// What a quorum leaves.
fn losses(members: usize, _flags: &Chosen) -> usize {
    members.saturating_sub((members + liars(members)) / 2 + 1)
}

impl Served for Pbft {
    const ROW: Row = Row {
        name: "pbft",
        about: "PBFT: decides although a third of the members lie; a client still trusts the member that it talks to",
        flags: &[
            Flag::value("pbft-key", "", "This member's secret key [<data-dir>/pbft.key]; see `synod keygen`"),
            Flag::value("pbft-peers-keys", "", "The public keys of all members [<data-dir>/pbft.keys]"),
        ],
        sizes: Sizes {
            usual: 4,
            possible: |members| members >= 4,
            rule: "four or more: to bear f liars takes 3f + 1 members",
        },
        losses,
        house: House::Leader,
        variants: &[],
    };

    fn options(told: &Told<'_>) -> Result<Options, ConfigError> {
        let settings = told.settings;
        let path = |flag: &str, usual: &str| match told.flags.text(flag) {
            "" => told.folder.join(usual),
            given => PathBuf::from(given),
        };
        let secret = read_secret(&path("pbft-key", "pbft.key"))?;
        let file = path("pbft-peers-keys", "pbft.keys");
        let by_name = read_public(&file)?;
        let mut public: BTreeMap<NodeId, [u8; 32]> = BTreeMap::new();
        for (id, name, _) in settings.initial_cluster.by_id() {
            let Some(key) = by_name.get(name) else {
                return Err(ConfigError::new(format!(
                    "{}: there is no key of member {name}; every member of --initial-cluster needs a line NAME KEY",
                    file.display()
                )));
            };
            public.insert(id, *key);
        }
        if let Some(stranger) =
            by_name.keys().find(|name| !settings.initial_cluster.members.contains_key(*name))
        {
            return Err(ConfigError::new(format!(
                "{}: {stranger} is no member of --initial-cluster",
                file.display()
            )));
        }
        let keys = Keys::new(told.cluster, told.me, secret, &public).map_err(|wrong| {
            ConfigError::new(format!("--pbft-key and --pbft-peers-keys={}: {wrong}", file.display()))
        })?;
        keys.cover(told.founders.voters.iter().copied())
            .map_err(|wrong| ConfigError::new(format!("--pbft-peers-keys={}: {wrong}", file.display())))?;
        let options = Options {
            view_timeout: settings.election_timeout * 2,
            heartbeat: settings.heartbeat * 2,
            // The flag counts commands, the protocol proposals: as many as hold so many commands under full load.
            snapshot_every: settings.snapshot_count.div_ceil(1024),
            snapshot_bytes: settings.snapshot_bytes,
            keys,
            ..Options::default()
        };
        options.check().map_err(|wrong| ConfigError::new(wrong.to_string()))?;
        Ok(options)
    }

    fn signing(options: &Options) -> Option<Signing> {
        let keys = options.keys.clone();
        Some(Arc::new(move |what| keys.sign(Subject::Reply, Digest(what)).0))
    }

    fn offer(_: &Chosen) -> Offer {
        Offer {
            reconfigure: Cell::No(
                "pbft has no change of members: every member must hold the key of every other from the start",
            ),
            transfer: Cell::Noted("to the next member in the fixed order of primaries alone"),
            ..Offer::EVERYTHING
        }
    }
}
