//! Who has a port: the tables of sockets in /proc/net, and the processes that hold them.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::super::facts::{Known, Owner, PortOwner, Proto};

/// `TCP_LISTEN`, and `TCP_CLOSE` which unconnected UDP sockets show (include/net/tcp_states.h).
const LISTEN: u8 = 0x0a;
const CLOSE: u8 = 0x07;

/// A line of /proc/net/{tcp,udp}{,6}.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Socket {
    address: IpAddr,
    port: u16,
    state: u8,
    inode: u64,
}

/// Everybody who listens on one of the ports in this network namespace.
pub(super) fn owners(wanted: &[u16]) -> Known<Vec<PortOwner>> {
    let mut found = Vec::new();
    for (file, proto, state) in [
        ("tcp", Proto::Tcp, LISTEN),
        ("tcp6", Proto::Tcp, LISTEN),
        ("udp", Proto::Udp, CLOSE),
        ("udp6", Proto::Udp, CLOSE),
    ] {
        let path = format!("/proc/net/{file}");
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            // A kernel without IPv6.
            Err(_) if file.ends_with('6') => continue,
            Err(error) => return Err(format!("{path} can't be read: {error}")),
        };
        let sockets = text.lines().filter_map(socket);
        found.extend(
            sockets
                .filter(|socket| socket.state == state && wanted.contains(&socket.port))
                .map(|socket| (proto, socket)),
        );
    }
    let owner = |(proto, socket): (Proto, Socket)| PortOwner {
        proto,
        address: socket.address,
        port: socket.port,
        owner: holder(socket.inode),
    };
    Ok(found.into_iter().map(owner).collect())
}

/// `sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ...`
fn socket(line: &str) -> Option<Socket> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let (address, port) = fields.get(1)?.split_once(':')?;
    Some(Socket {
        address: parse_address(address)?,
        port: u16::from_str_radix(port, 16).ok()?,
        state: u8::from_str_radix(fields.get(3)?, 16).ok()?,
        inode: fields.get(9)?.parse().ok()?,
    })
}

/// The kernel prints 32 bits at a time, each as this machine orders its bytes.
fn parse_address(text: &str) -> Option<IpAddr> {
    let word = |text: &str| u32::from_str_radix(text, 16).ok().map(u32::to_ne_bytes);
    match text.len() {
        8 => Some(Ipv4Addr::from(word(text)?).into()),
        32 => {
            let mut octets = [0; 16];
            for (index, chunk) in octets.chunks_exact_mut(4).enumerate() {
                chunk.copy_from_slice(&word(text.get(index * 8..index * 8 + 8)?)?);
            }
            Some(Ipv6Addr::from(octets).into())
        }
        _ => None,
    }
}

/// The first process that holds a socket; of other users' processes only root sees any.
fn holder(inode: u64) -> Owner {
    let link = format!("socket:[{inode}]");
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    for process in processes {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let descriptors = fs::read_dir(process.path().join("fd")).into_iter().flatten().flatten();
        for descriptor in descriptors {
            if fs::read_link(descriptor.path()).is_ok_and(|target| target.as_os_str() == link.as_str()) {
                let name = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
                return Owner::Process { pid, name: name.trim_end().to_owned() };
            }
        }
    }
    Owner::Unseen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_endian = "little")]
    fn lines_of_the_kernel_are_read() {
        let line = "   0: 010200C0:00B3 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 2337016 1 0";
        let want =
            Socket { address: "192.0.2.1".parse().unwrap(), port: 179, state: LISTEN, inode: 2_337_016 };
        assert_eq!(socket(line), Some(want));
        let line = "1: B80D0120000000000000000001000000:12B5 00000000000000000000000000000000:0000 07 0:0 0:0 0 0 0 7 2 0";
        let want = Socket { address: "2001:db8::1".parse().unwrap(), port: 4789, state: CLOSE, inode: 7 };
        assert_eq!(socket(line), Some(want));
        assert_eq!(socket("  sl  local_address rem_address   st tx_queue"), None);
        assert_eq!(socket(""), None);
    }

    #[test]
    fn a_listener_of_this_process_is_found() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let owners = owners(&[port]).unwrap();
        let own = owners.iter().find(|owner| owner.proto == Proto::Tcp).unwrap();
        assert_eq!(own.address, IpAddr::from([127, 0, 0, 1]));
        assert!(matches!(own.owner, Owner::Process { pid, .. } if pid == std::process::id()), "{own:?}");
    }
}
