//! The revocation endpoints in an authorization server's metadata (RFC 8414, OpenID Connect Discovery 1.0).

mod document;
mod etag;

use std::{net::IpAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use http_body::Body;
use tower_service::Service;

pub(super) use self::document::is_json;
use super::{
    Answer, EndpointError, EndpointName, Endpoints, Profile, body,
    coding::{self, Undecodable},
    front::Front,
};

/// The longest document of the service behind that members are added to.
const MAX_DOCUMENT: usize = 1 << 20;
const READ_TIMEOUT: Duration = Duration::from_secs(10);
const OAUTH: &str = "/.well-known/oauth-authorization-server";
const OPENID: &str = "/.well-known/openid-configuration";

/// Adds the endpoints that are answered here to the metadata of the server behind.
///
/// Answers `GET` and `HEAD` of `/.well-known/oauth-authorization-server` and `/.well-known/openid-configuration`,
/// both also with an issuer's path inserted (RFC 8414 §3) or, for the latter, in front (OpenID Connect Discovery
/// §4). The server's own members stay as they are, byte for byte, but for those of endpoints that are answered here, and
/// of those that are switched off: they are removed. Where the server has no document (404), one is served all the same.
///
/// ```
/// use tower_revocation::endpoint::metadata::Metadata;
///
/// let metadata = Metadata::new("https://as.example").auth_methods(["client_secret_basic", "private_key_jwt"])
///     .signing_algs(["RS256", "ES256"])
///     .mtls_external_url("https://mtls.as.example");
/// # let _ = metadata;
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct Metadata {
    issuer: String,
    external_url: String,
    mtls_external_url: Option<String>,
    auth_methods: Vec<String>,
    signing_algs: Vec<String>,
    alone: bool,
    plain_http: bool,
}

impl Metadata {
    /// For endpoints that clients reach at this URL (scheme and authority), which is the issuer too.
    ///
    /// It must be `https`, for this is what gets published (RFC 7009 §2), or a loopback address;
    /// [`Metadata::allow_plain_http`] lifts that.
    pub fn new(external_url: impl Into<String>) -> Self {
        let issuer = external_url.into();
        Self {
            external_url: issuer.trim_end_matches('/').to_owned(),
            issuer,
            mtls_external_url: None,
            auth_methods: Vec::new(),
            signing_algs: Vec::new(),
            alone: false,
            plain_http: false,
        }
    }

    /// The `issuer` of a document that is served where the server has none. Default: the external URL as given.
    pub fn issuer(mut self, issuer: impl Into<String>) -> Self {
        self.issuer = issuer.into();
        self
    }

    /// Where clients with a certificate reach the endpoints (RFC 8705 §5): gives `mtls_endpoint_aliases`.
    pub fn mtls_external_url(mut self, url: impl Into<String>) -> Self {
        self.mtls_external_url = Some(url.into().trim_end_matches('/').to_owned());
        self
    }

    /// Publishes `http` URLs too: for networks where nobody else can listen. Whoever reads the document sends secrets and
    /// tokens there in the clear.
    pub const fn allow_plain_http(mut self) -> Self {
        self.plain_http = true;
        self
    }

    /// How clients authenticate at the endpoints. Left out, it means `client_secret_basic` (RFC 8414 §2).
    pub fn auth_methods<S: Into<String>>(mut self, methods: impl IntoIterator<Item = S>) -> Self {
        self.auth_methods = methods.into_iter().map(Into::into).collect();
        self
    }

    /// The algorithms of assertions, where an authentication method uses them; must be there then (RFC 8414 §2).
    /// `none` is left out: no document may list it.
    pub fn signing_algs<S: Into<String>>(mut self, algorithms: impl IntoIterator<Item = S>) -> Self {
        self.signing_algs = algorithms.into_iter().map(Into::into).filter(|name| name != "none").collect();
        self
    }

    /// Serves a document of its own without asking the service behind, but for paths with an issuer in them.
    pub const fn alone(mut self, alone: bool) -> Self {
        self.alone = alone;
        self
    }
}

impl Metadata {
    /// Whether its URLs may be published.
    pub(super) fn check(&self) -> Result<(), EndpointError> {
        for url in [Some(&self.external_url), self.mtls_external_url.as_ref()].into_iter().flatten() {
            let wrong = || EndpointError::Url { url: url.clone() };
            // A password would stand before `@`, and no path can follow `?` or `#`.
            let parsed: Uri =
                if url.contains(['@', '?', '#']) { Err(wrong()) } else { url.parse().map_err(|_| wrong()) }?;
            let host = parsed.host().filter(|host| !host.is_empty()).ok_or_else(wrong)?;
            match parsed.scheme_str() {
                Some("https") => {}
                Some("http") if self.plain_http || is_loopback(host) => {}
                Some("http") => return Err(EndpointError::PlainHttp { url: url.clone() }),
                _ => return Err(wrong()),
            }
        }
        Ok(())
    }
}

fn is_loopback(host: &str) -> bool {
    let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    host.eq_ignore_ascii_case("localhost") || address.parse().is_ok_and(|address: IpAddr| address.is_loopback())
}

/// Whether metadata is what one asks for at this path.
pub(super) fn is_document(path: &str) -> bool {
    let inserted = |base: &str| path.strip_prefix(base).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    inserted(OAUTH) || inserted(OPENID) || path.ends_with(OPENID)
}

/// Answers a request for metadata.
pub(super) async fn run<S, ReqBody, ResBody>(
    front: Arc<Front>,
    mut request: Request<ReqBody>,
    mut inner: S,
) -> Result<Response<ResBody>, S::Error>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>>,
    ResBody: Body + From<Bytes>,
{
    let Some(metadata) = &front.metadata else { return inner.call(request).await };
    let head_only = request.method() == Method::HEAD;
    if !head_only && request.method() != Method::GET {
        return inner.call(request).await;
    }
    let asked = request.headers().clone();
    let whole_site = [OAUTH, OPENID].contains(&request.uri().path());
    if metadata.alone && whole_site {
        return Ok(metadata.serve_alone(&front.endpoints).answer(&asked, head_only));
    }
    // The answer must be whole, and readable here. Its length is known only with the body, so HEAD asks for it too.
    *request.method_mut() = Method::GET;
    for name in [
        header::IF_NONE_MATCH,
        header::IF_MODIFIED_SINCE,
        header::IF_MATCH,
        header::IF_UNMODIFIED_SINCE,
        header::IF_RANGE,
        header::RANGE,
    ] {
        request.headers_mut().remove(name);
    }
    // Left out, it would allow any coding (RFC 9110 §12.5.3).
    request.headers_mut().insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    let response = inner.call(request).await?;
    if response.status() == StatusCode::NOT_FOUND && whole_site {
        return Ok(metadata.serve_alone(&front.endpoints).answer(&asked, head_only));
    }
    if response.status() != StatusCode::OK || !is_json(response.headers()) {
        return Ok(if head_only { response.map(|_| Bytes::new().into()) } else { response });
    }
    let out_of_reach =
        || Answer::error(StatusCode::BAD_GATEWAY, "server_error", "The metadata is out of reach").into_response();
    let (mut head, body) = response.into_parts();
    let Ok(theirs) = body::read(body, MAX_DOCUMENT, READ_TIMEOUT).await else { return Ok(out_of_reach()) };
    let plain = coding::decode(&head.headers, &theirs, MAX_DOCUMENT);
    if plain.as_ref().is_err_and(|why| *why == Undecodable::TooLarge) {
        return Ok(out_of_reach());
    }
    let members = metadata.members(&front.endpoints);
    let Some(body) = plain.ok().and_then(|plain| document::merge(&plain, &members)) else {
        #[cfg(feature = "tracing")]
        tracing::warn!("the metadata of the service behind is no JSON object; nothing was added to it");
        let body = if head_only { Bytes::new() } else { Bytes::copy_from_slice(&theirs) };
        return Ok(Response::from_parts(head, body.into()));
    };
    // They were about other bytes.
    for name in ["etag", "last-modified", "content-md5", "digest", "content-digest", "repr-digest", "accept-ranges"] {
        head.headers.remove(name);
    }
    head.headers.remove(header::CONTENT_ENCODING);
    head.headers.remove(header::TRANSFER_ENCODING);
    Ok(Document { headers: head.headers, body }.answer(&asked, head_only))
}

impl Metadata {
    fn members(&self, endpoints: &Endpoints) -> Vec<document::Member> {
        let mut members = Vec::new();
        let mut aliases = Vec::new();
        // Whatever the server behind says of them: they are off.
        for name in endpoints.switched_off().filter_map(name_of) {
            aliases.push(document::Member::gone(name.to_owned()));
            members.push(document::Member::gone(name.to_owned()));
            members.push(document::Member::gone(format!("{name}_auth_methods_supported")));
            members.push(document::Member::gone(format!("{name}_auth_signing_alg_values_supported")));
        }
        for (endpoint, path) in endpoints.advertised() {
            // No standard has a name for it; Janssen's clients know one.
            if endpoint == EndpointName::Session && endpoints.profile != Profile::Janssen {
                continue;
            }
            let Some(name) = name_of(endpoint) else { continue };
            let signed = endpoints.introspection.as_ref().map(|endpoint| endpoint.signing_algs()).unwrap_or_default();
            if endpoint == EndpointName::Introspection && !signed.is_empty() {
                // RFC 9701 §7.
                members.push(document::Member::list("introspection_signing_alg_values_supported", &signed));
            }
            members.push(document::Member::text(name, &format!("{}{path}", self.external_url)));
            if let Some(url) = &self.mtls_external_url {
                aliases.push(document::Member::text(name, &format!("{url}{path}")));
            }
            // No method is registered for the session endpoint's own.
            if name == "session_revocation_endpoint" || self.auth_methods.is_empty() {
                continue;
            }
            // Public clients may not introspect (RFC 7662 §2.1).
            let confidential = |method: &String| endpoint != EndpointName::Introspection || method != "none";
            // The global endpoint's body is JSON: nothing that goes into a form can authenticate there.
            let in_a_form =
                |method: &String| ["client_secret_post", "none"].contains(&&**method) || method.ends_with("_jwt");
            let global = endpoint == EndpointName::Global;
            let methods: Vec<_> = self
                .auth_methods
                .iter()
                .filter(|method| !(global && in_a_form(method)) && confidential(method))
                .cloned()
                .collect();
            if !methods.is_empty() {
                members.push(document::Member::list(&format!("{name}_auth_methods_supported"), &methods));
            }
            let signs = self.auth_methods.iter().any(|method| method.ends_with("_jwt"));
            let registered = ["revocation_endpoint", "introspection_endpoint"].contains(&name);
            if registered && signs && !self.signing_algs.is_empty() {
                let name = format!("{name}_auth_signing_alg_values_supported");
                members.push(document::Member::list(&name, &self.signing_algs));
            }
        }
        if !aliases.is_empty() {
            members.push(document::Member::object("mtls_endpoint_aliases", aliases));
        }
        members
    }

    fn serve_alone(&self, endpoints: &Endpoints) -> Document {
        let mut members = vec![document::Member::text("issuer", &self.issuer)];
        members.extend(self.members(endpoints));
        let mut headers = http::HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        Document { headers, body: document::merge(b"{}", &members).unwrap_or_default() }
    }
}

/// The member that tells an endpoint's URL; `None` where there is none.
const fn name_of(endpoint: EndpointName) -> Option<&'static str> {
    match endpoint {
        EndpointName::Token => Some("revocation_endpoint"),
        EndpointName::Session => Some("session_revocation_endpoint"),
        EndpointName::Global => Some("global_token_revocation_endpoint"),
        EndpointName::Introspection => Some("introspection_endpoint"),
        // Senders are told its URL when they are registered.
        EndpointName::BackchannelLogout | EndpointName::Events => None,
    }
}

/// A document and the headers that it goes with.
struct Document {
    headers: http::HeaderMap,
    body: Bytes,
}

impl Document {
    fn answer<B: From<Bytes>>(self, asked: &http::HeaderMap, head_only: bool) -> Response<B> {
        let Self { mut headers, body } = self;
        let tag = etag::of(&body);
        let known = etag::is_known(asked, &tag);
        headers.insert(header::ETAG, tag);
        let mut response = Response::new(B::from(if known || head_only { Bytes::new() } else { body.clone() }));
        if known {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            headers.remove(header::CONTENT_LENGTH);
            headers.remove(header::CONTENT_TYPE);
        } else {
            headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
        }
        *response.headers_mut() = headers;
        response
    }
}
