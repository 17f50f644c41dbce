//! One TCP connection: a task that reads and a task that writes.
//!
//! ```text
//!   socket --> reader --(bounded channel: a busy engine stops reading)--> engine
//!   socket <-- writer <--(the engine itself bounds what is unwritten)---- engine
//! ```
//!
//! Closing never cancels a task: the writer still hands over what is queued (a NOTIFICATION) and the reader drains, since the
//! kernel answers bytes that nobody reads with a reset, which would overtake the NOTIFICATION. Both give up after a second.
use std::io;
use std::time::Duration;

use bytes::Bytes;
use isthmus_bgp_engine::ConnId;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::event::Event;

/// How much is read at once.
const READ_SIZE: usize = 64 * 1024;

/// How long a closing connection may take to hand over its last bytes.
const LINGER: Duration = Duration::from_secs(1);

/// A connection with its two tasks; dropping it closes the connection once what was queued is written.
#[derive(Debug)]
pub(crate) struct Connection {
    queue: mpsc::UnboundedSender<Bytes>,
    closing: DropGuard,
    tasks: [JoinHandle<()>; 2],
}

impl Connection {
    /// Starts to read and to write.
    pub(crate) fn start(conn: ConnId, stream: TcpStream, events: mpsc::Sender<Event>) -> Self {
        let (input, output) = stream.into_split();
        let (queue, queued) = mpsc::unbounded_channel();
        let closing = CancellationToken::new();
        let reader = tokio::spawn(read(conn, input, events.clone(), closing.clone()));
        let writer = tokio::spawn(write(conn, output, queued, events, closing.clone()));
        Self {
            queue,
            closing: closing.drop_guard(),
            tasks: [reader, writer],
        }
    }

    /// Closes, and waits until what was queued is with the peer or the patience is over.
    pub(crate) async fn close(self) {
        drop((self.queue, self.closing));
        for task in self.tasks {
            let _panicked = task.await;
        }
    }

    /// Queues bytes. A connection that has failed meanwhile reports that by itself.
    pub(crate) fn send(&self, bytes: Bytes) {
        let _failed_meanwhile = self.queue.send(bytes);
    }
}

async fn read(
    conn: ConnId,
    mut input: OwnedReadHalf,
    events: mpsc::Sender<Event>,
    closing: CancellationToken,
) {
    let mut buffer = vec![0; READ_SIZE];
    let error = loop {
        let outcome = tokio::select! {
            outcome = input.read(&mut buffer) => outcome,
            () = closing.cancelled() => {
                let _gave_up = tokio::time::timeout(LINGER, drain(&mut input, &mut buffer)).await;
                return;
            }
        };
        match outcome {
            Ok(0) => break "closed by the peer".to_owned(),
            Ok(length) => {
                let bytes = buffer[..length].to_vec();
                if events.send(Event::Received { conn, bytes }).await.is_err() {
                    return;
                }
            }
            Err(error) => break plain(&error),
        }
    };
    let _engine_gone = events.send(Event::Closed { conn, error }).await;
}

async fn drain(input: &mut OwnedReadHalf, buffer: &mut [u8]) {
    while input.read(buffer).await.is_ok_and(|length| length > 0) {}
}

async fn write(
    conn: ConnId,
    mut output: OwnedWriteHalf,
    mut queued: mpsc::UnboundedReceiver<Bytes>,
    events: mpsc::Sender<Event>,
    closing: CancellationToken,
) {
    let patience = async {
        closing.cancelled().await;
        tokio::time::sleep(LINGER).await;
    };
    tokio::pin!(patience);
    while let Some(bytes) = queued.recv().await {
        let written = tokio::select! {
            written = output.write_all(&bytes) => written,
            () = &mut patience => break,
        };
        let (event, failed) = match written {
            Ok(()) => (
                Event::Written {
                    conn,
                    bytes: bytes.len(),
                },
                false,
            ),
            Err(error) => (
                Event::Closed {
                    conn,
                    error: plain(&error),
                },
                true,
            ),
        };
        // The engine has forgotten a closing connection: its reports would only fill the channel.
        if !closing.is_cancelled() && events.send(event).await.is_err() || failed {
            break;
        }
    }
    let _already_gone = output.shutdown().await;
}

/// The kernel's words without their number.
fn plain(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionReset => "connection reset by the peer".to_owned(),
        io::ErrorKind::BrokenPipe => "closed by the peer".to_owned(),
        io::ErrorKind::TimedOut => "the peer stopped answering (TCP time-out)".to_owned(),
        _ => error.to_string(),
    }
}
