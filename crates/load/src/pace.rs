//! A clock that wakes in time: a timer of the kernel, since the runtime's own knows only milliseconds.

use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use rustix::fd::OwnedFd;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use tokio::io::unix::AsyncFd;

/// Wakes its task when a moment has come.
pub(crate) struct Alarm {
    timer: AsyncFd<OwnedFd>,
    set: Option<Instant>,
}

impl Alarm {
    pub(crate) fn new() -> std::io::Result<Alarm> {
        let timer =
            timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        // SAFETY: the descriptor is owned by what is registered, so it stays open, and the same, until it is taken out again.
        let timer = unsafe { AsyncFd::register(timer) }?;
        Ok(Alarm { timer, set: None })
    }

    /// Arranges that the task is woken at `due`, or soon after.
    pub(crate) fn wake_at(&mut self, due: Instant, context: &mut Context<'_>) -> std::io::Result<()> {
        if self.set != Some(due) {
            let wait = due.saturating_duration_since(Instant::now()).max(Duration::from_nanos(1));
            let value = Timespec { tv_sec: wait.as_secs() as i64, tv_nsec: i64::from(wait.subsec_nanos()) };
            let never = Timespec { tv_sec: 0, tv_nsec: 0 };
            timerfd_settime(
                &self.timer,
                TimerfdTimerFlags::empty(),
                &Itimerspec { it_interval: never, it_value: value },
            )?;
            self.set = Some(due);
        }
        while let Poll::Ready(ready) = self.timer.poll_read_ready(context) {
            // It rang: what it says is how often. Whether the moment has come, the caller sees by himself.
            let mut count = [0; 8];
            let mut ready = ready?;
            if rustix::io::read(&self.timer, &mut count).is_ok() {
                self.set = None;
                context.waker().wake_by_ref();
                return Ok(());
            }
            ready.clear_ready();
        }
        Ok(())
    }
}
