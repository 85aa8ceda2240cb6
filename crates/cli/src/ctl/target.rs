//! Which cluster is meant, and how answers are written.

use std::net::{SocketAddr, ToSocketAddrs};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use clap::{Args, ValueEnum};
use prost::Message;
use synod_api::Method;
use synod_load::client::{CallError, Client};

/// How answers are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Lines for people and pipes.
    Simple,
    /// Protobuf's JSON: bytes in base64, 64-bit numbers as strings.
    Json,
    /// Tables, where a command has one.
    Table,
}

/// The cluster, and the way of writing.
#[derive(Args, Clone, Debug)]
pub(crate) struct Target {
    /// Where the cluster is; the first that takes connections is asked
    #[arg(
        long,
        global = true,
        value_delimiter = ',',
        default_value = "127.0.0.1:2379",
        env = "ETCDCTL_ENDPOINTS",
        help_heading = "Cluster"
    )]
    pub(crate) endpoints: Vec<String>,
    /// How long an answer may take, in seconds
    #[arg(long, global = true, default_value_t = 10.0, value_name = "SECONDS", help_heading = "Cluster")]
    pub(crate) command_timeout: f64,
    /// How answers are written
    #[arg(
        short = 'w',
        long,
        global = true,
        value_enum,
        default_value = "simple",
        env = "ETCDCTL_WRITE_OUT",
        help_heading = "Cluster"
    )]
    pub(crate) write_out: Format,
}

/// A target, checked.
pub(super) struct Connection {
    pub(super) endpoints: Vec<SocketAddr>,
    pub(super) format: Format,
    timeout: Duration,
}

impl Connection {
    pub(super) fn new(target: &Target) -> Result<Connection> {
        if !(0.001..=86_400.0).contains(&target.command_timeout) {
            bail!("--command-timeout={}: allowed is 0.001 to 86400 seconds", target.command_timeout);
        }
        let endpoints = target.endpoints.iter().map(|word| address(word)).collect::<Result<Vec<_>>>()?;
        Ok(Connection {
            endpoints,
            format: target.write_out,
            timeout: Duration::from_secs_f64(target.command_timeout),
        })
    }

    /// A connection to the first endpoint that takes it, whose requests carry these fields, too.
    pub(super) async fn connect_with(&self, metadata: Vec<(String, String)>) -> Result<Client> {
        self.connect_to(&self.endpoints, metadata).await
    }

    /// A connection to the first of these endpoints that takes it.
    pub(super) async fn connect_to(
        &self,
        endpoints: &[SocketAddr],
        metadata: Vec<(String, String)>,
    ) -> Result<Client> {
        let connecting = tokio::time::timeout(self.timeout, Client::connect(endpoints, metadata));
        connecting.await.map_err(|_| anyhow!("no endpoint takes connections"))?.with_context(|| {
            let all: Vec<String> = endpoints.iter().map(SocketAddr::to_string).collect();
            format!("is a member running at {}? (--endpoints says where)", all.join(", "))
        })
    }

    pub(super) async fn connect(&self) -> Result<Client> {
        self.connect_with(Vec::new()).await
    }

    /// A read, or something else that may be asked again.
    pub(super) async fn ask<M: Message + Default>(
        &self,
        client: &mut Client,
        method: Method,
        request: &impl Message,
    ) -> Result<M> {
        match tokio::time::timeout(self.timeout, client.call(method, request)).await {
            Ok(answer) => answer.map_err(|error| explain(error, "")),
            Err(_) => bail!(
                "no answer from {} in {:?}: is there a majority of members? (--command-timeout waits longer)",
                client.endpoint(),
                self.timeout
            ),
        }
    }

    /// Something that changes the store: without an answer it may have been carried out.
    pub(super) async fn change<M: Message + Default>(
        &self,
        client: &mut Client,
        method: Method,
        request: &impl Message,
    ) -> Result<M> {
        const UNDECIDED: &str = "; whether it was carried out is unknown: read before you try again";
        match tokio::time::timeout(self.timeout, client.call(method, request)).await {
            Ok(answer) => answer.map_err(|error| explain(error, UNDECIDED)),
            Err(_) => bail!("no answer from {} in {:?}{UNDECIDED}", client.endpoint(), self.timeout),
        }
    }
}

/// What a failure means, and what to do next.
pub(super) fn explain(error: CallError, undecided: &str) -> anyhow::Error {
    match error {
        CallError::Lost(error) => anyhow!("the connection was lost ({error:#}){undecided}"),
        CallError::Refused(words) => {
            let next = match () {
                () if words.contains("no leader") => " (a majority of members must reach one another)",
                () if words.contains("has been compacted") => {
                    " (that part of the history was given up; ask for a later revision, or for none)"
                }
                () if words.contains("request timed out") => undecided,
                () if words.contains("database space exceeded") => {
                    " (compact and remove what is not needed, or start the members with a larger --quota-backend-bytes)"
                }
                () => "",
            };
            anyhow!("{words}{next}")
        }
    }
}

/// The address behind `HOST:PORT`, with or without `http://`.
pub(crate) fn address(word: &str) -> Result<SocketAddr> {
    if word.starts_with("https://") || word.starts_with("unix") {
        bail!("--endpoints: {word}: only plain TCP is supported so far; give HOST:PORT or http://HOST:PORT");
    }
    let bare = word.trim().trim_start_matches("http://").trim_end_matches('/');
    let mut found = bare
        .to_socket_addrs()
        .with_context(|| format!("--endpoints: '{word}' is not HOST:PORT, or its host is unknown"))?;
    found.next().ok_or_else(|| anyhow!("--endpoints: {word} has no address"))
}
