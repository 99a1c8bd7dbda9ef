//! A dependent that brings nothing but `tower-service`: no runtime, no feature, a body type of its own.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Request, Response};
use tower_revocation::token::{Claims, VerifiedClaims};
use tower_service::Service;

/// A service that knows one answer.
#[derive(Clone, Copy, Debug)]
pub struct Hello;

impl Service<Request<()>> for Hello {
    type Response = Response<Bytes>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<()>) -> Self::Future {
        ready(Ok(Response::new(Bytes::from_static(b"hello"))))
    }
}

/// What a verifying layer outside would put into the extensions.
#[derive(Clone, Debug)]
pub struct MyClaims {
    /// `jti`
    pub id: String,
    /// `iat`
    pub issued: u64,
    /// `exp`
    pub expires: u64,
}

impl VerifiedClaims for MyClaims {
    fn claims(&self) -> Claims<'_> {
        Claims::new("https://issuer.example/").jti(&self.id).sub("alice").iat(self.issued).exp(self.expires)
    }
}

#[cfg(test)]
mod tests {
    use std::{pin::pin, sync::Arc, task::Waker, time::Duration};

    use http::{StatusCode, header};
    use tower_layer::Layer;
    use tower_revocation::{
        Guard, RevocationLayer,
        denylist::{Denylist, DenylistConfig, Reason, Staleness},
        policy::Policy,
        reject::Rejection,
        revocation::{Change, Revocation, Scope, ScopeKind},
        time::ManualClock,
        token::{FromExtension, IdentitySource, Peek, VerifierBehind},
    };

    use super::*;

    const ISS: &str = "https://issuer.example/";
    /// When the tokens below were issued; they live for ten minutes.
    const NOW: u64 = 1_700_000_000;
    /// {"iss":"https://issuer.example/","jti":"clear","sub":"alice","iat":1700000000,"exp":1700000600}
    const CLEAR: &str = "eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCJ9.eyJpc3MiOiJodHRwczovL2lzc3Vlci5leGFtcGxlLyIsImp0aSI6ImNsZWFyIiwic3ViIjoiYWxpY2UiLCJpYXQiOjE3MDAwMDAwMDAsImV4cCI6MTcwMDAwMDYwMH0.c2lnbmF0dXJl";
    /// The same with the `jti` "revoked".
    const REVOKED: &str = "eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCJ9.eyJpc3MiOiJodHRwczovL2lzc3Vlci5leGFtcGxlLyIsImp0aSI6InJldm9rZWQiLCJzdWIiOiJhbGljZSIsImlhdCI6MTcwMDAwMDAwMCwiZXhwIjoxNzAwMDAwNjAwfQ.c2lnbmF0dXJl";

    /// A list on which the token "revoked" is, loaded or not.
    fn denylist(ready: bool) -> Arc<Denylist> {
        let mut config = DenylistConfig::new(Staleness::refuse_after(Duration::from_secs(10)));
        config.clock = Arc::new(ManualClock::at(NOW));
        let list = Denylist::new(config);
        let revocation = Revocation::new(Scope::token(ISS, "revoked")).token_expires(NOW + 600);
        list.apply(&[Change::Revoke(revocation.into_record(list.hasher(), list.lifetimes(), NOW))]);
        if ready {
            list.in_step_at(list.now());
        }
        Arc::new(list)
    }

    fn peek() -> Peek {
        Peek::new(VerifierBehind::i_promise()).issuer(ISS)
    }

    fn bearer(token: &str) -> Request<()> {
        Request::builder().header(header::AUTHORIZATION, format!("Bearer {token}")).body(()).unwrap()
    }

    fn verified(id: &str) -> Request<()> {
        let mut request = bearer("whatever-the-layer-outside-has-verified");
        request.extensions_mut().insert(MyClaims { id: id.to_owned(), issued: NOW, expires: NOW + 600 });
        request
    }

    fn ask(list: Arc<Denylist>, source: impl IdentitySource, request: Request<()>) -> Response<Bytes> {
        let mut service = RevocationLayer::new(list, source).layer(Hello);
        let mut cx = Context::from_waker(Waker::noop());
        assert_eq!(service.poll_ready(&mut cx), Poll::Ready(Ok(())));
        match pin!(service.call(request)).poll(&mut cx) {
            Poll::Ready(Ok(response)) => response,
            Poll::Pending => panic!("nothing here waits"),
        }
    }

    fn assert_allowed(response: &Response<Bytes>) {
        assert_eq!((response.status(), &response.body()[..]), (StatusCode::OK, &b"hello"[..]));
    }

    fn assert_revoked(response: &Response<Bytes>) {
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
        assert_eq!(
            response.headers()[header::WWW_AUTHENTICATE],
            "Bearer error=\"invalid_token\", error_description=\"The access token was revoked\""
        );
        assert_eq!(response.headers()[header::CACHE_CONTROL], "no-store");
        assert_eq!(response.headers()[header::CONTENT_TYPE], "application/json");
        assert_eq!(
            &response.body()[..],
            br#"{"error":"invalid_token","error_description":"The access token was revoked"}"#
        );
        let rejection = Rejection::Revoked(Reason::Revoked(ScopeKind::Token));
        assert_eq!(response.extensions().get(), Some(&rejection));
    }

    #[test]
    fn allows() {
        assert_allowed(&ask(denylist(true), peek(), bearer(CLEAR)));
        assert_allowed(&ask(denylist(true), FromExtension::<MyClaims>::new(), verified("clear")));
        assert_allowed(&ask(denylist(true), peek(), Request::new(())));
    }

    #[test]
    fn refuses_the_revoked() {
        assert_revoked(&ask(denylist(true), peek(), bearer(REVOKED)));
        assert_revoked(&ask(denylist(true), FromExtension::<MyClaims>::new(), verified("revoked")));
        // What is known is refused, whatever else is not known yet.
        assert_revoked(&ask(denylist(false), peek(), bearer(REVOKED)));
    }

    #[test]
    fn refuses_two_credentials() {
        let twice = |mut request: Request<()>| {
            request.headers_mut().append(header::AUTHORIZATION, bearer(CLEAR).headers()[header::AUTHORIZATION].clone());
            request
        };
        let responses = [
            ask(denylist(true), peek(), twice(bearer(CLEAR))),
            ask(denylist(true), FromExtension::<MyClaims>::new(), twice(verified("clear"))),
        ];
        for response in responses {
            assert_eq!(response.status(), StatusCode::BAD_REQUEST);
            assert!(response.body().starts_with(br#"{"error":"invalid_request""#));
        }
    }

    #[test]
    fn refuses_what_nothing_has_verified() {
        let response = ask(denylist(true), FromExtension::<MyClaims>::new(), bearer(CLEAR));
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
        assert_eq!(response.extensions().get(), Some(&Rejection::NotVerified));
    }

    #[test]
    fn says_503_until_the_list_is_loaded() {
        let responses = [
            ask(denylist(false), peek(), bearer(CLEAR)),
            ask(denylist(false), FromExtension::<MyClaims>::new(), verified("clear")),
        ];
        for response in responses {
            assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
            assert_eq!(response.headers()[header::RETRY_AFTER], "1");
        }
        assert_allowed(&ask(denylist(false), peek(), Request::new(())));
    }

    #[test]
    fn a_guard_decides_without_any_service() {
        let guard = Guard::new(denylist(true), peek(), Policy::default());
        let (clear, ()) = bearer(CLEAR).into_parts();
        let (revoked, ()) = bearer(REVOKED).into_parts();
        assert!(guard.check_parts(&clear).is_ok());
        let rejection = guard.check_parts(&revoked).map(drop).unwrap_err();
        assert_eq!(rejection, Rejection::Revoked(Reason::Revoked(ScopeKind::Token)));
        assert_eq!(guard.refused(), 1);
    }
}
