//! Writing an answer in place of the upstream's.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Response, StatusCode, header};
use pingora::{
    Result,
    http::{RequestHeader, ResponseHeader},
    protocols::http::ServerSession,
    proxy::Session,
    time::timeout,
};

/// How much of a request's body is read after its answer, so that the connection can go on.
const MOST_REST: usize = 64 * 1024;
/// And for how long.
const PATIENCE: Duration = Duration::from_secs(5);

/// Writes the answer, and sees to it that the next request on the connection begins where it should: the rest of this
/// one's body is read within bounds, else the connection closes.
pub(crate) async fn answer(session: &mut Session, response: Response<Bytes>) -> Result<()> {
    let rest = rest(session);
    // Before the head is written, so that it says so.
    match rest {
        Rest::Nothing => {}
        // Pingora would close; but the rest is read here.
        Rest::Some => session.set_close_on_response_before_downstream_finish(false),
        Rest::TooMuch | Rest::HeldBack => session.set_keepalive(None),
    }
    write(session, response).await?;
    // What is not worth keeping a connection for is read too: closing on unread bytes can destroy the answer on its way.
    if matches!(rest, Rest::Some | Rest::TooMuch) && !drained(session).await {
        session.set_keepalive(None);
    }
    Ok(())
}

/// What is left of a request's body.
enum Rest {
    Nothing,
    Some,
    TooMuch,
    /// The client waits to be told to send it (RFC 9110 §10.1.1).
    HeldBack,
}

fn rest(session: &mut Session) -> Rest {
    if session.as_downstream_mut().is_body_done() {
        return Rest::Nothing;
    }
    let head = session.req_header();
    if head.headers.contains_key(header::EXPECT) {
        Rest::HeldBack
    } else if content_length(head).is_some_and(|length| length > MOST_REST as u64) {
        Rest::TooMuch
    } else {
        Rest::Some
    }
}

/// The body's length where the request announces it.
pub(crate) fn content_length(head: &RequestHeader) -> Option<u64> {
    head.headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

async fn write(session: &mut Session, response: Response<Bytes>) -> Result<()> {
    let (head, body) = response.into_parts();
    let mut header = ResponseHeader::build(head.status, Some(head.headers.len() + 3))?;
    for (name, value) in &head.headers {
        header.append_header(name.clone(), value.clone())?;
    }
    if head.status != StatusCode::NO_CONTENT {
        header.set_content_length(body.len())?;
    }
    let no_body = body.is_empty() || session.req_header().method == Method::HEAD;
    session.downstream_modules_ctx.response_header_filter(&mut header, no_body).await?;
    match session.as_downstream_mut() {
        // A head that ends the stream: a gRPC client takes one that does not for the start of an answer.
        ServerSession::H2(stream) if no_body => stream.write_response_header(Box::new(header), true),
        downstream => {
            downstream.write_response_header(Box::new(header)).await?;
            session.write_response_body((!no_body).then_some(body), true).await
        }
    }
}

/// Reads what is left of the body; whether that was all of it, and well formed.
async fn drained(session: &mut Session) -> bool {
    let all = async {
        let mut read = 0;
        loop {
            match session.read_request_body().await {
                Ok(None) => return true,
                Ok(Some(chunk)) if read + chunk.len() <= MOST_REST => read += chunk.len(),
                _ => return false,
            }
        }
    };
    timeout(PATIENCE, all).await.unwrap_or(false)
}
