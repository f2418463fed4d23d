//! Faults caused on purpose, with the real binary; docs/FAULTS.md has a row for each. Kills at random times are `torture`'s.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../support/mod.rs"]
mod support;

mod clock;
mod cluster;
mod damage;
mod disk;
mod journal;
mod mosquitto;
mod owners;
mod points;
mod scene;
