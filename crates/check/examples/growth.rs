//! How each checker grows from a thousand operations to a million: a table for the terminal and a plot for the docs.
//!
//! `cargo run --release -p synod-check --example growth -- docs/checker-growth.svg` measures each algorithm on histories of
//! the store that just satisfies its level, so that none stops early at a violation: ten processes, a hundred keys, half of the
//! operations writes. Each point is processor time, averaged over as many runs as fill a quarter of a second.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use synod_check::budget::Budget;
use synod_check::history::{Clock, History};
use synod_check::reads_from::ReadsFrom;
use synod_check::verdict::Level;
use synod_check::workload::{Store, Workload};
use synod_check::{causal, linearizable, sequential};

const ENOUGH: Duration = Duration::from_millis(250);

const SIZES: [usize; 7] = [1_000, 3_000, 10_000, 30_000, 100_000, 300_000, 1_000_000];

/// A line of the plot: its name, its colour, the store whose histories satisfy it, and how to run it.
struct Line {
    name: &'static str,
    colour: &'static str,
    store: Store,
    run: fn(&History) -> Option<bool>,
}

fn causal(history: &History, level: Level) -> Option<bool> {
    let reads_from = ReadsFrom::of(history).ok()?;
    causal::violates(&reads_from, level, &Budget::default()).ok().map(|violates| !violates)
}

const LINES: [Line; 6] = [
    Line {
        name: "linearizable, unique values",
        colour: "#c2410c",
        store: Store::Linearizable,
        run: |history| linearizable::check(history, &Budget::default()).0.decided(),
    },
    Line {
        name: "sequential",
        colour: "#b91c6b",
        store: Store::Sequential,
        run: |history| sequential::check(history, &Budget::default()).0.decided(),
    },
    Line {
        name: "causal memory (CM)",
        colour: "#7c3aed",
        store: Store::CausalMemory,
        run: |history| causal(history, Level::CausalMemory),
    },
    Line {
        name: "causal convergence (CCv)",
        colour: "#2563eb",
        store: Store::Convergent,
        run: |history| causal(history, Level::CausalConvergence),
    },
    Line {
        name: "pipelined (PRAM)",
        colour: "#0d9488",
        store: Store::CausalMemory,
        run: |history| causal(history, Level::Pram),
    },
    Line {
        name: "session guarantees",
        colour: "#65a30d",
        store: Store::Convergent,
        run: |history| causal(history, Level::WritesFollowReads),
    },
];

/// The processor's time where the system tells it (so that a busy machine does not matter), else the clock's.
struct Stopwatch {
    busy: Option<Duration>,
    begin: Instant,
}

impl Stopwatch {
    fn start() -> Stopwatch {
        Stopwatch { busy: Stopwatch::busy(), begin: Instant::now() }
    }

    /// Nanoseconds that this thread spent on a processor, as Linux counts them.
    fn busy() -> Option<Duration> {
        let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
        text.split_whitespace().next()?.parse().ok().map(Duration::from_nanos)
    }

    fn elapsed(&self) -> Duration {
        match (self.busy, Stopwatch::busy()) {
            (Some(before), Some(after)) => after.saturating_sub(before),
            _ => self.begin.elapsed(),
        }
    }
}

fn measure(line: &Line, operations: usize) -> Duration {
    let mut history = Workload::new(line.store, operations, 1).history();
    if line.store != Store::Linearizable {
        // Sequential consistency must not profit from the order of calls.
        history.clock = Clock::PerProcess;
    }
    let (mut runs, stopwatch) = (0, Stopwatch::start());
    loop {
        assert_eq!((line.run)(&history), Some(true), "{} of {operations} holds", line.name);
        runs += 1;
        let elapsed = stopwatch.elapsed();
        // The processor's time is counted in ticks of some milliseconds, so short runs are repeated.
        if elapsed >= ENOUGH {
            return elapsed / runs;
        }
    }
}

fn main() -> std::io::Result<()> {
    let mut times = Vec::new();
    print!("| operations |");
    LINES.iter().for_each(|line| print!(" {} |", line.name));
    println!("\n|---|{}", "---:|".repeat(LINES.len()));
    for operations in SIZES {
        let row: Vec<f64> = LINES.iter().map(|line| measure(line, operations).as_secs_f64()).collect();
        let cells: Vec<String> = row.iter().map(|&seconds| spelt(seconds)).collect();
        println!("| {operations} | {} |", cells.join(" | "));
        times.push(row);
    }
    match std::env::args().nth(1) {
        Some(path) => std::fs::write(path, plot(&times)),
        None => Ok(()),
    }
}

fn spelt(seconds: f64) -> String {
    if seconds < 1.0 { format!("{:.1} ms", seconds * 1e3) } else { format!("{seconds:.2} s") }
}

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 460.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 200.0;
const TOP: f64 = 44.0;
const BOTTOM: f64 = 48.0;

/// Both axes are logarithmic: operations from 10^3 to 10^6, seconds from 10^-4 to 10.
fn x(operations: f64) -> f64 {
    LEFT + (operations.log10() - 3.0) / 3.0 * (WIDTH - LEFT - RIGHT)
}

fn y(seconds: f64) -> f64 {
    HEIGHT - BOTTOM - (seconds.max(1e-4).log10() + 4.0) / 5.0 * (HEIGHT - TOP - BOTTOM)
}

fn plot(times: &[Vec<f64>]) -> String {
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"system-ui, sans-serif\" font-size=\"12\">\n\
         <style>text {{ fill: #333 }} .grid {{ stroke: #ddd }} .paper {{ fill: #fff }} .slope {{ stroke: #999; stroke-dasharray: 4 4 }}\n\
         @media (prefers-color-scheme: dark) {{ text {{ fill: #ddd }} .grid {{ stroke: #333 }} .paper {{ fill: #16191d }} }}</style>\n\
         <rect class=\"paper\" width=\"{WIDTH}\" height=\"{HEIGHT}\" rx=\"8\"/>\n\
         <text x=\"{LEFT}\" y=\"24\" font-size=\"15\" font-weight=\"600\">Processor time to check a history, by its length</text>\n"
    );
    for power in 3..=6 {
        let at = x(10f64.powi(power));
        _ = writeln!(out, "<path class=\"grid\" d=\"M{at:.1} {TOP}V{:.1}\"/>", HEIGHT - BOTTOM);
        let label = ["1,000", "10,000", "100,000", "1,000,000"][power as usize - 3];
        _ = writeln!(
            out,
            "<text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{label}</text>",
            HEIGHT - BOTTOM + 20.0
        );
    }
    for (power, label) in (-4..=1).zip(["0.1 ms", "1 ms", "10 ms", "0.1 s", "1 s", "10 s"]) {
        let at = y(10f64.powi(power));
        _ = writeln!(out, "<path class=\"grid\" d=\"M{LEFT} {at:.1}H{:.1}\"/>", WIDTH - RIGHT);
        _ = writeln!(
            out,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>",
            LEFT - 8.0,
            at + 4.0
        );
    }
    let middle = LEFT + (WIDTH - LEFT - RIGHT) / 2.0;
    _ = writeln!(
        out,
        "<text x=\"{middle:.1}\" y=\"{:.1}\" text-anchor=\"middle\">operations</text>",
        HEIGHT - 8.0
    );
    let (low, high) = (y(1e-4), y(1e-1));
    _ = writeln!(
        out,
        "<path class=\"slope\" fill=\"none\" d=\"M{:.1} {low:.1}L{:.1} {high:.1}\"/><text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">linear</text>",
        x(1e3),
        x(1e6),
        x(1e6) - 6.0,
        high + 22.0
    );
    // The names stand right of the last points, pushed apart where these are close.
    let mut ends: Vec<(f64, usize)> = (0..LINES.len()).map(|i| (y(times[SIZES.len() - 1][i]), i)).collect();
    ends.sort_by(|a, b| a.0.total_cmp(&b.0));
    for i in 1..ends.len() {
        ends[i].0 = ends[i].0.max(ends[i - 1].0 + 16.0);
    }
    for &(label, i) in &ends {
        let line = &LINES[i];
        let points: Vec<(f64, f64)> =
            SIZES.iter().zip(times).map(|(&operations, row)| (x(operations as f64), y(row[i]))).collect();
        let path: Vec<String> = points.iter().map(|(x, y)| format!("{x:.1} {y:.1}")).collect();
        _ = writeln!(out, "<g fill=\"{0}\" stroke=\"{0}\">", line.colour);
        _ = writeln!(out, "<path fill=\"none\" stroke-width=\"2\" d=\"M{}\"/>", path.join("L"));
        for (x, y) in points {
            _ = writeln!(out, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" stroke=\"none\"/>");
        }
        let from = WIDTH - RIGHT + 14.0;
        _ = writeln!(out, "<path stroke-width=\"3\" d=\"M{from:.1} {label:.1}h14\"/></g>");
        _ = writeln!(out, "<text x=\"{:.1}\" y=\"{:.1}\">{}</text>", from + 20.0, label + 4.0, line.name);
    }
    out.push_str("</svg>\n");
    out
}
