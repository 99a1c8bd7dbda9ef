//! A JSON object (RFC 8259) split into its members, in one pass and without an allocation.
//!
//! Everything is held against the grammar, what is nested too; numbers are not read, and of escapes only that they are
//! spelled right. `strict_reads_what_serde_json_reads` holds it against serde_json.

use std::borrow::Cow;

use smallvec::SmallVec;

use super::strict::Malformed;

/// A value as it stands in the text, checked against the grammar.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Raw<'a> {
    text: &'a str,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// A string without escapes.
    Plain,
    /// A string with escapes.
    Escaped,
    /// No string.
    Other,
}

impl<'a> Raw<'a> {
    /// Its text.
    pub(crate) const fn get(self) -> &'a str {
        self.text
    }

    /// What stands in a string; `None` for anything else.
    #[inline]
    pub(super) fn string(self) -> Option<Result<Cow<'a, str>, Malformed>> {
        match self.kind {
            Kind::Plain => {
                let inside = self.text.get(1..self.text.len().saturating_sub(1));
                Some(inside.map(Cow::Borrowed).ok_or(Malformed))
            }
            Kind::Escaped => Some(serde_json::from_str(self.text).map(Cow::Owned).map_err(|_| Malformed)),
            Kind::Other => None,
        }
    }
}

/// As it stands.
#[cfg(feature = "endpoint")]
impl serde::Serialize for Raw<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let raw: &serde_json::value::RawValue = serde_json::from_str(self.text).map_err(serde::ser::Error::custom)?;
        raw.serialize(serializer)
    }
}

/// Members in their order. As many as nearly all tokens have cost no allocation.
pub(super) type List<'a> = SmallVec<[Member<'a>; 16]>;

pub(super) struct Member<'a> {
    fingerprint: u32,
    pub(super) name: Cow<'a, str>,
    pub(super) value: Raw<'a>,
}

/// The value of this name.
#[inline]
pub(super) fn find<'a>(members: &[Member<'a>], name: &str) -> Option<Raw<'a>> {
    let fingerprint = fingerprint(name);
    let found = members.iter().find(|member| member.fingerprint == fingerprint && member.name == name);
    found.map(|member| member.value)
}

/// More members than any honest token has: bounds the work that a stranger can cause.
const MAX_MEMBERS: usize = 256;
/// How deep values may be nested.
const MAX_DEPTH: u32 = 100;

/// Adds the members of the object that `json` is to none; none stands there twice.
pub(super) fn read<'a>(json: &'a str, members: &mut List<'a>) -> Result<(), Malformed> {
    let mut scanner = Scanner { json, at: 0 };
    let mut seen = 0_u64;
    scanner.skip_space();
    scanner.object(&mut |scanner| {
        let name = scanner.string()?.string().ok_or(Malformed)??;
        scanner.colon()?;
        let start = scanner.at;
        let kind = scanner.value(MAX_DEPTH)?;
        let value = Raw { text: json.get(start..scanner.at).ok_or(Malformed)?, kind };
        // Most names differ in their fingerprints.
        let fingerprint = fingerprint(&name);
        let bit = 1 << (fingerprint & 63);
        if seen & bit != 0 && find(members, &name).is_some() {
            return Err(Malformed);
        }
        seen |= bit;
        if members.len() == MAX_MEMBERS {
            return Err(Malformed);
        }
        members.push(Member { fingerprint, name, value });
        Ok(())
    })?;
    scanner.skip_space();
    if scanner.at == json.len() { Ok(()) } else { Err(Malformed) }
}

/// Of its length and its ends.
#[inline]
fn fingerprint(name: &str) -> u32 {
    let bytes = name.as_bytes();
    let (first, last) = (bytes.first().copied().unwrap_or(0), bytes.last().copied().unwrap_or(0));
    u32::from(first) ^ u32::from(last).wrapping_mul(5) ^ (bytes.len() as u32).wrapping_mul(11)
}

struct Scanner<'a> {
    json: &'a str,
    at: usize,
}

impl<'a> Scanner<'a> {
    #[inline]
    fn peek(&self) -> Option<u8> {
        self.json.as_bytes().get(self.at).copied()
    }

    #[inline]
    fn take(&mut self, byte: u8) -> bool {
        let there = self.peek() == Some(byte);
        self.at += usize::from(there);
        there
    }

    #[inline]
    fn skip_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn colon(&mut self) -> Result<(), Malformed> {
        self.skip_space();
        if !self.take(b':') {
            return Err(Malformed);
        }
        self.skip_space();
        Ok(())
    }

    /// An object; `member` reads one member, up to the end of its value.
    #[inline]
    fn object(&mut self, member: &mut dyn FnMut(&mut Self) -> Result<(), Malformed>) -> Result<(), Malformed> {
        self.sequence(b'{', b'}', member)
    }

    #[inline]
    fn sequence(
        &mut self,
        open: u8,
        close: u8,
        item: &mut dyn FnMut(&mut Self) -> Result<(), Malformed>,
    ) -> Result<(), Malformed> {
        if !self.take(open) {
            return Err(Malformed);
        }
        self.skip_space();
        if self.take(close) {
            return Ok(());
        }
        loop {
            item(self)?;
            self.skip_space();
            if self.take(close) {
                return Ok(());
            }
            if !self.take(b',') {
                return Err(Malformed);
            }
            self.skip_space();
        }
    }

    /// Any value, with this many levels left.
    fn value(&mut self, depth: u32) -> Result<Kind, Malformed> {
        match self.peek() {
            Some(b'"') => return self.string().map(|string| string.kind),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b'{' | b'[') if depth == 0 => Err(Malformed),
            Some(b'{') => self.object(&mut |scanner| {
                scanner.string()?;
                scanner.colon()?;
                scanner.value(depth - 1).map(drop)
            }),
            Some(b'[') => self.sequence(b'[', b']', &mut |scanner| scanner.value(depth - 1).map(drop)),
            Some(b't') => self.literal("true"),
            Some(b'f') => self.literal("false"),
            Some(b'n') => self.literal("null"),
            _ => Err(Malformed),
        }?;
        Ok(Kind::Other)
    }

    fn literal(&mut self, literal: &str) -> Result<(), Malformed> {
        if !self.json.as_bytes().get(self.at..).is_some_and(|rest| rest.starts_with(literal.as_bytes())) {
            return Err(Malformed);
        }
        self.at += literal.len();
        Ok(())
    }

    fn number(&mut self) -> Result<(), Malformed> {
        self.take(b'-');
        // No zero in front of other digits.
        if !self.take(b'0') {
            self.digits()?;
        }
        if self.take(b'.') {
            self.digits()?;
        }
        if self.take(b'e') || self.take(b'E') {
            let _ = self.take(b'+') || self.take(b'-');
            self.digits()?;
        }
        Ok(())
    }

    fn digits(&mut self) -> Result<(), Malformed> {
        let start = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        if self.at > start { Ok(()) } else { Err(Malformed) }
    }

    /// A string with its quotes.
    #[inline]
    fn string(&mut self) -> Result<Raw<'a>, Malformed> {
        let (start, bytes) = (self.at, self.json.as_bytes());
        if !self.take(b'"') {
            return Err(Malformed);
        }
        self.at += plain_length(bytes.get(self.at..).unwrap_or_default());
        let kind = if self.take(b'"') { Kind::Plain } else { self.escaped_string()? };
        Ok(Raw { text: self.json.get(start..self.at).ok_or(Malformed)?, kind })
    }

    /// The rest of a string, from its first escape on.
    #[cold]
    fn escaped_string(&mut self) -> Result<Kind, Malformed> {
        loop {
            match self.peek() {
                Some(b'"') => break,
                Some(b'\\') => self.escape()?,
                // The end, or a control character.
                _ => return Err(Malformed),
            }
            self.at += plain_length(self.json.as_bytes().get(self.at..).unwrap_or_default());
        }
        self.at += 1;
        Ok(Kind::Escaped)
    }

    fn escape(&mut self) -> Result<(), Malformed> {
        let rest = self.json.as_bytes().get(self.at + 1..).unwrap_or_default();
        let length = match rest {
            [b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't', ..] => 2,
            [b'u', rest @ ..] if rest.len() >= 4 && rest.iter().take(4).all(u8::is_ascii_hexdigit) => 6,
            _ => return Err(Malformed),
        };
        self.at += length;
        Ok(())
    }
}

/// How many bytes stand in front of the first quote, backslash or control character. Eight are looked at together.
#[inline]
fn plain_length(bytes: &[u8]) -> usize {
    const ONES: u64 = u64::MAX / 255;
    const HIGHS: u64 = ONES << 7;
    // A high bit for each byte below `limit`, right up to the first.
    let below = |word: u64, limit: u64| word.wrapping_sub(ONES * limit) & !word & HIGHS;
    let equal = |word: u64, byte: u8| below(word ^ (ONES * u64::from(byte)), 1);
    let (words, rest) = bytes.as_chunks::<8>();
    for (n, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let ends = equal(word, b'"') | equal(word, b'\\') | below(word, 0x20);
        if ends != 0 {
            return n * 8 + ends.trailing_zeros() as usize / 8;
        }
    }
    let ends = |byte: &u8| matches!(byte, b'"' | b'\\' | 0..0x20);
    bytes.len() - rest.len() + rest.iter().position(ends).unwrap_or(rest.len())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use serde_json::value::RawValue;

    use super::*;

    fn members(json: &str) -> Result<List<'_>, Malformed> {
        let mut members = List::new();
        read(json, &mut members).map(|()| members)
    }

    fn ours(json: &str) -> Option<BTreeMap<String, String>> {
        let members = members(json).ok()?;
        Some(members.iter().map(|member| (member.name.to_string(), member.value.get().to_owned())).collect())
    }

    /// What serde_json reads, where no name stands there twice.
    fn serde(json: &str) -> Option<BTreeMap<String, String>> {
        struct Pairs(Vec<(String, Box<RawValue>)>);
        impl<'de> serde::Deserialize<'de> for Pairs {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Visitor;
                impl<'de> serde::de::Visitor<'de> for Visitor {
                    type Value = Pairs;
                    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                        f.write_str("an object")
                    }
                    fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Pairs, A::Error> {
                        let mut pairs = Vec::new();
                        while let Some(pair) = map.next_entry()? {
                            pairs.push(pair);
                        }
                        Ok(Pairs(pairs))
                    }
                }
                deserializer.deserialize_map(Visitor)
            }
        }
        let Pairs(pairs) = serde_json::from_str(json).ok()?;
        let count = pairs.len();
        let map: BTreeMap<_, _> = pairs.into_iter().map(|(name, value)| (name, value.get().to_owned())).collect();
        (map.len() == count).then_some(map)
    }

    /// Texts that are nearly JSON.
    fn nearly_json() -> impl Strategy<Value = String> {
        let piece = prop_oneof![
            4 => Just("\"".to_owned()),
            2 => Just("{".to_owned()),
            2 => Just("}".to_owned()),
            1 => Just("[".to_owned()),
            1 => Just("]".to_owned()),
            3 => Just(":".to_owned()),
            3 => Just(",".to_owned()),
            2 => prop_oneof!["-?[0-9]{1,3}(\\.[0-9]{1,2})?([eE][+-]?[0-9])?", "[-+.0-9eE]{1,4}"],
            1 => prop_oneof![Just("true"), Just("false"), Just("null"), Just("nul")].prop_map(str::to_owned),
            1 => prop_oneof![Just("\\u0061"), Just("\\n"), Just("\\\""), Just("\\x"), Just("\\ud800"), Just("\\u12")]
                .prop_map(str::to_owned),
            1 => prop_oneof![Just(" "), Just("\t"), Just("\n"), Just("\r"), Just("\u{b}"), Just("\u{0}"), Just("\u{7f}")]
                .prop_map(str::to_owned),
            2 => "[a-c\u{e9}\u{1f600}]{0,12}",
        ];
        proptest::collection::vec(piece, 0..14).prop_map(|pieces| pieces.concat())
    }

    /// Real JSON, spelled in different ways, and perhaps with one byte changed.
    fn json_but_for_a_byte() -> impl Strategy<Value = String> {
        let leaf = prop_oneof![
            any::<bool>().prop_map(serde_json::Value::from),
            any::<i64>().prop_map(serde_json::Value::from),
            any::<f64>().prop_map(serde_json::Value::from),
            "[ -~\u{0}-\u{1f}\u{e9}\u{1f600}\"\\\\]{0,20}".prop_map(serde_json::Value::from),
            Just(serde_json::Value::Null),
        ];
        let value = leaf.prop_recursive(4, 32, 6, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..6).prop_map(serde_json::Value::from),
                proptest::collection::btree_map("[a-z\"\\\\\n]{0,10}", inner, 0..6)
                    .prop_map(serde_json::Value::from_iter),
            ]
        });
        let object =
            proptest::collection::btree_map("[a-z\"]{0,9}", value, 0..12).prop_map(serde_json::Value::from_iter);
        let changed = proptest::option::of((any::<prop::sample::Index>(), 0_u8..0x80));
        (object, any::<bool>(), changed).prop_map(|(object, pretty, changed)| {
            let text = if pretty { serde_json::to_string_pretty(&object) } else { serde_json::to_string(&object) };
            let mut bytes = text.unwrap().into_bytes();
            if let Some((index, byte)) = changed {
                let at = index.index(bytes.len());
                bytes[at] = byte;
            }
            String::from_utf8_lossy(&bytes).into_owned()
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn strict_reads_what_serde_json_reads(json in prop_oneof![nearly_json(), json_but_for_a_byte()]) {
            prop_assert_eq!(ours(&json), serde(&json), "{}", json);
        }

        #[test]
        fn nearly_objects(inside in nearly_json()) {
            let json = format!("{{\"a\":{inside}}}");
            prop_assert_eq!(ours(&json), serde(&json), "{}", json);
        }

        #[test]
        fn the_first_that_ends_a_string_is_found(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let ends = |byte: &u8| *byte == b'"' || *byte == b'\\' || *byte < 0x20;
            prop_assert_eq!(plain_length(&bytes), bytes.iter().position(ends).unwrap_or(bytes.len()));
        }
    }

    #[test]
    fn depth_and_width_have_an_end() {
        let nested = |depth: usize| format!("{{\"a\":{}1{}}}", "[".repeat(depth), "]".repeat(depth));
        assert!(members(&nested(MAX_DEPTH as usize)).is_ok());
        assert!(members(&nested(MAX_DEPTH as usize + 1)).is_err());
        assert!(members(&nested(100_000)).is_err());
        let wide =
            |count: usize| format!("{{{}}}", (0..count).map(|n| format!("\"{n}\":0")).collect::<Vec<_>>().join(","));
        assert_eq!(members(&wide(MAX_MEMBERS)).map(|list| list.len()), Ok(MAX_MEMBERS));
        assert!(members(&wide(MAX_MEMBERS + 1)).is_err());
    }

    /// Also where two names have one fingerprint, and where one is spelled with escapes.
    #[test]
    fn a_name_that_stands_there_twice() {
        let same = (b'a'..=b'z').flat_map(|a| (b'a'..=b'z').map(move |b| format!("x{}{}y", a as char, b as char)));
        let names: Vec<_> = same.take(200).collect();
        assert!(names.iter().all(|name| fingerprint(name) == fingerprint(&names[0])));
        let object = |names: &[String]| {
            format!("{{{}}}", names.iter().map(|name| format!("\"{name}\":0")).collect::<Vec<_>>().join(","))
        };
        assert!(members(&object(&names)).is_ok());
        for twice in [0, 63, 199] {
            let mut names = names.clone();
            names.push(names[twice].clone());
            assert!(members(&object(&names)).is_err(), "{twice}");
        }
        assert!(members(r#"{"ab":0,"\u0061b":0}"#).is_err());
    }
}
