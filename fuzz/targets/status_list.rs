//! The `lst` of a status list: a byte for the width, then text that may be base64url over zlib.

use tower_revocation::status_list::{Bits, StatusList};

/// More than this is never made of any input.
const LIMIT: usize = 64 << 10;

pub fn run(data: &[u8]) {
    let Some((width, rest)) = data.split_first() else { return };
    let Some(bits) = Bits::new(1 << (width % 4)) else { return };
    let Ok(lst) = std::str::from_utf8(rest) else { return };
    let Ok(list) = StatusList::decompress(bits, lst, LIMIT) else { return };
    assert!(list.as_bytes().len() <= LIMIT);
    let all: Vec<_> = (0..list.len()).map_while(|idx| list.get(idx)).collect();
    assert_eq!(all.len() as u64, list.len());
    assert_eq!(list.get(list.len()), None);
    let again = StatusList::decompress(bits, &list.compress(), LIMIT);
    assert_eq!(again.as_ref(), Ok(&list));
}
