//! Reads the file and the environment, and says of each mistake where it is.

use std::{fmt, fs, io, path::Path};

use serde::de::IntoDeserializer as _;
use serde_path_to_error::Segment;
use toml::de::{DeTable, DeValue};

use super::Config;

/// Environment variables that start with this override keys: `REVOKED__STALENESS__AFTER`.
const PREFIX: &str = "REVOKED__";

/// What is wrong with a key: `issuer[0].algorithms` and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The key.
    pub key: String,
    /// What is wrong, and what to do.
    pub what: String,
}

impl Fault {
    /// `key` cannot be used as it is.
    pub fn new(key: impl Into<String>, what: impl fmt::Display) -> Self {
        Self { key: key.into(), what: what.to_string() }
    }
}

/// A configuration that cannot be used.
#[derive(Debug)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read.
    File {
        /// The file.
        file: String,
        /// Why.
        source: io::Error,
    },
    /// Something in it is wrong.
    Faults {
        /// The file.
        file: String,
        /// What, with the line where there is one.
        faults: Vec<(Option<usize>, Fault)>,
    },
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { file, source } => write!(f, "{file}: cannot be read: {source}"),
            Self::Faults { file, faults } => {
                for (number, (line, Fault { key, what })) in faults.iter().enumerate() {
                    if number > 0 {
                        f.write_str("\n")?;
                    }
                    match line {
                        Some(line) => write!(f, "{file}:{line}: ")?,
                        None => write!(f, "{file}: ")?,
                    }
                    if !key.is_empty() {
                        write!(f, "{key}: ")?;
                    }
                    f.write_str(what)?;
                }
                Ok(())
            }
        }
    }
}

impl std::error::Error for ConfigError {}

/// The configuration in a file, with what the environment overrides.
///
/// # Errors
///
/// Where the file cannot be read, or a key in it cannot be used.
pub fn load(path: &Path) -> Result<Config, ConfigError> {
    let file = path.display().to_string();
    let text = fs::read_to_string(path).map_err(|source| ConfigError::File { file: file.clone(), source })?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let folder = std::path::absolute(folder).map_err(|source| ConfigError::File { file: file.clone(), source })?;
    let mut config = environment().and_then(|set| parse(&text, set)).map_err(|faults| locate(&file, &text, faults))?;
    config.folder = folder;
    Ok(config)
}

/// The variables that override keys. What else is set, in whichever encoding, is others' business.
fn environment() -> Result<Vec<(String, String)>, Vec<Fault>> {
    let named = std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value)));
    let ours = named.filter(|(name, _)| name.starts_with(PREFIX));
    ours.map(|(name, value)| match value.into_string() {
        Ok(value) => Ok((name, value)),
        Err(_) => Err(vec![Fault::new(name, "is no UTF-8")]),
    })
    .collect()
}

/// A fault that showed later, with its line in `file` as that is now.
pub fn at(file: &Path, fault: Fault) -> ConfigError {
    let text = fs::read_to_string(file).unwrap_or_default();
    locate(&file.display().to_string(), &text, vec![fault])
}

/// `faults` with their lines in `text`.
fn locate(file: &str, text: &str, faults: Vec<Fault>) -> ConfigError {
    let table = DeTable::parse(text).ok();
    let line = |fault: &Fault| line_of(text, table.as_ref()?.get_ref(), &fault.key);
    let faults = faults.into_iter().map(|fault| (fault.line_in_message(text).or_else(|| line(&fault)), fault.bare()));
    ConfigError::Faults { file: file.to_owned(), faults: faults.collect() }
}

/// What `text` says, with what `environment` overrides.
///
/// # Errors
///
/// Every key that is unknown, or else the first whose value cannot be used.
pub fn parse(text: &str, environment: impl IntoIterator<Item = (String, String)>) -> Result<Config, Vec<Fault>> {
    let table: toml::Table = toml::from_str(text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start);
        vec![Fault { key: String::new(), what: format!("{AT}{at}:{}", error.message()) }]
    })?;
    let overrides = environment
        .into_iter()
        .filter_map(|(name, value)| Some((name.strip_prefix(PREFIX)?.to_owned(), value)))
        .filter(|(name, _)| !name.is_empty());
    let mut table = toml::Value::Table(table);
    // All of them as text at first: a section may need several.
    let mut as_text = Vec::new();
    for (name, value) in overrides {
        let keys: Vec<String> = name.split("__").map(str::to_ascii_lowercase).collect();
        table = with(&table, &keys, toml::Value::String(value.clone()))
            .ok_or_else(|| vec![Fault::new(format!("{PREFIX}{name}"), "names a place that the file does not have")])?;
        as_text.push((name, keys, value));
    }
    // A value is what its key takes: text, or else what it would be in the file.
    loop {
        let faults = match read(&table) {
            Ok(config) => return Ok(config),
            Err(faults) => faults,
        };
        let path = |keys: &[String]| key(&keys.iter().map(|key| Part::from(key.as_str())).collect::<Vec<_>>());
        let concerns = |keys: &[String], Fault { key, what }: &Fault| {
            let path = path(keys);
            let within = path.starts_with(&format!("{key}."));
            key.starts_with(&path) || within && !what.starts_with("missing field")
        };
        let found = |(_, keys, _): &(String, Vec<String>, String)| faults.iter().find(|fault| concerns(keys, fault));
        let Some((index, fault)) = as_text.iter().enumerate().find_map(|(at, one)| Some((at, found(one)?))) else {
            return Err(faults);
        };
        let (name, keys, value) = as_text.swap_remove(index);
        let refused = || vec![Fault::new(format!("{PREFIX}{name}"), &fault.what)];
        let parsed = toml::from_str::<toml::Table>(&format!("value = {value}")).ok();
        let parsed = parsed.and_then(|mut parsed| parsed.remove("value")).ok_or_else(refused)?;
        table = with(&table, &keys, parsed).ok_or_else(refused)?;
        if read(&table).is_err_and(|faults| faults.iter().any(|fault| concerns(&keys, fault))) {
            return Err(refused());
        }
    }
}

/// `table` with `value` at `keys`.
fn with(table: &toml::Value, keys: &[String], value: toml::Value) -> Option<toml::Value> {
    let mut changed = table.clone();
    let mut place = &mut changed;
    for key in keys {
        place = match place {
            toml::Value::Array(items) => items.get_mut(key.parse::<usize>().ok()?)?,
            toml::Value::Table(table) => {
                table.entry(key.clone()).or_insert_with(|| toml::Value::Table(toml::Table::new()))
            }
            _ => return None,
        };
    }
    *place = value;
    Some(changed)
}

fn read(table: &toml::Value) -> Result<Config, Vec<Fault>> {
    let mut unknown = Vec::new();
    let mut track = serde_path_to_error::Track::new();
    let tracked = serde_path_to_error::Deserializer::new(table.clone().into_deserializer(), &mut track);
    let config = serde_ignored::deserialize(tracked, |path| {
        let parts = path.to_string();
        unknown.push(Fault::new(key(&parts.split('.').map(Part::from).collect::<Vec<_>>()), "unknown key"));
    });
    if !unknown.is_empty() {
        return Err(unknown);
    }
    config.map_err(|error: toml::de::Error| {
        let path = track.path();
        let parts: Vec<_> = path
            .iter()
            .filter_map(|segment| match segment {
                Segment::Seq { index } => Some(Part::Index(*index)),
                Segment::Map { key } => Some(Part::Key(key)),
                _ => None,
            })
            .collect();
        let key = key(&parts);
        // The message quotes the value; where a section should be, that may be a secret too.
        let secret = ["secret", "url"].iter().any(|name| key.ends_with(name));
        let quoted = error.message().starts_with("invalid type: string ");
        vec![Fault::new(key, if secret || quoted { "not of the right type" } else { error.message() })]
    })
}

/// One step of a key's path.
enum Part<'a> {
    Key(&'a str),
    Index(usize),
}

impl<'a> From<&'a str> for Part<'a> {
    fn from(text: &'a str) -> Self {
        text.parse().map_or(Self::Key(text), Self::Index)
    }
}

/// The path as people write it: `issuer[0].algorithms`.
fn key(parts: &[Part<'_>]) -> String {
    let mut key = String::new();
    for part in parts {
        match part {
            Part::Index(index) => key.extend(["[", &index.to_string(), "]"]),
            // What wraps an optional section.
            Part::Key("?") => {}
            Part::Key(name) if key.is_empty() => key.push_str(name),
            Part::Key(name) => key.extend([".", name]),
        }
    }
    key
}

/// Marks a byte offset at the start of a message of the TOML parser.
const AT: &str = "\u{0}at ";

impl Fault {
    fn line_in_message(&self, text: &str) -> Option<usize> {
        let (at, _) = self.what.strip_prefix(AT)?.split_once(':')?;
        Some(line_at(text, at.parse().ok()?))
    }

    fn bare(mut self) -> Self {
        if let Some((_, what)) = self.what.strip_prefix(AT).and_then(|what| what.split_once(':')) {
            self.what = what.to_owned();
        }
        self
    }
}

/// The line of a key, or of what should hold it.
fn line_of(text: &str, table: &DeTable<'_>, key: &str) -> Option<usize> {
    let mut at = None;
    let mut table = table;
    let mut parts = key.split('.').peekable();
    while let Some(part) = parts.next() {
        let (name, index) = match part.split_once('[') {
            Some((name, index)) => (name, index.trim_end_matches(']').parse::<usize>().ok()),
            None => (part, None),
        };
        let Some((spanned, value)) = table.iter().find(|(key, _)| key.get_ref().as_ref() == name) else { break };
        at = Some(spanned.span().start);
        let value = match (value.get_ref(), index) {
            (DeValue::Array(items), Some(index)) => {
                let Some(item) = items.get(index) else { break };
                at = Some(item.span().start);
                item.get_ref()
            }
            (value, _) => value,
        };
        match value {
            DeValue::Table(inner) if parts.peek().is_some() => table = inner,
            _ => break,
        }
    }
    at.map(|at| line_at(text, at))
}

fn line_at(text: &str, at: usize) -> usize {
    text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "[staleness]\nafter = \"10s\"\nthen = \"refuse\"\n\n[[issuer]]\nissuer = \"https://a\"\nalgorithms = [\"RS256\"]\n";

    fn said(text: &str, environment: &[(&str, &str)]) -> String {
        let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        parse(text, environment)
            .map_or_else(|faults| locate("f.toml", text, faults).to_string(), |config| format!("{config:?}"))
    }

    #[test]
    fn mistakes_are_named_with_line_and_key() {
        for (text, expected) in [
            (format!("{FILE}algoritms = 1\n"), "f.toml:8: issuer[0].algoritms: unknown key"),
            (format!("lisen = \"x\"\n{FILE}"), "f.toml:1: lisen: unknown key"),
            (
                format!("{FILE}[tokens]\nleeway = \"ten\"\n"),
                "f.toml:9: tokens.leeway: \"ten\" is no duration; write it like \"10s\" or \"24h\"",
            ),
            (
                format!("{FILE}[tokens]\nno_token = \"maybe\"\n"),
                "f.toml:9: tokens.no_token: unknown variant `maybe`, expected `pass` or `deny`",
            ),
            (format!("{FILE}[admin]\nlisten = \"here\"\n"), "f.toml:9: admin.listen: invalid socket address syntax"),
            ("x = \n".to_owned(), "f.toml:1: "),
            (format!("{FILE}[[client]]\nsecret = \"x\"\n"), "f.toml:8: client[0]: missing field `id`"),
            (
                format!("{FILE}[[client]]\nid = \"a\"\nsecret = 12345\n"),
                "f.toml:10: client[0].secret: not of the right type",
            ),
            (format!("backend = \"redis://:12345@h\"\n{FILE}"), "f.toml:1: backend: not of the right type"),
            (format!("client = [\"12345\"]\n{FILE}"), "f.toml:1: client[0]: not of the right type"),
            ("[staleness]\nafter = \"1s\"\n".to_owned(), "f.toml:1: staleness: missing field `then`"),
            (String::new(), "f.toml: missing field `staleness`"),
        ] {
            let said = said(&text, &[]);
            assert!(said.starts_with(expected), "{text}\n{said}\n{expected}");
            assert!(!said.contains("12345"), "{said}");
        }
    }

    #[test]
    fn every_unknown_key_is_named() {
        let said = said(&format!("{FILE}[endpoints.token]\nenabld = true\nmod = 1\n"), &[]);
        assert_eq!(said, "f.toml:9: endpoints.token.enabld: unknown key\nf.toml:10: endpoints.token.mod: unknown key");
    }

    #[test]
    fn the_environment_overrides() {
        let config = |environment: &[(&str, &str)]| {
            parse(FILE, environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))).unwrap()
        };
        assert_eq!(config(&[("REVOKED__STALENESS__AFTER", "3s")]).staleness.after, Span::secs(3));
        assert_eq!(config(&[("REVOKED__BACKEND__NODE", "7")]).backend.node.unwrap(), "7");
        assert_eq!(config(&[("REVOKED__MAX_CONNECTIONS", "7")]).max_connections, 7);
        assert_eq!(config(&[("REVOKED__ISSUER__0__ISSUER", "https://b")]).issuer[0].issuer, "https://b");
        assert_eq!(config(&[("REVOKED__TOKENS__SOURCES", "[\"dpop\"]")]).tokens.sources, ["dpop"]);
        // A section that needs several keys may come from here alone, in any order.
        let rest = FILE.strip_prefix("[staleness]\nafter = \"10s\"\nthen = \"refuse\"\n").unwrap();
        let all = [("STALENESS__AFTER", "3s"), ("MAX_CONNECTIONS", "7"), ("STALENESS__THEN", "serve")];
        let [a, b, c] = all.map(|(name, value)| (format!("{PREFIX}{name}"), value.to_owned()));
        for environment in [[&a, &b, &c], [&c, &b, &a], [&b, &a, &c]] {
            let config = parse(rest, environment.map(Clone::clone)).unwrap();
            assert_eq!((config.staleness.after, config.max_connections), (Span::secs(3), 7));
        }
        assert_eq!(said(FILE, &[("REVOKED__STALENES__AFTER", "3s")]), "f.toml: REVOKED__STALENES__AFTER: unknown key");
        let wrong = said(FILE, &[("REVOKED__STALENESS__AFTER", "soon")]);
        assert!(wrong.starts_with("f.toml: REVOKED__STALENESS__AFTER: \"soon\" is no duration"), "{wrong}");
    }

    use crate::config::Span;
}
