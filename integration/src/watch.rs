//! What the wire and the kernel say while something happens: captures, kernel events, and pings.
//!
//! "Nothing was seen" proves nothing by itself, so a capture and a monitor end with something planted that must
//! be seen.

use std::collections::BTreeSet;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::cluster::{Cluster, ClusterError, Pod};
use crate::eventually::eventually;
use crate::lab::{Lab, Running};

/// How long a tool may take to start or to show what was planted.
const LIMIT: Duration = Duration::from_secs(20);

/// What a capture sees: packets from or to pools, and VXLAN, and IP in IP, and what is planted.
const FILTER: &str =
    "net 10.244.0.0/16 or ip6 net fd10:244::/48 or udp port 4789 or ip proto 4 or ip proto 41 or udp port 9";

/// A capture on an interface of a node.
#[derive(Debug)]
pub struct Capture {
    tcpdump: Running,
    log: PathBuf,
    node: String,
}

/// Packets by form, as tcpdump prints them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Packets {
    /// Without encapsulation.
    pub native: Vec<String>,
    /// VXLAN: the outer line and the inner one.
    pub vxlan: Vec<String>,
    /// IPv4 or IPv6 in IPv4, protocols 4 and 41: outer and inner packet on one line.
    pub ipip: Vec<String>,
}

impl Packets {
    /// Whether a packet between two addresses is among them.
    #[must_use]
    pub fn between(packets: &[String], a: IpAddr, b: IpAddr) -> bool {
        let names = |packet: &str, address: IpAddr| {
            let text = address.to_string();
            packet.split([' ', ',']).any(|word| {
                // A port may follow.
                word == text || word.trim_end_matches(':') == text || word.starts_with(&format!("{text}."))
            })
        };
        packets.iter().any(|packet| names(packet, a) && names(packet, b))
    }
}

impl Capture {
    /// Begins; packets are seen from the return on.
    pub fn begin(lab: &Lab, node: &str, interface: &str) -> Result<Self, ClusterError> {
        let log = fresh(lab, &format!("capture-{node}-{interface}.log"))?;
        // Headers are all that is looked at. Of whole packets, which may be 64 KiB on a virtual link, tcpdump's buffer
        // holds 32: on a busy machine it loses the others.
        let words = ["tcpdump", "-nn", "-l", "-tt", "--immediate-mode", "-s", "256", "-i", interface, FILTER];
        let tcpdump = lab.node(node).start(&words, &log)?;
        wait_for(&log, "tcpdump to listen", |text| text.contains("listening on"))?;
        Ok(Self { tcpdump, log, node: node.to_owned() })
    }

    /// Plants a plain datagram and a VXLAN one to a neighbour on this link, waits until both are seen, and
    /// gives all other packets.
    pub fn end(mut self, lab: &Lab, neighbour: &str) -> Result<Packets, ClusterError> {
        let plant = format!(
            "printf planted > /dev/udp/{neighbour}/9; \
             printf '\\x08\\x00\\x00\\x00\\x99\\x99\\x99\\x00plantedplantedplanted' > /dev/udp/{neighbour}/4789"
        );
        lab.node(&self.node).run(&["bash", "-c", &plant])?;
        let text = wait_for(&self.log, "the planted packets", |text| {
            text.contains(".9: UDP") && text.contains(&format!("vni {}", 0x99_9999))
        })?;
        self.tcpdump.end(Signal::SIGINT)?;
        match lost(&read(&self.log)?) {
            Some(0) => Ok(classify(&text)),
            Some(lost) => Err(ClusterError::Wrong(format!("the capture has lost {lost} packets"))),
            None => Err(ClusterError::Wrong(format!("tcpdump did not sum up: {}", read(&self.log)?))),
        }
    }
}

/// Packets that tcpdump had no room for, as its last lines say.
fn lost(text: &str) -> Option<u64> {
    let line = text.lines().rev().find(|line| line.ends_with("dropped by kernel"))?;
    line.split(' ').next()?.parse().ok()
}

fn classify(text: &str) -> Packets {
    let mut packets = Packets::default();
    let mut planted = false;
    for line in text.lines() {
        let begins = line.split(' ').next().is_some_and(|word| word.parse::<f64>().is_ok());
        if !begins {
            // The inner packet of the line before.
            if let (Some(last), true) = (packets.vxlan.last_mut(), line.starts_with("IP") && !planted) {
                *last += " | ";
                *last += line;
            }
            continue;
        }
        planted = line.contains(".9: UDP") || line.contains(&format!("vni {}", 0x99_9999));
        match () {
            () if planted => {}
            () if line.contains("VXLAN") => packets.vxlan.push(line.to_owned()),
            () if [": IP ", ": IP6 "].iter().any(|inner| line.contains(inner)) => {
                packets.ipip.push(line.to_owned());
            }
            () => packets.native.push(line.to_owned()),
        }
    }
    packets
}

/// Kernel events of a node: routes, rules, nexthops, neighbours, links, addresses, forwarding database.
#[derive(Debug)]
pub struct Monitor {
    tools: [Running; 2],
    logs: [PathBuf; 2],
    node: String,
}

/// Things that come and go to show that the monitors see.
const PLANTED: [&str; 2] = ["203.0.113.77", "02:00:00:00:77:77"];

impl Monitor {
    /// Begins; events are seen from the return on. `device` is one that a planted entry can be put on.
    pub fn begin(lab: &Lab, node: &str, device: &str) -> Result<Self, ClusterError> {
        let logs = [
            fresh(lab, &format!("ip-monitor-{node}.log"))?,
            fresh(lab, &format!("bridge-monitor-{node}.log"))?,
        ];
        let at = lab.node(node);
        let tools = [
            at.start(&["ip", "-o", "monitor", "all"], &logs[0])?,
            at.start(&["bridge", "monitor", "all"], &logs[1])?,
        ];
        let monitor = Self { tools, logs, node: node.to_owned() };
        monitor.plant_until_seen(lab, device, 0)?;
        Ok(monitor)
    }

    /// Plants again, waits until that is seen, and gives all other events.
    pub fn end(mut self, lab: &Lab, device: &str) -> Result<Vec<String>, ClusterError> {
        let seen = [0, 1].map(|tool| self.sightings(tool));
        self.plant_until_seen(lab, device, seen.into_iter().max().unwrap_or(0))?;
        let mut events = Vec::new();
        for (tool, log) in self.tools.iter_mut().zip(&self.logs) {
            tool.end(Signal::SIGTERM)?;
            let text = read(log)?;
            // As iproute2 says it of a socket whose buffer has run over; it goes on then.
            if let Some(line) = text.lines().find(|line| line.contains("netlink receive error")) {
                return Err(ClusterError::Wrong(format!(
                    "the monitor of {} has missed events: {line}",
                    self.node
                )));
            }
            let planted = |line: &&str| PLANTED.iter().any(|planted| line.contains(planted));
            events.extend(text.lines().filter(|line| !planted(line)).map(str::to_owned));
        }
        Ok(events)
    }

    fn sightings(&self, tool: usize) -> usize {
        fs::read_to_string(&self.logs[tool]).unwrap_or_default().matches(PLANTED[tool]).count()
    }

    /// The tools do not say when they have begun to listen: planting is repeated until they see it.
    fn plant_until_seen(&self, lab: &Lab, device: &str, more_than: usize) -> Result<(), ClusterError> {
        let plant = format!(
            "ip route replace {route}/32 dev lo; ip route del {route}/32 dev lo; \
             bridge fdb add {mac} dev {device} self permanent; bridge fdb del {mac} dev {device} self",
            route = PLANTED[0],
            mac = PLANTED[1]
        );
        eventually("the monitors to see what is planted", LIMIT, || {
            lab.node(&self.node).sh(&plant).map_err(|err| err.to_string())?;
            let seen = [0, 1].map(|tool| self.sightings(tool));
            if seen.iter().all(|&count| count > more_than) { Ok(()) } else { Err(format!("seen {seen:?}")) }
        })?;
        Ok(())
    }
}

/// Of all events those about objects of ours: on our devices, with our protocol or table, or routes within the
/// pools. What the neighbour tables of others say of pods is theirs.
#[must_use]
pub fn about_us(events: &[String]) -> Vec<&str> {
    let marks = ["pairway", "proto 112", "lookup 1120", "table 1120"];
    let pools = ["10.244.", "fd10:244:"];
    let names = |event: &str, words: &[&str]| words.iter().any(|word| event.contains(word));
    let ours = |event: &&str| names(event, &marks) || (event.contains("[ROUTE]") && names(event, &pools));
    events.iter().map(String::as_str).filter(ours).collect()
}

/// A ping that runs while something else happens.
#[derive(Debug)]
pub struct Ping {
    ping: Running,
    log: PathBuf,
}

/// What became of a ping.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PingResult {
    /// Packets sent.
    pub sent: u64,
    /// Sequence numbers without an answer. The very last one, in flight as the ping ended, is not counted.
    pub lost: Vec<u64>,
}

impl Ping {
    /// Begins: a packet every `interval` from a pod to an address; the first answer has come when this returns.
    pub fn begin(
        cluster: &Cluster,
        from: &Pod,
        to: IpAddr,
        interval: Duration,
    ) -> Result<Self, ClusterError> {
        let log = fresh(cluster.lab(), &format!("ping-{}-{}-{to}.log", from.node, from.name))?;
        let (interval, to) = (interval.as_secs_f64().to_string(), to.to_string());
        let words = ["ip", "netns", "exec", &from.name, "ping", "-n", "-i", &interval, &to];
        let ping = cluster.node(&from.node).start(&words, &log)?;
        wait_for(&log, "the first answer to a ping", |text| text.contains("icmp_seq="))?;
        Ok(Self { ping, log })
    }

    /// Lets it run until it has had so many answers in all, then ends it.
    pub fn end_after(self, answers: usize) -> Result<PingResult, ClusterError> {
        wait_for(&self.log, "answers to a ping", |text| text.matches("bytes from").count() >= answers)?;
        self.end()
    }

    /// Ends it.
    pub fn end(mut self) -> Result<PingResult, ClusterError> {
        // ping sums up when it is interrupted.
        self.ping.end(Signal::SIGINT)?;
        let text = read(&self.log)?;
        let sent = text.lines().find(|line| line.contains("packets transmitted"));
        let sent = sent.and_then(|line| line.split(' ').next()?.parse().ok());
        let Some(sent) = sent else {
            return Err(ClusterError::Wrong(format!("ping did not sum up: {text}")));
        };
        let answers: BTreeSet<u64> = text.lines().filter_map(answered).collect();
        let lost = unanswered(sent, &answers);
        Ok(PingResult { sent, lost })
    }
}

/// The sequence number that a line reports an answer to. An error report is none.
fn answered(line: &str) -> Option<u64> {
    let (_, rest) = line.split_once("bytes from")?.1.split_once("icmp_seq=")?;
    rest.split(' ').next()?.parse().ok()
}

/// ping counts from 1 and its numbers have 16 bits.
fn unanswered(sent: u64, answers: &BTreeSet<u64>) -> Vec<u64> {
    (1..sent).filter(|number| !answers.contains(&(number % 65536))).collect()
}

/// A log file that does not exist yet: what an earlier one says is not what happens now.
fn fresh(lab: &Lab, name: &str) -> Result<PathBuf, ClusterError> {
    let path = lab.folder().join(name);
    if path.exists() {
        fs::remove_file(&path).map_err(|source| ClusterError::File { path: path.clone(), source })?;
    }
    Ok(path)
}

fn read(path: &Path) -> Result<String, ClusterError> {
    fs::read_to_string(path).map_err(|source| ClusterError::File { path: path.to_owned(), source })
}

fn wait_for(log: &Path, what: &str, condition: impl Fn(&str) -> bool) -> Result<String, ClusterError> {
    let text = eventually(what, LIMIT, || {
        let text = fs::read_to_string(log).map_err(|err| err.to_string())?;
        if condition(&text) { Ok(text) } else { Err(text) }
    })?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_told_apart_by_their_outer_form() {
        let text = "tcpdump: listening on eth1\n\
            1.1 IP 10.244.1.2 > 10.244.2.2: ICMP echo request, id 1, seq 1, length 64\n\
            1.2 IP 192.0.2.1.5555 > 198.51.100.3.4789: VXLAN, flags [I] (0x08), vni 4096\n\
            IP 10.244.1.2.7007 > 10.244.3.2.7007: UDP, length 3\n\
            1.3 IP 192.0.2.1 > 198.51.100.3: IP 10.244.1.2 > 10.244.4.2: ICMP echo request, id 1, seq 1, length 64\n\
            1.3 IP 192.0.2.1 > 198.51.100.3: IP6 fd10:244::1 > fd10:244::2: ICMP6, echo request, length 64\n\
            1.3 IP 192.0.2.1.5 > 192.0.2.2.9: UDP, length 7\n\
            1.4 IP 192.0.2.1.5 > 192.0.2.2.4789: VXLAN, flags [I] (0x08), vni 10066329\n\
            IP 1.2.3.4 > 5.6.7.8: junk\n";
        let packets = classify(text);
        assert_eq!(packets.native.len(), 1);
        assert_eq!(packets.vxlan.len(), 1);
        assert_eq!(packets.ipip.len(), 2);
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        assert!(Packets::between(&packets.native, ip("10.244.1.2"), ip("10.244.2.2")));
        assert!(Packets::between(&packets.vxlan, ip("10.244.1.2"), ip("10.244.3.2")));
        assert!(!Packets::between(&packets.native, ip("10.244.1.2"), ip("10.244.3.2")));
        assert!(Packets::between(&packets.ipip, ip("10.244.1.2"), ip("10.244.4.2")));
        assert!(Packets::between(&packets.ipip, ip("fd10:244::1"), ip("fd10:244::2")));
        assert!(!Packets::between(&packets.native, ip("10.244.1.2"), ip("10.244.4.2")));
        assert!(!Packets::between(&packets.native, ip("10.244.1.2"), ip("10.244.2.22")));
    }

    #[test]
    fn a_capture_knows_what_it_has_lost() {
        let text = "1.1 IP 1.2.3.4 > 5.6.7.8: junk\n7 packets captured\n9 packets received by filter\n\
            2 packets dropped by kernel\n";
        assert_eq!(lost(text), Some(2));
        assert_eq!(lost("1.1 IP 1.2.3.4 > 5.6.7.8: junk\n"), None);
    }

    #[test]
    fn a_lost_packet_is_counted_and_the_one_in_flight_is_not() {
        let answers = (1..=70_000_u64).filter(|number| *number != 7).map(|number| number % 65536).collect();
        // 65536 + 7 has the number 7 again and was answered.
        assert_eq!(unanswered(70_001, &answers), Vec::<u64>::new());
        assert_eq!(unanswered(10, &(1..=9).filter(|n| *n != 7).collect()), [7]);
        assert_eq!(answered("64 bytes from 10.244.1.2: icmp_seq=12 ttl=62 time=0.1 ms"), Some(12));
        assert_eq!(answered("From 10.244.1.1 icmp_seq=12 Destination Host Unreachable"), None);
    }
}
