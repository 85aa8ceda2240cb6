//! How much is held in memory for clients that do not get on, over all connections.
//!
//! One client may open as many streams as it likes and send all but the last byte of a request on each; another asks for a lot and
//! reads nothing. What is held for such requests, and for such answers, is counted, and past the bound whoever wants more
//! is refused; requests that arrive whole and answers that leave at once, which is the usual case, are never counted at all.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use crate::status::{self, Status};

/// Bytes of unfinished requests, at most.
pub const INTAKE_BYTES_MAX: usize = 256 << 20;

/// Bytes of answers that wait for their clients, at most.
pub const BACKLOG_BYTES_MAX: usize = 256 << 20;

/// A share that is not worth counting.
const UNCOUNTED: usize = 16 * 1024;

/// The bytes held for everybody.
#[derive(Debug)]
pub struct Intake {
    held: AtomicUsize,
    bytes_max: usize,
}

/// The bytes held for one request, or for one connection; gives them back when dropped.
#[derive(Debug)]
pub struct Share {
    intake: Arc<Intake>,
    bytes: usize,
}

impl Intake {
    /// Room for so many bytes.
    #[must_use]
    pub fn new(bytes_max: usize) -> Intake {
        Intake { held: AtomicUsize::new(0), bytes_max }
    }

    /// Whether more than half of the room is taken: time to hold less for each.
    #[must_use]
    pub fn is_tight(&self) -> bool {
        self.held.load(Relaxed) > self.bytes_max / 2
    }

    /// A share of nothing yet.
    #[must_use]
    pub fn share(self: &Arc<Self>) -> Share {
        Share { intake: self.clone(), bytes: 0 }
    }
}

impl Share {
    /// So many bytes are held now.
    ///
    /// # Errors
    /// "too many requests" when all together would hold more than the bound; the share stays as it was.
    pub fn set(&mut self, bytes: usize) -> Result<(), Status> {
        let bytes = if bytes > UNCOUNTED { bytes } else { 0 };
        if bytes > self.bytes {
            let more = bytes - self.bytes;
            if self.intake.held.fetch_add(more, Relaxed) + more > self.intake.bytes_max {
                self.intake.held.fetch_sub(more, Relaxed);
                return Err(status::too_many_requests());
            }
        } else if bytes < self.bytes {
            self.intake.held.fetch_sub(self.bytes - bytes, Relaxed);
        }
        self.bytes = bytes;
        Ok(())
    }
}

impl Share {
    /// What is counted.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether there is little room left for everybody.
    #[must_use]
    pub fn is_tight(&self) -> bool {
        self.intake.is_tight()
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.intake.held.fetch_sub(self.bytes, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bound is for all together, a refusal takes nothing, and what is given back can be taken again.
    #[test]
    fn the_bound_holds() {
        let intake = Arc::new(Intake::new(INTAKE_BYTES_MAX));
        let mut large = intake.share();
        large.set(INTAKE_BYTES_MAX - UNCOUNTED).unwrap();
        let mut other = intake.share();
        other.set(UNCOUNTED).unwrap();
        assert_eq!(other.set(UNCOUNTED + 1), Err(status::too_many_requests()));
        large.set(0).unwrap();
        other.set(UNCOUNTED + 1).unwrap();
        drop(other);
        assert_eq!(intake.held.load(Relaxed), 0);
    }
}
