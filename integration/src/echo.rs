//! A responder that says which source address it sees, and the prober that asks it: the proof that nothing on
//! the way changed the sender's address. Over UDP and TCP.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Port of the responder unless told otherwise, UDP and TCP.
pub const PORT: u16 = 7007;

/// What the responder prints once it listens.
pub const READY: &str = "responding";

/// How long a prober waits for an answer before it asks again.
const PATIENCE: Duration = Duration::from_secs(1);

/// How often it asks.
const TRIES: usize = 3;

/// What became of one question.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// Who was asked.
    pub target: IpAddr,
    /// `udp` or `tcp`.
    pub protocol: String,
    /// The source address that the responder saw, or why there is none.
    pub seen: Result<IpAddr, String>,
}

/// Answers on these addresses until the process is ended. One socket per address, so that every answer comes
/// from the address that was asked.
pub fn respond(addresses: &[IpAddr], port: u16) -> io::Result<()> {
    let mut workers = Vec::new();
    for &address in addresses {
        let udp = UdpSocket::bind((address, port))?;
        let tcp = TcpListener::bind((address, port))?;
        workers.push(thread::spawn(move || respond_udp(&udp)));
        workers.push(thread::spawn(move || respond_tcp(&tcp)));
    }
    writeln!(io::stdout(), "{READY}")?;
    for worker in workers {
        worker.join().map_err(|_| io::Error::other("a responder failed"))??;
    }
    Ok(())
}

fn respond_udp(socket: &UdpSocket) -> io::Result<()> {
    let mut buffer = [0; 2048];
    loop {
        // An ICMP error for an earlier answer is reported here; it concerns a prober that went away.
        let Ok((length, sender)) = socket.recv_from(&mut buffer) else { continue };
        let mut answer = buffer[..length].to_vec();
        answer.extend(format!(" {}", sender.ip()).bytes());
        let _ = socket.send_to(&answer, sender);
    }
}

fn respond_tcp(listener: &TcpListener) -> io::Result<()> {
    loop {
        let Ok((mut stream, sender)) = listener.accept() else { continue };
        // The prober may be gone again.
        let _ = writeln!(stream, "{}", sender.ip());
    }
}

/// Asks all targets over both protocols at once.
#[must_use]
pub fn probe(targets: &[IpAddr]) -> Vec<Answer> {
    thread::scope(|scope| {
        let mut asking = Vec::new();
        for &target in targets {
            let at = SocketAddr::new(target, PORT);
            asking.push((target, "udp", scope.spawn(move || ask_udp(at))));
            asking.push((target, "tcp", scope.spawn(move || ask_tcp(at))));
        }
        let answer =
            |(target, protocol, asked): (IpAddr, &str, thread::ScopedJoinHandle<'_, io::Result<IpAddr>>)| {
                let result = asked.join().unwrap_or_else(|_| Err(io::Error::other("the prober failed")));
                Answer { target, protocol: protocol.to_owned(), seen: result.map_err(|err| err.to_string()) }
            };
        asking.into_iter().map(answer).collect()
    })
}

fn ask_udp(target: SocketAddr) -> io::Result<IpAddr> {
    let any: IpAddr = if target.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
    let socket = UdpSocket::bind((any, 0))?;
    // Connected: an answer from another address than the one asked is not heard.
    socket.connect(target)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let mut last = io::Error::other("no answer");
    for number in 0..TRIES {
        let question = format!("question {number}");
        if let Err(err) = socket.send(question.as_bytes()) {
            last = err;
            continue;
        }
        let mut buffer = [0; 2048];
        match socket.recv(&mut buffer) {
            Ok(length) => {
                let text = String::from_utf8_lossy(&buffer[..length]);
                let seen = text.rsplit(' ').next().unwrap_or_default();
                return seen.parse().map_err(|_| io::Error::other(format!("answer {text:?}")));
            }
            Err(err) => last = err,
        }
    }
    Err(last)
}

fn ask_tcp(target: SocketAddr) -> io::Result<IpAddr> {
    let mut last = io::Error::other("no answer");
    for _ in 0..TRIES {
        match TcpStream::connect_timeout(&target, PATIENCE) {
            Ok(mut stream) => {
                stream.set_read_timeout(Some(PATIENCE))?;
                let mut text = String::new();
                stream.read_to_string(&mut text)?;
                return text.trim().parse().map_err(|_| io::Error::other(format!("answer {text:?}")));
            }
            Err(err) => last = err,
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_responder_says_whom_it_sees() {
        let home: IpAddr = [127, 0, 0, 77].into();
        thread::spawn(move || respond(&[home], PORT));
        let good = crate::eventually::soon(
            || probe(&[home]).iter().all(|answer| answer.seen == Ok([127, 0, 0, 1].into())),
            Duration::from_secs(10),
        );
        assert!(good, "{:?}", probe(&[home]));
        let silent = probe(&[[127, 0, 0, 78].into()]);
        assert!(silent.iter().all(|answer| answer.seen.is_err()), "{silent:?}");
    }
}
