//! What somebody sees who has just found the program: help that says what a command is for, a clear answer to what was typed wrong, colours
//! only where they are wanted, a live view that can be left again. The commands work on a real etcd, too.

mod common;

use std::io::{Read, Write};
use std::process::{Command, Stdio};

use common::{Cluster, PATIENCE, SYNOD, ended, free_ports, is_installed, until};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

const COMMANDS: [&str; 22] = [
    "demo",
    "check",
    "simulate",
    "contract",
    "keygen",
    "bench",
    "put",
    "get",
    "del",
    "txn",
    "watch",
    "lease",
    "compact",
    "lock",
    "elect",
    "status",
    "hashkv",
    "member",
    "snapshot",
    "top",
    "completions",
    "man",
];

fn says(words: &[&str]) -> (bool, String) {
    let (status, said) =
        ended(Command::new(SYNOD).args(words).stdin(Stdio::null()).env_remove("ETCDCTL_ENDPOINTS"));
    (status.success(), said)
}

/// The program says what it is; every command is in its list, and says what it is for.
#[test]
fn help_helps() {
    let (good, all) = says(&["--help"]);
    assert!(good && all.starts_with("Run, break and prove consensus"), "{all}");
    for command in COMMANDS {
        assert!(all.contains(&format!("\n  {command} ")), "{command} is not in the list");
        let (good, help) = says(&[command, "--help"]);
        let first = help.lines().next().unwrap_or_default();
        assert!(good && first.len() > 10 && first.contains(' '), "{command}: {help}");
        assert!(help.contains("Usage: synod "), "{command}: {help}");
    }
}

/// One thing wrong with each command: it fails, and its words name what is wrong or what to do.
#[test]
fn wrong_words_are_explained() {
    let nobody = free_ports(1)[0];
    let endpoint = format!("--endpoints=127.0.0.1:{nobody}");
    let silent = format!("is a member running at 127.0.0.1:{nobody}? (--endpoints says where)");
    let (endpoint, silent) = (endpoint.as_str(), silent.as_str());
    let table: &[(&[&str], &str)] = &[
        (&["put", "a", "b", endpoint], silent),
        (&["get", "a", endpoint], silent),
        (&["get", "a", "--endpoints=nonsense"], "--endpoints: 'nonsense' is not HOST:PORT"),
        (&["get", "a", "--write-out=xml"], "[possible values: simple, json, table]"),
        (&["del"], "<KEY>"),
        (&["txn", endpoint], silent),
        (&["watch", "a", "--rev=x"], "invalid value 'x' for '--rev"),
        (&["lease", "grant", "x"], "invalid value 'x' for '<TTL>'"),
        (&["lease", "revoke", "zz"], "'zz' is not an id: up to 16 hexadecimal digits"),
        (&["compact", "x"], "invalid value 'x' for '<REVISION>'"),
        (&["lock"], "<NAME>"),
        (&["elect", "a", "b", endpoint], silent),
        (&["status", endpoint], silent),
        (&["hashkv", endpoint], silent),
        (&["member", "add"], "<PEER_URLS>"),
        (&["member", "remove", "zz"], "'zz' is not an id"),
        (&["snapshot", "save"], "<FILE>"),
        (&["top", endpoint], "standard output is no terminal; --once prints one table"),
        (&["bench", "load", "nonsense"], "[possible values: put,"),
        (&["bench", "load", "put", "--rate=-5", endpoint], "rate"),
        (&["check", "/nowhere/at-all"], "/nowhere/at-all: No such file"),
        (&["simulate", "--protocol=nope"], "there is no protocol `nope`"),
        (&["contract", "--protocol=nope"], "--protocol=nope: allowed is raft"),
        (&["keygen"], "--into <FOLDER>"),
        (&["demo", "--protocol=nope"], "--protocol=nope: allowed is raft"),
        (&["completions", "nope"], "[possible values: bash"),
        (&["man"], "<FOLDER>"),
        (&["serve", "--nmae=x"], "did you mean --name?"),
        (&["frobnicate"], "unrecognized subcommand 'frobnicate'"),
    ];
    for (words, expected) in table {
        let (good, said) = says(words);
        assert!(!good && said.contains(expected), "{words:?} said: {said}");
        assert!(!said.contains("panicked"), "{words:?} said: {said}");
    }
}

/// A terminal: what a program writes there, and somebody who types.
struct Terminal {
    master: std::fs::File,
    child: std::process::Child,
    seen: String,
}

impl Terminal {
    fn run(command: &mut Command) -> Terminal {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
        grantpt(&master).and_then(|()| unlockpt(&master)).expect("a terminal");
        let size = Winsize { ws_row: 30, ws_col: 140, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&master, size).expect("a size");
        let name = ptsname(&master, Vec::new()).expect("a name").into_string().expect("a path");
        let slave = || std::fs::File::options().read(true).write(true).open(&name).expect("the other end");
        let child = command.stdin(slave()).stdout(slave()).stderr(slave()).spawn().expect("it starts");
        Terminal { master: master.into(), child, seen: String::new() }
    }

    /// Reads until this has been shown; the whole of what was shown so far.
    fn shows(&mut self, wanted: &str) -> &str {
        let begun = std::time::Instant::now();
        let mut buffer = [0; 4096];
        while !self.seen.contains(wanted) {
            assert!(begun.elapsed() < PATIENCE, "it never shows {wanted}: {}", self.seen);
            match self.master.read(&mut buffer) {
                Ok(read @ 1..) => self.seen.push_str(&String::from_utf8_lossy(&buffer[..read])),
                _ => panic!("it ended without showing {wanted}: {}", self.seen),
            }
        }
        &self.seen
    }

    fn types(&mut self, keys: &str) {
        self.master.write_all(keys.as_bytes()).expect("typed");
    }
}

/// `synod top` shows the members in a terminal, coloured unless NO_COLOR says otherwise, and `q` ends it and gives the screen back.
#[test]
fn top_in_a_terminal() {
    let cluster = Cluster::start(1, &[]);
    for no_colour in ["", "1"] {
        let mut command = Command::new(SYNOD);
        command.args(["top", "--every=0.2", "--endpoints", &cluster.endpoints()]);
        command.env("TERM", "xterm-256color").env("NO_COLOR", no_colour).env_remove("CLICOLOR_FORCE");
        let mut terminal = Terminal::run(&mut command);
        let shown = terminal.shows("leads").to_owned();
        assert!(shown.contains("watchers"), "{shown}");
        // Green, as xterm says it.
        let coloured = shown.contains("\x1b[32") || shown.contains("\x1b[38;5;2");
        assert_eq!(coloured, no_colour.is_empty(), "{shown:?}");
        terminal.types("q");
        // The screen as it was before.
        terminal.shows("\x1b[?1049l");
        let mut status = None;
        until("top ends", || {
            status = terminal.child.try_wait().expect("a child");
            status.is_some()
        });
        assert!(status.expect("it has ended").success());
    }
}

/// `lock` and `elect` on a real etcd, where there is one: one holder at a time, the command's own exit status, and a key that goes with it.
#[test]
fn lock_and_elect_on_a_real_etcd() {
    if !is_installed("etcd", "--version") {
        println!("skipped: there is no etcd");
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let ports = free_ports(2);
    let (client, peer) = (format!("http://127.0.0.1:{}", ports[0]), format!("http://127.0.0.1:{}", ports[1]));
    let mut etcd = Command::new("etcd");
    etcd.arg("--data-dir").arg(folder.path()).arg(format!("--listen-client-urls={client}"));
    etcd.arg(format!("--advertise-client-urls={client}")).arg(format!("--listen-peer-urls={peer}"));
    etcd.arg(format!("--initial-advertise-peer-urls={peer}"))
        .arg(format!("--initial-cluster=default={peer}"));
    let mut etcd =
        common::quiet(&mut etcd).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("etcd starts");
    let endpoint = format!("--endpoints=127.0.0.1:{}", ports[0]);
    let endpoint = endpoint.as_str();
    until("etcd serves", || says(&[endpoint, "get", "a"]).0);
    let log = folder.path().join("log");
    let line = format!("echo in >>{0}; cat {0} >/dev/null; echo out >>{0}", log.display());
    let holders: Vec<_> = (0..4)
        .map(|_| {
            let mut command = Command::new(SYNOD);
            command.args([endpoint, "lock", "gate", "--", "sh", "-c", &line]).stdin(Stdio::null());
            command.stdout(Stdio::null()).spawn().expect("it starts")
        })
        .collect();
    for mut holder in holders {
        assert!(holder.wait().expect("it ends").success());
    }
    assert_eq!(std::fs::read_to_string(&log).expect("a log"), "in\nout\n".repeat(4), "one at a time");
    let (status, _) = ended(Command::new(SYNOD).args([endpoint, "lock", "gate", "--", "sh", "-c", "exit 7"]));
    assert_eq!(status.code(), Some(7));
    assert_eq!(says(&[endpoint, "get", "gate/", "--prefix", "--keys-only"]).1.trim(), "");
    let mut elected = Command::new(SYNOD);
    elected.args([endpoint, "elect", "chair", "me"]).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut elected = elected.spawn().expect("it starts");
    let mut said = [0; 64];
    let read = elected.stdout.as_mut().expect("piped").read(&mut said).expect("it is elected");
    assert!(said[..read].starts_with(b"chair/"));
    assert!(says(&[endpoint, "get", "chair/", "--prefix"]).1.contains("me"));
    elected.kill().expect("killed");
    elected.wait().expect("gone");
    etcd.kill().expect("killed");
    etcd.wait().expect("gone");
}
