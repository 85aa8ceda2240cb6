//! `synod proxy`: etcd's API on a client's own machine, in front of a PBFT cluster of whose members f may lie.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, anyhow, bail};
use clap::Args;
use synod_server::config::{Address, LogFormat, LogOutput};
use synod_server::proxy::{Settings, run as serve};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::ctl::{Target, address};
use crate::{logging, notify};

/// Serve etcd's clients from a PBFT cluster, believing only what f + 1 members sign alike
///
/// An ordinary client trusts the one member that it talks to. The proxy runs on the client's own machine, asks all members named by
/// --endpoints, and answers what f + 1 of them say under their signatures; --command-timeout says how long that may take.
#[derive(Args)]
pub(crate) struct Options {
    /// The public keys of all members: pbft.keys, as `synod keygen` makes it
    #[arg(long, value_name = "FILE")]
    pbft_peers_keys: PathBuf,
    /// Where clients reach the proxy
    #[arg(long, value_delimiter = ',', default_value = "http://127.0.0.1:23790", value_name = "URL")]
    listen_client_urls: Vec<String>,
    /// After how many seconds without agreement the next member is given a request, too
    #[arg(long, default_value_t = 0.5, value_name = "SECONDS")]
    retry_after: f64,
    /// What is logged: error, warn, info or debug
    #[arg(long, default_value = "info", value_name = "LEVEL")]
    log_level: String,
}

/// What a command exits with when its flags are wrong.
const EXIT_USAGE: u8 = 2;

/// Runs the proxy until a signal ends it.
pub(crate) fn run(target: &Target, options: &Options) -> ExitCode {
    match settings(target, options) {
        Ok(settings) => match stand(&settings, &options.log_level) {
            Ok(()) => ExitCode::SUCCESS,
            Err(wrong) => {
                eprintln!("synod proxy: {wrong:#}");
                ExitCode::FAILURE
            }
        },
        Err(wrong) => {
            eprintln!("synod proxy: {wrong:#}");
            ExitCode::from(EXIT_USAGE)
        }
    }
}

fn settings(target: &Target, options: &Options) -> Result<Settings> {
    let span = |flag: &str, seconds: f64| match seconds {
        0.001..=3600.0 => Ok(Duration::from_secs_f64(seconds)),
        _ => bail!("--{flag}={seconds}: allowed is 0.001 to 3600 seconds"),
    };
    if !["error", "warn", "info", "debug"].contains(&options.log_level.as_str()) {
        bail!("--log-level={}: allowed is error, warn, info or debug", options.log_level);
    }
    let mut endpoints: Vec<String> = Vec::new();
    for word in &target.endpoints {
        let endpoint = address(word)?.to_string();
        if endpoints.contains(&endpoint) {
            bail!("--endpoints: '{word}' stands there twice; every member is named once");
        }
        endpoints.push(endpoint);
    }
    let mut listen = Vec::new();
    for text in &options.listen_client_urls {
        listen.push(Address::parse("listen-client-urls", text)?);
    }
    Ok(Settings {
        endpoints,
        keys: options.pbft_peers_keys.clone(),
        listen,
        patience: span("command-timeout", target.command_timeout)?,
        retry: span("retry-after", options.retry_after)?,
    })
}

fn stand(settings: &Settings, level: &str) -> Result<()> {
    logging::start(level, LogFormat::Console, LogOutput::Stderr);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let outcome = runtime.block_on(async {
        let (mut terminate, mut interrupt) =
            (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let (stop, stopped) = watch::channel(false);
        tokio::spawn(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            stop.send_replace(true);
            // The sender stays until the process ends.
            std::future::pending::<()>().await;
        });
        let addresses: Vec<String> = settings.listen.iter().map(ToString::to_string).collect();
        let ready = || {
            tracing::info!(address = addresses.join(","), "ready to serve client requests");
            notify::tell(notify::State::Ready);
        };
        serve(settings, stopped, ready).await.map_err(|wrong| anyhow!(wrong.to_string()))
    });
    runtime.shutdown_background();
    outcome
}
