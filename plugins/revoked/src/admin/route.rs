//! The list of routes. Answers and the OpenAPI document both come from it.

use http::{Method, StatusCode};

use super::answer::Problem;

/// What a request has to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    /// Nothing: probes ask.
    Nothing,
    /// The token, unless it comes from this machine to a listener that only this machine reaches.
    Read,
    /// The token, wherever it comes from.
    Write,
}

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Call {
    Live,
    Ready,
    Metrics,
    OpenApi,
    Status,
    Nodes,
    Report,
    List,
    Revoke,
    Lift,
    Preview,
    Check,
    Endpoints,
    Switch,
    Watch,
    Feed,
    Denials,
    Export,
    Import,
}

/// A route.
#[derive(Clone, Copy, Debug)]
pub(super) struct Route {
    pub(super) method: &'static str,
    pub(super) path: &'static str,
    pub(super) call: Call,
    pub(super) need: Need,
    pub(super) summary: &'static str,
    /// Names and meanings of its parameters.
    pub(super) query: &'static [(&'static str, &'static str)],
    /// Media type and schema of what it takes.
    pub(super) takes: Option<(&'static str, &'static str)>,
    /// Status, meaning, media type and schema of its own answers.
    pub(super) answers: &'static [Answer],
}

/// An answer of a route.
#[derive(Clone, Copy, Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) what: &'static str,
    pub(super) media: &'static str,
    pub(super) schema: &'static str,
}

const JSON: &str = "application/json";
/// One JSON value a line.
pub(super) const LINES: &str = "application/x-ndjson";
/// Server-sent events (HTML, section 9.2).
pub(super) const EVENTS: &str = "text/event-stream";
/// The text format of Prometheus.
pub(super) const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";

const fn ok(what: &'static str, schema: &'static str) -> Answer {
    Answer { status: 200, what, media: JSON, schema }
}

const fn lines(what: &'static str, schema: &'static str) -> Answer {
    Answer { status: 200, what, media: LINES, schema }
}

const UNAVAILABLE: Answer = Answer {
    status: 503,
    what: "The store does not answer, or takes no more. Nothing was done, or it is not known whether it was.",
    media: JSON,
    schema: "Problem",
};

const GET: Route = Route {
    method: "GET",
    path: "",
    call: Call::Live,
    need: Need::Read,
    summary: "",
    query: &[],
    takes: None,
    answers: &[],
};

const POST: Route = Route { method: "POST", need: Need::Write, ..GET };

/// Every route.
pub(super) const ROUTES: &[Route] = &[
    Route {
        path: "/livez",
        call: Call::Live,
        need: Need::Nothing,
        summary: "Whether the process runs",
        answers: &[ok("It runs.", "Live")],
        ..GET
    },
    Route {
        path: "/readyz",
        call: Call::Ready,
        need: Need::Nothing,
        summary: "Whether this node is loaded, in step with the store, and can record",
        answers: &[
            ok("It is.", "Ready"),
            Answer { status: 503, what: "It is not; `why` says what is missing.", media: JSON, schema: "Ready" },
        ],
        ..GET
    },
    Route {
        path: "/metrics",
        call: Call::Metrics,
        summary: "Metrics in the text format of Prometheus",
        answers: &[Answer { status: 200, what: "The metrics.", media: METRICS, schema: "Text" }],
        ..GET
    },
    Route {
        path: "/api/v1/openapi.json",
        call: Call::OpenApi,
        summary: "This document",
        answers: &[ok("It.", "Object")],
        ..GET
    },
    Route {
        path: "/api/v1/status",
        call: Call::Status,
        summary: "How this node stands",
        answers: &[ok("How it stands.", "Status")],
        ..GET
    },
    Route {
        path: "/api/v1/nodes",
        call: Call::Nodes,
        summary: "The nodes of the fleet that announced themselves lately",
        answers: &[ok("The nodes, by name.", "Nodes")],
        ..GET
    },
    Route {
        path: "/api/v1/report",
        call: Call::Report,
        summary: "Which clients send what is refused, or would be, and tokens without jti, sid or iat",
        answers: &[ok("Since the start of this node, most first.", "Report")],
        ..GET
    },
    Route {
        path: "/api/v1/revocations",
        call: Call::List,
        summary: "The live revocations, newest first",
        query: &[
            ("scope", "Only this kind of scope: token, session, subject, client, issuer, ..."),
            ("iss", "Only this issuer"),
            ("jti", "Only this token"),
            ("sid", "Only this session"),
            ("sub", "Only this user"),
            ("client_id", "Only this client"),
            ("sha256", "Only the token whose signing input has this SHA-256, hexadecimal"),
            ("digest", "Only the opaque token with this digest, as it is listed"),
            ("q", "Only those that hold this text somewhere, whatever its case"),
            ("limit", "How many at most: 1 to 1000; default: 100"),
            ("after", "Go on after this place: `next` of the answer before"),
        ],
        answers: &[ok("A page of them.", "Page"), UNAVAILABLE],
        ..GET
    },
    Route {
        path: "/api/v1/revocations",
        call: Call::Revoke,
        summary: "Revoke a scope, or one token",
        takes: Some((JSON, "Revoke")),
        answers: &[
            ok("It is durable, and enforced here, or on every node where that was asked for.", "Revoked"),
            Answer {
                status: 503,
                what: "It was not recorded; or, with `error` = `not_everywhere`, it was, and `unconfirmed` names the \
                       nodes of which it is not known that they refuse it already.",
                media: JSON,
                schema: "Problem",
            },
        ],
        ..POST
    },
    Route {
        path: "/api/v1/revocations/lift",
        call: Call::Lift,
        summary: "Take back revocations by their ids, or end a ban",
        takes: Some((JSON, "Lift")),
        answers: &[
            ok("They are lifted.", "Lifted"),
            Answer {
                status: 404,
                what: "No scope was given, and no live revocation has one of these ids.",
                media: JSON,
                schema: "Problem",
            },
            UNAVAILABLE,
        ],
        ..POST
    },
    Route {
        path: "/api/v1/revocations/preview",
        call: Call::Preview,
        need: Need::Read,
        summary: "What revoking a scope would record and end, as far as it is known",
        takes: Some((JSON, "Plan")),
        answers: &[ok("What is known.", "Preview"), UNAVAILABLE],
        ..POST
    },
    Route {
        path: "/api/v1/check",
        call: Call::Check,
        need: Need::Read,
        summary: "What the doors say of a token, and why",
        takes: Some((JSON, "Check")),
        answers: &[ok("The verdict.", "Verdict")],
        ..POST
    },
    Route {
        path: "/api/v1/endpoints",
        call: Call::Endpoints,
        summary: "The revocation endpoints, and whether they are on",
        answers: &[ok("The endpoints.", "Endpoints")],
        ..GET
    },
    Route {
        method: "PUT",
        path: "/api/v1/endpoints",
        call: Call::Switch,
        summary: "Turn endpoints of this node on or off, until its configuration is read anew",
        takes: Some((JSON, "Switches")),
        answers: &[ok("The endpoints, as they are now.", "Endpoints")],
        ..POST
    },
    Route {
        path: "/api/v1/watch",
        call: Call::Watch,
        summary: "Changes as they happen, one JSON value a line; empty lines keep the connection alive",
        answers: &[lines("The changes, until the connection ends.", "Change"), UNAVAILABLE],
        ..GET
    },
    Route {
        path: "/api/v1/feed",
        call: Call::Feed,
        summary: "Changes, refusals, and how node and fleet stand, as server-sent events",
        answers: &[
            Answer {
                status: 200,
                what: "Events named as the `event` of a change, `denied` with a denial, `status` and `nodes` with what \
                       their routes answer, until the connection ends.",
                media: EVENTS,
                schema: "Text",
            },
            UNAVAILABLE,
        ],
        ..GET
    },
    Route {
        path: "/api/v1/denials",
        call: Call::Denials,
        summary: "The requests that this node refused last, newest first. Nothing in it tells tokens or users",
        answers: &[ok("They.", "Denials")],
        ..GET
    },
    Route {
        path: "/api/v1/export",
        call: Call::Export,
        summary: "All live revocations, one JSON value a line. It is whole only if the answer ends in an orderly way",
        answers: &[lines("The revocations.", "Revocation"), UNAVAILABLE],
        ..GET
    },
    Route {
        path: "/api/v1/import",
        call: Call::Import,
        summary: "Record revocations from an export. What is covered already is not stored again",
        takes: Some((LINES, "Revocation")),
        answers: &[
            ok("All lines were read, and what they say is recorded.", "Imported"),
            Answer {
                status: 422,
                what: "Some lines cannot be used; what the others say is recorded.",
                media: JSON,
                schema: "Problem",
            },
            Answer {
                status: 503,
                what: "Something was not recorded. Import again: what was recorded is not stored twice.",
                media: JSON,
                schema: "Problem",
            },
        ],
        ..POST
    },
];

impl Route {
    /// The answers that follow from what it needs and takes.
    pub(super) fn usual_answers(&self) -> Vec<(u16, &'static str)> {
        let mut answers = Vec::new();
        if self.need != Need::Nothing {
            answers.push((400, "The request cannot be read."));
            answers.push((401, "It needs the token, or the token is wrong."));
            answers.push((403, "Its Host or Origin is another's."));
            answers.push((429, "Too many wrong tokens came from this address."));
        }
        if self.takes.is_some() {
            answers.push((408, "The body took too long."));
            answers.push((413, "The body is too large."));
            answers.push((415, "The body is of another type."));
        }
        if self.takes.is_some() || !self.query.is_empty() {
            answers.push((422, "The request makes no sense; the description says why."));
        }
        answers.retain(|(status, _)| self.answers.iter().all(|answer| answer.status != *status));
        answers
    }
}

/// The route of a request.
pub(super) fn find(method: &Method, path: &str) -> Result<&'static Route, Problem> {
    let at_path: Vec<_> = ROUTES.iter().filter(|route| route.path == path).collect();
    if at_path.is_empty() {
        let what = "there is nothing here; /api/v1/openapi.json lists what there is";
        return Err(Problem::new(StatusCode::NOT_FOUND, "not_found", what));
    }
    at_path.iter().find(|route| method == route.method).copied().ok_or_else(|| {
        let mut methods: Vec<_> = at_path.iter().map(|route| route.method).collect();
        if methods.contains(&"GET") {
            methods.push("HEAD");
        }
        Problem::not_allowed(&methods.join(", "))
    })
}
