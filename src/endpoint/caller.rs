//! Who calls an endpoint.

use http::request::Parts;

use super::{Call, Client, ClientAuthenticator, ClientError, PeerAddress, Presented, form::Form, refusal::Refusal};

/// The one client behind a request, by its head and, where it has one, its form.
pub(super) async fn authenticate(
    clients: &dyn ClientAuthenticator,
    mut call: Call<'_>,
    head: &Parts,
    form: &Form,
) -> Result<Client, Refusal> {
    let accepts_basic = clients.accepts_basic();
    let presented = Presented::find(&head.headers, form, accepts_basic)?;
    call.peer = head.extensions.get().map(|PeerAddress(peer)| peer.ip());
    #[cfg(feature = "mtls")]
    let presented = {
        let header = clients.certificate_header();
        if header.is_some_and(|header| header.trusts(head.extensions.get().copied())) {
            // A proxy: everyone comes from its address.
            call.peer = None;
        }
        presented.with_certificate(super::certificate::of(head, header)?)
    };
    // RFC 6749 §5.2: who tried the header is told the scheme.
    let refused = match presented {
        Presented::Bearer { .. } => Refusal::AccessToken,
        Presented::Basic { .. } => Refusal::Client { challenge: true },
        _ => Refusal::Client { challenge: accepts_basic },
    };
    let client = clients.authenticate(&presented, call).await.map_err(|error| match error {
        ClientError::Refused => refused,
        ClientError::Unavailable => Refusal::ClientsUnavailable,
        ClientError::TooManyFailures { retry_after } => {
            let seconds = retry_after.as_millis().div_ceil(1000);
            Refusal::TooManyFailures { retry_after: u32::try_from(seconds).unwrap_or(u32::MAX) }
        }
    })?;
    // Whatever else says who it is must say the same.
    match form.get("client_id") {
        Some(id) if id != client.id() => Err(Refusal::SeveralClients),
        _ => Ok(client),
    }
}
