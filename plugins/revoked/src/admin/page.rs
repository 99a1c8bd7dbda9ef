//! The page of operators: files that are built in, and use the API as every other client does.
//!
//! There is nothing secret in them, so they need no token. The operator types it into the page, which keeps it in memory
//! alone and sends it as `Authorization`: never in a URL, which histories and logs keep, and never as a cookie, which
//! browsers send along with what other pages make them ask.

use http::{HeaderValue, Method, Response, StatusCode, header};

use super::answer::{self, AdminBody, Problem};

/// A file of the page.
pub(super) struct File {
    path: &'static str,
    media: &'static str,
    text: &'static str,
}

const SCRIPT: &str = "text/javascript; charset=utf-8";

/// All of them.
const FILES: &[File] = &[
    File { path: "/", media: "text/html; charset=utf-8", text: include_str!("page/index.html") },
    File { path: "/page.css", media: "text/css; charset=utf-8", text: include_str!("page/page.css") },
    File { path: "/page.js", media: SCRIPT, text: include_str!("page/page.js") },
    File { path: "/api.js", media: SCRIPT, text: include_str!("page/api.js") },
    File { path: "/text.js", media: SCRIPT, text: include_str!("page/text.js") },
    File { path: "/revocations.js", media: SCRIPT, text: include_str!("page/revocations.js") },
    File { path: "/revoke.js", media: SCRIPT, text: include_str!("page/revoke.js") },
    File { path: "/icon.svg", media: "image/svg+xml", text: include_str!("page/icon.svg") },
];

/// Nothing but the page's own files runs, is shown, or is asked; nobody may frame it. Scripts get no markup into it.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
     frame-ancestors 'none'; base-uri 'none'; form-action 'none'; \
     require-trusted-types-for 'script'; trusted-types 'none'",
);

/// The file with this path.
pub(super) fn find(path: &str) -> Option<&'static File> {
    FILES.iter().find(|file| file.path == path)
}

impl File {
    pub(super) fn answer(&self, method: &Method) -> Result<Response<AdminBody>, Problem> {
        if method != Method::GET {
            return Err(Problem::not_allowed("GET, HEAD"));
        }
        let mut response = answer::whole(StatusCode::OK, self.media, self.text);
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_SECURITY_POLICY, POLICY);
        headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
        headers.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
        headers.insert("cross-origin-opener-policy", HeaderValue::from_static("same-origin"));
        headers.insert("cross-origin-resource-policy", HeaderValue::from_static("same-origin"));
        headers.insert(
            "permissions-policy",
            HeaderValue::from_static("camera=(), microphone=(), geolocation=(), clipboard-read=()"),
        );
        Ok(response)
    }
}
