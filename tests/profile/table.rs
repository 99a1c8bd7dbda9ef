//! Tables of requests, and what must come of each. Every row runs, and the test ends with all that failed, by name.

use serde_json::Value;

use super::site::{Ask, Login, Site};
use crate::common::Answer;

/// What a request is answered.
#[derive(Clone, Copy)]
pub struct Expect<'a> {
    status: u16,
    body: Body<'a>,
    challenge: Option<&'a str>,
}

#[derive(Clone, Copy)]
enum Body<'a> {
    /// JSON with this `error`, and a description.
    Error(&'a str),
    /// To the byte: an error of this layer, or nothing.
    Exactly(&'a str),
    /// What the service behind says.
    Behind,
}

/// 200 without a body.
pub const OK: Expect<'_> = Expect { status: 200, body: Body::Exactly(""), challenge: None };
/// 204.
pub const DONE: Expect<'_> = Expect { status: 204, body: Body::Exactly(""), challenge: None };
/// The service behind is asked.
pub const BEHIND: Expect<'_> = Expect { status: 200, body: Body::Behind, challenge: None };

/// An error as RFC 6749 §5.2 has it.
pub const fn error(status: u16, error: &str) -> Expect<'_> {
    Expect { status, body: Body::Error(error), challenge: None }
}

impl<'a> Expect<'a> {
    pub const fn challenge(self, challenge: &'a str) -> Self {
        Self { challenge: Some(challenge), ..self }
    }

    pub const fn exactly(status: u16, body: &'a str) -> Self {
        Self { status, body: Body::Exactly(body), challenge: None }
    }
}

/// What a request does.
#[derive(Clone, Copy)]
pub enum Effect<'a> {
    /// The API refuses the access token, the token endpoint the refresh token.
    Dead(&'a Login),
    /// Both are as good as ever.
    Alive(&'a Login),
    /// The access token is as good as ever.
    Valid(&'a Login),
    /// Not a thing is recorded.
    Nothing,
    /// Nobody is looked up.
    Unasked,
}

use Effect::{Alive, Dead, Nothing, Unasked, Valid};

#[must_use = "`end` tells what failed"]
#[derive(Default)]
pub struct Table {
    rows: usize,
    failures: Vec<String>,
}

impl Table {
    pub fn new() -> Self {
        Self::default()
    }

    pub async fn row(&mut self, site: &Site, name: &str, ask: Ask, expect: Expect<'_>, effects: &[Effect<'_>]) {
        site.in_step().await;
        let (records, asked) = (site.records(), site.asked());
        let answer = site.send(&ask).await;
        let mut failed = mismatches(&answer, expect);
        let silent = asked == site.asked();
        for effect in effects {
            failed.extend(match effect {
                Dead(login) => dead(site, login).await,
                Alive(login) => alive(site, login).await,
                Valid(login) => {
                    let status = site.api(&login.access).await.status;
                    (status != 200).then(|| format!("the access token: {status}"))
                }
                Nothing => (records != site.records()).then(|| "something was recorded".to_owned()),
                Unasked => (!silent).then(|| "somebody was looked up".to_owned()),
            });
        }
        self.check(name, failed.is_empty(), &failed.join("; "));
    }

    /// A row that is no single request.
    pub fn check(&mut self, name: &str, holds: bool, otherwise: &str) {
        self.rows += 1;
        if !holds {
            self.failures.push(format!("{name}: {otherwise}"));
        }
    }

    #[track_caller]
    pub fn end(self) {
        let failed = self.failures.len();
        assert!(failed == 0, "{failed} of {} rows failed:\n{}", self.rows, self.failures.join("\n"));
    }
}

fn mismatches(answer: &Answer, expect: Expect<'_>) -> Vec<String> {
    let mut failed = Vec::new();
    let mut must = |holds: bool, what: String| {
        if !holds {
            failed.push(what);
        }
    };
    let header = |name: &str| answer.header(name);
    must(answer.status == expect.status, format!("{}, not {}: {}", answer.status, expect.status, answer.body));
    match expect.body {
        Body::Behind => {
            return {
                must(answer.body == "inner", format!("not from behind: {}", answer.body));
                failed
            };
        }
        Body::Exactly(body) => must(answer.body == body, format!("body {:?}", answer.body)),
        Body::Error(error) => {
            let json: Value = serde_json::from_str(&answer.body).unwrap_or_default();
            must(json["error"] == error, format!("not {error}: {}", answer.body));
            must(json["error_description"].is_string(), format!("no description: {}", answer.body));
        }
    }
    let json = (!answer.body.is_empty()).then_some("application/json");
    must(header("content-type") == json, format!("content-type {:?}", header("content-type")));
    // §6, §26.8: on every answer of every endpoint.
    must(header("cache-control") == Some("no-store"), format!("cache-control {:?}", header("cache-control")));
    must(header("pragma") == Some("no-cache"), format!("pragma {:?}", header("pragma")));
    let challenge = header("www-authenticate");
    must(challenge == expect.challenge, format!("challenge {challenge:?}, not {:?}", expect.challenge));
    let later = matches!(expect.status, 422 | 429 | 503);
    must(header("retry-after").is_some() == later, format!("retry-after {:?}", header("retry-after")));
    must(header("allow") == (expect.status == 405).then_some("POST"), format!("allow {:?}", header("allow")));
    failed
}

async fn dead(site: &Site, login: &Login) -> Option<String> {
    let answer = site.api(&login.access).await;
    let challenge = answer.header("www-authenticate").unwrap_or_default();
    if answer.status != 401 || !challenge.contains("error=\"invalid_token\"") {
        return Some(format!("the access token lives: {} {challenge}", answer.status));
    }
    if login.refresh.is_empty() {
        return None;
    }
    let answer = site.refresh(login).await;
    let refused = answer.status == 400 && answer.body.contains("\"invalid_grant\"");
    (!refused).then(|| format!("the refresh token lives: {} {}", answer.status, answer.body))
}

async fn alive(site: &Site, login: &Login) -> Option<String> {
    let answer = site.api(&login.access).await;
    if answer.status != 200 {
        return Some(format!("the access token is dead: {} {}", answer.status, answer.body));
    }
    if login.refresh.is_empty() || site.uses_up_refresh_tokens() {
        return None;
    }
    let answer = site.refresh(login).await;
    (answer.status != 200).then(|| format!("the refresh token is dead: {} {}", answer.status, answer.body))
}
