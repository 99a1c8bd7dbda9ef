//! The fuzz targets for lists and introspection answers over their seeds, and over each seed with bytes changed and cut at
//! every length.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, unreachable_pub)]

#[path = "../fuzz/targets/introspection_answer.rs"]
mod introspection_answer;
#[path = "../fuzz/targets/list_file.rs"]
mod list_file;

use std::{fs, path::Path};

fn over_seeds(target: &str, run: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target);
    let mut seeds = 0;
    for file in fs::read_dir(&folder).unwrap() {
        let seed = fs::read(file.unwrap().path()).unwrap();
        run(&seed);
        for at in 0..seed.len() {
            run(&seed[..at]);
            for flip in [1, 0x80] {
                let mut changed = seed.clone();
                changed[at] ^= flip;
                run(&changed);
            }
        }
        seeds += 1;
    }
    assert!(seeds > 3, "{} has no seeds", folder.display());
}

#[test]
fn lists() {
    over_seeds("list_file", list_file::run);
}

#[test]
fn introspection_answers() {
    over_seeds("introspection_answer", introspection_answer::run);
}
