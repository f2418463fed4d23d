//! What a process of a cluster does so that its supervisor can tell it from a stopped one, and so that it never outlives it.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// How often a heartbeat file is touched.
pub const BEAT: Duration = Duration::from_secs(1);

/// The heartbeat file of one process, in the folder of the cluster.
#[must_use]
pub fn heartbeat_file(folder: &Path, process: usize) -> PathBuf {
    folder.join(format!("heartbeat-{process}"))
}

/// Touches `file` every second from now on, on a thread of its own, until the process ends.
///
/// # Errors
/// When it can't be made.
pub fn heartbeat(file: &Path) -> std::io::Result<()> {
    if let Some(folder) = file.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let opened = File::options().create(true).append(true).open(file)?;
    opened.set_modified(SystemTime::now())?;
    let name = file.display().to_string();
    std::thread::Builder::new().name("heartbeat".into()).spawn(move || {
        let mut well = true;
        loop {
            std::thread::sleep(BEAT);
            let touched = opened.set_modified(SystemTime::now());
            if let (true, Err(error)) = (well, &touched) {
                tracing::warn!("{name} can't be touched: {error}; the supervisor will take this process for stopped");
            }
            well = touched.is_ok();
        }
    })?;
    Ok(())
}

/// Ends this process when its stdin does: the supervisor holds the other end of that pipe, and the system closes it however the
/// supervisor ends.
///
/// # Errors
/// When there is no thread to be had.
pub fn end_with_parent() -> std::io::Result<()> {
    std::thread::Builder::new().name("parent".into()).spawn(|| {
        let mut stdin = std::io::stdin().lock();
        loop {
            match stdin.read(&mut [0; 64]) {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        // Its stderr was the supervisor's to read.
        let _ = writeln!(std::io::stderr(), "error: the supervisor is gone");
        // At once: an exit in good order could wait for threads that wait for this process's peers.
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    })?;
    Ok(())
}

/// Ends this process with a message; what it has not published is in the checkpoint.
pub fn end(message: &str, code: u8) -> ! {
    // A closed stderr must not keep a process alive that has to end.
    let _ = writeln!(std::io::stderr(), "error: {message}");
    std::process::exit(code.into())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use std::io::{BufRead, BufReader};
    use std::os::unix::process::ExitStatusExt;
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_heartbeat_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let file = heartbeat_file(dir.path(), 3);
        heartbeat(&file).unwrap();
        let long_ago = SystemTime::now() - Duration::from_secs(1000);
        for _ in 0..2 {
            File::options()
                .append(true)
                .open(&file)
                .unwrap()
                .set_modified(long_ago)
                .unwrap();
            let until = std::time::Instant::now() + Duration::from_secs(60);
            while std::fs::metadata(&file).unwrap().modified().unwrap() == long_ago {
                assert!(std::time::Instant::now() < until, "not touched");
                std::thread::yield_now();
            }
        }
    }

    /// The child of the test below: stays until its parent goes.
    #[test]
    #[ignore = "only as a child of ends_with_its_parent"]
    fn stays() {
        end_with_parent().unwrap();
        println!("\nstaying");
        loop {
            std::thread::park();
        }
    }

    #[test]
    fn ends_with_its_parent() {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "cluster::alive::tests::stays", "--ignored", "--nocapture"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let said = BufReader::new(child.stdout.take().unwrap())
            .lines()
            .any(|line| line.unwrap() == "staying");
        assert!(said);
        assert!(child.try_wait().unwrap().is_none());
        drop(child.stdin.take());
        assert_eq!(child.wait().unwrap().signal(), Some(9));
    }
}
