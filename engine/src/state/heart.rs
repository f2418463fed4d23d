//! The heartbeat of a claim: a thread that touches its file.

use std::fs::File;
use std::io;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

/// Beats until dropped.
pub(super) struct Heart {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
    trouble: Arc<Mutex<Option<String>>>,
}

impl Heart {
    pub fn start(file: File, every: Duration) -> io::Result<Heart> {
        let (stop, stopped) = channel::<()>();
        let trouble = Arc::new(Mutex::new(None));
        let told = Arc::clone(&trouble);
        let thread = std::thread::Builder::new().name("claim".to_owned()).spawn(move || {
            while stopped.recv_timeout(every) == Err(RecvTimeoutError::Timeout) {
                // Only that it changes matters, so it may be any clock's reading. It needs no room on the disk.
                let beat = file.set_modified(SystemTime::now());
                *told.lock().unwrap_or_else(PoisonError::into_inner) = beat.err().map(|error| error.to_string());
            }
        })?;
        Ok(Heart {
            stop: Some(stop),
            thread: Some(thread),
            trouble,
        })
    }

    /// Why the last beat didn't come about.
    pub fn trouble(&self) -> Option<String> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn stop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join(); // it has nothing that panics
        }
    }
}

impl Drop for Heart {
    fn drop(&mut self) {
        self.stop();
    }
}
