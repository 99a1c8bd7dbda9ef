use std::{
    error::Error,
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use super::{Open, Opening};
use crate::reject::Rejection;

pin_project! {
    /// A body that ends when the token is revoked that it belongs to.
    pub struct StreamBody<B> {
        #[pin]
        body: Option<B>,
        watch: Watch,
        ends: Ends,
    }
}

enum Watch {
    /// It is nobody's, or over.
    Not,
    /// It has not waited yet, in so many frames.
    Later(Opening, u8),
    Open(Open),
}

/// How its end is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ends {
    Abort,
    GrpcTrailers,
    GrpcWeb,
    GrpcWebText,
}

/// The error of a [`StreamBody`], or of a [`GuardedIo`](super::GuardedIo), that was ended: why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended(pub Rejection);

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the stream was ended: {}", self.0)
    }
}

impl Error for Ended {}

/// How many frames may go by without waiting before a body counts as one that is long.
const FRAMES: u8 = 16;

impl<B> StreamBody<B> {
    /// A body that nothing ends, such as one of a refusal that you build.
    pub const fn new(body: B) -> Self {
        Self { body: Some(body), watch: Watch::Not, ends: Ends::Abort }
    }

    pub(super) const fn empty() -> Self {
        Self { body: None, watch: Watch::Not, ends: Ends::Abort }
    }
}

impl<B: Body> StreamBody<B> {
    /// A body that ends with what is opened, unless it is so small that it is over before.
    pub(super) fn watched(body: B, opening: Opening, open: Option<Open>, ends: Ends) -> Self {
        if !is_long(&body, &opening) {
            return Self::new(body);
        }
        let watch = open.map_or(Watch::Later(opening, 0), Watch::Open);
        Self { body: Some(body), watch, ends }
    }
}

/// Whether a body may be under way for long.
pub(super) fn is_long(body: &impl Body, opening: &Opening) -> bool {
    let small = opening.shared().options.small;
    !body.is_end_stream() && body.size_hint().exact().is_none_or(|size| size > small)
}

impl Ends {
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let Some(kind) = crate::response::grpc_content_type(headers) else { return Self::Abort };
        match kind.as_bytes().get(16..) {
            Some(rest) if rest.starts_with(b"-web-text") => Self::GrpcWebText,
            Some(rest) if rest.starts_with(b"-web") => Self::GrpcWeb,
            _ => Self::GrpcTrailers,
        }
    }

    /// The last frame. A gRPC-Web message of trailers has bit 7 of its flags set.
    fn frame<D: From<Bytes>>(self, rejection: Rejection) -> Option<Frame<D>> {
        let (status, message) = (rejection.grpc_status(), rejection.description());
        let web = || {
            let trailers = format!("grpc-status:{status}\r\ngrpc-message:{message}\r\n");
            let length = u32::try_from(trailers.len()).unwrap_or(0).to_be_bytes();
            [&[0x80], &length[..], trailers.as_bytes()].concat()
        };
        match self {
            Self::Abort => None,
            Self::GrpcTrailers => {
                let mut trailers = HeaderMap::with_capacity(2);
                trailers.insert("grpc-status", HeaderValue::from(u16::from(status)));
                trailers.insert("grpc-message", HeaderValue::from_static(message));
                Some(Frame::trailers(trailers))
            }
            Self::GrpcWeb => Some(Frame::data(Bytes::from(web()).into())),
            Self::GrpcWebText => Some(Frame::data(Bytes::from(STANDARD.encode(web())).into())),
        }
    }
}

impl<B> Body for StreamBody<B>
where
    B: Body,
    B::Data: From<Bytes>,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    type Data = B::Data;
    type Error = Box<dyn Error + Send + Sync>;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let mut this = self.project();
        loop {
            if let Watch::Open(open) = this.watch
                && let Poll::Ready(rejection) = open.poll_ended(context)
            {
                // What feeds it ends with it.
                this.body.set(None);
                *this.watch = Watch::Not;
                let end = this.ends.frame(rejection).ok_or_else(|| Box::new(Ended(rejection)).into());
                return Poll::Ready(Some(end));
            }
            let Some(body) = this.body.as_mut().as_pin_mut() else { return Poll::Ready(None) };
            let frame = body.poll_frame(context);
            if let Watch::Later(opening, frames) = this.watch {
                *frames += u8::from(frame.is_ready());
                if frame.is_pending() || *frames >= FRAMES {
                    *this.watch = Watch::Open(opening.open());
                    if frame.is_pending() {
                        // It may have been revoked already.
                        continue;
                    }
                }
            }
            let frame = ready!(frame);
            if !matches!(&frame, Some(Ok(frame)) if frame.is_data()) {
                *this.watch = Watch::Not;
            }
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

/// Bodies of refusals.
impl<B: From<Bytes>> From<Bytes> for StreamBody<B> {
    fn from(bytes: Bytes) -> Self {
        Self::new(B::from(bytes))
    }
}

/// Bodies of refusals.
impl<B: Default> Default for StreamBody<B> {
    fn default() -> Self {
        Self::new(B::default())
    }
}

impl<B> fmt::Debug for StreamBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let watch = match &self.watch {
            Watch::Not => "not",
            Watch::Later(..) => "later",
            Watch::Open(_) => "open",
        };
        f.debug_struct("StreamBody").field("watched", &watch).finish_non_exhaustive()
    }
}
