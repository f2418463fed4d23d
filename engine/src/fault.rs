//! Faults on demand: named points at every write, sync, link, commit and acknowledgement, for tests that cause them.
//!
//! A point does nothing unless the `fail` crate was told about it: `FAILPOINTS="journal.sync=3*off->return(kill)"`, in a process
//! that called [`arm`].

use std::io;

/// Lets `FAILPOINTS` take effect in this process, when `TAKTLINE_FAILPOINTS` is set too.
#[must_use]
pub fn arm() -> Option<fail::FailScenario<'static>> {
    std::env::var_os("TAKTLINE_FAILPOINTS").map(|_| fail::FailScenario::setup())
}

/// A place where a fault can be caused. `return(kill)` kills this process as `kill -9` would; `return(full)` is a full disk; any
/// other `return` is an I/O error.
///
/// # Errors
/// Only when told to.
pub fn point(name: &str) -> io::Result<()> {
    let told = fail::eval(name, |told| told.unwrap_or_default());
    match told.as_deref() {
        None => Ok(()),
        Some("kill") => {
            let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
            Err(io::Error::other("killed"))
        }
        Some("full") => Err(io::Error::from(io::ErrorKind::StorageFull)),
        Some(told) => Err(io::Error::other(format!("fault at {name}: {told}"))),
    }
}
