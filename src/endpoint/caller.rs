//! Who calls an endpoint.

use std::net::IpAddr;

use http::request::Parts;

use super::{
    Call, Client, ClientAuthenticator, ClientError, PeerAddress, Presented, form::Form, intake::Context,
    refusal::Refusal,
};

/// The one client behind a request, by its head and, where its body is one, its form.
pub(super) async fn authenticate(
    clients: &dyn ClientAuthenticator,
    context: &Context<'_>,
    mut call: Call<'_>,
    head: &Parts,
    form: Option<&Form>,
) -> Result<Client, Refusal> {
    let accepts_basic = clients.accepts_basic();
    let none = Form::empty();
    let presented = Presented::find(&head.headers, form.unwrap_or(&none), context.ways, accepts_basic)?;
    #[cfg(feature = "mtls")]
    let presented = {
        let certificate = super::certificate::of(head, clients.certificate_header())?;
        match presented {
            Some(presented) => Some(presented.with_certificate(certificate)),
            // A form has a place for the client's id, and must hold it (RFC 8705 §2).
            None => certificate.filter(|_| form.is_none()).map(Presented::of_certificate),
        }
    };
    let presented = presented.ok_or(Refusal::Client { challenge: accepts_basic })?;
    // RFC 6749 §5.2: who tried the header is told the scheme.
    let refused = match presented {
        Presented::Bearer { .. } => Refusal::AccessToken,
        Presented::Basic { .. } => Refusal::Client { challenge: true },
        _ => Refusal::Client { challenge: accepts_basic },
    };
    call.peer = peer(clients, head);
    let client = clients.authenticate(&presented, call).await.map_err(|error| match error {
        ClientError::Refused => refused,
        ClientError::Unavailable => Refusal::ClientsUnavailable,
        ClientError::TooManyFailures { retry_after } => Refusal::too_many_failures(retry_after),
    })?;
    // Whatever else says who it is must say the same.
    match form.and_then(|form| form.get("client_id")) {
        Some(id) if id != client.id() => Err(Refusal::SeveralClients),
        _ => Ok(client),
    }
}

/// Where the caller connects from; `None` where everyone comes from there, as from a proxy.
#[cfg_attr(not(feature = "mtls"), expect(unused_variables, reason = "no proxies are known"))]
pub(super) fn peer(clients: &dyn ClientAuthenticator, head: &Parts) -> Option<IpAddr> {
    let peer: Option<PeerAddress> = head.extensions.get().copied();
    #[cfg(feature = "mtls")]
    let peer = peer.filter(|_| !clients.certificate_header().is_some_and(|header| header.trusts(peer)));
    peer.map(|PeerAddress(peer)| peer.ip())
}
