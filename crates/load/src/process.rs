//! What processes used, by the kernel's account.

use std::fs;
use std::time::Duration;

/// What one process has used, or several together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// User and system time.
    pub cpu: Duration,
    /// Resident memory now, in bytes.
    pub resident: u64,
    /// The most that it was since the start, or since [`forget_peak`].
    pub resident_peak: u64,
}

/// What the processes have used until now, together.
///
/// # Errors
/// When one of them cannot be looked at: it has ended, or belongs to somebody else.
pub fn usage(pids: &[u32]) -> Result<Usage, String> {
    let mut all = Usage::default();
    for pid in pids {
        let read = |file: &str| {
            fs::read_to_string(format!("/proc/{pid}/{file}"))
                .map_err(|error| format!("process {pid} cannot be looked at: {error}"))
        };
        let stat = read("stat")?;
        // The name stands in parentheses and may hold anything; what follows does not.
        let fields: Vec<u64> = stat
            .rsplit(')')
            .next()
            .unwrap_or_default()
            .split_whitespace()
            .map(|field| field.parse().unwrap_or(0))
            .collect();
        let ticks = fields.get(11).unwrap_or(&0) + fields.get(12).unwrap_or(&0);
        all.cpu += Duration::from_millis(ticks * 1000 / rustix::param::clock_ticks_per_second());
        let status = read("status")?;
        let kilobytes = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0)
        };
        all.resident += kilobytes("VmRSS:") * 1024;
        all.resident_peak += kilobytes("VmHWM:") * 1024;
    }
    Ok(all)
}

/// The most that a process's resident memory was counts from now on.
///
/// # Errors
/// When it has ended, or belongs to somebody else.
pub fn forget_peak(pid: u32) -> Result<(), String> {
    // What 5 does: proc_pid_clear_refs(5).
    fs::write(format!("/proc/{pid}/clear_refs"), "5")
        .map_err(|error| format!("the peak of process {pid} cannot be forgotten: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A peak that is forgotten is what is resident then.
    #[test]
    fn a_peak_can_be_forgotten() {
        let own = std::process::id();
        drop(std::hint::black_box(vec![1u8; 64 << 20]));
        assert!(usage(&[own]).unwrap().resident_peak >= 64 << 20);
        forget_peak(own).unwrap();
        assert!(usage(&[own]).unwrap().resident_peak < 64 << 20);
        assert!(forget_peak(u32::MAX).unwrap_err().contains("4294967295"));
    }

    /// This very process has used something; a process that does not exist is said not to.
    #[test]
    fn this_process() {
        let own = usage(&[std::process::id()]).unwrap();
        assert!(own.resident > 1 << 20 && own.resident_peak >= own.resident);
        assert!(usage(&[u32::MAX]).unwrap_err().contains("4294967295"));
    }
}
