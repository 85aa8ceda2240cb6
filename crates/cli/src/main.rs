//! The `synod` command: run, break and prove consensus.
//!
//! Without a subcommand it runs the demo. Started under the name `etcd` (a link to it), it takes etcd's
//! command line as it is.

mod bench;
mod check;
mod contract;
mod ctl;
mod demo;
mod keygen;
mod logging;
mod notify;
mod proxy;
mod serve;
mod simulate;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

/// Run, break and prove consensus: a replicated key-value store that etcd's clients can use.
#[derive(Parser)]
#[command(name = "synod", version)]
struct Cli {
    #[command(flatten)]
    target: ctl::Target,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Run a few members in this process, to try things out (the default)
    Demo(demo::Options),
    /// Judge which consistency level a history has
    Check(check::CheckArgs),
    Simulate(simulate::Options),
    Contract(contract::Options),
    Keygen(keygen::Options),
    Bench(bench::Options),
    Proxy(proxy::Options),
    #[command(flatten)]
    Client(ctl::Command),
    /// Write completions for a shell to standard output
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
    /// Write man pages, one for each command, into a folder
    Man {
        /// The folder
        folder: std::path::PathBuf,
    },
    /// Run one member of a cluster; takes etcd's flags (see `synod serve --help`)
    #[command(disable_help_flag = true)]
    Serve {
        /// etcd's flags
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "FLAGS")]
        flags: Vec<String>,
    },
}

/// Takes as many file descriptors as the system lets a process have: the usual thousand is a limit for programs that wait with
/// `select`, and a member with ten thousand clients needs more.
fn take_descriptors() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        // What there is has to do then; `/metrics` tells how many that are.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    }
}

fn main() -> ExitCode {
    take_descriptors();
    let words: Vec<OsString> = std::env::args_os().collect();
    let name = words.first().and_then(|word| Path::new(word).file_name());
    if name.is_some_and(|name| name == "etcd") {
        let flags: Vec<String> = words[1..].iter().map(|word| word.to_string_lossy().into_owned()).collect();
        return serve::run(serve::Name::Etcd, &flags);
    }
    let cli = Cli::parse();
    match cli.command.unwrap_or_else(|| Command::Demo(demo::Options::default())) {
        Command::Demo(options) => demo::run(&options),
        Command::Keygen(options) => keygen::run(&options),
        Command::Bench(options) => bench::run(&cli.target, &options),
        Command::Proxy(options) => proxy::run(&cli.target, &options),
        Command::Client(command) => ctl::run(&cli.target, &command),
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "synod", &mut std::io::stdout());
            ExitCode::SUCCESS
        }
        Command::Man { folder } => man(&folder),
        Command::Simulate(options) => simulate::run(&options),
        Command::Contract(options) => contract::run(&options),
        Command::Check(args) => check::run(args).unwrap_or_else(|wrong| {
            eprintln!("synod check: {wrong:#}");
            ExitCode::from(2)
        }),
        Command::Serve { flags } => serve::run(serve::Name::Synod, &flags),
    }
}

/// A page for the program and for each of its commands.
fn man(folder: &Path) -> ExitCode {
    let written =
        std::fs::create_dir_all(folder).and_then(|()| clap_mangen::generate_to(Cli::command(), folder));
    match written {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("synod man: cannot write into {}: {error}", folder.display());
            ExitCode::FAILURE
        }
    }
}
