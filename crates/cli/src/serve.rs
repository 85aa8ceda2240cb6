//! `synod serve`, and the whole program under the name `etcd`: one member, until a signal ends it.

use std::process::ExitCode;

use synod_server::config::{self, Invocation, Settings};
use synod_server::{ETCD_VERSION, Member, Stopper};
use tokio::signal::unix::{SignalKind, signal};

use crate::logging;
use crate::notify::{self, State};

/// Under which name the server was started; decides details that scripts see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Name {
    /// `synod serve`.
    Synod,
    /// A link named `etcd`.
    Etcd,
}

/// What etcd exits with when its flags are wrong.
const EXIT_USAGE: u8 = 2;
/// The exit of a process that a second signal ended at once.
const EXIT_INTERRUPTED: i32 = 130;

/// Reads the flags and runs the member to its end.
pub(crate) fn run(name: Name, arguments: &[String]) -> ExitCode {
    let (program, suffix) = match name {
        Name::Synod => ("synod serve", "synod"),
        Name::Etcd => ("etcd", "etcd"),
    };
    let values = match config::parse(arguments, std::env::vars_os().filter_map(text)) {
        Ok(Invocation::Run(values)) => values,
        Ok(Invocation::Help) => {
            print!("{}", config::usage(program));
            return ExitCode::SUCCESS;
        }
        Ok(Invocation::Version) => {
            print_version(name);
            return ExitCode::SUCCESS;
        }
        Err(wrong) => return refuse(program, &wrong.to_string()),
    };
    match Settings::from_values(&values, suffix) {
        Ok(settings) => serve(settings, values.warnings()),
        Err(wrong) => refuse(program, &wrong.to_string()),
    }
}

fn text((name, value): (std::ffi::OsString, std::ffi::OsString)) -> Option<(String, String)> {
    Some((name.into_string().ok()?, value.into_string().ok()?))
}

fn refuse(program: &str, wrong: &str) -> ExitCode {
    eprintln!("{program}: {wrong}");
    ExitCode::from(EXIT_USAGE)
}

fn print_version(name: Name) {
    let version = env!("CARGO_PKG_VERSION");
    match name {
        Name::Synod => println!("synod {version} (speaks the API of etcd {ETCD_VERSION})"),
        Name::Etcd => println!(
            "etcd Version: {ETCD_VERSION}\nGit SHA: Not provided\nGo Version: none (synod {version})\nGo OS/Arch: {}/{}",
            std::env::consts::OS,
            std::env::consts::ARCH
        ),
    }
}

fn serve(settings: Settings, warnings: &[String]) -> ExitCode {
    logging::start(settings.log_level, settings.log_format, settings.log_output);
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return refuse("synod serve", &format!("cannot start: {error}")),
    };
    runtime.block_on(async {
        let mut member = Member::start(settings);
        tokio::spawn(stop_on_signals(vec![member.stopper()]));
        if let Some(ready) = member.take_ready() {
            tokio::spawn(async move {
                if ready.await.is_ok() {
                    notify::tell(State::Ready);
                }
            });
        }
        match member.ended().await {
            Ok(()) => ExitCode::SUCCESS,
            Err(wrong) => {
                tracing::error!(error = %wrong, "the member has ended");
                ExitCode::FAILURE
            }
        }
    })
}

/// The first SIGTERM or SIGINT ends the members in good order, the second one at once.
pub(crate) async fn stop_on_signals(stoppers: Vec<Stopper>) {
    let (Ok(mut terminate), Ok(mut interrupt)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        tracing::warn!("signals cannot be caught: the process will end without handing over");
        return;
    };
    for already_stopping in [false, true] {
        let name = tokio::select! {
            _ = terminate.recv() => "terminated",
            _ = interrupt.recv() => "interrupt",
        };
        if already_stopping {
            tracing::warn!(signal = name, "a second signal: leaving at once");
            std::process::exit(EXIT_INTERRUPTED);
        }
        tracing::info!(signal = name, "received signal; shutting down");
        notify::tell(State::Stopping);
        stoppers.iter().for_each(Stopper::stop);
    }
}
