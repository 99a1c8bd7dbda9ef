//! Every relative link in a Markdown file of the project leads somewhere: to a file, and to a heading in it where it names
//! one.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::{
    collections::HashSet,
    fs,
    path::{Path, PathBuf},
};

/// Built, fetched, or not ours.
const LEFT_OUT: [&str; 3] = ["target", ".git", "node_modules"];

fn pages(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let (path, name) = (entry.path(), entry.file_name().into_string().unwrap());
        if entry.file_type().unwrap().is_dir() {
            if !LEFT_OUT.contains(&name.as_str()) {
                pages(&path, found);
            }
        } else if path.extension().is_some_and(|extension| extension == "md") {
            found.push(path);
        }
    }
}

/// The text outside code.
fn prose(page: &str) -> String {
    let mut prose = String::new();
    let mut fenced = false;
    for line in page.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if !fenced {
            prose.extend([line, "\n"]);
        }
    }
    prose
}

/// Where links lead to: `[text](target)`, with code in the text or not, and `[name]: target`.
fn links(page: &str) -> Vec<String> {
    let prose = prose(page);
    let mut links: Vec<_> = prose
        .match_indices("](")
        .filter_map(|(at, _)| Some(prose[at + 2..].split_once(')')?.0.split_whitespace().next()?.to_owned()))
        .collect();
    for line in prose.lines() {
        if let Some((_, target)) = line.strip_prefix('[').and_then(|line| line.split_once("]: ")) {
            links.extend(target.split_whitespace().next().map(str::to_owned));
        }
    }
    links
}

/// What a heading is called in a link, as GitHub has it.
fn anchors(page: &str) -> HashSet<String> {
    let mut anchors = HashSet::new();
    for line in prose(page).lines() {
        let Some((_, heading)) = line.split_once("# ").filter(|(marks, _)| marks.chars().all(|c| c == '#')) else {
            continue;
        };
        let kept = heading.trim().chars().filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c));
        let name: String = kept.map(|c| if c == ' ' { '-' } else { c }).collect::<String>().to_lowercase();
        let mut unique = name.clone();
        let mut again = 0;
        while !anchors.insert(unique.clone()) {
            again += 1;
            unique = format!("{name}-{again}");
        }
    }
    anchors
}

/// What is wrong with the links of a page.
fn broken(path: &Path) -> Vec<String> {
    let page = fs::read_to_string(path).unwrap();
    let mut broken = Vec::new();
    for link in links(&page) {
        if link.contains("://") || link.starts_with("mailto:") {
            continue;
        }
        let (file, anchor) = link.split_once('#').map_or((link.as_str(), None), |(file, anchor)| (file, Some(anchor)));
        let target = if file.is_empty() { path.to_owned() } else { path.parent().unwrap().join(file) };
        if file.starts_with('/') || !target.exists() {
            broken.push(format!("{}: {link}: no such file", path.display()));
        } else if let Some(anchor) = anchor
            && target.extension().is_some_and(|extension| extension == "md")
            && !anchors(&fs::read_to_string(&target).unwrap()).contains(anchor)
        {
            broken.push(format!("{}: {link}: no such heading", path.display()));
        }
    }
    broken
}

#[test]
fn every_relative_link_leads_somewhere() {
    let mut all = Vec::new();
    pages(Path::new(env!("CARGO_MANIFEST_DIR")), &mut all);
    let links: usize = all.iter().map(|path| links(&fs::read_to_string(path).unwrap()).len()).sum();
    assert!(all.len() >= 20 && links >= 60, "{} pages, {links} links: they are not found", all.len());
    let broken: Vec<_> = all.iter().flat_map(|path| broken(path)).collect();
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

/// The pages in `docs/` are found from the README, by way of the list in `docs/README.md`.
#[test]
fn every_page_is_listed() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let list = fs::read_to_string(root.join("docs/README.md")).unwrap();
    let listed: HashSet<_> = links(&list).into_iter().collect();
    assert!(links(&fs::read_to_string(root.join("README.md")).unwrap()).contains(&"docs/README.md".to_owned()));
    for entry in fs::read_dir(root.join("docs")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if name.ends_with(".md") && name != "README.md" {
            assert!(listed.contains(&name), "docs/README.md does not list {name}");
        }
    }
}

/// What SECURITY.md calls a test is one.
#[test]
fn the_tests_that_the_threat_model_names_are_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let model = fs::read_to_string(root.join("SECURITY.md")).unwrap();
    let mut named = 0;
    // `path/to/file.rs::name_of_the_test`
    for word in model.split(|c: char| c == '`' || c == '|' || c.is_whitespace()) {
        let Some((file, test)) = word.split_once(".rs::") else { continue };
        let path = root.join(format!("{file}.rs"));
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert!(text.contains(&format!("fn {test}(")), "{}: there is no test {test}", path.display());
        named += 1;
    }
    assert!(named >= 20, "{named}: they are not found");
}

#[test]
fn broken_links_are_seen() {
    let page = "# A b, `c`\n[x](nowhere.md) [y](#a-b-c)\n```\n[z](nothing.md)\n```\n## Twice\n## Twice\n[r]: gone.md\n";
    assert_eq!(links(page), ["nowhere.md", "#a-b-c", "gone.md"]);
    assert_eq!(anchors(page), ["a-b-c", "twice", "twice-1"].map(str::to_owned).into());
    let folder = std::env::temp_dir().join(format!("links-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let file = folder.join("page.md");
    fs::write(&file, "[a](page.md#not-there) [b](#top) [c](gone.md) [d](https://x.example/) [e](page.md#top)\n# Top\n")
        .unwrap();
    assert_eq!(broken(&file).len(), 2);
    fs::remove_dir_all(&folder).unwrap();
}

/// The table of features at the crate's root has each one of `Cargo.toml`, once.
#[test]
fn every_feature_is_in_the_tour() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let manifest = fs::read_to_string(root.join("Cargo.toml")).unwrap();
    let section = manifest.split_once("\n[features]\n").unwrap().1.split_once("\n[").unwrap().0;
    let features: Vec<_> = section
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| Some(line.split_once(" = ")?.0))
        .filter(|name| *name != "default")
        .collect();
    let tour = fs::read_to_string(root.join("src/lib.rs")).unwrap();
    let mut told: Vec<_> =
        tour.lines().filter_map(|line| Some(line.strip_prefix("//! | `")?.split_once("` | ")?.0)).collect();
    let mut features = features;
    features.sort_unstable();
    told.sort_unstable();
    assert_eq!(features, told);
    assert!(features.len() > 8);
}
