//! What the system says about this process: memory, file descriptors, when it started. Linux's `/proc` tells; elsewhere
//! these figures are missing from the page.

use std::fs;

use crate::metrics::{Kind, Page};

/// Ticks in a second in `/proc`, on every architecture that Linux's userland sees.
const TICKS: f64 = 100.0;

/// Bytes in a page of memory, likewise; kernels with other sizes show a resident set that is off by a factor.
const PAGE_BYTES: u64 = 4096;

/// Writes what can be found out.
pub(super) fn write_metrics(page: &mut Page) {
    if let Some((resident, start, cpu)) = stat() {
        page.gauge("process_resident_memory_bytes", "Resident memory size in bytes.", resident);
        page.gauge(
            "process_start_time_seconds",
            "Start time of the process since unix epoch in seconds.",
            start,
        );
        let name = "process_cpu_seconds_total";
        page.family(name, Kind::Counter, "Total user and system CPU time spent in seconds.");
        page.sample(name, &[], cpu);
    }
    let open = fs::read_dir("/proc/self/fd").map(|entries| entries.count().saturating_sub(1)).ok();
    if let (Some(open), Some(max)) = (open, open_files_max()) {
        page.gauge("process_open_fds", "Number of open file descriptors.", open);
        page.gauge("process_max_fds", "Maximum number of open file descriptors.", max);
        page.gauge("os_fd_used", "The number of used file descriptors.", open);
        page.gauge("os_fd_limit", "The file descriptor limit.", max);
    }
}

/// The file descriptors that this process may have, and has; for `/debug/vars`.
pub(super) fn open_files_max() -> Option<u64> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Resident bytes, start in seconds since 1970, and seconds of CPU used.
fn stat() -> Option<(u64, f64, f64)> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The name of the program stands in parentheses and may hold anything; what follows is field 3.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let field = |number: usize| fields.get(number - 3)?.parse::<f64>().ok();
    let boot = fs::read_to_string("/proc/stat").ok()?;
    let boot: f64 = boot.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
    let resident = field(24)? as u64 * PAGE_BYTES;
    Some((resident, boot + field(22)? / TICKS, (field(14)? + field(15)?) / TICKS))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// On Linux all figures are there, and plausible.
    #[test]
    fn figures_are_plausible() {
        let (resident, start, _) = stat().unwrap();
        assert!(resident > 100_000);
        assert!(start > 1e9);
        assert!(open_files_max().unwrap() > 3);
    }
}
