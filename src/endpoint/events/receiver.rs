//! Events that are fetched, on the same way as those that are pushed.

use std::{fmt, sync::Arc};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, StatusCode, header};
use http_body_util::Full;

use crate::endpoint::{Answer, EndpointName, Endpoints, Target, forward, front::Front};

/// Marks a request whose event was fetched from this transmitter.
#[derive(Clone, Debug)]
pub(super) struct Polled(pub(super) String);

/// Takes events that were fetched, as the endpoint takes those that are pushed: with the recorder, records, switches
/// and counts of the service that it comes from.
#[derive(Clone)]
pub struct EventReceiver(Way);

#[derive(Clone)]
enum Way {
    Alone(Arc<Endpoints>),
    Front(Arc<Front>),
}

/// What became of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// It is durable and enforced here, or nothing is to be done about it.
    Accepted,
    /// It will never be accepted: RFC 8935 §2.4's code, and why.
    Refused(String, String),
    /// It may be accepted later.
    Later,
}

impl EventReceiver {
    pub(in crate::endpoint) fn alone(endpoints: Endpoints) -> Option<Self> {
        endpoints.events.is_some().then(|| Self(Way::Alone(Arc::new(endpoints))))
    }

    pub(in crate::endpoint) fn front(front: Arc<Front>) -> Option<Self> {
        front.endpoints.events.is_some().then_some(Self(Way::Front(front)))
    }

    /// Takes an event of the transmitter `iss`, and no other's.
    pub(crate) async fn take(&self, iss: &str, set: &str) -> Taken {
        let endpoints = match &self.0 {
            Way::Alone(endpoints) => endpoints,
            Way::Front(front) => &front.endpoints,
        };
        let target = Target::Endpoint(EndpointName::Events);
        if !endpoints.switches().is_on(EndpointName::Events) {
            return Taken::Later;
        }
        let mut request = Request::new(Full::new(Bytes::copy_from_slice(set.as_bytes())));
        *request.method_mut() = Method::POST;
        request.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(super::MEDIA));
        request.extensions_mut().insert(Polled(iss.to_owned()));
        let answer = match &self.0 {
            Way::Alone(endpoints) => Arc::clone(endpoints).answer(target, request).await,
            Way::Front(front) => forward::take(Arc::clone(front), target, request).await,
        };
        Taken::from(&answer)
    }
}

impl From<&Answer> for Taken {
    fn from(answer: &Answer) -> Self {
        match answer.status() {
            status if status.is_success() => Self::Accepted,
            StatusCode::TOO_MANY_REQUESTS => Self::Later,
            status if status.is_client_error() => {
                let said: serde_json::Value = serde_json::from_slice(answer.body()).unwrap_or_default();
                let text = |name: &str| said.get(name).and_then(|text| text.as_str()).unwrap_or_default().to_owned();
                Self::Refused(text("err"), text("description"))
            }
            _ => Self::Later,
        }
    }
}

impl fmt::Debug for EventReceiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EventReceiver(..)")
    }
}
