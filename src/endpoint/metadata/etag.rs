use std::fmt::Write as _;

use bytes::Bytes;
use http::{
    HeaderValue,
    header::{self, HeaderMap},
};
use sha2::{Digest, Sha256};

/// A strong entity tag (RFC 9110 §8.8.3).
pub(super) fn of(body: &Bytes) -> HeaderValue {
    let digest = Sha256::digest(body);
    let mut tag = String::from("\"");
    for byte in &digest[..16] {
        let _ = write!(tag, "{byte:02x}");
    }
    tag.push('"');
    // Hexadecimal digits between quotes.
    HeaderValue::try_from(tag).unwrap_or(HeaderValue::from_static("\"\""))
}

/// Whether the client holds it already: `If-None-Match` compares weakly (RFC 9110 §13.1.2).
pub(super) fn is_known(asked: &HeaderMap, tag: &HeaderValue) -> bool {
    let lists = asked.get_all(header::IF_NONE_MATCH).iter();
    lists.flat_map(|list| list.as_bytes().split(|byte| *byte == b',')).any(|held| {
        let held = held.trim_ascii();
        held == b"*" || held.strip_prefix(b"W/").unwrap_or(held) == tag.as_bytes()
    })
}
