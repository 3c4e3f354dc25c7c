//! Streams between pods, for trying what a change of path does to them. Both go at a rate: a stream as fast as it goes
//! fills queues, and what these drop would hide what a change loses.
//!
//! The sink takes TCP and tells each sender at the end how much has arrived; UDP goes to a responder
//! ([`crate::echo`]), which answers every datagram.

#![expect(clippy::disallowed_methods, reason = "a stream lasts for a time and goes at a pace")]

use std::collections::BTreeSet;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::echo::{self, READY};

/// Port of the sink.
pub const PORT: u16 = 7008;

/// A stream that does not move for so long has ended.
const PATIENCE: Duration = Duration::from_secs(20);

/// Answers that take longer than this after the last datagram are lost.
const LAST_ANSWER: Duration = Duration::from_secs(2);

/// What became of a stream.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Streamed {
    /// Bytes of TCP, datagrams of UDP.
    pub sent: u64,
    /// Those that arrived, and came back if they are datagrams.
    pub arrived: u64,
    /// The longest time in which TCP could not write anything, in milliseconds.
    pub longest_stall_ms: u64,
}

impl Streamed {
    /// What did not arrive.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.sent - self.arrived.min(self.sent)
    }
}

/// Takes TCP streams on these addresses until the process is ended.
pub fn sink(addresses: &[IpAddr]) -> io::Result<()> {
    let mut workers = Vec::new();
    for &address in addresses {
        let listener = TcpListener::bind((address, PORT))?;
        workers.push(thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // A sender that is gone wants no count.
                thread::spawn(move || drop(swallow(stream)));
            }
        }));
    }
    writeln!(io::stdout(), "{READY}")?;
    for worker in workers {
        worker.join().map_err(|_| io::Error::other("a sink failed"))?;
    }
    Ok(())
}

fn swallow(mut stream: TcpStream) -> io::Result<()> {
    let arrived = io::copy(&mut stream, &mut io::sink())?;
    stream.write_all(&arrived.to_be_bytes())
}

/// Writes at this rate (bytes a second) for so long, then asks how much has arrived.
pub fn tcp(target: IpAddr, duration: Duration, rate: u32) -> io::Result<Streamed> {
    let mut stream = TcpStream::connect_timeout(&SocketAddr::new(target, PORT), PATIENCE)?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let chunk = [0x55; 16 * 1024];
    let mut streamed = Streamed::default();
    let begin = Instant::now();
    let mut longest = Duration::ZERO;
    while begin.elapsed() < duration {
        let due = begin + Duration::from_secs_f64(streamed.sent as f64 / f64::from(rate.max(1)));
        thread::sleep(due.saturating_duration_since(Instant::now()));
        let before = Instant::now();
        stream.write_all(&chunk)?;
        longest = longest.max(before.elapsed());
        streamed.sent += chunk.len() as u64;
    }
    stream.shutdown(Shutdown::Write)?;
    let mut arrived = [0; 8];
    stream.read_exact(&mut arrived)?;
    streamed.arrived = u64::from_be_bytes(arrived);
    streamed.longest_stall_ms = u64::try_from(longest.as_millis()).unwrap_or(u64::MAX);
    Ok(streamed)
}

/// Sends numbered datagrams of `bytes` to a responder at a rate per second for so long, and counts those answered.
pub fn udp(target: IpAddr, duration: Duration, rate: u32, bytes: usize) -> io::Result<Streamed> {
    let any: IpAddr = if target.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect((target, echo::PORT))?;
    let receiver = socket.try_clone()?;
    receiver.set_read_timeout(Some(LAST_ANSWER))?;
    let answers = thread::spawn(move || {
        let mut numbers = BTreeSet::new();
        let mut buffer = [0; 64 * 1024];
        loop {
            match receiver.recv(&mut buffer) {
                Ok(length) => numbers.extend(
                    buffer.first_chunk::<8>().filter(|_| length >= 8).map(|n| u64::from_be_bytes(*n)),
                ),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return numbers.len() as u64,
                // An ICMP error is told here; the datagram it is about is lost and counted so.
                Err(_) => {}
            }
        }
    });
    let mut datagram = vec![0x55; bytes.max(8)];
    let begin = Instant::now();
    let mut streamed = Streamed::default();
    while begin.elapsed() < duration {
        let due =
            begin + Duration::from_secs(1) / rate.max(1) * u32::try_from(streamed.sent).unwrap_or(u32::MAX);
        thread::sleep(due.saturating_duration_since(Instant::now()));
        datagram[..8].copy_from_slice(&streamed.sent.to_be_bytes());
        // The same: an error that is told here is about an earlier datagram, or this one is lost.
        let _ = socket.send(&datagram);
        streamed.sent += 1;
    }
    streamed.arrived = answers.join().map_err(|_| io::Error::other("the receiver failed"))?;
    Ok(streamed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_streamed_arrives_and_what_nobody_takes_is_lost() {
        let here = IpAddr::from([127, 0, 0, 1]);
        let listener = TcpListener::bind((here, PORT)).expect("a port");
        let taking = thread::spawn(move || swallow(listener.accept().expect("a stream").0));
        let streamed = tcp(here, Duration::from_millis(50), 1_000_000).expect("a stream");
        taking.join().expect("a thread").expect("a count");
        assert!(streamed.sent > 0 && streamed.lost() == 0, "{streamed:?}");

        // Nobody answers.
        let streamed = udp(here, Duration::from_millis(50), 100, 100).expect("datagrams");
        assert!(streamed.sent > 0 && streamed.lost() == streamed.sent, "{streamed:?}");
    }
}
