//! Faults at every point, in a process of its own each, since fault points are set for a whole process.

use std::process::{Command, Output};

use super::*;

const POINTS: &[&str] = &[
    "claim.write",
    "claim.sync",
    "claim.link",
    "claim.folder",
    "base.write",
    "base.sync",
    "base.link",
    "base.folder",
    "state.write",
    "state.sync",
    "manifest.write",
    "manifest.sync",
    "manifest.link",
    "manifest.folder",
    "savepoint.write",
    "savepoint.sync",
    "savepoint.link",
    "savepoint.folder",
    "collect.remove",
];

/// What the child does: goes on from the directory, writes a checkpoint, names it, collects.
#[test]
#[ignore = "the other tests here run it, in a process of its own"]
fn child() {
    let Some(data) = std::env::var_os("TAKTLINE_TEST_DATA") else {
        return;
    };
    let armed = crate::fault::arm();
    let dir = StateDir::at(Path::new(&data));
    let end = one_run(&dir);
    drop(armed);
    if let Err(error) = end {
        println!("error: {error:#}");
        std::process::exit(9);
    }
}

fn one_run(dir: &StateDir) -> anyhow::Result<()> {
    let claim = dir.claim("presses", LEASE)?;
    let before = dir
        .recover(&claim, &all)?
        .map_or(Vec::new(), |(found, _)| found.manifest.files);
    let number = claim.next_checkpoint();
    let head = format!("head {number}");
    let mut writer = FileWriter::create(dir, claim.generation(), number, 0)?;
    writer.write(&record("press-1", Change::Append, &head, "+"))?;
    let own = writer.finish()?;
    let manifest = manifest(&claim, number, &before.into_iter().chain(own).collect::<Vec<_>>());
    claim.commit(&manifest)?;
    dir.name_savepoint(&format!("after-{number}"), &manifest)?;
    dir.collect(&claim, 1, Duration::ZERO).map(drop)
}

fn run(dir: &StateDir, test: &str, faults: &str) -> Output {
    let module = module_path!().split_once("::").expect("this is a module").1;
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &format!("{module}::{test}"), "--ignored", "--nocapture"])
        .env("TAKTLINE_TEST_DATA", dir.root.parent().unwrap())
        .env("TAKTLINE_FAILPOINTS", "1")
        .env("FAILPOINTS", faults)
        .output()
        .unwrap()
}

/// Another run takes over between the check and the link of the manifest.
#[test]
#[ignore = "the other tests here run it, in a process of its own"]
fn overtaken() {
    let Some(data) = std::env::var_os("TAKTLINE_TEST_DATA") else {
        return;
    };
    let dir = StateDir::at(Path::new(&data));
    let mut stopped = dir.claim("presses", LEASE).unwrap();
    checkpoint(&dir, &stopped, 1, &[]);
    stopped.stop_heartbeat();
    let (other, newcomer) = (dir.clone(), std::sync::Arc::new(std::sync::Mutex::new(None)));
    let taken = newcomer.clone();
    let take_over = move || *taken.lock().unwrap() = Some(other.claim("presses", SHORT).unwrap());
    fail::cfg_callback("manifest.link", take_over).unwrap();
    let end = said(stopped.commit(&manifest(&stopped, 2, &[])));
    fail::remove("manifest.link");
    assert!(end.contains("another run has taken over"), "{end}");
    assert!(dir.manifest_path(id(2, 1)).exists());
    let newcomer = newcomer.lock().unwrap().take().unwrap();
    assert_eq!(latest(&dir, &newcomer), Some(id(1, 1)));
    println!("overtaken indeed");
}

#[test]
fn a_run_that_is_overtaken_while_it_commits_learns_it() {
    let (_data, dir) = empty();
    let out = run(&dir, "overtaken", "");
    let said = String::from_utf8_lossy(&out.stdout);
    assert!(out.status.success() && said.contains("overtaken indeed"), "{said}");
}

#[test]
fn after_a_fault_at_any_point_the_next_run_goes_on() {
    for point in POINTS {
        let faults: &[_] = if point.ends_with(".write") {
            &["broken", "full", "kill"]
        } else {
            &["broken", "kill"]
        };
        for &fault in faults {
            let (_data, dir) = empty();
            one_run(&dir).unwrap();
            let out = run(&dir, "child", &format!("{point}=return({fault})"));
            let said = String::from_utf8_lossy(&out.stdout);
            let expected = if fault == "kill" { None } else { Some(9) };
            assert_eq!(out.status.code(), expected, "{point} {fault}: {said}");
            match fault {
                "broken" => assert!(said.contains(&format!("fault at {point}: broken")), "{said}"),
                "full" => assert!(said.contains("no room on the disk for"), "{said}"),
                _ => {}
            }
            let claim = dir.claim("presses", LEASE).unwrap();
            let (found, states) = dir.recover(&claim, &all).unwrap().unwrap();
            assert!(found.passed_over.is_empty(), "{point} {fault}: {:?}", found.passed_over);
            let number = found.manifest.checkpoint;
            let after_the_link = ["manifest.folder", "collect.remove"].contains(point);
            let real = after_the_link || point.starts_with("savepoint");
            assert_eq!(number, if real { 2 } else { 1 }, "{point} {fault}");
            assert_eq!(press_1(&states).tail.len() as u64, number);
            // A savepoint is there whole, or not at all.
            for name in dir.savepoints().unwrap() {
                dir.savepoint(&name).unwrap();
            }

            // And what was left lying about is cleared away.
            checkpoint(&dir, &claim, claim.next_checkpoint(), &found.manifest.files);
            dir.collect(&claim, 1, Duration::ZERO).unwrap();
            let left = [dir.claims(), dir.checkpoints(), dir.named()]
                .map(|folder| folder::names(&folder).unwrap())
                .concat();
            assert!(
                left.iter().all(|name| !name.ends_with(place::BESIDE)),
                "{point} {fault}: {left:?}"
            );
            assert_eq!(
                folder::names(&dir.states()).unwrap().len() as u64,
                number + 1,
                "{point} {fault}"
            );
        }
    }
}

#[test]
fn a_full_disk_says_what_was_being_written_and_leaves_no_half_file() {
    let (_data, dir) = empty();
    let out = run(&dir, "child", "state.write=return(full)");
    let said = String::from_utf8_lossy(&out.stdout);
    assert!(
        said.contains("no room on the disk for ") && said.contains(" bytes of ") && said.contains("-0000.state"),
        "{said}"
    );
    assert!(folder::names(&dir.states()).unwrap().is_empty());
}
