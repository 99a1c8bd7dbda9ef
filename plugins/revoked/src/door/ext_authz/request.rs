//! What Envoy tells of a request.

use std::{collections::HashMap, net::SocketAddr};

use bytes::Bytes;
use envoy_types::pb::envoy::{
    config::core::v3::{HeaderMap as RawHeaders, address::Address, socket_address::PortSpecifier},
    service::auth::v3::attribute_context::{HttpRequest, Peer},
};
use http::{Extensions, HeaderMap, HeaderName, HeaderValue, Method, Uri, header};

/// The head of the request that the check is about.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) method: Method,
    pub(super) uri: Uri,
    pub(super) headers: HeaderMap,
    pub(super) extensions: Extensions,
}

/// The request, with the body where Envoy sends it along; `None` where it cannot be understood for certain.
pub(super) fn read(http: HttpRequest) -> Option<(Head, Bytes)> {
    let HttpRequest { method, path, headers, header_map, body, raw_body, .. } = http;
    let head = Head {
        method: Method::from_bytes(method.as_bytes()).ok()?,
        uri: Uri::from_maybe_shared(Bytes::from(path)).ok()?,
        headers: match header_map {
            Some(RawHeaders { headers }) if !headers.is_empty() => raw(headers)?,
            _ => joined(headers)?,
        },
        extensions: Extensions::new(),
    };
    let body = if raw_body.is_empty() { Bytes::from(body) } else { Bytes::from(raw_body) };
    Some((head, body))
}

/// Whom Envoy got the request from.
pub(super) fn peer(source: Option<Peer>) -> Option<SocketAddr> {
    let Address::SocketAddress(address) = source?.address?.address? else { return None };
    let Some(PortSpecifier::PortValue(port)) = address.port_specifier else { return None };
    Some(SocketAddr::new(address.address.parse().ok()?, u16::try_from(port).ok()?))
}

/// Headers one by one, as they came.
fn raw(fields: Vec<envoy_types::pb::envoy::config::core::v3::HeaderValue>) -> Option<HeaderMap> {
    let mut headers = HeaderMap::try_with_capacity(fields.len()).ok()?;
    for field in fields {
        let value = if field.raw_value.is_empty() { Bytes::from(field.value) } else { Bytes::from(field.raw_value) };
        append(&mut headers, &field.key, value)?;
    }
    Some(headers)
}

/// Headers by name; the values of one that came several times are joined with commas.
fn joined(fields: HashMap<String, String>) -> Option<HeaderMap> {
    let mut headers = HeaderMap::try_with_capacity(fields.len()).ok()?;
    for (name, value) in fields {
        let value = Bytes::from(value);
        // Cookies are never separated by commas otherwise (RFC 6265 §4.1.1), so that none of several may hide behind one.
        if name == header::COOKIE.as_str() && value.contains(&b',') {
            for part in value.split(|byte| *byte == b',') {
                append(&mut headers, &name, value.slice_ref(part))?;
            }
        } else {
            append(&mut headers, &name, value)?;
        }
    }
    Some(headers)
}

fn append(headers: &mut HeaderMap, name: &str, value: Bytes) -> Option<()> {
    // HTTP/2's own fields stand elsewhere.
    if name.starts_with(':') {
        return Some(());
    }
    let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
    headers.try_append(name, HeaderValue::from_maybe_shared(value).ok()?).ok().map(|_| ())
}
