//! Lists in files: whatever is in one, opening it ends, and comes to the same twice.

use std::fs;

use tower_revocation::backend::File;

pub fn run(text: &[u8]) {
    let path = std::env::temp_dir().join(format!("revocation-list-{}", std::process::id()));
    fs::write(&path, text).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    for query in ["", "?subjects=https://issuer.example/"] {
        let url = format!("file://{}{query}", path.display());
        let opened = || runtime.block_on(File::connect(&url)).is_ok();
        let is_list = opened();
        assert_eq!(is_list, opened());
        assert!(text.is_empty() || text.ends_with(b"\n") || !is_list, "written by halves");
    }
    fs::remove_file(&path).unwrap();
}
