//! `synod check`: which consistency level does this history have, and why not the next.
//!
//! Reads histories of any known format, prints a table of verdicts (or JSON, one object a history), and with `--require`
//! turns the answer into an exit status for CI: 0 it holds, 1 it does not, 2 the input cannot be used, 3 unknown within
//! the budget. The checker itself knows no clock and no terminal; both are here.

use std::fs::File;
use std::io::{BufReader, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::Context;
use synod_check::budget::{Budget, Watcher};
use synod_check::formats::{self, Format, Options, Robustness};
use synod_check::history::{Datum, History, ModelKind};
use synod_check::verdict::{Level, Report, Verdict};
use synod_check::{explain, html, json, ladder};

/// Judge which consistency level a history has
#[derive(clap::Args, Debug)]
pub(crate) struct CheckArgs {
    /// Histories: files of any known format, a folder of etcd robustness reports, or - for standard input
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Print one JSON object for each history
    #[arg(long)]
    json: bool,
    /// Exit with 1 unless every history has this level (3 if that is unknown)
    #[arg(long, value_name = "LEVEL", value_parser = level)]
    require: Option<Level>,
    /// Say in words why the next level fails
    #[arg(long)]
    explain: bool,
    /// Write a self-contained page with the history and the violation
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// The format, instead of telling it by content: edn, events, jepsen-log, synod, cases, robustness or dbcop
    #[arg(long, value_name = "FORMAT", value_parser = format)]
    format: Option<Format>,
    /// The model, instead of telling it by the operations: register, kv, etcd, set, counter, queue, mutex, list-append, txn-register or bank
    #[arg(long, value_name = "MODEL", value_parser = model)]
    model: Option<ModelKind>,
    /// The initial value of every register: a number, a text, or nil
    #[arg(long, value_name = "VALUE", value_parser = datum, allow_hyphen_values = true)]
    initial: Option<Datum>,
    /// Search steps for each level and key
    #[arg(long, value_name = "N", default_value_t = 200_000_000)]
    steps_max: u64,
    /// MiB for remembered search states
    #[arg(long, value_name = "MIB", default_value_t = 1024)]
    memory_max: usize,
    /// Seconds for each history
    #[arg(long, value_name = "SECONDS")]
    time_max: Option<u64>,
    /// Threads; as many as there are processors unless said
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
}

fn level(name: &str) -> Result<Level, String> {
    let known = || Level::ALL.map(Level::name).join(", ");
    Level::by_name(name).ok_or_else(|| format!("no such level; one of {}", known()))
}

fn format(name: &str) -> Result<Format, String> {
    let known = || Format::ALL.map(|(_, name)| name).join(", ");
    Format::by_name(name).ok_or_else(|| format!("no such format; one of {}", known()))
}

fn model(name: &str) -> Result<ModelKind, String> {
    let known = || ModelKind::ALL.map(|(_, name)| name).join(", ");
    ModelKind::by_name(name).ok_or_else(|| format!("no such model; one of {}", known()))
}

fn datum(text: &str) -> Result<Datum, String> {
    Ok(match (text, text.parse()) {
        ("nil" | "null", _) => Datum::Nil,
        (_, Ok(number)) => Datum::Int(number),
        _ => Datum::text(text),
    })
}

/// How the whole run ends; a later one outranks the earlier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Ending {
    Holds,
    Unknown,
    Fails,
    Unusable,
}

impl From<Ending> for ExitCode {
    fn from(ending: Ending) -> ExitCode {
        ExitCode::from(match ending {
            Ending::Holds => 0,
            Ending::Fails => 1,
            Ending::Unusable => 2,
            Ending::Unknown => 3,
        })
    }
}

/// Checks every history of every file.
///
/// # Errors
/// When a page cannot be written or standard output is closed. Inputs that cannot be used are reported, and end with 2.
pub(crate) fn run(args: CheckArgs) -> anyhow::Result<ExitCode> {
    let options = Options { format: args.format, model: args.model, initial: args.initial.clone() };
    let mut run = Run { args: &args, ending: Ending::Holds, checked: 0, failed: None };
    if is_robustness_run(&args.files) {
        let files: Vec<(PathBuf, i64)> =
            args.files.iter().map(|file| (file.clone(), client_of(file))).collect();
        run.robustness("robustness", &files);
    } else {
        for file in &args.files {
            if file.is_dir() {
                let files = reports(file)?;
                run.robustness(&file.display().to_string(), &files);
            } else {
                run.file(file, &options);
            }
        }
    }
    match run.failed.take() {
        Some(error) => Err(error),
        None => Ok(run.ending.into()),
    }
}

/// Whether these are the files of one run of etcd's robustness suite: together they are one history.
fn is_robustness_run(files: &[PathBuf]) -> bool {
    let named = |file: &PathBuf| {
        file.file_name().is_some_and(|name| name == "operations.json" || name == "watch.json")
    };
    files.len() > 1 && files.iter().all(named)
}

/// The client of `.../client-7/operations.json`.
fn client_of(file: &Path) -> i64 {
    let folder = file.parent().and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned());
    folder.and_then(|name| name.strip_prefix("client-")?.parse().ok()).unwrap_or(0)
}

/// The reports of a folder: its own files, and those of each `client-N` in it.
fn reports(folder: &Path) -> anyhow::Result<Vec<(PathBuf, i64)>> {
    let mut folders = vec![folder.to_path_buf()];
    let entries = std::fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    for entry in entries {
        let path = entry.with_context(|| format!("cannot read {}", folder.display()))?.path();
        if path.is_dir() {
            folders.push(path);
        }
    }
    folders.sort_by_key(|folder| (client_of(&folder.join("x")), folder.clone()));
    let named = |folder: &PathBuf| ["operations.json", "watch.json"].map(|name| folder.join(name));
    let files = folders.iter().flat_map(named).filter(|file| file.is_file());
    Ok(files.map(|file| (file.clone(), client_of(&file))).collect())
}

struct Run<'a> {
    args: &'a CheckArgs,
    ending: Ending,
    checked: usize,
    /// What went wrong on our own side.
    failed: Option<anyhow::Error>,
}

impl Run<'_> {
    fn unusable(&mut self, file: &Path, why: &dyn std::fmt::Display) {
        eprintln!("{}: {why}", file.display());
        self.ending = self.ending.max(Ending::Unusable);
    }

    fn file(&mut self, file: &Path, options: &Options) {
        let input: Box<dyn Read> = if file == Path::new("-") {
            Box::new(std::io::stdin().lock())
        } else {
            match File::open(file) {
                Ok(opened) => Box::new(opened),
                Err(error) => return self.unusable(file, &error),
            }
        };
        let name = file.file_name().unwrap_or(file.as_os_str()).to_string_lossy().into_owned();
        let input = BufReader::with_capacity(1 << 16, input);
        let mut sink = |history: History| self.history(&history);
        if let Err(error) = formats::read(input, &name, options, &mut sink) {
            self.unusable(file, &error);
        }
    }

    fn robustness(&mut self, name: &str, files: &[(PathBuf, i64)]) {
        let mut run = Robustness::new(name);
        for (file, client) in files {
            let opened = match File::open(file) {
                Ok(opened) => opened,
                Err(error) => return self.unusable(file, &error),
            };
            run.set_client(*client);
            if let Err(error) = run.read(BufReader::with_capacity(1 << 16, opened)) {
                return self.unusable(file, &error);
            }
        }
        if files.is_empty() {
            return self
                .unusable(Path::new(name), &"no operations.json or watch.json in it or its client folders");
        }
        self.history(&run.finish());
    }

    fn history(&mut self, history: &History) {
        if self.failed.is_some() {
            return;
        }
        self.checked += 1;
        if let Err(error) = self.judge(history) {
            self.failed = Some(error);
        }
    }

    fn judge(&mut self, history: &History) -> anyhow::Result<()> {
        let terminal = Terminal::new(&history.name);
        let budget = Budget {
            steps_max: self.args.steps_max,
            memory_max: self.args.memory_max.saturating_mul(1 << 20),
            deadline: self.args.time_max.map(Duration::from_secs),
            threads: self.args.threads.unwrap_or_else(processors).max(1),
            watcher: &terminal,
        };
        let report = ladder::check(history, &budget);
        terminal.clear();
        if let Some(required) = self.args.require {
            let holds = report.finding(required).and_then(|finding| finding.verdict.decided());
            self.ending = self.ending.max(match holds {
                Some(true) => Ending::Holds,
                Some(false) => Ending::Fails,
                None => Ending::Unknown,
            });
        }
        let mut out = std::io::stdout().lock();
        if self.args.json {
            writeln!(out, "{}", json::line(history, &report))?;
        } else {
            write!(out, "{}", table(history, &report))?;
        }
        if self.args.explain
            && let Some(words) = explanation(history, &report)
        {
            // With --json standard output belongs to the machine.
            if self.args.json { eprintln!("{words}") } else { writeln!(out, "\n{words}")? }
        }
        if let Some(page) = &self.args.html {
            let page = numbered(page, self.checked);
            std::fs::write(&page, html::page(history, &report))
                .with_context(|| format!("cannot write {}", page.display()))?;
        }
        Ok(())
    }
}

fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// `page.html`, then `page-2.html` and so on for inputs of several histories.
fn numbered(page: &Path, number: usize) -> PathBuf {
    if number == 1 {
        return page.to_path_buf();
    }
    let stem = page.file_stem().unwrap_or_default().to_string_lossy();
    let extension =
        page.extension().map(|extension| format!(".{}", extension.to_string_lossy())).unwrap_or_default();
    page.with_file_name(format!("{stem}-{number}{extension}"))
}

/// Why the strongest level that fails does: the next one up from the strongest that holds.
fn explanation(history: &History, report: &Report) -> Option<String> {
    let strongest = report.strongest().unwrap_or(Level::Eventual);
    let failing = |finding: &&synod_check::verdict::Finding| matches!(finding.verdict, Verdict::Violated(_));
    let above = report.findings.iter().rev().filter(|finding| finding.level < strongest).find(failing);
    let next = above.or_else(|| report.findings.iter().find(failing))?;
    Some(explain::explain(history, next))
}

/// The table for people.
fn table(history: &History, report: &Report) -> String {
    use std::fmt::Write;
    let mut out = String::new();
    let keys = if report.keys.is_empty() { String::new() } else { format!(", {} keys", history.keys.len()) };
    let processes = history.processes.len();
    let Report { name, operations, model, format, .. } = report;
    // Writing to a string cannot fail.
    let _ = writeln!(
        out,
        "{name}: {operations} operations of {processes} processes{keys} ({model}, read as {format})"
    );
    let mut said = String::new();
    for finding in &report.findings {
        let (answer, note) = match &finding.verdict {
            Verdict::Holds(_) => ("yes", String::new()),
            Verdict::Violated(evidence) => ("no", evidence.reason.clone()),
            Verdict::Unknown(exhausted) => {
                ("unknown", format!("{}: {}", exhausted.limit.name(), exhausted.progress))
            }
        };
        let time = finding.elapsed.as_secs_f64() * 1e3;
        let title = finding.level.title();
        let _ = writeln!(out, "  {title:<28} {answer:<8} {time:>9.1} ms  {}", finding.algorithm);
        // What stops one level often stops the next: said once.
        if !note.is_empty() && note != said && !finding.algorithm.starts_with("implied") {
            let _ = writeln!(out, "  {:<28} {note}", "");
            said = note;
        }
    }
    for finding in &report.watch {
        let (answer, note) = match &finding.verdict {
            Verdict::Violated(evidence) => ("no", &*evidence.reason),
            Verdict::Holds(_) => ("yes", ""),
            Verdict::Unknown(exhausted) => ("unknown", &*exhausted.progress),
        };
        let _ = writeln!(out, "  watch: {:<21} {answer:<8} {note}", finding.guarantee);
    }
    for key in report.keys.iter().filter(|key| key.strongest() != report.strongest()).take(KEYS_SHOWN_MAX) {
        let strongest = key.strongest().map_or("none", Level::title);
        let _ = writeln!(out, "  key {}: {strongest} ({} operations)", history.key(key.key), key.operations);
    }
    if let Some(staleness) = &report.staleness {
        let (fresh, stale, oldest) = (staleness.fresh, staleness.stale, staleness.oldest);
        let _ = writeln!(out, "  reads: {fresh} fresh, {stale} stale, the oldest by {oldest} ticks");
    }
    for warning in &report.warnings {
        let times =
            if warning.count > 1 { format!(" (and {} more)", warning.count - 1) } else { String::new() };
        let line = if warning.line > 0 { format!("line {}: ", warning.line) } else { String::new() };
        let _ = writeln!(out, "  warning: {line}{}{times}", warning.message);
    }
    let _ = writeln!(out, "  strongest level: {}", report.strongest().map_or("none", Level::title));
    out
}

/// How many keys the table names.
const KEYS_SHOWN_MAX: usize = 10;

/// A clock and, where standard error is a terminal, a line that says how far a long check is.
struct Terminal {
    start: Instant,
    name: String,
    shown: Option<Mutex<Shown>>,
}

struct Shown {
    at: Duration,
    something: bool,
}

/// How long a check may be silent, and how often it speaks then.
const SPEAK_EVERY: Duration = Duration::from_millis(250);

impl Terminal {
    fn new(name: &str) -> Terminal {
        let shown =
            std::io::stderr().is_terminal().then(|| Mutex::new(Shown { at: SPEAK_EVERY, something: false }));
        Terminal { start: Instant::now(), name: name.to_string(), shown }
    }

    fn clear(&self) {
        if let Some(Ok(shown)) = self.shown.as_ref().map(Mutex::lock)
            && shown.something
        {
            eprint!("\r\x1b[K");
        }
    }
}

impl Watcher for Terminal {
    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    fn progress(&self, phase: &str, done: u64, all: u64) {
        let Some(Ok(mut shown)) = self.shown.as_ref().map(Mutex::lock) else { return };
        let now = self.now();
        if now < shown.at {
            return;
        }
        *shown = Shown { at: now + SPEAK_EVERY, something: true };
        let percent = done.saturating_mul(100).checked_div(all).unwrap_or(0);
        eprint!("\r\x1b[K{}: {phase} {percent}% ({done} of {all}, {} s)", self.name, now.as_secs());
    }
}
