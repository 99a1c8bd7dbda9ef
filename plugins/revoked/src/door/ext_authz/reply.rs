//! What Envoy is answered.

use std::str;

use envoy_types::pb::{
    envoy::{
        config::core::v3::{HeaderValue as Field, HeaderValueOption, header_value_option::HeaderAppendAction},
        service::auth::v3::{CheckResponse, DeniedHttpResponse, OkHttpResponse, check_response::HttpResponse},
        r#type::v3::HttpStatus,
    },
    google::rpc::Status,
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use tonic::Code;
use tower_revocation::{response::Denial, token::Identity};

use crate::{door::refusal::Refusal, identity::IdentityHeaders};

/// The request may pass.
pub(super) fn pass(identity_headers: &IdentityHeaders, identity: Option<&Identity>) -> CheckResponse {
    let headers = identity_headers.of(identity).map(|(name, value)| field(name, value.as_bytes())).collect();
    reply(Code::Ok, HttpResponse::OkResponse(OkHttpResponse { headers, ..Default::default() }))
}

/// It may not.
pub(super) fn refuse(refusal: Refusal) -> CheckResponse {
    let Refusal { status, headers, body } = refusal;
    let code = if status == StatusCode::UNAUTHORIZED { Code::Unauthenticated } else { Code::PermissionDenied };
    let mut fields = Vec::with_capacity(headers.keys_len());
    for name in headers.keys().filter(|name| !is_envoys(name)) {
        let values: Vec<_> = headers.get_all(name).iter().map(HeaderValue::as_bytes).collect();
        // Envoy takes one value. None of ours comes several times that must not be joined (RFC 9110 §5.3).
        fields.push(field(name, &values.join(&b", "[..])));
    }
    let denied = DeniedHttpResponse {
        status: Some(HttpStatus { code: i32::from(status.as_u16()) }),
        headers: fields,
        // What we say is UTF-8.
        body: String::from_utf8_lossy(&body).into_owned(),
    };
    reply(code, HttpResponse::DeniedResponse(denied))
}

/// The refusal with the status that Envoy makes of it what the client is to get.
///
/// Envoy answers gRPC clients with status 200 by itself, and would take one from us for success. gRPC-Web is plain HTTP
/// to it.
pub(super) fn refusal(denial: Denial, request: &HeaderMap) -> Refusal {
    let status = denial.rejection.status();
    let mut refusal = Refusal::from(denial);
    if !is_grpc_web(request) {
        refusal.status = status;
    }
    refusal
}

fn is_grpc_web(headers: &HeaderMap) -> bool {
    let content_type = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    content_type.get(..20).is_some_and(|start| start.eq_ignore_ascii_case(b"application/grpc-web"))
}

/// Envoy frames the answer itself.
fn is_envoys(name: &HeaderName) -> bool {
    matches!(*name, header::CONTENT_LENGTH | header::TRANSFER_ENCODING | header::CONNECTION | header::DATE)
}

/// In place of what is there.
fn field(name: &HeaderName, value: &[u8]) -> HeaderValueOption {
    let (value, raw_value) = match str::from_utf8(value) {
        Ok(text) => (text.to_owned(), Vec::new()),
        Err(_) => (String::new(), value.to_vec()),
    };
    HeaderValueOption {
        header: Some(Field { key: name.as_str().to_owned(), value, raw_value }),
        append_action: HeaderAppendAction::OverwriteIfExistsOrAdd.into(),
        // An identity header is set where nothing is known, too.
        keep_empty_value: true,
        ..Default::default()
    }
}

fn reply(code: Code, response: HttpResponse) -> CheckResponse {
    CheckResponse {
        status: Some(Status { code: code.into(), ..Default::default() }),
        http_response: Some(response),
        ..Default::default()
    }
}
