//! Signs of life: a Lease per node, which nobody watches.
//!
//! The agent writes a time of its own clock there, but it is the server that notes when the Lease was written; that time
//! is compared with the server's own clock (`Date`), so the clocks of nodes don't matter.

use http_body_util::BodyExt;
use hyper::header::DATE;
use hyper::http::Request;
use jiff::{SignedDuration, Timestamp};
use kube::Api;
use kube::api::{ApiResource, DeleteParams, DynamicObject, Patch, PatchParams};
use kube::client::Body;
use serde_json::{Value, json};

use super::{Kubernetes, failure};
use crate::claims::FRESH;
use crate::node::NodeName;
use crate::store::remote::backend::{Failure, Key};

/// Who writes the Leases.
const MANAGER: &str = "pairway";

fn lease(node: &NodeName) -> String {
    format!("pairway-{node}")
}

fn resource() -> ApiResource {
    ApiResource {
        group: "coordination.k8s.io".to_owned(),
        version: "v1".to_owned(),
        api_version: "coordination.k8s.io/v1".to_owned(),
        kind: "Lease".to_owned(),
        plural: "leases".to_owned(),
    }
}

impl Kubernetes {
    async fn leases(&self) -> Result<Api<DynamicObject>, Failure> {
        let connected = self.connected().await?;
        Ok(Api::namespaced_with(connected.client, &connected.namespace, &resource()))
    }

    pub(super) async fn renew_lease(&self, node: &NodeName) -> Result<(), Failure> {
        let owner = self.owner_of(&Key::node(node), b"{}")?;
        let mut metadata = json!({ "name": lease(node) });
        if let Some(owner) = owner {
            metadata["ownerReferences"] = json!([owner]);
        }
        let now = Timestamp::now();
        let object = json!({
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": metadata,
            "spec": {
                "holderIdentity": node.as_str(),
                "leaseDurationSeconds": FRESH.as_secs(),
                "renewTime": format!("{now:.6}"),
            },
        });
        let params = PatchParams::apply(MANAGER).force();
        let patched = self.leases().await?.patch(&lease(node), &params, &Patch::Apply(&object)).await;
        patched.map(|_| ()).map_err(|error| self.failed("write a Lease", &error))
    }

    pub(super) async fn lease_renewed(&self, node: &NodeName) -> Result<Option<Timestamp>, Failure> {
        let connected = self.connected().await?;
        let path =
            format!("/apis/coordination.k8s.io/v1/namespaces/{}/leases/{}", connected.namespace, lease(node));
        let request =
            Request::get(path).body(Body::empty()).map_err(|error| Failure::record(error.to_string()))?;
        let answer = match connected.client.send(request).await {
            Ok(answer) => answer,
            Err(error) => return Err(self.failed("read a Lease", &error)),
        };
        let (head, body) = answer.into_parts();
        let body = body.collect().await.map_err(|error| self.failed("read a Lease", &error))?.to_bytes();
        if !head.status.is_success() {
            let status = serde_json::from_slice(&body).unwrap_or_else(|_| {
                kube::core::Status::failure(head.status.as_str(), "").with_code(head.status.as_u16())
            });
            let error = kube::Error::Api(Box::new(status));
            return if failure::is_absent(&error) {
                Ok(None)
            } else {
                Err(self.failed("read a Lease", &error))
            };
        }
        let server_now = head.headers.get(DATE).and_then(|date| date.to_str().ok()).and_then(http_date);
        let lease: Value = serde_json::from_slice(&body)
            .map_err(|error| Failure::server(format!("the Kubernetes API server sent no Lease: {error}")))?;
        Ok(written(&lease).map(|at| by_our_clock(at, server_now, Timestamp::now())))
    }

    pub(super) async fn remove_lease(&self, node: &NodeName) -> Result<(), Failure> {
        match self.leases().await?.delete(&lease(node), &DeleteParams::background()).await {
            Ok(_) => Ok(()),
            Err(error) if failure::is_absent(&error) => Ok(()),
            Err(error) => Err(self.failed("delete a Lease", &error)),
        }
    }
}

/// When the server wrote it last, by the server's clock.
fn written(lease: &Value) -> Option<Timestamp> {
    let fields = lease.pointer("/metadata/managedFields")?.as_array()?;
    fields.iter().filter_map(|fields| fields.get("time")?.as_str()?.parse().ok()).max()
}

/// RFC 9110, section 5.6.7: `Sun, 06 Nov 1994 08:49:37 GMT`.
fn http_date(text: &str) -> Option<Timestamp> {
    jiff::fmt::rfc2822::parse(text).ok().map(|time| time.timestamp())
}

fn by_our_clock(at: Timestamp, server_now: Option<Timestamp>, now: Timestamp) -> Timestamp {
    let age = server_now.unwrap_or(now).duration_since(at).max(SignedDuration::ZERO);
    now.checked_sub(age).unwrap_or(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn the_clocks_of_nodes_do_not_matter() {
        // 7 s ago by the server, whose clock is a day behind ours.
        assert_eq!(by_our_clock(at(1_000), Some(at(1_007)), at(87_407)), at(87_400));
        // A server that tells no date: then the clocks must agree.
        assert_eq!(by_our_clock(at(1_000), None, at(1_009)), at(1_000));
        // Rounding must not make the future of it.
        assert_eq!(by_our_clock(at(1_008), Some(at(1_007)), at(2_000)), at(2_000));
    }

    #[test]
    fn the_server_says_when_it_wrote_a_lease() {
        let lease = json!({"metadata": {"managedFields": [
            {"manager": "other", "time": "2026-11-21T10:00:00Z"},
            {"manager": "pairway", "time": "2026-11-21T10:00:05Z"},
        ]}, "spec": {"renewTime": "1970-01-01T00:00:00.000000Z"}});
        assert_eq!(written(&lease), Some("2026-11-21T10:00:05Z".parse().unwrap()));
        assert_eq!(written(&json!({"metadata": {}})), None);
        assert_eq!(http_date("Sun, 06 Nov 1994 08:49:37 GMT"), Some("1994-11-06T08:49:37Z".parse().unwrap()));
        assert_eq!(http_date("yesterday"), None);
    }
}
