//! Sets `cfg(loom)` for this package alone, so that its models need no flags.

fn main() {
    println!("cargo::rustc-cfg=loom");
    println!("cargo::rerun-if-changed=build.rs");
}
