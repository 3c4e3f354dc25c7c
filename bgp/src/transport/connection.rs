//! A connection: a task that reads and decodes, a task that writes.
//!
//! The writer has two queues. What keeps the session alive or ends it (OPEN, KEEPALIVE, NOTIFICATION) overtakes
//! routes, which come in chunks of whole messages; so a long table does not hold up a keepalive.
//!
//! To close is to let go of the [`Connection`]: the writer sends what is in the first queue, then the end of the
//! stream, within [`FLUSH_TIME`]; the reader reads on, discarding, until the peer closes too or [`LINGER_TIME`] is
//! over. Unread data would turn the close into a reset, which may take a NOTIFICATION away from the peer.

use std::io;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::Event;
use crate::session::{Conn, speaks_four_octet_as};
use crate::wire::{Codec, DecodeError, Message, decode};

/// How long the last messages may take to be sent.
pub(crate) const FLUSH_TIME: Duration = Duration::from_secs(1);
/// How long the peer may take to close after us.
pub(crate) const LINGER_TIME: Duration = Duration::from_secs(1);

/// Messages that keep the session alive; more than this are waiting only if the peer takes nothing at all.
const URGENT_QUEUE: usize = 8;
/// Chunks of routes.
const ROUTES_QUEUE: usize = 4;
/// What is read at once.
const READ_CHUNK: usize = 16 * 1024;

/// The speaker's end of a connection; dropping it closes the connection.
#[derive(Debug)]
pub(crate) struct Connection {
    urgent: mpsc::Sender<Bytes>,
    routes: mpsc::Sender<Bytes>,
    closing: CancellationToken,
}

impl Connection {
    /// Starts both tasks. `internal`: the peer is in our AS.
    pub(crate) fn start(
        stream: TcpStream,
        conn: Conn,
        internal: bool,
        events: &mpsc::Sender<Event>,
        tasks: &mut JoinSet<()>,
    ) -> Self {
        let (urgent, urgent_queue) = mpsc::channel(URGENT_QUEUE);
        let (routes, routes_queue) = mpsc::channel(ROUTES_QUEUE);
        let closing = CancellationToken::new();
        let (reader, writer) = stream.into_split();
        let codec = Codec { four_octet_as: false, internal };
        tasks.spawn(read(reader, conn, codec, events.clone(), closing.clone()));
        tasks.spawn(write(writer, conn, urgent_queue, routes_queue, events.clone(), closing.clone()));
        Self { urgent, routes, closing }
    }

    /// Sends a message that must not wait behind routes. False: the peer takes nothing, and it is not sent.
    pub(crate) fn send_urgent(&self, message: Bytes) -> bool {
        self.urgent.try_send(message).is_ok()
    }

    /// Room for a chunk of routes.
    pub(crate) fn has_room(&self) -> bool {
        self.routes.capacity() > 0
    }

    /// Sends a chunk of whole messages, or gives it back.
    pub(crate) fn send_routes(&self, chunk: Bytes) -> Result<(), Bytes> {
        self.routes.try_send(chunk).map_err(mpsc::error::TrySendError::into_inner)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.closing.cancel();
    }
}

async fn read(
    mut stream: OwnedReadHalf,
    conn: Conn,
    mut codec: Codec,
    events: mpsc::Sender<Event>,
    closing: CancellationToken,
) {
    let mut buffer = BytesMut::new();
    let talk = async {
        loop {
            buffer.reserve(READ_CHUNK);
            // An error and the end of the stream say the same: the connection is gone.
            let gone = matches!(stream.read_buf(&mut buffer).await, Ok(0) | Err(_));
            if gone {
                // Nobody listens only if the speaker itself is at its end.
                let _ = events.send(Event::Closed(conn)).await;
                return false;
            }
            let messages = take_messages(&mut buffer, &mut codec);
            let broken = messages.last().is_some_and(Result::is_err);
            if !messages.is_empty() && events.send(Event::Received(conn, messages)).await.is_err() {
                return false;
            }
            if broken {
                // The session answers and closes.
                return true;
            }
        }
    };
    // Cancel-safe: what is lost with `talk` belongs to a connection that nobody wants any more.
    let linger = tokio::select! {
        broken = talk => broken,
        () = closing.cancelled() => true,
    };
    if linger {
        closing.cancelled().await;
        let discard = async {
            loop {
                buffer.clear();
                buffer.reserve(READ_CHUNK);
                if matches!(stream.read_buf(&mut buffer).await, Ok(0) | Err(_)) {
                    return;
                }
            }
        };
        // Whether the peer closed in time makes no difference.
        let _ = timeout(LINGER_TIME, discard).await;
    }
}

/// All whole messages, up to the first error. The OPEN says how AS numbers are written from then on (RFC 6793):
/// decided here, as the next messages may be in the buffer already.
fn take_messages(buffer: &mut BytesMut, codec: &mut Codec) -> Vec<Result<Message, DecodeError>> {
    let mut messages = Vec::new();
    loop {
        match decode(buffer, *codec) {
            Ok(Some(message)) => {
                if let Message::Open(open) = &message {
                    codec.four_octet_as = speaks_four_octet_as(open);
                }
                messages.push(Ok(message));
            }
            Ok(None) => return messages,
            Err(error) => {
                messages.push(Err(error));
                return messages;
            }
        }
    }
}

async fn write(
    mut stream: OwnedWriteHalf,
    conn: Conn,
    mut urgent: mpsc::Receiver<Bytes>,
    mut routes: mpsc::Receiver<Bytes>,
    events: mpsc::Sender<Event>,
    closing: CancellationToken,
) {
    let talk = async {
        loop {
            // Cancel-safe: both arms only receive. The first queue comes first; it ends when the connection is let go.
            let bytes = tokio::select! {
                biased;
                bytes = urgent.recv() => match bytes {
                    Some(bytes) => bytes,
                    None => break,
                },
                Some(bytes) = routes.recv() => bytes,
            };
            stream.write_all(&bytes).await?;
            if !closing.is_cancelled() && events.send(Event::Sent(conn)).await.is_err() {
                break;
            }
        }
        stream.shutdown().await
    };
    let talk = async {
        let result: io::Result<()> = talk.await;
        if result.is_err() && !closing.is_cancelled() {
            // The reader may not see it, if the peer closed only its receiving direction.
            let _ = events.send(Event::Closed(conn)).await;
        }
    };
    let patience = async {
        closing.cancelled().await;
        sleep(FLUSH_TIME).await;
    };
    tokio::select! {
        () = talk => {}
        () = patience => {}
    }
}
