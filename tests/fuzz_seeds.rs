//! The fuzz targets over their seeds, and over each seed with every byte changed once and cut at every length.
#![cfg(feature = "status-list")]
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, unreachable_pub)]

#[path = "../fuzz/targets/status_list.rs"]
mod status_list;
#[path = "../fuzz/targets/status_token.rs"]
mod status_token;

use std::{fs, path::Path};

fn over_seeds(target: &str, run: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target);
    let mut seeds = 0;
    for file in fs::read_dir(&folder).unwrap() {
        let seed = fs::read(file.unwrap().path()).unwrap();
        run(&seed);
        for at in 0..seed.len().min(400) {
            run(&seed[..at]);
            for flip in [1, 0x80, 0xff] {
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
fn status_lists() {
    over_seeds("status_list", status_list::run);
}

#[test]
fn status_list_tokens() {
    over_seeds("status_token", status_token::run);
}
