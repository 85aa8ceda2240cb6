//! A good client at work while others misbehave, and the member whose memory is watched.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::common::{CallError, Client, Cluster, base64};

/// One member, started for one test.
pub(crate) struct Victim {
    pub(crate) cluster: Cluster,
    pub(crate) port: u16,
}

impl Victim {
    pub(crate) fn start() -> Victim {
        let cluster = Cluster::start(1, &["--log-level=warn"]);
        let port = cluster.members[0].client;
        Victim { cluster, port }
    }

    pub(crate) fn client(&self) -> Client {
        Client::at(self.port, Duration::from_secs(30))
    }

    /// MB that the process has had at most.
    pub(crate) fn peak(&self) -> u64 {
        self.status("VmHWM:")
    }

    /// MB that the process has now.
    pub(crate) fn resident(&self) -> u64 {
        self.status("VmRSS:")
    }

    fn status(&self, wanted: &str) -> u64 {
        let id = self.cluster.members[0].id();
        let status = std::fs::read_to_string(format!("/proc/{id}/status")).expect("a process");
        let line = status.lines().find_map(|line| line.strip_prefix(wanted)).expect("a figure");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") / 1024
    }

    /// Afterwards: it lives, serves, has grown by no more than so many MB at any time, and says nothing of a panic.
    pub(crate) fn has_stood_it(&mut self, before: u64, growth_max: u64) {
        let growth = self.peak().saturating_sub(before);
        println!("grew by {growth} MB at most, of {growth_max} allowed");
        assert!(growth <= growth_max, "it grew by {growth} MB, and {growth_max} are allowed");
        assert_eq!(self.client().put("after", "all").map(|revision| revision > 0).ok(), Some(true));
        let log = self.cluster.members[0].log();
        assert!(!log.contains("panic"), "{log}");
    }
}

/// Puts and gets, one after the other, until it is told to stop.
pub(crate) struct Good {
    stop: Arc<AtomicBool>,
    working: JoinHandle<(usize, Duration)>,
}

/// A put, or a get, of a good client is answered within this time, whatever others do: generous, because the tests' machines are
/// busy with other tests.
const SERVED_WITHIN: Duration = Duration::from_secs(20);

impl Good {
    pub(crate) fn at(port: u16) -> Good {
        let stop = Arc::new(AtomicBool::new(false));
        let told = stop.clone();
        let working = std::thread::spawn(move || {
            let mut client = Client::at(port, SERVED_WITHIN);
            let (mut served, mut worst) = (0, Duration::ZERO);
            // Once at least, however short the others' work is.
            while served == 0 || !told.load(Ordering::Relaxed) {
                let begun = Instant::now();
                let value = served.to_string();
                while let Err(why) = client.put("good", &value) {
                    // Whoever is told to slow down does so, and tries again.
                    let busy = matches!(&why, CallError::Refused(why) if why["code"] == 8);
                    assert!(busy && begun.elapsed() < SERVED_WITHIN, "a good client's put: {why:?}");
                    std::thread::yield_now();
                }
                let read = client.read("good").expect("a good client's get");
                assert_eq!(read, Some(base64(&value)), "a good client reads what it wrote");
                worst = worst.max(begun.elapsed());
                served += 1;
            }
            (served, worst)
        });
        Good { stop, working }
    }

    /// It was served all the while.
    pub(crate) fn was_served(self) {
        self.stop.store(true, Ordering::Relaxed);
        let (served, worst) = self.working.join().expect("a good client is served");
        println!("a good client's {served} puts and gets, at worst {worst:?} for both");
        assert!(served > 0);
    }
}
