//! The fuzz targets of logout tokens and security events over their seeds, and over each seed changed and cut in many
//! places.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, unreachable_pub)]

#[path = "../fuzz/targets/signals.rs"]
mod signals;

use std::{fs, path::Path};

fn over_seeds(target: &str, run: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target);
    let mut seeds = 0;
    for file in fs::read_dir(&folder).unwrap() {
        let seed = fs::read(file.unwrap().path()).unwrap();
        run(&seed);
        for at in 0..seed.len() {
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
fn logout_tokens() {
    over_seeds("logout_token", signals::logout_token);
}

#[test]
fn security_events() {
    over_seeds("security_event", signals::security_event);
}
