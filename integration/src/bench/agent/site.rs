//! A store with many nodes in it, and the agent of one of them.
//!
//! The agent itself writes the first record and the first claim; those of the others are made after them. They stand in
//! another subnet, so that all pairs use the tunnel and no BGP session is needed.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use node_agent::node::{Block, NodeName};
use serde_json::Value;
use tempfile::TempDir;

use super::super::BenchError;
use super::super::namespace::within;
use super::super::process::Program;
use super::super::routes::Network;
use super::LIMIT;
use crate::cluster::Programs;
use crate::eventually::eventually;
use crate::lab::Lab;

/// Prefix length of blocks.
pub(in crate::bench) const BLOCK_PREFIX: u8 = 24;
/// Of the pool, 8,192 blocks.
const POOL: &str = "10.0.0.0/11";
const NODE: &str = "n0";
const HTTP: &str = "127.0.0.1:9474";
/// The store believes the time stamp of a file that is older.
const STAMPS_SETTLE: Duration = Duration::from_millis(2100);
const LOG_TAIL: usize = 12;

/// The store, and everything else that the agent keeps.
pub(in crate::bench) struct Site {
    folder: TempDir,
    pairway: PathBuf,
    pub(in crate::bench) peers: u32,
    /// The record of the agent's own node.
    own_record: Value,
    /// Number of the block that the agent's own node has.
    own_block: u32,
}

impl Site {
    /// Writes the records of so many peers.
    pub(in crate::bench) fn make(peers: u32) -> Result<Self, BenchError> {
        let folder = tempfile::tempdir().map_err(BenchError::system("make a folder"))?;
        let pairway = Programs::built().map_err(|error| BenchError::program("pairway", error))?.pairway;
        let mut site = Self { folder, pairway, peers, own_record: Value::Null, own_block: 0 };
        let path = site.path("");
        let config = format!(
            "node: {{ name: {NODE} }}\npools:\n  - {{ cidr: {POOL}, blockPrefix: {BLOCK_PREFIX} }}\n\
             store: {{ file: {{ path: {path}store }} }}\napi: {{ socket: {path}api.sock }}\nstateDir: {path}state\n"
        );
        fs::create_dir(site.path_buf("store")).map_err(BenchError::system("make the store"))?;
        fs::write(site.path_buf("pairway.yaml"), config)
            .map_err(BenchError::system("write a configuration"))?;
        let claim = within(|| site.first_run())?;
        site.own_record = json(&fs::read(site.node_file(NODE)).unwrap_or_default())?;
        let block: Option<ipnet::Ipv4Net> = claim["block"].as_str().and_then(|block| block.parse().ok());
        let Some(block) = block else {
            return Err(BenchError::Wrong(format!("no block in {claim}")));
        };
        site.own_block = (block.network().to_bits() >> (32 - u32::from(BLOCK_PREFIX))) & 0x1fff;
        for peer in 0..peers {
            site.write_record(peer, Self::address(peer))?;
            site.write_claim(peer, &claim)?;
        }
        std::thread::sleep(STAMPS_SETTLE);
        Ok(site)
    }

    /// Lets the agent make its record and its claim, and gives the claim.
    fn first_run(&self) -> Result<Value, BenchError> {
        let mut program = self.start()?;
        super::content(&self.node_file(NODE), &mut program)?;
        self.wait_ready(&mut program)?;
        let claims = self.path_buf("store/claims");
        let mut entries = fs::read_dir(&claims).map_err(BenchError::system("read the claims"))?;
        match entries.next() {
            Some(Ok(entry)) => json(&fs::read(entry.path()).map_err(BenchError::system("read a claim"))?),
            _ => Err(BenchError::Wrong(format!("no claim in {}", claims.display()))),
        }
    }

    /// Starts the agent in the namespace of the calling thread.
    pub(super) fn start(&self) -> Result<Program, BenchError> {
        Program::start(
            &self.pairway,
            &["agent", "--config", &self.path("pairway.yaml")],
            &self.path_buf("log"),
        )
    }

    /// Waits until the agent says that all is done.
    pub(super) fn wait_ready(&self, program: &mut Program) -> Result<(), BenchError> {
        let ready = eventually("the agent to be ready", LIMIT, || {
            if program.ended() {
                return Ok(Err(BenchError::program("pairway", "it has ended")));
            }
            match get("/readyz") {
                Ok(answer) if answer.starts_with("HTTP/1.1 200") || answer.starts_with("HTTP/1.0 200") => {
                    Ok(Ok(()))
                }
                Ok(answer) => Err(answer),
                Err(error) => Err(error.to_string()),
            }
        });
        ready
            .map_err(|error| BenchError::program("pairway", error))
            .flatten()
            .map_err(|error| self.explain(error))
    }

    /// An error with the end of the agent's log.
    pub(super) fn explain(&self, error: BenchError) -> BenchError {
        let said = Lab::tail(&self.path_buf("log"), LOG_TAIL);
        BenchError::program("pairway", format!("{error}\n{}", said.join("\n")))
    }

    /// Sum of a counter over its labels, as the agent in the namespace of the calling thread tells it.
    #[expect(clippy::unused_self, reason = "it is this site's agent that is asked")]
    pub(in crate::bench) fn counter(&self, name: &str) -> Result<f64, BenchError> {
        let page = get("/metrics").map_err(BenchError::system("read the agent's metrics"))?;
        let values = page.lines().filter_map(|line| {
            let rest = line.strip_prefix(name)?;
            if !rest.starts_with(['{', ' ']) {
                return None;
            }
            rest.rsplit(' ').next()?.parse::<f64>().ok()
        });
        Ok(values.sum())
    }

    /// Gives a peer another underlay address, in one step as the agents do it.
    pub(in crate::bench) fn write_record(&self, peer: u32, address: Ipv4Addr) -> Result<(), BenchError> {
        let mut record = self.own_record.clone();
        let name = Self::name(peer);
        record["name"] = name.clone().into();
        record["underlayIpv4"] = format!("{address}/12").into();
        record["routerId"] = address.to_string().into();
        if let Some(fields) = record.as_object_mut() {
            fields.remove("instance");
        }
        self.replace(&self.node_file(&name), &record)
    }

    fn write_claim(&self, peer: u32, template: &Value) -> Result<(), BenchError> {
        let mut claim = template.clone();
        let Network { address, length } = self.block(peer);
        let block = format!("{address}/{length}");
        let named =
            block.parse().map(Block::new).map_err(|error| BenchError::Wrong(format!("{block}: {error}")))?;
        claim["block"] = block.into();
        claim["holder"] = Self::name(peer).into();
        self.replace(&self.path_buf(&format!("store/claims/{}.json", named.record_name())), &claim)
    }

    fn replace(&self, path: &Path, content: &Value) -> Result<(), BenchError> {
        // Outside of the folder that is watched.
        let temporary = self.path_buf("new");
        let write = || {
            fs::write(&temporary, format!("{content:#}\n"))?;
            fs::rename(&temporary, path)
        };
        write().map_err(BenchError::system(format!("write {}", path.display())))
    }

    fn name(peer: u32) -> String {
        format!("p{peer:05}")
    }

    /// Underlay address of a peer at the beginning.
    pub(in crate::bench) fn address(peer: u32) -> Ipv4Addr {
        Ipv4Addr::from(0xac10_0100 + peer)
    }

    /// Ethernet address of a peer's tunnel device.
    pub(in crate::bench) fn mac(peer: u32) -> Result<[u8; 6], BenchError> {
        let name: NodeName =
            Self::name(peer).parse().map_err(|error| BenchError::Wrong(format!("{error}")))?;
        Ok(node_agent::plan::vtep_mac(&name).0)
    }

    /// Block of a peer.
    pub(in crate::bench) fn block(&self, peer: u32) -> Network {
        let number = if peer < self.own_block { peer } else { peer + 1 };
        Network { address: Ipv4Addr::from(0x0a00_0000 + (number << 8)), length: BLOCK_PREFIX }
    }

    fn node_file(&self, name: &str) -> PathBuf {
        self.path_buf(&format!("store/nodes/{name}.json"))
    }

    fn path_buf(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn path(&self, name: &str) -> String {
        self.path_buf(name).to_string_lossy().into_owned()
    }
}

fn json(bytes: &[u8]) -> Result<Value, BenchError> {
    serde_json::from_slice(bytes)
        .map_err(|error| BenchError::Wrong(format!("a record of the agent's: {error}")))
}

/// Asks the agent in the namespace of the calling thread.
fn get(path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(HTTP)?;
    stream.set_read_timeout(Some(LIMIT))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}
