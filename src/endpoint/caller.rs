//! Who calls an endpoint.

use http::request::Parts;

use super::{Client, ClientAuthenticator, ClientError, Presented, form::Form, refusal::Refusal};

/// The one client behind a request, by its head and, where it has one, its form.
pub(super) async fn authenticate(
    clients: &dyn ClientAuthenticator,
    head: &Parts,
    form: &Form,
) -> Result<Client, Refusal> {
    let accepts_basic = clients.accepts_basic();
    let presented = Presented::find(&head.headers, form, accepts_basic)?;
    // RFC 6749 §5.2: who tried the header is told the scheme.
    let challenge = accepts_basic || matches!(presented, Presented::Basic { .. });
    clients.authenticate(&presented).await.map_err(|error| match error {
        ClientError::Refused => Refusal::Client { challenge },
        ClientError::Unavailable => Refusal::ClientsUnavailable,
    })
}
