//! What an operator does with `etcdctl`.

use prost::Message;

use super::super::Etcd;

#[derive(Clone, PartialEq, Message)]
pub(super) struct Nothing {}

#[derive(Clone, PartialEq, Message)]
struct CompactionRequest {
    #[prost(int64, tag = "1")]
    revision: i64,
    #[prost(bool, tag = "2")]
    physical: bool,
}

/// Forgets everything but what there is now.
pub(super) async fn compact(etcd: &Etcd) {
    let (_, revision) = etcd.range(&etcd.records()).await.unwrap();
    let question = CompactionRequest { revision, physical: true };
    let _: Nothing = etcd.client.call("/etcdserverpb.KV/Compact", question).await.unwrap();
}

#[derive(Clone, PartialEq, Message)]
struct LeaseRevokeRequest {
    #[prost(int64, tag = "1")]
    id: i64,
}

pub(super) async fn revoke(etcd: &Etcd, lease: i64) {
    let question = LeaseRevokeRequest { id: lease };
    let _: Nothing = etcd.client.call("/etcdserverpb.Lease/LeaseRevoke", question).await.unwrap();
}
