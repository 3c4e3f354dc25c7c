//! etcd as a store, for clusters of plain machines.
//!
//! ```text
//! PREFIX/records/nodes/NAME     PREFIX/records/claims/BLOCK    the records, JSON as in every store
//! PREFIX/records/pools/CIDR     PREFIX/records/released/BLOCK
//! PREFIX/life/NAME              bound to a lease: a node's signs of life
//! PREFIX/identity               made once: by it a database that was lost and made anew is known
//! ```
//!
//! A claim is a transaction that writes the key if it does not exist. Leases are signs of life and nothing else: no
//! record is bound to one, so a node that is silent for long keeps its blocks. What the agents are told comes from one
//! watch of the records; where etcd has compacted what was missed, or is another database than before, everything is
//! listed again.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use ipnet::IpNet;
use jiff::{SignedDuration, Timestamp};
use tokio::sync::{mpsc, watch};

use self::client::Client;
use self::messages::{
    Compare, DeleteRangeRequest, KeyValue, LeaseGrantRequest, LeaseGrantResponse, LeaseTimeToLiveRequest,
    LeaseTimeToLiveResponse, MOD_REVISION, PutRequest, PutResponse, RangeRequest, RangeResponse, Request,
    RequestOp, Response, Target, TxnRequest, TxnResponse, VERSION,
};
use super::kind::Kind;
pub use super::remote::RemoteOptions;
use super::remote::RemoteStore;
use super::remote::backend::{Backend, Event, Failure, Feed, Key, Stored};
use super::{ClaimOutcome, Health, PoolOutcome, Store, StoreError};
use crate::node::{Block, Claim, NodeName, NodeRecord, PoolRecord, Snapshot};

mod client;
mod follow;
mod messages;

/// A node that gave no sign of life for so long is not remembered to have lived.
const LIFE: Duration = Duration::from_secs(600);

/// Records read at once.
const PAGE: i64 = 500;

/// How etcd is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EtcdOptions {
    /// `http://HOST:PORT` or `https://HOST:PORT`, one per member.
    pub endpoints: Vec<String>,
    /// What keys begin with.
    pub prefix: String,
    /// Authorities that the servers' certificates are checked against.
    pub ca_file: Option<PathBuf>,
    /// Our certificate, and its key.
    pub cert_file: Option<PathBuf>,
    /// The key of our certificate.
    pub key_file: Option<PathBuf>,
    /// The name in the servers' certificates, where it is not that of the endpoint.
    pub server_name: Option<String>,
    /// Who we are, where etcd asks.
    pub username: Option<String>,
    /// The file with the password.
    pub password_file: Option<PathBuf>,
    /// What is the same for every store on a server.
    pub remote: RemoteOptions,
}

/// etcd as a store. Dropping it ends its tasks.
#[derive(Debug)]
pub struct EtcdStore(RemoteStore<Etcd>);

impl EtcdStore {
    /// Begins to follow the store. One that does not answer says so in its health, and is tried again.
    #[must_use]
    pub fn open(options: EtcdOptions) -> Self {
        let remote = options.remote.clone();
        Self(RemoteStore::start(Arc::new(Etcd::new(options)), "etcd", remote))
    }
}

#[derive(Debug)]
struct Etcd {
    client: Client,
    prefix: String,
    /// This is an agent's store: it may make the key of the identity.
    makes_identity: bool,
    /// The leases that signs of life are bound to, by node.
    leases: Mutex<BTreeMap<NodeName, i64>>,
    followed: Mutex<follow::Followed>,
}

impl Etcd {
    fn new(options: EtcdOptions) -> Self {
        let prefix = options.prefix.trim_end_matches('/').to_owned();
        Self {
            makes_identity: options.remote.node.is_some(),
            client: Client::new(options),
            prefix,
            leases: Mutex::default(),
            followed: Mutex::default(),
        }
    }

    fn records(&self) -> String {
        format!("{}/records/", self.prefix)
    }

    fn path(&self, key: &Key) -> Vec<u8> {
        format!("{}{}", self.records(), key).into_bytes()
    }

    fn life(&self, node: &NodeName) -> Vec<u8> {
        format!("{}/life/{node}", self.prefix).into_bytes()
    }

    /// The record that a key is; `None` for keys that are none of ours.
    fn key(&self, path: &[u8]) -> Option<Key> {
        let rest = std::str::from_utf8(path).ok()?.strip_prefix(&self.records())?;
        let (directory, name) = rest.split_once('/')?;
        Some(Key { kind: Kind::of_directory(directory)?, name: name.to_owned() })
    }

    fn stored(kv: KeyValue) -> Stored {
        Stored {
            content: kv.value,
            version: u64::try_from(kv.mod_revision).unwrap_or_default(),
            // etcd knows revisions and no times.
            made: Timestamp::UNIX_EPOCH,
        }
    }

    /// Everything under a prefix as it was at one revision, and that revision.
    async fn range(&self, prefix: &str) -> Result<(Vec<(Key, Stored)>, i64), Failure> {
        let mut start = prefix.as_bytes().to_vec();
        let end = range_end(prefix.as_bytes());
        let (mut records, mut revision) = (Vec::new(), 0);
        loop {
            let question = RangeRequest { key: start.clone(), range_end: end.clone(), limit: PAGE, revision };
            let answer: RangeResponse = self.client.call("/etcdserverpb.KV/Range", question).await?;
            if revision == 0 {
                revision = answer.header.map_or(0, |header| header.revision);
            }
            if let Some(last) = answer.kvs.last() {
                start = last.key.clone();
                start.push(0);
            }
            let is_last = !answer.more || answer.kvs.is_empty();
            records
                .extend(answer.kvs.into_iter().filter_map(|kv| Some((self.key(&kv.key)?, Self::stored(kv)))));
            if is_last {
                return Ok((records, revision));
            }
        }
    }

    /// Does one thing if a key is as expected; the revision in which it was done, or `None`.
    async fn txn(&self, compare: Compare, request: Request) -> Result<Option<u64>, Failure> {
        let question = TxnRequest {
            compare: vec![compare],
            success: vec![RequestOp { request: Some(request) }],
            failure: Vec::new(),
        };
        let answer: TxnResponse = self.client.call("/etcdserverpb.KV/Txn", question).await?;
        let revision = answer.header.map_or(0, |header| header.revision);
        Ok(answer.succeeded.then(|| u64::try_from(revision).unwrap_or_default()))
    }

    fn lease_of(&self, node: &NodeName) -> Option<i64> {
        self.leases.lock().unwrap_or_else(PoisonError::into_inner).get(node).copied()
    }

    fn set_lease(&self, node: &NodeName, lease: Option<i64>) {
        let mut leases = self.leases.lock().unwrap_or_else(PoisonError::into_inner);
        match lease {
            Some(lease) => leases.insert(node.clone(), lease),
            None => leases.remove(node),
        };
    }

    /// The lease that a node's signs of life are bound to, as the store has it.
    async fn stored_lease(&self, node: &NodeName) -> Result<Option<i64>, Failure> {
        let question = RangeRequest { key: self.life(node), ..RangeRequest::default() };
        let answer: RangeResponse = self.client.call("/etcdserverpb.KV/Range", question).await?;
        Ok(answer.kvs.first().map(|kv| kv.lease))
    }
}

/// The first key after all keys with this prefix.
fn range_end(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < 0xff {
            end.push(last + 1);
            return end;
        }
    }
    // Up to the end.
    vec![0]
}

#[async_trait]
impl Backend for Etcd {
    fn feeds(&self) -> &'static [Feed] {
        const ALL: Feed = &Kind::ALL;
        &[ALL]
    }

    async fn follow(&self, _feed: usize, events: &mpsc::Sender<Event>) -> Failure {
        self.follow_records(events).await
    }

    async fn read(&self, key: &Key) -> Result<Option<Stored>, Failure> {
        let question = RangeRequest { key: self.path(key), ..RangeRequest::default() };
        let answer: RangeResponse = self.client.call("/etcdserverpb.KV/Range", question).await?;
        Ok(answer.kvs.into_iter().next().map(Self::stored))
    }

    async fn list(&self, kind: Kind) -> Result<Vec<(Key, Stored)>, Failure> {
        let prefix = format!("{}{}/", self.records(), kind.directory());
        Ok(self.range(&prefix).await?.0)
    }

    async fn create(&self, key: &Key, content: &[u8]) -> Result<Option<u64>, Failure> {
        let path = self.path(key);
        let absent = Compare { target: VERSION, key: path.clone(), to: Some(Target::Version(0)) };
        self.txn(absent, Request::Put(PutRequest { key: path, value: content.to_vec(), lease: 0 })).await
    }

    async fn replace(&self, key: &Key, content: &[u8], version: u64) -> Result<bool, Failure> {
        let path = self.path(key);
        let put = PutRequest { key: path.clone(), value: content.to_vec(), lease: 0 };
        Ok(self.txn(unchanged(path, version), Request::Put(put)).await?.is_some())
    }

    async fn remove(&self, key: &Key, version: Option<u64>) -> Result<bool, Failure> {
        let path = self.path(key);
        let delete = DeleteRangeRequest { key: path.clone() };
        let Some(version) = version else {
            let answer: messages::DeleteRangeResponse =
                self.client.call("/etcdserverpb.KV/DeleteRange", delete).await?;
            return Ok(answer.deleted > 0);
        };
        Ok(self.txn(unchanged(path, version), Request::DeleteRange(delete)).await?.is_some())
    }

    /// Keeps the node's lease alive, which costs etcd no write; makes one where there is none.
    async fn sign(&self, node: &NodeName) -> Result<(), Failure> {
        if let Some(lease) = self.lease_of(node)
            && self.client.keep_alive(lease).await? > 0
        {
            // Whoever removed the node removed the key with it.
            if self.stored_lease(node).await? == Some(lease) {
                return Ok(());
            }
        }
        let question = LeaseGrantRequest { ttl: LIFE.as_secs().cast_signed() };
        let lease: LeaseGrantResponse = self.client.call("/etcdserverpb.Lease/LeaseGrant", question).await?;
        let put = PutRequest { key: self.life(node), value: Vec::new(), lease: lease.id };
        let _: PutResponse = self.client.call("/etcdserverpb.KV/Put", put).await?;
        self.set_lease(node, Some(lease.id));
        Ok(())
    }

    /// By what is left of the lease: no clock but etcd's is asked how much time has passed.
    async fn last_sign(&self, node: &NodeName) -> Result<Option<Timestamp>, Failure> {
        let Some(id) = self.stored_lease(node).await? else { return Ok(None) };
        let question = LeaseTimeToLiveRequest { id };
        let answer: LeaseTimeToLiveResponse =
            self.client.call("/etcdserverpb.Lease/LeaseTimeToLive", question).await?;
        if answer.ttl < 0 {
            return Ok(None);
        }
        let silent = SignedDuration::from_secs((answer.granted_ttl - answer.ttl).max(0));
        Ok(Timestamp::now().checked_sub(silent).ok())
    }

    async fn forget_signs(&self, node: &NodeName) -> Result<(), Failure> {
        self.set_lease(node, None);
        let delete = DeleteRangeRequest { key: self.life(node) };
        let _: messages::DeleteRangeResponse =
            self.client.call("/etcdserverpb.KV/DeleteRange", delete).await?;
        Ok(())
    }
}

fn unchanged(key: Vec<u8>, version: u64) -> Compare {
    let revision = i64::try_from(version).unwrap_or(i64::MAX);
    Compare { target: MOD_REVISION, key, to: Some(Target::ModRevision(revision)) }
}

/// The value of the key of a range that was read in a transaction.
fn first_value(answer: TxnResponse) -> Option<KeyValue> {
    answer.responses.into_iter().find_map(|response| match response.response? {
        Response::Range(range) => range.kvs.into_iter().next(),
        Response::Put(_) | Response::DeleteRange(_) => None,
    })
}

super::remote::is_a_store!(EtcdStore, 0);

#[cfg(test)]
pub(crate) mod tests;
