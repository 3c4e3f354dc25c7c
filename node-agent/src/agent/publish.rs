//! What the loop tells the surfaces, after each pass and when a session or another part of the process has news. Tables
//! are made of what is shared with the loop, when somebody reads them.

use std::sync::Arc;

use bgp::Family;
use jiff::Timestamp;

use super::Agent;
use super::conditions::CONFIG_REFUSED;
use crate::plan::Finding;
use crate::status::{Published, Status, Table, rfc3339};
use crate::store::Health;

mod tables;

impl Agent {
    /// Publishes what is known, with the sessions as they are now.
    pub(super) fn publish(&mut self) {
        let sessions = self.bgp.peek();
        let mut findings = self.state.findings.clone();
        if let Some(refused) = &self.state.refused_config {
            findings.insert(Finding::new(CONFIG_REFUSED, "", refused.why.as_str()));
        }
        let mut conditions = self.state.conditions.update(findings, Timestamp::now());
        for trouble in &mut self.troubles {
            conditions.extend(trouble.borrow_and_update().clone());
        }
        conditions.sort();
        let state = &self.state;
        let blocks = self.blocks.borrow().as_ref().map_or_else(Vec::new, |blocks| blocks.held.clone());
        let local = &state.local;
        let health = self.health.borrow().clone();
        let status = Status {
            node: self.name.to_string(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            blocks: blocks.iter().map(ToString::to_string).collect(),
            ready: state.not_ready.is_empty(),
            not_ready_reasons: state.not_ready.clone(),
            conditions,
            revision: state.revision,
            underlay: Family::ALL
                .into_iter()
                .filter_map(|family| {
                    local.of(family).map(|found| (family.to_string(), found.address.to_string()))
                })
                .collect(),
            underlay_interface: local
                .ipv4
                .as_ref()
                .or(local.ipv6.as_ref())
                .map(|found| found.link.to_string()),
            tunnel_addresses: state
                .plan
                .iter()
                .flat_map(|plan| &plan.tunnel_addresses)
                .map(|(family, address)| (family.to_string(), address.to_string()))
                .collect(),
            store: store_text(&self.config.store, &health),
            pairs_by_path: state.plan.as_deref().map(tables::pairs_by_path).unwrap_or_default(),
            failures: state.failures.clone(),
            started_at: Some(rfc3339(self.started_at)),
        };
        let snapshot = self.snapshots.borrow().clone();
        let own = self.name.clone();
        let mut published = Published {
            status,
            blocks: Table::new(move || tables::blocks(&own, &blocks, snapshot.as_deref())),
            counters: state.counters.clone(),
            stood: self.restarting || state.marked,
            ..Published::default()
        };
        if let Some(plan) = &state.plan {
            let (own, shown) = (self.name.clone(), Arc::clone(plan));
            let (present, diverted) = (Arc::clone(&state.present), Arc::clone(&state.diverted));
            published.pairs = Table::new(move || tables::pairs(&own, &shown, &present, &diverted));
            let shown = Arc::clone(plan);
            let (present, diverted) = (Arc::clone(&state.present), Arc::clone(&state.diverted));
            published.routes = Table::new(move || tables::routes(&shown, &present, &diverted));
            let shown = Arc::clone(plan);
            published.neighbors = Table::new(move || tables::neighbors(&shown, &sessions));
        }
        self.published.send_replace(Arc::new(published));
    }
}

fn store_text(store: &config::Store, health: &Health) -> String {
    let name = match store {
        config::Store::File { path, .. } => format!("file {}", path.display()),
        config::Store::Kubernetes { .. } => "kubernetes".to_owned(),
        config::Store::Etcd(etcd) => format!("etcd {}", etcd.endpoints.join(",")),
    };
    match health {
        Ok(()) => name,
        Err(problem) => format!("{name}: {problem}"),
    }
}
