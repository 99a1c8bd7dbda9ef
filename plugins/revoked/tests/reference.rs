//! The configuration reference in `docs/revoked.md` and the parser know the same keys.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use revoked::config::parse;

const FILE: &str = "[staleness]\nafter = \"10s\"\nthen = \"refuse\"\n\n[[issuer]]\nissuer = \"https://a\"\n\n[[client]]\nid = \"a\"\n\n[[transmitter]]\nissuer = \"https://a\"\n";

/// The keys of the tables that have a default.
fn documented() -> BTreeSet<String> {
    let docs = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/revoked.md")).unwrap();
    let reference = docs.split_once("\n## Configuration\n").unwrap().1.split_once("\n## ").unwrap().0;
    let keys: Vec<_> =
        reference.lines().filter_map(|line| Some(line.strip_prefix("| `")?.split_once("` | ")?.0)).collect();
    let unique: BTreeSet<_> = keys.iter().map(|key| (*key).to_owned()).collect();
    assert_eq!(unique.len(), keys.len(), "a key is documented twice");
    unique
}

/// The members of the structs that the parser reads, by their paths.
fn known() -> BTreeSet<String> {
    let source = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/src/config/mod.rs")).unwrap();
    let mut structs: BTreeMap<&str, Vec<(&str, &str)>> = BTreeMap::new();
    let mut current = None;
    let mut skipped = false;
    for line in source.lines() {
        if let Some(name) = line.strip_prefix("pub struct ").and_then(|rest| rest.strip_suffix(" {")) {
            current = Some(name);
        } else if line == "}" {
            current = None;
        } else if line.trim() == "#[serde(skip)]" || line.trim() == "#[serde(flatten)]" {
            skipped = true;
        } else if let Some(member) = line.strip_prefix("    pub ")
            && let (Some(of), Some((name, kind))) = (current, member.split_once(": "))
            && !std::mem::take(&mut skipped)
        {
            let kind = kind.trim_end_matches(',');
            let inner = ["Option<", "Vec<"].iter().find_map(|wrap| kind.strip_prefix(wrap)?.strip_suffix('>'));
            structs.entry(of).or_default().push((name, inner.unwrap_or(kind)));
        }
    }
    let mut keys = BTreeSet::new();
    let mut open = vec![(String::new(), "Config")];
    while let Some((path, of)) = open.pop() {
        for (name, kind) in &structs[of] {
            let path = if path.is_empty() { (*name).to_owned() } else { format!("{path}.{name}") };
            match *kind {
                // Three endpoints have the same keys.
                "Endpoint" => open.push(("endpoints.*".to_owned(), "Endpoint")),
                kind if structs.contains_key(kind) => open.push((path, kind)),
                _ => {
                    keys.insert(path);
                }
            }
        }
    }
    keys
}

#[test]
fn every_key_of_the_parser_is_in_the_reference_and_the_other_way_round() {
    assert_eq!(known(), documented());
    assert!(known().len() > 80);
}

#[test]
fn the_parser_takes_every_key_of_the_reference() {
    let said = |key: &str| {
        let tables = ["issuer", "client", "transmitter"];
        let path = key.split('.').enumerate().map(|(depth, part)| {
            if depth == 0 && tables.contains(&part) { format!("{part}__0") } else { part.to_owned() }
        });
        let name = format!("REVOKED__{}", path.collect::<Vec<_>>().join("__").to_uppercase());
        match parse(FILE, [(name, "\"?\"".to_owned())]) {
            Ok(_) => String::new(),
            Err(faults) => format!("{faults:?}"),
        }
    };
    for key in documented() {
        for of in ["token", "session", "global"] {
            let said = said(&key.replace('*', of));
            assert!(!said.contains("unknown key") && !said.contains("names a place"), "{key}: {said}");
        }
    }
    assert!(said("admin.listn").contains("unknown key"));
}
