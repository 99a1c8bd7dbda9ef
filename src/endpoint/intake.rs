//! How a request comes in: what every endpoint asks of it first.

use std::{fmt, sync::Arc, time::Duration};

use http::{Method, request::Parts};
use http_body::Body;
use zeroize::Zeroizing;

use super::{
    Call, Client, ClientAuthenticator, body, caller,
    form::{self, FORM, Form},
    profile::Ways,
    refusal::Refusal,
    replay::{self, Claimed},
    route::Route,
};
use crate::Revocations;

/// What the endpoints have in common.
pub(super) struct Context<'a> {
    pub(super) revocations: &'a Revocations,
    /// What counts once of the request.
    pub(super) claimed: &'a Claimed,
    pub(super) ways: &'static Ways,
    /// Whether the endpoint is switched on.
    pub(super) on: bool,
}

impl Context<'_> {
    /// Asked once the client is known: strangers learn nothing of switches.
    pub(super) const fn check_on(&self) -> Result<(), Refusal> {
        if self.on { Ok(()) } else { Err(Refusal::Off) }
    }
}

pub(super) struct Intake {
    /// `None`: the profile's.
    pub(super) route: Option<Route>,
    pub(super) clients: Arc<dyn ClientAuthenticator>,
    pub(super) max_body: usize,
    pub(super) read_timeout: Duration,
}

impl Intake {
    pub(super) fn new(clients: impl ClientAuthenticator) -> Self {
        Self { route: None, clients: Arc::new(clients), max_body: 64 << 10, read_timeout: Duration::from_secs(10) }
    }

    /// A `POST` without parameters in the URI.
    pub(super) fn check_target(head: &Parts) -> Result<(), Refusal> {
        if head.method != Method::POST {
            return Err(Refusal::Method);
        }
        if head.uri.query().is_some_and(|query| !query.is_empty()) {
            return Err(Refusal::Query);
        }
        Ok(())
    }

    pub(super) async fn read<B: Body>(&self, body: B) -> Result<Zeroizing<Vec<u8>>, Refusal> {
        body::read(body, self.max_body, self.read_timeout).await
    }

    /// A form, and the client that sends it.
    pub(super) async fn form<B: Body>(
        &self,
        context: &Context<'_>,
        head: &Parts,
        body: B,
    ) -> Result<(Client, Form, Zeroizing<Vec<u8>>), Refusal> {
        Self::check_target(head)?;
        form::check_head(&head.headers, FORM)?;
        let body = self.read(body).await?;
        let form = Form::parse(&body)?;
        let call = Call::new(context.revocations).within(context.claimed, replay::digest(head, &body));
        let client = caller::authenticate(&*self.clients, context, call, head, Some(&form)).await?;
        Ok((client, form, body))
    }

    /// The client behind the head alone.
    pub(super) async fn client(&self, context: &Context<'_>, head: &Parts) -> Result<Client, Refusal> {
        caller::authenticate(&*self.clients, context, Call::new(context.revocations), head, None).await
    }
}

/// For endpoints whose messages say by themselves who sends them: no client may call.
#[cfg(feature = "signals")]
pub(super) struct Nobody;

#[cfg(feature = "signals")]
impl ClientAuthenticator for Nobody {
    fn authenticate<'a>(
        &'a self,
        _: &'a super::Presented,
        _: Call<'a>,
    ) -> futures_util::future::BoxFuture<'a, Result<Client, super::ClientError>> {
        Box::pin(std::future::ready(Err(super::ClientError::Refused)))
    }

    fn accepts_basic(&self) -> bool {
        false
    }
}

impl fmt::Debug for Intake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Intake")
            .field("route", &self.route)
            .field("max_body", &self.max_body)
            .field("read_timeout", &self.read_timeout)
            .finish_non_exhaustive()
    }
}

/// The settings of [`Intake`], for an endpoint that has one in its field `intake`.
macro_rules! intake_settings {
    () => {
        /// Answers at this path, as requests that arrive at the layer have it. Default: the
        /// [`Profile`](crate::endpoint::Profile)'s.
        ///
        /// # Errors
        ///
        /// Where the path could be written in another way: it must begin with a slash, end without one, and hold no
        /// escapes, empty or dot segments.
        pub fn path(mut self, path: &str) -> Result<Self, crate::endpoint::EndpointError> {
            self.intake.route = Some(crate::endpoint::route::Route::new(path)?);
            Ok(self)
        }

        /// The longest body, in bytes. Default: 64 KiB.
        pub const fn max_body(mut self, bytes: usize) -> Self {
            self.intake.max_body = bytes;
            self
        }

        /// How long the body may take to arrive. Default: 10 s.
        pub const fn read_timeout(mut self, time: std::time::Duration) -> Self {
            self.intake.read_timeout = time;
            self
        }

        #[cfg(feature = "mtls")]
        pub(super) fn clients(&self) -> &dyn crate::endpoint::ClientAuthenticator {
            &*self.intake.clients
        }

        pub(super) const fn route(&self) -> Option<&crate::endpoint::route::Route> {
            self.intake.route.as_ref()
        }
    };
}
pub(super) use intake_settings;
