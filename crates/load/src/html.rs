//! A run's results as one self-contained page: the figures, the latencies as a curve, the rate second by second.

use std::fmt::Write as _;
use std::time::Duration;

use crate::report::{Report, short};

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 260.0;
const LEFT: f64 = 70.0;
const BOTTOM: f64 = 34.0;

/// The page.
#[must_use]
pub fn page(reports: &[Report]) -> String {
    let mut body = String::new();
    for report in reports {
        let _ = write!(
            body,
            "<section><h2>{}</h2><pre>{}</pre><figure>{}<figcaption>Latency by percentile; the further right, \
             the rarer.</figcaption></figure><figure>{}<figcaption>Requests in each second.</figcaption></figure></section>",
            escape(report.plan.kind.name()),
            escape(&report.text()),
            latencies(report),
            seconds(report),
        );
    }
    format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>synod bench</title><style>\
         body{{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:72rem;padding:0 1rem;color:#222;background:#fff}}\
         pre{{background:#f4f4f4;padding:1rem;overflow:auto}}figure{{display:inline-block;margin:0 1rem 1rem 0}}\
         figcaption{{color:#666;font-size:13px}}svg text{{font-size:12px;fill:#555}}\
         @media(prefers-color-scheme:dark){{body{{color:#ddd;background:#181818}}pre{{background:#242424}}svg text{{fill:#aaa}}}}\
         </style><h1>synod bench</h1>{body}</html>\n"
    )
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// An SVG with a curve through points of the unit square, and words at the axes.
fn plot(points: &[(f64, f64)], across: &[(f64, String)], up: &[(f64, String)]) -> String {
    let x = |at: f64| LEFT + at * (WIDTH - LEFT - 20.0);
    let y = |at: f64| HEIGHT - BOTTOM - at * (HEIGHT - BOTTOM - 20.0);
    let mut out =
        format!("<svg width=\"{WIDTH}\" height=\"{HEIGHT}\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\">");
    for (at, word) in up {
        let (left, right, level) = (x(0.0), x(1.0), y(*at));
        let _ = write!(
            out,
            "<line x1=\"{left:.1}\" x2=\"{right:.1}\" y1=\"{level:.1}\" y2=\"{level:.1}\" stroke=\"#8884\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            left - 6.0,
            level + 4.0,
            escape(word)
        );
    }
    for (at, word) in across {
        let _ = write!(
            out,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            x(*at),
            HEIGHT - 12.0,
            escape(word)
        );
    }
    let line: Vec<String> = points.iter().map(|(a, b)| format!("{:.1},{:.1}", x(*a), y(*b))).collect();
    let _ = write!(
        out,
        "<polyline fill=\"none\" stroke=\"#2a7\" stroke-width=\"2\" points=\"{}\"/></svg>",
        line.join(" ")
    );
    out
}

fn latencies(report: &Report) -> String {
    // Each nine takes the same room; so does each factor of ten of latency.
    const NINES: f64 = 5.0;
    let meter = &report.outcome.meter;
    let micros = |percent: f64| (meter.percentile(percent).as_nanos() as f64 / 1e3).max(1.0);
    let top = (meter.latencies.max() as f64 / 1e3).max(10.0).log10().ceil();
    let bottom = micros(0.1).log10().floor();
    let span = (top - bottom).max(1.0);
    let points: Vec<(f64, f64)> = (0..=100)
        .map(|step| {
            let nines = NINES * f64::from(step) / 100.0;
            let percent = 100.0 * (1.0 - 10f64.powf(-nines));
            (nines / NINES, (micros(percent).log10() - bottom) / span)
        })
        .collect();
    let across = ["0 %", "90 %", "99 %", "99.9 %", "99.99 %", "99.999 %"];
    let across: Vec<_> =
        across.iter().enumerate().map(|(nines, word)| (nines as f64 / NINES, (*word).to_owned())).collect();
    let up: Vec<_> = (bottom as i32..=top as i32)
        .map(|power| {
            let time = Duration::from_nanos((10f64.powi(power) * 1e3) as u64);
            ((f64::from(power) - bottom) / span, short(time))
        })
        .collect();
    plot(&points, &across, &up)
}

fn seconds(report: &Report) -> String {
    let seconds = &report.outcome.meter.seconds;
    let most = seconds.iter().copied().max().unwrap_or(1).max(1) as f64;
    let last = seconds.len().saturating_sub(1).max(1) as f64;
    let points: Vec<(f64, f64)> =
        seconds.iter().enumerate().map(|(at, count)| (at as f64 / last, *count as f64 / most)).collect();
    let across = [(0.0, "0 s".to_owned()), (1.0, format!("{} s", seconds.len()))];
    let up = [(0.0, "0".to_owned()), (0.5, format!("{:.0}", most / 2.0)), (1.0, format!("{most:.0}"))];
    plot(&points, &across, &up)
}
