//! Coded (compressed) bodies of the service behind, read in a bounded way (RFC 9110 §8.4).

use std::{io::Read, ops::Deref};

use flate2::bufread::{MultiGzDecoder, ZlibDecoder};
use http::{
    HeaderValue,
    header::{self, HeaderMap},
};
use zeroize::Zeroizing;

/// A body that cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Undecodable {
    /// Coded in a way that is not known here, more than once, or not in the way that it says.
    Malformed,
    /// Longer than the limit once it is decoded.
    TooLarge,
}

/// A coding other than none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Coding {
    Gzip,
    Deflate,
}

impl Coding {
    fn named(name: &[u8]) -> Option<Self> {
        match name.to_ascii_lowercase().as_slice() {
            b"gzip" | b"x-gzip" => Some(Self::Gzip),
            b"deflate" => Some(Self::Deflate),
            _ => None,
        }
    }
}

/// Leaves of what the client accepts those codings that can be read here. Left out, it would allow any
/// (RFC 9110 §12.5.3), so that it then asks for none.
pub(super) fn accept_readable(headers: &mut HeaderMap) {
    let lists = headers.get_all(header::ACCEPT_ENCODING).iter();
    let readable = |part: &&[u8]| {
        let name = part.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
        name.eq_ignore_ascii_case(b"identity") || Coding::named(name).is_some()
    };
    let parts = lists.flat_map(|list| list.as_bytes().split(|byte| *byte == b',')).map(<[u8]>::trim_ascii);
    let accepted = parts.filter(readable).collect::<Vec<_>>().join(&b", "[..]);
    let accepted = HeaderValue::from_bytes(&accepted).ok().filter(|accepted| !accepted.is_empty());
    headers.insert(header::ACCEPT_ENCODING, accepted.unwrap_or(HeaderValue::from_static("identity")));
}

/// A body as it came, or what was made of it; that may hold secrets, so it is wiped when dropped.
pub(super) enum Plain<'a> {
    Itself(&'a [u8]),
    Decoded(Zeroizing<Vec<u8>>),
}

impl Deref for Plain<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Itself(body) => body,
            Self::Decoded(body) => body,
        }
    }
}

/// The body without its coding, of at most `limit` bytes.
pub(super) fn decode<'a>(headers: &HeaderMap, body: &'a [u8], limit: usize) -> Result<Plain<'a>, Undecodable> {
    Ok(match coding_of(headers)? {
        None => Plain::Itself(body),
        Some(Coding::Gzip) => Plain::Decoded(all_of(MultiGzDecoder::new(body), limit, MultiGzDecoder::into_inner)?),
        Some(Coding::Deflate) => Plain::Decoded(all_of(ZlibDecoder::new(body), limit, ZlibDecoder::into_inner)?),
    })
}

/// The one coding of a body, where it has any.
fn coding_of(headers: &HeaderMap) -> Result<Option<Coding>, Undecodable> {
    let lists = headers.get_all(header::CONTENT_ENCODING).iter();
    let names = lists.flat_map(|list| list.as_bytes().split(|byte| *byte == b',')).map(<[u8]>::trim_ascii);
    let mut codings = names.filter(|name| !name.is_empty() && !name.eq_ignore_ascii_case(b"identity"));
    match (codings.next(), codings.next()) {
        (None, _) => Ok(None),
        (Some(one), None) => Coding::named(one).map(Some).ok_or(Undecodable::Malformed),
        // Each could blow up what the one before made.
        (Some(_), Some(_)) => Err(Undecodable::Malformed),
    }
}

/// All that a decoder makes of its whole input: another reader could see more in what it leaves over.
fn all_of<'a, D: Read>(
    mut decoder: D,
    limit: usize,
    rest: impl FnOnce(D) -> &'a [u8],
) -> Result<Zeroizing<Vec<u8>>, Undecodable> {
    let mut plain = Zeroizing::new(Vec::new());
    let mut piece = Zeroizing::new([0; 4096]);
    loop {
        match decoder.read(&mut *piece).map_err(|_| Undecodable::Malformed)? {
            0 => break,
            length if length > limit - plain.len() => return Err(Undecodable::TooLarge),
            length => plain.extend_from_slice(&piece[..length]),
        }
    }
    if rest(decoder).is_empty() { Ok(plain) } else { Err(Undecodable::Malformed) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::io::Write;

    use flate2::{
        Compression,
        write::{DeflateEncoder, GzEncoder, ZlibEncoder},
    };

    use super::*;

    fn gzip(plain: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(plain).unwrap();
        encoder.finish().unwrap()
    }

    fn zlib(plain: &[u8]) -> Vec<u8> {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(plain).unwrap();
        encoder.finish().unwrap()
    }

    fn raw_deflate(plain: &[u8]) -> Vec<u8> {
        let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(plain).unwrap();
        encoder.finish().unwrap()
    }

    fn decoded(codings: &[&'static str], body: &[u8]) -> Result<Vec<u8>, Undecodable> {
        let mut headers = HeaderMap::new();
        for coding in codings {
            headers.append(header::CONTENT_ENCODING, HeaderValue::from_static(coding));
        }
        decode(&headers, body, 10_000).map(|plain| plain.to_vec())
    }

    #[test]
    fn reads_one_coding_and_the_whole_body() {
        for (codings, body) in [
            (&[][..], b"text".to_vec()),
            (&["identity"], b"text".to_vec()),
            (&["gzip"], gzip(b"text")),
            (&["X-GZIP"], gzip(b"text")),
            (&["identity, GZip"], gzip(b"text")),
            (&["deflate"], zlib(b"text")),
            (&["gzip"], [gzip(b"te"), gzip(b"xt")].concat()),
        ] {
            assert_eq!(decoded(codings, &body), Ok(b"text".to_vec()), "{codings:?}");
        }
    }

    #[test]
    fn refuses_what_it_cannot_read_in_one_way_only() {
        let (gz, twice) = (gzip(b"text"), gzip(&gzip(b"text")));
        for (codings, body) in [
            (&["br"][..], gz.clone()),
            (&["gzip"], b"text".to_vec()),
            (&["gzip"], b"".to_vec()),
            (&["deflate"], b"".to_vec()),
            (&["gzip"], gz[..gz.len() - 1].to_vec()),
            (&["gzip"], [&gz[..], b"more"].concat()),
            (&["deflate"], [&zlib(b"text")[..], b"more"].concat()),
            (&["deflate"], raw_deflate(b"text")),
            (&["gzip, gzip"], twice.clone()),
            (&["gzip", "gzip"], twice),
        ] {
            assert_eq!(decoded(codings, &body), Err(Undecodable::Malformed), "{codings:?}");
        }
    }

    #[test]
    fn bombs_are_given_up() {
        assert_eq!(decoded(&["gzip"], &gzip(&[b' '; 10_000])).unwrap().len(), 10_000);
        assert_eq!(decoded(&["gzip"], &gzip(&[b' '; 10_001])), Err(Undecodable::TooLarge));
        assert_eq!(decoded(&["deflate"], &zlib(&vec![b' '; 10_000_000])), Err(Undecodable::TooLarge));
    }

    #[test]
    fn asks_for_what_it_can_read() {
        for (accepted, asked) in [
            (&[][..], "identity"),
            (&[""], "identity"),
            (&["*"], "identity"),
            (&["br, zstd"], "identity"),
            (&["gzip"], "gzip"),
            (&["br;q=1.0, GZip;q=0.8 ,deflate", "identity;q=0, *;q=0.1"], "GZip;q=0.8, deflate, identity;q=0"),
        ] {
            let mut headers = HeaderMap::new();
            for list in accepted {
                headers.append(header::ACCEPT_ENCODING, HeaderValue::from_static(list));
            }
            accept_readable(&mut headers);
            assert_eq!(headers.get_all(header::ACCEPT_ENCODING).iter().collect::<Vec<_>>(), [asked], "{accepted:?}");
        }
    }
}
