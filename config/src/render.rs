//! A configuration back to YAML: what holds on a node, every default written out.

use crate::{BlockSource, Config, NodeSelector, PathUse, Store, Underlay, UnderlaySelector, raw};

impl Config {
    /// The whole effective configuration as a file, without overrides: reading it gives this value again.
    #[must_use]
    pub fn to_yaml(&self) -> String {
        serde_saphyr::to_string(&raw::File::from(self))
            .expect("texts, numbers, lists and maps with text keys can be written")
    }

    /// The same as a JSON value.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::to_value(raw::File::from(self))
            .expect("texts, numbers, lists and maps with text keys can be written")
    }
}

impl From<&Config> for raw::File {
    fn from(config: &Config) -> Self {
        let labels = |labels: &std::collections::BTreeMap<String, String>| raw::Labels(labels.clone());
        let path_text = |path: &std::path::Path| path.to_string_lossy().into_owned();
        Self {
            version: crate::defaults::VERSION,
            node: raw::Node {
                name: config.node.name.clone(),
                underlay: underlay(&config.node.underlay),
                labels: labels(&config.node.labels),
            },
            store: store(&config.store),
            pools: config
                .pools
                .iter()
                .map(|pool| raw::Pool {
                    cidr: pool.cidr,
                    block_prefix: pool.block_prefix,
                    nodes: labels(&pool.nodes),
                    disabled: pool.disabled,
                })
                .collect(),
            blocks: raw::Blocks {
                source: match config.blocks.source {
                    BlockSource::Claim => raw::BlockSource::Claim,
                    BlockSource::NodeSpec => raw::BlockSource::NodeSpec,
                },
                per_node: config.blocks.per_node,
                reuse_after: raw::Duration(config.blocks.reuse_after),
            },
            paths: paths(&config.paths),
            bgp: bgp(&config.bgp),
            brake: raw::Brake {
                share: raw::Percent(config.brake.share),
                at_least: config.brake.at_least,
                within: raw::Duration(config.brake.within),
                confirm_after: raw::Duration(config.brake.confirm_after),
                grace: raw::Duration(config.brake.grace),
            },
            vxlan: raw::Vxlan { vni: config.vxlan.vni, port: config.vxlan.port, guard: config.vxlan.guard },
            masquerade: raw::Masquerade {
                enabled: config.masquerade.enabled,
                exclude: config.masquerade.exclude.clone(),
            },
            cni: raw::Cni {
                subnet_env: path_or_none(config.cni.subnet_env.as_deref()),
                conflist: path_or_none(config.cni.conflist.as_deref()),
            },
            http: raw::Http { address: config.http },
            api: raw::Api { socket: path_text(&config.api_socket) },
            state_dir: path_text(&config.state_dir),
            kernel: raw::Kernel {
                route_protocol: config.kernel.route_protocol,
                route_metric: config.kernel.route_metric,
                table: config.kernel.table,
                rule_priority: config.kernel.rule_priority,
                nexthop_base: config.kernel.nexthop_base,
                device_prefix: config.kernel.device_prefix.clone(),
                firewall_table: config.kernel.firewall_table.clone(),
            },
        }
    }
}

fn path_or_none(path: Option<&std::path::Path>) -> String {
    path.map_or_else(|| raw::NONE.to_owned(), |path| path.to_string_lossy().into_owned())
}

fn store(store: &Store) -> raw::Store {
    let text = |path: &std::path::Path| path.to_string_lossy().into_owned();
    let maybe = |path: &Option<std::path::PathBuf>| path.as_deref().map(text);
    let none = raw::Store { file: None, kubernetes: None, etcd: None };
    match store {
        Store::File { path, allow_network_filesystem } => {
            let allow_network_filesystem = *allow_network_filesystem;
            raw::Store { file: Some(raw::FileStore { path: text(path), allow_network_filesystem }), ..none }
        }
        Store::Kubernetes { kubeconfig, context, namespace } => raw::Store {
            kubernetes: Some(raw::KubernetesStore {
                kubeconfig: maybe(kubeconfig),
                context: context.clone(),
                namespace: namespace.clone(),
            }),
            ..none
        },
        Store::Etcd(etcd) => raw::Store {
            etcd: Some(raw::EtcdStore {
                endpoints: etcd.endpoints.clone(),
                prefix: etcd.prefix.clone(),
                tls: raw::EtcdTls {
                    ca_file: maybe(&etcd.ca_file),
                    cert_file: maybe(&etcd.cert_file),
                    key_file: maybe(&etcd.key_file),
                    server_name: etcd.server_name.clone(),
                },
                auth: raw::EtcdAuth {
                    username: etcd.username.clone(),
                    password_file: maybe(&etcd.password_file),
                },
            }),
            ..none
        },
    }
}

fn underlay(underlay: &Underlay) -> raw::Underlay {
    let text = |selector: &UnderlaySelector| match selector {
        UnderlaySelector::Interface(name) => name.clone(),
        UnderlaySelector::Cidr(net) => net.to_string(),
    };
    match underlay {
        Underlay::Auto => raw::Underlay::One("auto".to_owned()),
        Underlay::Select(selectors) => match selectors.as_slice() {
            [only] => raw::Underlay::One(text(only)),
            several => raw::Underlay::Any(several.iter().map(text).collect()),
        },
    }
}

fn paths(paths: &crate::Paths) -> raw::Paths {
    let selector = |s: &NodeSelector| raw::Selector { labels: raw::Labels(s.labels.clone()), cidr: s.cidr };
    raw::Paths {
        same_subnet: path_use(paths.same_subnet),
        cross_subnet: off_link(paths.cross_subnet),
        fallback: off_link(paths.fallback),
        rules: paths
            .rules
            .iter()
            .map(|rule| raw::Rule {
                between: rule.between.iter().map(selector).collect(),
                use_: path_use(rule.use_),
            })
            .collect(),
    }
}

fn off_link(use_: PathUse) -> raw::OffLink {
    match use_ {
        PathUse::None => raw::OffLink::None,
        PathUse::Ipip => raw::OffLink::Ipip,
        // Validation lets nothing else through.
        PathUse::Vxlan | PathUse::Bgp | PathUse::Direct => raw::OffLink::Vxlan,
    }
}

fn path_use(use_: PathUse) -> raw::Use {
    match use_ {
        PathUse::Bgp => raw::Use::Bgp,
        PathUse::Direct => raw::Use::Direct,
        PathUse::Vxlan => raw::Use::Vxlan,
        PathUse::Ipip => raw::Use::Ipip,
        PathUse::None => raw::Use::None,
    }
}

fn bgp(bgp: &crate::Bgp) -> raw::Bgp {
    raw::Bgp {
        asn: bgp.asn,
        port: bgp.port,
        listen: bgp.listen.clone(),
        hold_time: raw::Duration(bgp.hold_time),
        restart_time: raw::Duration(bgp.restart_time),
        router_id: raw::RouterId(bgp.router_id),
        max_prefixes: bgp.max_prefixes,
        peers: bgp
            .peers
            .iter()
            .map(|peer| raw::Peer {
                name: peer.name.clone(),
                address: peer.address,
                asn: peer.asn,
                port: peer.port,
                nodes: raw::Labels(peer.nodes.clone()),
                import: peer.import.clone(),
                export: peer.export.clone(),
                graceful_shutdown: peer.graceful_shutdown,
            })
            .collect(),
    }
}
