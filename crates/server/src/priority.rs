//! Threads that can wait let the others go first.

/// Makes this thread nicer to the others by so much (1 to 19): each step gives it about a fifth less of a core that others want, too.
pub(crate) fn lower(by: i32) {
    // Linux has a niceness for each thread; elsewhere it is the process's, and must stay.
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::nice(by) {
        tracing::debug!(%error, "a thread's priority could not be lowered");
    }
    #[cfg(not(target_os = "linux"))]
    let _ = by;
}
