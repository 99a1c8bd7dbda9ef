//! Long answers and requests, a line at a time.

use std::{io::IsTerminal as _, path::Path, time::Duration};

use bytes::Bytes;
use futures_util::stream;
use http::Response;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};

use super::{
    connection::{Answer, Connection, streamed},
    exit::Failure,
};

/// Reads an answer line by line, without empty ones, until `each` has had enough.
pub(super) async fn read(
    response: Response<Incoming>,
    mut each: impl FnMut(&[u8]) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut body = response.into_body();
    let mut rest: Vec<u8> = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Failure::failed("the answer broke off: something is missing"))?;
        let Ok(data) = frame.into_data() else { continue };
        rest.extend_from_slice(&data);
        let Some(end) = rest.iter().rposition(|byte| *byte == b'\n') else { continue };
        let whole: Vec<u8> = rest.drain(..=end).collect();
        for line in whole.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            each(line)?;
        }
    }
    Ok(())
}

/// Writes the export to a file, which is there only if it is whole. How many lines.
pub(super) async fn export(connection: &Connection, file: &Path) -> Result<u64, Failure> {
    let because = |error: std::io::Error| Failure::failed(format!("{}: {error}", file.display()));
    let response = connection.open("/api/v1/export").await?;
    // Nobody else's: two exports at once must not mix.
    let part = file.with_added_extension(format!("{}.part", std::process::id()));
    // What is there and is no file, such as /dev/null, is written to and not replaced.
    let replaces = !tokio::fs::metadata(file).await.is_ok_and(|there| !there.is_file());
    let mut options = tokio::fs::OpenOptions::new();
    let mut out: Box<dyn tokio::io::AsyncWrite + Unpin + Send> = if file == Path::new("-") {
        Box::new(tokio::io::stdout())
    } else if replaces {
        // It names users.
        Box::new(options.write(true).create_new(true).mode(0o600).open(&part).await.map_err(because)?)
    } else {
        Box::new(options.write(true).open(file).await.map_err(because)?)
    };
    let written = write_export(response, &mut out).await;
    let placed = match written {
        Ok(count) if replaces && file != Path::new("-") => {
            tokio::fs::rename(&part, file).await.map(|()| count).map_err(because)
        }
        written => written.map_err(|error| Failure::failed(format!("{}: {error}", file.display()))),
    };
    if placed.is_err() && replaces && file != Path::new("-") {
        let _ = tokio::fs::remove_file(&part).await;
    }
    placed
}

/// Writes what comes. How many lines.
async fn write_export(
    response: Response<Incoming>,
    out: &mut (dyn tokio::io::AsyncWrite + Unpin + Send),
) -> std::io::Result<u64> {
    let bar = progress(None);
    let mut body = response.into_body();
    let mut count = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| std::io::Error::other("the export broke off: it is not whole"))?;
        let Ok(data) = frame.into_data() else { continue };
        count += data.iter().filter(|byte| **byte == b'\n').count() as u64;
        bar.set_position(count);
        out.write_all(&data).await?;
    }
    out.flush().await?;
    bar.finish_and_clear();
    Ok(count)
}

/// Sends a file to be imported.
pub(super) async fn import(connection: &Connection, file: &Path) -> Result<Answer, Failure> {
    let because = |error: std::io::Error| Failure::usage(format!("{}: {error}", file.display()));
    let (input, size): (Box<dyn AsyncRead + Send + Unpin>, _) = if file == Path::new("-") {
        (Box::new(tokio::io::stdin()), None)
    } else {
        let input = tokio::fs::File::open(file).await.map_err(because)?;
        let size = input.metadata().await.map_err(because)?.len();
        (Box::new(input), Some(size))
    };
    let bar = progress(size);
    let shown = bar.clone();
    let pieces = stream::try_unfold(input, move |mut input| {
        let bar = shown.clone();
        async move {
            let mut piece = vec![0; 64 * 1024];
            let read = input.read(&mut piece).await?;
            piece.truncate(read);
            bar.inc(read as u64);
            Ok((read > 0).then(|| (Bytes::from(piece), input)))
        }
    });
    let answer = connection.import(streamed(pieces)).await;
    bar.finish_and_clear();
    answer
}

/// A bar on a terminal, and nothing elsewhere. `size`: in bytes, where it is known.
fn progress(size: Option<u64>) -> ProgressBar {
    let target =
        if std::io::stderr().is_terminal() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let bar = ProgressBar::with_draw_target(size, target);
    let template = if size.is_some() { "{wide_bar} {bytes}/{total_bytes}" } else { "{spinner} {pos}" };
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}
