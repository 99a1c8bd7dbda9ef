//! One connection of HAProxy: a greeting, then questions and answers, then a farewell.

use std::{io, time::Duration};

use bytes::BytesMut;
use spop::{
    FramePayload, FrameType, SpopCodec, SpopFrame, StatusCode,
    frames::{AgentDisconnect, AgentHello, FrameCapabilities, HaproxyHello},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
    time::timeout,
};
use tokio_util::{
    codec::{Decoder as _, Encoder as _},
    sync::CancellationToken,
};

use super::{Checked, Spoe, Verdict, verdict::Ids};

/// The largest frame: HAProxy sends what fits into its buffer (`tune.bufsize`, 16 KiB unless it is set).
const MOST: u32 = 128 * 1024;
/// The largest greeting.
const MOST_GREETING: u32 = 4096;
/// How long HAProxy may take for its greeting, for a frame that has begun, and to read what it is sent.
const LIMIT: Duration = Duration::from_secs(30);
/// How long a connection may be idle.
const IDLE: Duration = Duration::from_secs(600);
/// How much is read at once.
const ROOM: usize = 16 * 1024;
/// The most questions of a connection that wait for a store.
const MOST_WAITING: usize = 256;

pub(super) struct Connection {
    stream: TcpStream,
    spoe: Spoe,
    codec: SpopCodec,
    input: BytesMut,
    output: BytesMut,
    /// Set once HAProxy has greeted.
    greeted: bool,
    /// Answers that have to wait.
    waiting: JoinSet<(Ids, Verdict)>,
}

/// How a connection ends.
enum End {
    /// Nobody is there any more, or nothing is left to say.
    Closed,
    /// With a farewell.
    Farewell(StatusCode),
    /// It broke off.
    Broken(io::Error),
}

impl<E: Into<io::Error>> From<E> for End {
    fn from(error: E) -> Self {
        Self::Broken(error.into())
    }
}

/// What a frame asks.
enum Question {
    Greeting(HaproxyHello),
    /// `None` where it is not asked as it has to be.
    Check(Ids, Option<Checked>),
}

impl Connection {
    pub(super) fn new(stream: TcpStream, spoe: Spoe) -> Self {
        Self {
            stream,
            spoe,
            codec: SpopCodec::new(MOST_GREETING),
            input: BytesMut::new(),
            output: BytesMut::new(),
            greeted: false,
            waiting: JoinSet::new(),
        }
    }

    /// Answers until HAProxy leaves, breaks the protocol, or it is time to stop.
    pub(super) async fn run(mut self, stop: &CancellationToken) -> io::Result<()> {
        let end = loop {
            if let Err(end) = self.turn(stop).await {
                break end;
            }
        };
        if let End::Broken(error) = end {
            return Err(error);
        }
        // What was asked before is still answered.
        while let Some(answer) = self.waiting.join_next().await {
            let (ids, verdict) = answer?;
            self.say_verdict(ids, &verdict)?;
        }
        if let End::Farewell(status) = end {
            let message = status.message().to_owned();
            self.say(Box::new(AgentDisconnect { status_code: status.to_u32(), message }))?;
        }
        self.send().await?;
        self.stream.shutdown().await
    }

    /// Answers what has come, sends the answers together, and waits for more.
    async fn turn(&mut self, stop: &CancellationToken) -> Result<(), End> {
        while let Some(question) = self.next()? {
            match question {
                Question::Greeting(hello) => self.greet(&hello)?,
                Question::Check(ids, request) if self.spoe.asks() => {
                    let spoe = self.spoe.clone();
                    self.waiting.spawn(async move { (ids, spoe.judge(request).await) });
                }
                Question::Check(ids, request) => {
                    let verdict = self.spoe.judge(request).await;
                    self.say_verdict(ids, &verdict)?;
                }
            }
        }
        self.send().await?;
        self.input.reserve(ROOM);
        let limit = if self.greeted && self.input.is_empty() { IDLE } else { LIMIT };
        let has_room = self.waiting.len() < MOST_WAITING;
        tokio::select! {
            Some(answer) = self.waiting.join_next() => {
                let (ids, verdict) = answer?;
                self.say_verdict(ids, &verdict)?;
                Ok(())
            }
            read = timeout(limit, self.stream.read_buf(&mut self.input)), if has_room => match read {
                Ok(Ok(0)) => Err(End::Closed),
                Ok(Ok(_)) => Ok(()),
                Ok(Err(error)) => Err(End::Broken(error)),
                Err(_) => Err(End::Farewell(StatusCode::Timeout)),
            },
            () = stop.cancelled() => Err(End::Farewell(StatusCode::None)),
        }
    }

    /// What the next frame asks, where it is there as a whole.
    fn next(&mut self) -> Result<Option<Question>, End> {
        let frame = self.codec.decode(&mut self.input).map_err(|error| {
            tracing::debug!(%error, "HAProxy sends what cannot be read");
            End::Farewell(StatusCode::Invalid)
        })?;
        let Some(frame) = frame else { return Ok(None) };
        match (frame.frame_type(), frame.payload()) {
            (FrameType::HaproxyHello, greeting) if !self.greeted => match HaproxyHello::try_from(greeting) {
                Ok(hello) => Ok(Some(Question::Greeting(hello))),
                Err(_) => Err(End::Farewell(StatusCode::Invalid)),
            },
            (FrameType::Notify, FramePayload::ListOfMessages(messages)) if self.greeted => {
                Ok(Some(Question::Check(Ids::of(&*frame), Checked::read(messages))))
            }
            (FrameType::HaproxyDisconnect, _) => Err(End::Farewell(StatusCode::None)),
            _ => Err(End::Farewell(StatusCode::Invalid)),
        }
    }

    fn greet(&mut self, hello: &HaproxyHello) -> Result<(), End> {
        let version = hello.negotiate_version().ok_or(End::Farewell(StatusCode::BadVersion))?;
        let max_frame_size = hello.negotiate_max_frame_size(MOST).map_err(End::Farewell)?;
        self.codec.set_max_frame_size(max_frame_size);
        self.greeted = true;
        let capabilities = vec![FrameCapabilities::Pipelining];
        self.say(Box::new(AgentHello { version, max_frame_size, capabilities }))?;
        // `option spop-check` wants no more than the greeting.
        if hello.healthcheck == Some(true) { Err(End::Closed) } else { Ok(()) }
    }

    fn say_verdict(&mut self, ids: Ids, verdict: &Verdict) -> io::Result<()> {
        // The verdict alone, where the rest is too long for the frames that were agreed on.
        self.say(verdict.frame(ids)).or_else(|_| self.say(Verdict::denied(ids)))
    }

    fn say(&mut self, frame: Box<dyn SpopFrame>) -> io::Result<()> {
        self.codec.encode(frame, &mut self.output)
    }

    async fn send(&mut self) -> io::Result<()> {
        if !self.output.is_empty() {
            timeout(LIMIT, self.stream.write_all_buf(&mut self.output)).await??;
        }
        Ok(())
    }
}
