//! Small files that are whole after a crash.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::path::Path;

use anyhow::Context;

/// Makes a file hold these bytes, or leaves it as it was. The folder is made if it isn't there.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    let beside = path.with_extension("new");
    write(&beside, bytes)?;
    fs::rename(&beside, path)?;
    File::open(folder)?.sync_all()
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    fs::create_dir_all(path.parent().unwrap_or(Path::new("/")))?;
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// What tells this state from any other one that writes to the same place: 32 hexadecimal digits. Made once, by the process that comes
/// first.
///
/// # Errors
/// It can't be read or made.
pub(crate) fn identity(folder: &Path) -> anyhow::Result<String> {
    let path = folder.join("identity");
    let shown = || path.display().to_string();
    if let Some(found) = read_identity(&path).with_context(shown)? {
        return Ok(found);
    }
    let made = uuid::Uuid::new_v4().simple().to_string();
    let make = || -> io::Result<()> {
        let part = folder.join(format!("identity-{made}"));
        write(&part, made.as_bytes())?;
        let linked = fs::hard_link(&part, &path);
        fs::remove_file(&part)?;
        match linked {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        File::open(folder)?.sync_all()
    };
    make().with_context(shown)?;
    read_identity(&path).with_context(shown)?.with_context(shown)
}

fn read_identity(path: &Path) -> anyhow::Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(found) => {
            let found = found.trim();
            let is_one = found.len() == 32 && found.bytes().all(|byte| byte.is_ascii_hexdigit());
            anyhow::ensure!(is_one, "`{found}` is no identity; put the file back as it was");
            Ok(Some(found.to_owned()))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b.json");
        for text in ["one", "another"] {
            replace(&path, text.as_bytes()).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
        assert_eq!(fs::read_dir(dir.path().join("a")).unwrap().count(), 1);
    }

    #[test]
    fn a_state_has_one_identity() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("ops");
        let processes: Vec<String> = std::thread::scope(|scope| {
            let come = [(); 4].map(|()| scope.spawn(|| identity(&folder).unwrap()));
            come.map(|one| one.join().unwrap()).into()
        });
        assert!(processes.iter().all(|made| *made == processes[0]), "{processes:?}");
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
        assert_ne!(identity(&dir.path().join("other")).unwrap(), processes[0]);
        fs::write(folder.join("identity"), "cut").unwrap();
        let error = identity(&folder).unwrap_err();
        assert!(format!("{error:#}").contains("`cut`"), "{error:#}");
    }
}
