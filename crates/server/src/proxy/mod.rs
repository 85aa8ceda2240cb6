//! `synod proxy`: it trusts no member, and believes what f + 1 of them sign alike.
//!
//! It stands on a client's own machine and speaks etcd's API. A command is a wish with a number (`synod_kv::once`): it goes to one member, in
//! turn, and after a while to the next, so that f mute or lying members delay it and no more; every member carries it out, once, and signs what
//! came of it. Reads are wishes, too, and so are linearizable. A watch is opened at all members: `vote` says what is believed of what they
//! tell. Whoever signs something else than f + 1 others is named in the log.
//!
//! | file | what |
//! |---|---|
//! | `vote` | what f + 1 members say alike |
//! | `line` | a connection to a member |
//! | `board` | questions and watches that are open, and what members say about them |
//! | `backend` | the proxy as the services see it |
//! | `service/by_vote` | what each method means here |

mod backend;
mod board;
mod line;
pub mod vote;

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use synod_kv::once::ClientId;
use tokio::sync::watch;

use self::backend::Elsewhere;
pub use self::board::Proxy;
pub(crate) use self::board::ProxyWatch;
use crate::config::{Address, ConfigError};
use crate::http::{Access, ConnectionLimits, Front, Scope, serve_listener};
use crate::metrics::{Detail, Metrics};
use crate::protocol::pbft_keys::read_public;
use crate::service::{self, Service};

/// What a proxy is told.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where each member's clients reach it: `host:port`.
    pub endpoints: Vec<String>,
    /// The file of all members' public keys.
    pub keys: PathBuf,
    /// Where clients reach the proxy.
    pub listen: Vec<Address>,
    /// How long an answer may take.
    pub patience: Duration,
    /// After this a wish is given to the next member, too.
    pub retry: Duration,
}

/// How long requests in flight may take once the proxy was told to stop.
const DRAIN_MAX: Duration = Duration::from_secs(5);

/// The public keys of all members, by name.
///
/// # Errors
/// One sentence: what is wrong with the file, or with the number of endpoints.
fn keys(file: &Path, endpoints: usize) -> Result<BTreeMap<String, [u8; 32]>, ConfigError> {
    let keys = read_public(file)?;
    if keys.len() < 4 {
        return Err(ConfigError::new(format!(
            "--pbft-peers-keys={}: it holds {} key(s); a cluster that bears a liar has four members or more",
            file.display(),
            keys.len()
        )));
    }
    if endpoints != keys.len() {
        return Err(ConfigError::new(format!(
            "--endpoints names {endpoints} member(s), --pbft-peers-keys={} has the keys of {}: every member must be named once",
            file.display(),
            keys.len()
        )));
    }
    Ok(keys)
}

/// Runs a proxy until it is told to stop; `ready` is called when it serves.
///
/// # Errors
/// One sentence: what is wrong with the settings, or why it cannot start.
pub async fn run(
    settings: &Settings,
    mut stop: watch::Receiver<bool>,
    ready: impl FnOnce(),
) -> Result<(), ConfigError> {
    let keys = keys(&settings.keys, settings.endpoints.len())?;
    let mut listeners = Vec::new();
    for address in &settings.listen {
        let socket = address.to_bind("listen-client-urls")?;
        let listener = crate::member::listen(socket, false).map_err(|error| {
            ConfigError::new(format!("cannot listen at {address} (--listen-client-urls): {error}"))
        })?;
        listeners.push(listener);
    }
    let mut name = [0; 16];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut name))
        .map_err(|error| ConfigError::new(format!("there is no randomness: {error}")))?;
    let proxy = Proxy::new(ClientId(u128::from_le_bytes(name)), &keys, settings)?;
    let _lines = proxy.clone().connect();
    tokio::select! {
        known = proxy.clone().cluster_known() => known?,
        _ = stop.wait_for(|stop| *stop) => return Ok(()),
    }
    let backend = Arc::new(Elsewhere::new(proxy.clone(), stop.clone()));
    let service = Service::new(backend, service::Options::default(), Arc::new(Metrics::new(Detail::Basic)));
    let front = Arc::new(Front {
        service,
        access: Access::new(Vec::new(), Vec::new()),
        limits: ConnectionLimits { drain: DRAIN_MAX, ..ConnectionLimits::default() },
        scope: Scope::Clients,
    });
    let mut serving = tokio::task::JoinSet::new();
    for listener in listeners {
        serving.spawn(serve_listener(front.clone(), listener, stop.clone()));
    }
    ready();
    // A sender that has gone says stop, too.
    let _ = stop.wait_for(|stop| *stop).await;
    let _ = tokio::time::timeout(DRAIN_MAX + Duration::from_secs(1), async {
        while serving.join_next().await.is_some() {}
    })
    .await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Keys that are missing, malformed, too few, or of another number of members than is named, are refused by name.
    #[test]
    fn keys_and_endpoints_must_fit() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("pbft.keys");
        let says = |endpoints| keys(&file, endpoints).expect_err("it is wrong").to_string();
        assert!(says(4).contains("synod keygen"));
        std::fs::write(&file, "m0 12\n").expect("written");
        assert!(says(4).contains("pbft.keys:1: a member's name and 64 hex digits"));
        let line = |place: u8| format!("m{place} {}\n", format!("{place:02x}").repeat(32));
        std::fs::write(&file, (1..4).map(line).collect::<String>()).expect("written");
        assert!(says(3).contains("it holds 3 key(s)"));
        std::fs::write(&file, (1..5).map(line).collect::<String>()).expect("written");
        assert!(says(3).contains("--endpoints names 3 member(s)") && says(5).contains("has the keys of 4"));
        assert_eq!(keys(&file, 4).expect("they fit").len(), 4);
    }
}
