//! The echo server: it answers every line and every datagram with its cluster, node and pod.
use std::io;
use std::net::{Ipv6Addr, SocketAddr};
use std::sync::Arc;

use clap::Args;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

use crate::failure::{Doing, Outcome};

/// A line may be so long; whoever sends more is cut off.
const MAX_LINE: u64 = 4096;

/// The hidden command that serves.
#[derive(Debug, Args)]
pub(crate) struct EchoArgs {
    /// What it answers, e.g. `east east-1 echo-east-1`.
    #[arg(long)]
    who: String,
    /// TCP and UDP port, on all addresses of both families.
    #[arg(long)]
    port: u16,
}

/// Serves until it is killed.
pub(crate) async fn echo(args: &EchoArgs) -> Outcome {
    let addr = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), args.port);
    let tcp = TcpListener::bind(addr)
        .await
        .doing(format!("listen on TCP {addr}"))?;
    let udp = UdpSocket::bind(addr)
        .await
        .doing(format!("listen on UDP {addr}"))?;
    println!("{} listens on {addr}", args.who);
    let answer: Arc<str> = format!("{}\n", args.who).into();
    let datagrams = tokio::spawn(answer_datagrams(udp, Arc::clone(&answer)));
    answer_streams(tcp, answer).await;
    datagrams.abort();
    Ok(())
}

async fn answer_streams(listener: TcpListener, answer: Arc<str>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let answer = Arc::clone(&answer);
                // A client that goes away in the middle is its own business.
                tokio::spawn(async move { drop(answer_stream(stream, &answer).await) });
            }
            Err(error) => {
                eprintln!("accept: {error}");
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
        }
    }
}

/// A line for a line; a client that speaks HTTP gets one answer and the end, so that curl works.
async fn answer_stream(stream: TcpStream, answer: &str) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader);
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = (&mut reader).take(MAX_LINE).read_until(b'\n', &mut line).await?;
        if read == 0 || !line.ends_with(b"\n") {
            return Ok(());
        }
        if line.starts_with(b"GET ") || line.starts_with(b"HEAD ") {
            let head = format!(
                "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                answer.len()
            );
            writer.write_all((head + answer).as_bytes()).await?;
            return writer.shutdown().await;
        }
        writer.write_all(answer.as_bytes()).await?;
    }
}

async fn answer_datagrams(socket: UdpSocket, answer: Arc<str>) {
    let mut buffer = [0; 2048];
    loop {
        // An ICMP error about an earlier answer ends nothing.
        if let Ok((_, client)) = socket.recv_from(&mut buffer).await {
            let _ = socket.send_to(answer.as_bytes(), client).await;
        }
    }
}
