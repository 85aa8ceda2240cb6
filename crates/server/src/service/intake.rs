//! How much of unfinished requests is held in memory, over all connections.
//!
//! One client may open as many streams as it likes and send all but the last byte of a request on each. What is held for such
//! requests is counted, and past the bound whoever wants more is refused; requests that arrive whole, which is the
//! usual case, are never counted at all.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use crate::status::{self, Status};

/// Bytes of unfinished requests, at most.
pub const INTAKE_BYTES_MAX: usize = 256 << 20;

/// A request's share that is not worth counting.
const UNCOUNTED: usize = 16 * 1024;

/// The bytes held for all unfinished requests.
#[derive(Debug, Default)]
pub struct Intake {
    held: AtomicUsize,
}

/// The bytes held for one unfinished request; gives them back when dropped.
#[derive(Debug)]
pub struct Share {
    intake: Arc<Intake>,
    bytes: usize,
}

impl Intake {
    /// A share of nothing yet.
    #[must_use]
    pub fn share(self: &Arc<Self>) -> Share {
        Share { intake: self.clone(), bytes: 0 }
    }
}

impl Share {
    /// The request holds so many bytes now.
    ///
    /// # Errors
    /// "too many requests" when all requests together would hold more than the bound.
    pub fn set(&mut self, bytes: usize) -> Result<(), Status> {
        let bytes = if bytes > UNCOUNTED { bytes } else { 0 };
        if bytes > self.bytes {
            let more = bytes - self.bytes;
            if self.intake.held.fetch_add(more, Relaxed) + more > INTAKE_BYTES_MAX {
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
        let intake = Arc::new(Intake::default());
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
