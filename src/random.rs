//! Random bytes from the operating system.

/// A random array.
///
/// Where the operating system has no randomness to give there is no safe way on: ids and secrets
/// made of anything less could be guessed, so this is the one place that ends the process.
pub(crate) fn bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    if getrandom::fill(&mut bytes).is_err() {
        std::process::abort();
    }
    bytes
}

pub(crate) fn u64() -> u64 {
    u64::from_ne_bytes(bytes())
}
