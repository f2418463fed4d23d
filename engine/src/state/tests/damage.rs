use super::*;

/// Two checkpoints, the second with a state file of its own.
fn two() -> (TempDir, StateDir) {
    let (data, dir) = empty();
    let claim = dir.claim("presses", LEASE).unwrap();
    let first = checkpoint(&dir, &claim, 1, &[]);
    checkpoint(&dir, &claim, 2, &first.files);
    (data, dir)
}

const MANIFEST: &str = "checkpoints/000000000002-00000001.json";
const STATE: &str = "state/000000000002-00000001-0000.state";
const SHARED: &str = "state/000000000001-00000001-0000.state";

#[test]
fn every_bit_of_a_manifest_and_a_state_file_is_guarded() {
    let (_data, dir) = two();
    let read = || dir.manifest(2, 1).and_then(|manifest| load(&dir, &manifest, &all));
    read().unwrap();
    for name in [MANIFEST, STATE, SHARED] {
        let path = dir.root.join(name);
        let whole = fs::read(&path).unwrap();
        for bit in 0..whole.len() * 8 {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            fs::write(&path, &bytes).unwrap();
            let error = read().expect_err("the flipped bit is noticed");
            assert!(error.is::<Damaged>(), "{name} bit {bit}: {error:#}");
        }
        for length in 0..whole.len() {
            fs::write(&path, &whole[..length]).unwrap();
            let error = read().expect_err("the cut is noticed");
            assert!(error.is::<Damaged>(), "{name} cut to {length}: {error:#}");
        }
        fs::write(&path, [&whole[..], b"\n"].concat()).unwrap();
        assert!(read().expect_err("the byte more is noticed").is::<Damaged>(), "{name}");
        fs::write(&path, &whole).unwrap();
    }
    read().unwrap();
}

/// Damages a copy, and goes on from it twice: the second run must not see the damaged checkpoint at all.
fn falls_back(name: &str, damage: impl Fn(&Path)) {
    let (data, _dir) = two();
    let other = tempfile::tempdir().unwrap();
    copy(data.path(), other.path());
    let dir = StateDir::at(other.path());
    damage(&dir.root.join(name));

    let claim = dir.claim("presses", LEASE).unwrap();
    let (found, states) = dir.recover(&claim, &all).unwrap().unwrap();
    assert_eq!(found.manifest.id(), id(1, 1), "{name}");
    assert_eq!(press_1(&states).head, b"head 1");
    let [sentence] = &found.passed_over[..] else {
        panic!("{:?}", found.passed_over)
    };
    let file = dir.root.join(name).display().to_string();
    assert!(
        sentence.starts_with("checkpoint 2 of generation 1 is passed over: ") && sentence.contains(&file),
        "{sentence}"
    );
    assert_eq!(claim.next_checkpoint(), 3);
    drop(claim);

    let claim = dir.claim("presses", LEASE).unwrap();
    let (found, _) = dir.recover(&claim, &all).unwrap().unwrap();
    assert_eq!((found.manifest.id(), found.passed_over.len()), (id(1, 1), 0));
}

fn flip(path: &Path, at: impl Fn(usize) -> usize) {
    let mut bytes = fs::read(path).unwrap();
    let at = at(bytes.len());
    bytes[at] ^= 4;
    fs::write(path, bytes).unwrap();
}

fn cut(path: &Path, to: impl Fn(u64) -> u64) {
    let file = fs::File::options().write(true).open(path).unwrap();
    file.set_len(to(file.metadata().unwrap().len())).unwrap();
}

#[test]
fn a_damaged_checkpoint_is_passed_over_with_a_sentence() {
    for name in [MANIFEST, STATE] {
        falls_back(name, |path| flip(path, |_| 0));
        falls_back(name, |path| flip(path, |length| length / 2));
        falls_back(name, |path| flip(path, |length| length - 1));
        falls_back(name, |path| cut(path, |_| 0));
        falls_back(name, |path| cut(path, |length| length - 1));
    }
    falls_back(STATE, |path| fs::remove_file(path).unwrap());
}

#[test]
fn latest_finds_what_the_folder_can_tell() {
    let (_data, dir) = two();
    fs::remove_file(dir.root.join(STATE)).unwrap();
    let claim = dir.claim("presses", LEASE).unwrap();
    let found = dir.latest(&claim).unwrap().unwrap();
    assert_eq!((found.manifest.id(), found.passed_over.len()), (id(1, 1), 1));
}

#[test]
fn nothing_begins_anew_in_silence() {
    let (_data, dir) = two();
    fs::remove_file(dir.root.join(SHARED)).unwrap();
    let claim = dir.claim("presses", LEASE).unwrap();
    for error in [said(dir.latest(&claim)), said(dir.recover(&claim, &all))] {
        for part in [
            "no checkpoint in",
            "is whole",
            "--overwrite",
            "checkpoint 2 of",
            "checkpoint 1 of",
            SHARED,
        ] {
            assert!(error.contains(part), "{error}");
        }
    }
    for number in [1, 2] {
        fs::remove_file(dir.manifest_path(id(number, 1))).unwrap();
    }
    assert!(said(dir.latest(&claim)).contains("their manifests are gone"));
}

#[test]
fn a_newer_format_is_refused_and_not_passed_over() {
    let (_data, dir) = two();
    let newer = dir.root.join(MANIFEST);
    let mut value: serde_json::Value = sealed::unseal(&newer, &sealed::read_text(&newer).unwrap()).unwrap();
    value["format"] = 2.into();
    value["files"] = "something else".into();
    fs::write(&newer, sealed::seal(&value).unwrap()).unwrap();
    let claim = dir.claim("presses", LEASE).unwrap();
    for error in [
        said(dir.latest(&claim)),
        said(dir.recover(&claim, &all)),
        said(dir.manifest(2, 1)),
    ] {
        assert!(
            error.contains("format 2") && error.contains("newer taktline"),
            "{error}"
        );
    }
}

#[test]
fn fields_that_a_later_version_adds_are_ignored() {
    let (_data, dir) = two();
    let path = dir.root.join(MANIFEST);
    let mut value: serde_json::Value = sealed::unseal(&path, &sealed::read_text(&path).unwrap()).unwrap();
    value["added"] = true.into();
    fs::write(&path, sealed::seal(&value).unwrap()).unwrap();
    assert_eq!(dir.manifest(2, 1).unwrap().id(), id(2, 1));
}

#[test]
fn a_manifest_names_no_file_outside_the_folder() {
    let (_data, dir) = two();
    let claim = dir.claim("presses", LEASE).unwrap();
    let out = StateFile {
        name: "../claims/00000001.json".to_owned(),
        checkpoint: 3,
        bytes: 1,
        crc: 1,
    };
    claim.commit(&manifest(&claim, 3, &[out])).unwrap();
    assert!(said(dir.manifest(3, claim.generation())).contains("which is no state file"));
}

#[test]
fn a_manifest_under_another_name_is_none() {
    let (_data, dir) = two();
    fs::copy(dir.root.join(MANIFEST), dir.manifest_path(id(5, 1))).unwrap();
    assert!(dir.manifest(5, 1).unwrap_err().is::<Damaged>());
}

#[test]
fn a_damaged_base_is_an_error_with_a_way_out() {
    let (_data, dir) = two();
    drop(dir.claim("presses", LEASE).unwrap());
    flip(&dir.base_path(2), |length| length / 2);
    let error = said(dir.claim("presses", LEASE));
    assert!(
        error.contains("00000002.base") && error.contains("remove it"),
        "{error}"
    );
}
