use std::{future::poll_fn, pin::pin, time::Duration};

use bytes::{Buf, BufMut};
use http_body::Body;
use zeroize::Zeroizing;

use super::refusal::Refusal;

/// Reads a body of at most `limit` bytes within `time`. It holds secrets, so it is wiped when dropped.
pub(super) async fn read<B: Body>(body: B, limit: usize, time: Duration) -> Result<Zeroizing<Vec<u8>>, Refusal> {
    // The lower bound is the Content-Length, where there is one.
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    if announced > limit {
        return Err(Refusal::TooLarge);
    }
    tokio::time::timeout(time, collect(body, announced, limit)).await.unwrap_or(Err(Refusal::TooSlow))
}

async fn collect<B: Body>(body: B, announced: usize, limit: usize) -> Result<Zeroizing<Vec<u8>>, Refusal> {
    let mut body = pin!(body);
    let mut bytes = Zeroizing::new(Vec::with_capacity(announced));
    while let Some(frame) = poll_fn(|cx| body.as_mut().poll_frame(cx)).await {
        let Ok(data) = frame.map_err(|_| Refusal::Body)?.into_data() else { continue };
        if data.remaining() > limit - bytes.len() {
            return Err(Refusal::TooLarge);
        }
        bytes.put(data);
    }
    Ok(bytes)
}
