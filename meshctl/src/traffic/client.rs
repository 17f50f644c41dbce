//! The client: sends requests at a steady rate, or keeps streams open, and reports each answer as a line.
use std::io::{self, Write};
use std::net::SocketAddr;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::record::{Record, now_us};
use crate::failure::Outcome;

/// What the requests are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Protocol {
    /// A connection, a line, an answer, closed again.
    Tcp,
    /// A datagram and its answer.
    Udp,
}

/// The hidden command that sends.
#[derive(Debug, Clone, Args)]
pub(crate) struct ClientArgs {
    /// Address and port.
    #[arg(long)]
    target: SocketAddr,
    /// TCP connections or UDP datagrams.
    #[arg(long, value_enum, default_value = "tcp")]
    protocol: Protocol,
    /// Requests in a second; 0 for none.
    #[arg(long, default_value_t = 10)]
    rate: u32,
    /// End after so many requests; 0 for no end but that of standard input.
    #[arg(long, default_value_t = 0)]
    count: u64,
    /// Streams to keep open, with a request on each of them ten times a second.
    #[arg(long, default_value_t = 0)]
    streams: u32,
    /// A request that has no answer after so many milliseconds is lost.
    #[arg(long, default_value_t = 1000)]
    timeout_ms: u64,
}

/// Sends until the count is reached or standard input ends: a client does not outlive who started it.
pub(crate) async fn client(args: &ClientArgs) -> Outcome {
    let (records, printed) = mpsc::channel::<Record>();
    let printer = std::thread::spawn(move || print(&printed));
    let ended = async {
        match args.count {
            0 => stdin_ends().await,
            _ => std::future::pending().await,
        }
    };
    let streams: Vec<_> = (0..args.streams)
        .map(|_| tokio::spawn(keep_stream(args.clone(), records.clone())))
        .collect();
    tokio::select! {
        () = send_requests(args, &records) => {}
        () = ended => {}
    }
    for stream in streams {
        stream.abort();
    }
    drop(records);
    // Requests under way end within their time; the printer ends with the last of them.
    let _ = tokio::task::spawn_blocking(move || printer.join()).await;
    Ok(())
}

fn print(records: &mpsc::Receiver<Record>) {
    let mut out = io::BufWriter::new(io::stdout().lock());
    while let Ok(record) = records.recv() {
        let mut written = writeln!(out, "{record}");
        for record in records.try_iter() {
            written = written.and_then(|()| writeln!(out, "{record}"));
        }
        if written.and_then(|()| out.flush()).is_err() {
            // Nobody reads any more.
            std::process::exit(0);
        }
    }
}

/// Standard input can only be read by blocking, so a thread of its own does that; it ends with the process.
async fn stdin_ends() {
    let (ended, wait) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        drop(io::copy(&mut io::stdin().lock(), &mut io::sink()));
        let _ = ended.send(());
    });
    let _ = wait.await;
}

async fn send_requests(args: &ClientArgs, records: &mpsc::Sender<Record>) {
    if args.rate == 0 {
        return std::future::pending().await;
    }
    let mut tick = interval(Duration::from_secs(1) / args.rate);
    tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut under_way = tokio::task::JoinSet::new();
    let mut sent = 0;
    while args.count == 0 || sent < args.count {
        tick.tick().await;
        sent += 1;
        let (args, records) = (args.clone(), records.clone());
        under_way.spawn(async move {
            let record = request(&args).await;
            drop(records.send(record));
        });
        while under_way.try_join_next().is_some() {}
    }
    while under_way.join_next().await.is_some() {}
}

async fn request(args: &ClientArgs) -> Record {
    let work = async {
        match args.protocol {
            Protocol::Tcp => ask_stream(&mut connect(args.target).await?).await,
            Protocol::Udp => ask_datagram(args.target).await,
        }
    };
    measure(args, work).await
}

async fn measure(args: &ClientArgs, work: impl Future<Output = Result<String, String>>) -> Record {
    let (sent_us, start) = (now_us(), Instant::now());
    let answer = match timeout(Duration::from_millis(args.timeout_ms), work).await {
        Ok(answer) => answer,
        Err(_) => Err(format!("no answer in {} ms", args.timeout_ms)),
    };
    Record {
        sent_us,
        took_us: u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX),
        answer,
    }
}

async fn connect(target: SocketAddr) -> Result<TcpStream, String> {
    let stream = TcpStream::connect(target)
        .await
        .map_err(|e| format!("connect: {e}"))?;
    stream.set_nodelay(true).map_err(|e| format!("nodelay: {e}"))?;
    Ok(stream)
}

async fn ask_stream(stream: &mut TcpStream) -> Result<String, String> {
    stream
        .write_all(b"who\n")
        .await
        .map_err(|e| format!("send: {e}"))?;
    let mut line = Vec::new();
    let mut buffer = [0; 256];
    while !line.ends_with(b"\n") {
        match stream.read(&mut buffer).await {
            Ok(0) => return Err("closed by the server".into()),
            Ok(read) => line.extend_from_slice(&buffer[..read]),
            Err(e) => return Err(format!("receive: {e}")),
        }
    }
    Ok(String::from_utf8_lossy(&line).trim_end().to_owned())
}

async fn ask_datagram(target: SocketAddr) -> Result<String, String> {
    let any: SocketAddr = match target {
        SocketAddr::V4(_) => ([0, 0, 0, 0], 0).into(),
        SocketAddr::V6(_) => ([0_u16; 8], 0).into(),
    };
    let socket = UdpSocket::bind(any).await.map_err(|e| format!("bind: {e}"))?;
    socket
        .send_to(b"who\n", target)
        .await
        .map_err(|e| format!("send: {e}"))?;
    let mut buffer = [0; 256];
    let (read, from) = socket
        .recv_from(&mut buffer)
        .await
        .map_err(|e| format!("receive: {e}"))?;
    // A client of a service must see the service's address, not the backend's.
    if from != target {
        return Err(format!("answer from {from} instead of {target}"));
    }
    Ok(String::from_utf8_lossy(&buffer[..read]).trim_end().to_owned())
}

/// Opens a stream and asks on it ten times a second. A stream that breaks is reported once and stays broken.
async fn keep_stream(args: ClientArgs, records: mpsc::Sender<Record>) {
    let start = now_us();
    let mut stream = match connect(args.target).await {
        Ok(stream) => stream,
        Err(why) => return drop(records.send(broken(start, &why))),
    };
    let mut tick = interval(Duration::from_millis(100));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let mut record = measure(&args, ask_stream(&mut stream)).await;
        if let Err(why) = &record.answer {
            record = broken(record.sent_us, why);
        }
        let over = record.answer.is_err();
        if records.send(record).is_err() || over {
            return;
        }
    }
}

fn broken(sent_us: u64, why: &str) -> Record {
    Record {
        sent_us,
        took_us: now_us().saturating_sub(sent_us),
        answer: Err(format!("stream broken: {why}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    fn args(target: SocketAddr, protocol: Protocol) -> ClientArgs {
        ClientArgs {
            target,
            protocol,
            rate: 100,
            count: 1,
            streams: 0,
            timeout_ms: 200,
        }
    }

    #[tokio::test]
    async fn a_refused_connect_and_a_silent_server_are_lost_requests() -> io::Result<()> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let target = listener.local_addr()?;
        let silent = request(&args(target, Protocol::Tcp)).await;
        assert_eq!(silent.answer, Err("no answer in 200 ms".into()));
        drop(listener);
        let refused = request(&args(target, Protocol::Tcp)).await;
        assert!(refused.answer.expect_err("refused").starts_with("connect: "));
        Ok(())
    }

    #[tokio::test]
    async fn an_answer_from_a_foreign_address_is_lost() -> io::Result<()> {
        let server = UdpSocket::bind("127.0.0.1:0").await?;
        let stranger = UdpSocket::bind("127.0.0.1:0").await?;
        let target = server.local_addr()?;
        let asked = tokio::spawn(async move { request(&args(target, Protocol::Udp)).await });
        let (_, client) = server.recv_from(&mut [0; 16]).await?;
        stranger.send_to(b"it is me", client).await?;
        let record = asked.await?;
        assert!(record.answer.expect_err("foreign").contains("instead of"));
        Ok(())
    }
}
