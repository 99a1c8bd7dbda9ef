//! What a revocation is to be about.

use std::{
    io::Read as _,
    path::{Path, PathBuf},
};

use clap::Args;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::exit::Failure;

/// The options that name a scope.
pub(super) const NAMES: [&str; 7] = ["token", "token_file", "jti", "session", "subject", "client", "issuer"];

/// A scope. A session or a user together with a client: that client's part of it.
#[derive(Debug, Args)]
#[group(required = false, multiple = true)]
pub(super) struct Selection {
    /// This token; `-`: the first line of standard input, which leaves no trace in the shell's history.
    #[arg(long, conflicts_with_all = ["token_file", "jti", "session", "subject", "client", "issuer"])]
    token: Option<String>,
    /// The token in this file.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["jti", "session", "subject", "client", "issuer"])]
    token_file: Option<PathBuf>,
    /// The token with this `jti`.
    #[arg(long, conflicts_with_all = ["session", "subject", "client"])]
    jti: Option<String>,
    /// The session with this `sid`.
    #[arg(long, value_name = "SID", conflicts_with = "subject")]
    session: Option<String>,
    /// All tokens of the user with this `sub` that were issued until now.
    #[arg(long, value_name = "SUB")]
    subject: Option<String>,
    /// All tokens of the client with this id that were issued until now.
    #[arg(long, value_name = "CLIENT_ID")]
    client: Option<String>,
    /// Whose tokens (`iss`); may be left out where there is one issuer only. Alone: all tokens that it has issued.
    #[arg(long, value_name = "ISS")]
    issuer: Option<String>,
}

impl Selection {
    /// As the API takes it: `scope` or `token`.
    pub(super) fn read(self) -> Result<Value, Failure> {
        let Self { token, token_file, jti, session, subject, client, issuer } = self;
        if let Some(token) = token_in(token, token_file.as_deref())? {
            return Ok(json!({ "token": token.as_str() }));
        }
        let kind = match (&jti, &session, &subject, &client, &issuer) {
            (Some(_), None, None, None, _) => "token",
            (None, Some(_), None, None, _) => "session",
            (None, Some(_), None, Some(_), _) => "client_session",
            (None, None, Some(_), None, _) => "subject",
            (None, None, Some(_), Some(_), _) => "subject_client",
            (None, None, None, Some(_), _) => "client",
            (None, None, None, None, Some(_)) => "issuer",
            _ => {
                let what = "say what: --token, --token-file, --jti, --session, --subject, --client or --issuer";
                return Err(Failure::usage(what));
            }
        };
        let mut scope = json!({ "kind": kind });
        let values = [("jti", jti), ("sid", session), ("sub", subject), ("client_id", client), ("iss", issuer)];
        for (name, value) in values {
            match value {
                // A variable of a script that is not set must not widen anything.
                Some(value) if value.is_empty() => return Err(Failure::usage(format!("the {name} is empty"))),
                Some(value) => scope[name] = value.into(),
                None => {}
            }
        }
        Ok(json!({ "scope": scope }))
    }
}

/// The most that a token may be.
const MOST: usize = 16 * 1024;

/// The token that was given, in whichever way.
pub(super) fn token_in(token: Option<String>, file: Option<&Path>) -> Result<Option<Zeroizing<String>>, Failure> {
    let mut text = Zeroizing::new(String::new());
    let read = match (token, file) {
        (Some(token), None) if token == "-" => std::io::stdin().take(MOST as u64 + 1).read_to_string(&mut text),
        (Some(token), None) => {
            text = Zeroizing::new(token);
            Ok(text.len())
        }
        (None, Some(path)) => {
            std::fs::File::open(path).and_then(|file| file.take(MOST as u64 + 1).read_to_string(&mut text))
        }
        _ => return Ok(None),
    };
    read.map_err(|error| Failure::usage(format!("the token cannot be read: {error}")))?;
    let token = Zeroizing::new(text.lines().next().unwrap_or_default().trim().to_owned());
    // A part of it would be another token.
    if token.len() > MOST {
        return Err(Failure::usage(format!("the token is longer than {MOST} bytes")));
    }
    if token.is_empty() { Err(Failure::usage("the token is empty")) } else { Ok(Some(token)) }
}
