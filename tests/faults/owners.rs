//! Two runs on one data directory.

use std::collections::BTreeMap;
use std::path::Path;

use rustix::process::Signal;

use crate::scene::Scene;

#[test]
fn a_second_run_on_one_data_directory_refuses() {
    let scene = Scene::new();
    let mut first = scene.start(&[]);
    first.until("a checkpoint", || !scene.checkpoints().is_empty());
    let (status, said) = scene.start(&[]).end();
    assert_eq!(status.code(), Some(1), "{said}");
    for part in [
        &first.child.id().to_string(),
        scene.data.to_str().unwrap(),
        "is in use by",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let (status, said) = first.end();
    assert!(status.success(), "{said}");
    scene.assert_equal();
}

#[test]
fn a_run_stopped_for_longer_than_its_lease_writes_nothing_when_it_goes_on() {
    let scene = Scene::new();
    let mut zombie = scene.start(&["--lease-secs", "1"]);
    zombie.until("checkpoints", || scene.checkpoints().len() > 2);
    zombie.signal(Signal::STOP);
    let (status, said) = scene.start(&["--lease-secs", "1"]).end();
    assert!(status.success() && said.contains("took over"), "{status}: {said}");
    let before = contents(&scene.data);
    zombie.signal(Signal::CONT);
    let (status, said) = zombie.end();
    assert_eq!(status.code(), Some(1), "{said}");
    assert_eq!(differences(&before, &contents(&scene.data)), "");
    assert!(said.contains("error: "), "{said}");
    scene.assert_equal();
}

#[test]
fn a_run_that_goes_on_while_another_works_disturbs_it_not() {
    let scene = Scene::new();
    let mut zombie = scene.start(&["--lease-secs", "1"]);
    zombie.until("checkpoints", || scene.checkpoints().len() > 2);
    zombie.signal(Signal::STOP);
    let claims = || crate::scene::files(&scene.data.join("_taktline/checkpoints"), "json");
    let of_second = || {
        claims()
            .iter()
            .any(|path| path.to_str().unwrap().ends_with("-00000002.json"))
    };
    let mut second = scene.start(&["--lease-secs", "1"]);
    second.until("a checkpoint of the second run", of_second);
    zombie.signal(Signal::CONT);
    let (status, said) = zombie.end();
    assert_eq!(status.code(), Some(1), "{said}");
    let (status, said) = second.end();
    assert!(status.success(), "{status}: {said}");
    scene.assert_equal();
}

/// Every file with its bytes.
fn contents(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut all = BTreeMap::new();
    let mut open = vec![folder.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else {
                all.insert(path.display().to_string(), std::fs::read(&path).unwrap());
            }
        }
    }
    all
}

/// What is not as it was. Files that bear the zombie's number and that nothing names don't count: they are collected.
fn differences(before: &BTreeMap<String, Vec<u8>>, after: &BTreeMap<String, Vec<u8>>) -> String {
    let orphan = |name: &str| {
        let counts = ["_delta_log", "/checkpoints/", "/claims/", "/savepoints/"];
        // A file that was not whole yet, and never got its name.
        name.ends_with(".tmp") || name.contains("-00000001-") && !counts.iter().any(|folder| name.contains(folder))
    };
    let changed = |(name, bytes): (&String, &Vec<u8>)| match before.get(name) {
        None => (!orphan(name)).then(|| format!("new: {name}\n")),
        Some(old) => (old != bytes).then(|| format!("changed: {name}\n")),
    };
    let gone = before.keys().filter(|name| !after.contains_key(*name));
    let gone = gone.map(|name| format!("gone: {name}\n"));
    after.iter().filter_map(changed).chain(gone).collect()
}
