//! Rules between keys, and the way from the file's types to [`Config`].

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use crate::error::{Finding, Findings};
use crate::limits::{
    MAX_BLOCK_PREFIX_V4, MAX_BLOCK_PREFIX_V6, MAX_POOL_BITS, overlap, reserved_asn, route_protocol_owner,
    table_owner, unroutable,
};
use crate::tree::{Node as Tree, Value};
use crate::{
    Bgp, BgpPeer, BlockSource, Blocks, Brake, Cni, Config, Etcd, Kernel, Masquerade, Node, NodeSelector,
    PathRule, PathUse, Paths, Pool, Store, Underlay, UnderlaySelector, Vxlan, raw,
};

/// Checks what keys must be to each other. `tree` is what `file` was read from.
pub(crate) fn validate(file: &raw::File, tree: &Tree, findings: &mut Findings) {
    let mut rules = Rules { file, tree, findings };
    rules.pools();
    rules.underlay();
    rules.ipip();
    rules.bgp();
    rules.peers();
    rules.blocks();
    rules.brake();
    rules.places();
    rules.cni();
    rules.kernel();
}

struct Rules<'a, 'f> {
    file: &'a raw::File,
    tree: &'a Tree,
    findings: &'f mut Findings,
}

impl Rules<'_, '_> {
    /// A mistake in the value at `path` of the tree.
    fn wrong(&mut self, path: &str, value: impl ToString, problem: String, hint: impl AsRef<str>) {
        let (node, exact) = self.tree.nearest(path);
        let key = if exact { &node.path } else { path };
        self.findings.push(Finding::new(node.at, key, &value.to_string(), problem, hint.as_ref()));
    }

    /// Where the value at `path` is written, for a mistake that has two ends.
    fn line_of(&self, path: &str) -> u32 {
        self.tree.nearest(path).0.at.line
    }

    fn pools(&mut self) {
        for (index, pool) in self.file.pools.iter().enumerate() {
            let path = format!("pools[{index}].cidr");
            let cidr = pool.cidr;
            if let Some((range, purpose)) = unroutable(cidr) {
                let problem = format!("`{cidr}` can't carry pods: {range} is {purpose}");
                self.wrong(
                    &path,
                    cidr,
                    problem,
                    "use private addresses, for example 10.244.0.0/16 or fd10:244::/48",
                );
            }
            for (other_index, other) in self.file.pools.iter().enumerate().take(index) {
                if overlap(cidr, other.cidr) {
                    let line = self.line_of(&format!("pools[{other_index}].cidr"));
                    let problem = format!("`{cidr}` overlaps the pool {} on line {line}", other.cidr);
                    self.wrong(&path, cidr, problem, "pools have no address in common");
                }
            }
            self.block_prefix(index, pool);
        }
    }

    fn block_prefix(&mut self, index: usize, pool: &raw::Pool) {
        let (length, wanted) = (pool.cidr.prefix_len(), pool.block_prefix);
        let most = match pool.cidr {
            IpNet::V4(_) => MAX_BLOCK_PREFIX_V4,
            IpNet::V6(_) => MAX_BLOCK_PREFIX_V6,
        };
        let legal = format!("write {length} to {}", most.min(length.saturating_add(MAX_POOL_BITS)));
        let path = format!("pools[{index}].blockPrefix");
        if length > most {
            let problem = format!("`{}` is too small for a pool", pool.cidr);
            self.wrong(
                &format!("pools[{index}].cidr"),
                pool.cidr,
                problem,
                format!("/{most} is the smallest"),
            );
        } else if wanted < length {
            let problem = format!("blocks of /{wanted} are larger than their pool {}", pool.cidr);
            self.wrong(&path, wanted, problem, legal);
        } else if wanted > most {
            let problem = format!("blocks of /{wanted} have no room for pods");
            self.wrong(&path, wanted, problem, legal);
        } else if wanted - length > MAX_POOL_BITS {
            let problem = format!("{} in blocks of /{wanted} are 2^{} blocks", pool.cidr, wanted - length);
            self.wrong(&path, wanted, problem, format!("at most 2^{MAX_POOL_BITS}: {legal}"));
        }
    }

    /// The pool that an address lies in.
    fn pool_of(&self, address: IpAddr) -> Option<IpNet> {
        self.file.pools.iter().map(|pool| pool.cidr).find(|pool| pool.contains(&address))
    }

    fn underlay(&mut self) {
        let texts = match &self.file.node.underlay {
            raw::Underlay::One(text) => vec![("node.underlay".to_owned(), text.clone())],
            raw::Underlay::Any(texts) => {
                let at = |index| format!("node.underlay[{index}]");
                texts.iter().enumerate().map(|(index, text)| (at(index), text.clone())).collect()
            }
        };
        for (path, text) in &texts {
            if text == "auto" && path.ends_with(']') {
                let problem = "`auto` is no interface".to_owned();
                self.wrong(path, text, problem, "write `underlay: auto` alone, or name interfaces and CIDRs");
            }
            if let Ok(net) = text.parse::<IpNet>()
                && let Some(pool) =
                    self.file.pools.iter().map(|pool| pool.cidr).find(|pool| pool.contains(&net))
            {
                let problem = format!("`{net}` lies in the pool {pool}");
                self.wrong(path, net, problem, "pools hold no underlay addresses");
            }
        }
    }

    /// IP-in-IP goes over IPv4 alone. What interfaces have is not known here.
    fn ipip(&mut self) {
        let texts = match &self.file.node.underlay {
            raw::Underlay::One(text) => std::slice::from_ref(text),
            raw::Underlay::Any(texts) => texts.as_slice(),
        };
        let only_ipv6 = !texts.is_empty()
            && texts.iter().all(|text| matches!(text.parse::<IpNet>(), Ok(net) if net.addr().is_ipv6()));
        if !only_ipv6 {
            return;
        }
        let paths = &self.file.paths;
        let line = self.line_of("node.underlay");
        let places = [
            ("paths.sameSubnet".to_owned(), matches!(paths.same_subnet, raw::Use::Ipip)),
            ("paths.crossSubnet".to_owned(), matches!(paths.cross_subnet, raw::OffLink::Ipip)),
            ("paths.fallback".to_owned(), matches!(paths.fallback, raw::OffLink::Ipip)),
        ];
        let rules =
            paths.rules.iter().enumerate().map(|(index, rule)| {
                (format!("paths.rules[{index}].use"), matches!(rule.use_, raw::Use::Ipip))
            });
        let places: Vec<String> =
            places.into_iter().chain(rules).filter(|(_, asks)| *asks).map(|(path, _)| path).collect();
        for path in places {
            let problem = format!("`ipip` goes over IPv4, and node.underlay on line {line} names IPv6 alone");
            self.wrong(&path, "ipip", problem, "use `vxlan`, or name an IPv4 network of the node too");
        }
    }

    fn bgp(&mut self) {
        let bgp = &self.file.bgp;
        self.asn("bgp.asn", bgp.asn);
        self.seconds("bgp.holdTime", bgp.hold_time.0, "3s to 65535s, or 0s", |seconds| {
            seconds == 0 || (3..=65_535).contains(&seconds)
        });
        self.seconds("bgp.restartTime", bgp.restart_time.0, "0s to 4095s", |seconds| seconds <= 4095);
        for (index, address) in bgp.listen.iter().enumerate() {
            let path = format!("bgp.listen[{index}]");
            if address.is_multicast() {
                let problem = format!("`{address}` is a multicast address");
                self.wrong(&path, address, problem, "use an address of the node");
            }
            if bgp.listen.iter().take(index).any(|other| other == address) {
                self.wrong(&path, address, format!("`{address}` is there twice"), "remove one of the two");
            }
            if let Some(pool) = self.pool_of(*address) {
                let problem = format!("`{address}` lies in the pool {pool}");
                self.wrong(&path, address, problem, "pools hold no underlay addresses");
            }
        }
    }

    fn asn(&mut self, path: &str, asn: u32) {
        if let Some(why) = reserved_asn(asn) {
            let hint =
                "use your own, or one of the private ranges 64512 to 65534 and 4200000000 to 4294967294";
            self.wrong(path, asn, format!("AS {asn} is {why}"), hint);
        }
    }

    fn seconds(&mut self, path: &str, duration: Duration, range: &str, legal: impl Fn(u64) -> bool) {
        if duration.subsec_nanos() != 0 || !legal(duration.as_secs()) {
            let text = match &self.tree.nearest(path).0.value {
                Value::Scalar(scalar) => scalar.text.clone(),
                Value::List(_) | Value::Map(_) => crate::duration::format(duration),
            };
            let problem = format!("`{text}` is out of range");
            self.wrong(path, &text, problem, format!("write whole seconds: {range}"));
        }
    }

    fn peers(&mut self) {
        let peers = &self.file.bgp.peers;
        for (index, peer) in peers.iter().enumerate() {
            let path = |key: &str| format!("bgp.peers[{index}].{key}");
            self.asn(&path("asn"), peer.asn);
            for (other_index, other) in peers.iter().enumerate().take(index) {
                let line = self.line_of(&format!("bgp.peers[{other_index}]"));
                if other.name == peer.name {
                    let problem = format!("the peer on line {line} is called `{}` too", peer.name);
                    self.wrong(&path("name"), &peer.name, problem, "give each its own name");
                }
                if other.address == peer.address {
                    let problem =
                        format!("the peer `{}` on line {line} has `{}` too", other.name, peer.address);
                    self.wrong(&path("address"), peer.address, problem, "one session per address");
                }
            }
            self.peer_address(&path("address"), peer.address);
            for (entry, net) in peer.import.iter().enumerate() {
                let within = self.file.pools.iter().map(|pool| pool.cidr).find(|pool| pool.contains(net));
                if let Some(pool) = within {
                    let problem = format!("`{net}` lies in the pool {pool}");
                    let hint = "routes to pods come from claims, never from an outside speaker: remove it";
                    self.wrong(&format!("{}[{entry}]", path("import")), net, problem, hint);
                }
            }
            for (entry, net) in peer.export.iter().flatten().enumerate() {
                if !self.file.pools.is_empty() && !self.file.pools.iter().any(|pool| overlap(pool.cidr, *net))
                {
                    let problem = format!("`{net}` has no address of any pool");
                    let hint = "only blocks are announced: name a pool, a part of one, or what covers one";
                    self.wrong(&format!("{}[{entry}]", path("export")), net, problem, hint);
                }
            }
        }
    }

    fn peer_address(&mut self, path: &str, address: IpAddr) {
        let trouble = match address {
            _ if address.is_unspecified() => Some("unspecified"),
            _ if address.is_multicast() => Some("a multicast address"),
            IpAddr::V4(v4) if v4.is_broadcast() => Some("the broadcast address"),
            IpAddr::V6(v6) if v6.is_unicast_link_local() => {
                Some("link-local: peering over an interface is not in this version")
            }
            IpAddr::V4(_) | IpAddr::V6(_) => None,
        };
        if let Some(trouble) = trouble {
            self.wrong(
                path,
                address,
                format!("`{address}` is {trouble}"),
                "use the speaker's own unicast address",
            );
        }
        if let Some(pool) = self.pool_of(address) {
            let problem = format!("`{address}` lies in the pool {pool}");
            self.wrong(path, address, problem, "pools hold pods only: correct the address, or move the pool");
        }
    }

    fn blocks(&mut self) {
        let most = crate::limits::MAX_REUSE_AFTER;
        self.within("blocks.reuseAfter", self.file.blocks.reuse_after.0, Duration::ZERO, most);
    }

    fn brake(&mut self) {
        let brake = &self.file.brake;
        let (second, minutes, hour) =
            (Duration::from_secs(1), Duration::from_secs(600), Duration::from_secs(3600));
        self.within("brake.within", brake.within.0, second, minutes);
        self.within("brake.grace", brake.grace.0, second, hour);
        if brake.confirm_after.0 > brake.grace.0 {
            let (text, grace) =
                (crate::duration::format(brake.confirm_after.0), crate::duration::format(brake.grace.0));
            let problem = format!("`{text}` is longer than brake.grace, {grace}");
            self.wrong("brake.confirmAfter", &text, problem, format!("write {grace} or less"));
        }
    }

    fn within(&mut self, path: &str, duration: Duration, least: Duration, most: Duration) {
        if !(least..=most).contains(&duration) {
            let text = crate::duration::format;
            let problem = format!("`{}` is out of range", text(duration));
            self.wrong(path, text(duration), problem, format!("write {} to {}", text(least), text(most)));
        }
    }

    fn places(&mut self) {
        self.store();
        let address = self.file.http.address;
        // A pool of loopback addresses is a mistake of its own.
        let pool = self.pool_of(address.ip()).filter(|_| !address.ip().is_loopback());
        if let Some(pool) = pool {
            let problem = format!("`{address}` lies in the pool {pool}");
            self.wrong("http.address", address, problem, "use an address of the node");
        }
        if address.port() == self.file.bgp.port {
            let problem = format!("port {} is the BGP speaker's", address.port());
            self.wrong("http.address", address, problem, "use another port");
        }
    }

    fn cni(&mut self) {
        let raw::Cni { subnet_env, conflist } = &self.file.cni;
        if subnet_env == conflist && subnet_env != raw::NONE {
            let problem = format!("`{conflist}` is cni.subnetEnv already");
            self.wrong("cni.conflist", conflist, problem, "give each a file of its own");
        }
        for (key, path) in [("cni.subnetEnv", subnet_env), ("cni.conflist", conflist)] {
            if path == raw::NONE {
                continue;
            }
            if let Some(problem) = self.taken(path) {
                self.wrong(key, path, problem, "name a file that nothing else is kept in");
            }
        }
    }

    /// What else is kept in that place.
    fn taken(&self, path: &str) -> Option<String> {
        let own = parts(path);
        if own == parts(&self.file.api.socket) {
            return Some(format!("`{path}` is the API's socket, api.socket"));
        }
        let raw::Store { file, kubernetes, etcd } = &self.file.store;
        let is_file = kubernetes.is_none() && etcd.is_none();
        let store = is_file.then(|| file.clone().unwrap_or_default().path);
        let state = (self.file.state_dir.as_str(), "the agent's own state, stateDir");
        let folders = [Some(state), store.as_deref().map(|store| (store, "the store, store.file.path"))];
        let within = folders.into_iter().flatten().find(|(folder, _)| own.starts_with(&parts(folder)));
        within.map(|(_, what)| format!("`{path}` lies in the folder of {what}"))
    }

    fn store(&mut self) {
        let given: Vec<&str> = ["store.file", "store.kubernetes", "store.etcd"]
            .into_iter()
            .filter(|path| {
                let key = path.trim_start_matches("store.");
                self.tree.entry("store").and_then(|store| store.entry(key)).is_some()
            })
            .collect();
        if let [_, .., second] = given.as_slice() {
            let second = *second;
            let problem = format!("{} are given", given.join(" and "));
            self.wrong(second, "", problem, "records live in one store: remove the others");
            return;
        }
        let raw::Store { file, kubernetes, etcd } = self.file.store.clone();
        if matches!(self.file.blocks.source, raw::BlockSource::NodeSpec) && kubernetes.is_none() {
            let problem =
                "`nodeSpec` takes the blocks from the node's Node object, and the store is not Kubernetes"
                    .to_owned();
            self.wrong(
                "blocks.source",
                "nodeSpec",
                problem,
                "set store.kubernetes, or claim blocks from the pools: `claim`",
            );
        }
        match (file, kubernetes, etcd) {
            (_, _, Some(etcd)) => self.etcd(&etcd),
            (_, Some(_), None) | (None, None, None) => {}
            (Some(file), None, None) => {
                let (state, store) = (self.file.state_dir.clone(), file.path);
                if state.trim_end_matches('/') == store.trim_end_matches('/') {
                    let problem = format!("`{store}` is the store's directory and the state directory");
                    let path =
                        if self.tree.entry("stateDir").is_some() { "stateDir" } else { "store.file.path" };
                    self.wrong(
                        path,
                        store,
                        problem,
                        "agents share a store, each has its own state directory",
                    );
                }
            }
        }
    }

    fn etcd(&mut self, etcd: &raw::EtcdStore) {
        let is_https = |endpoint: &String| endpoint.starts_with("https://");
        if let Some(plain) = etcd.endpoints.iter().position(|endpoint| !is_https(endpoint))
            && etcd.endpoints.iter().any(is_https)
        {
            let problem = "some endpoints are https and some are http".to_owned();
            let path = format!("store.etcd.endpoints[{plain}]");
            self.wrong(&path, &etcd.endpoints[plain], problem, "use one of the two for all of them");
        }
        let uses_tls = etcd.endpoints.iter().any(is_https);
        let tls = &etcd.tls;
        let files = [("caFile", &tls.ca_file), ("certFile", &tls.cert_file), ("keyFile", &tls.key_file)];
        if uses_tls && tls.ca_file.is_none() {
            let problem = "https without `tls.caFile`".to_owned();
            let hint = "name the file with the authority that the members' certificates are checked against";
            self.wrong("store.etcd.tls.caFile", "", problem, hint);
        }
        for (key, file) in files {
            if !uses_tls && let Some(file) = file {
                let problem = format!("`{key}` is for https, and the endpoints are http");
                let path = format!("store.etcd.tls.{key}");
                self.wrong(&path, file, problem, "write the endpoints as https://HOST:PORT, or remove it");
            }
        }
        match (&tls.cert_file, &tls.key_file) {
            (Some(file), None) => {
                let problem = "a certificate without its key".to_owned();
                self.wrong("store.etcd.tls.certFile", file, problem, "add tls.keyFile");
            }
            (None, Some(file)) => {
                let problem = "a key without its certificate".to_owned();
                self.wrong("store.etcd.tls.keyFile", file, problem, "add tls.certFile");
            }
            (Some(_), Some(_)) | (None, None) => {}
        }
        match (&etcd.auth.username, &etcd.auth.password_file) {
            (Some(user), None) => {
                let problem = "a user without a password".to_owned();
                self.wrong("store.etcd.auth.username", user, problem, "add auth.passwordFile");
            }
            (None, Some(file)) => {
                let problem = "a password without a user".to_owned();
                self.wrong("store.etcd.auth.passwordFile", file, problem, "add auth.username");
            }
            (Some(_), Some(_)) | (None, None) => {}
        }
    }

    fn kernel(&mut self) {
        let kernel = &self.file.kernel;
        if let Some(owner) = route_protocol_owner(kernel.route_protocol) {
            let number = kernel.route_protocol;
            let problem = format!("route protocol {number} belongs to {owner}");
            let hint = format!(
                "use a number that nobody else uses, for example {}",
                crate::defaults::ROUTE_PROTOCOL
            );
            self.wrong("kernel.routeProtocol", number, problem, hint);
        }
        if let Some(owner) = table_owner(kernel.table) {
            let problem = format!("table {} is the table `{owner}`", kernel.table);
            let hint = format!("use a table of our own, for example {}", crate::defaults::TABLE);
            self.wrong("kernel.table", kernel.table, problem, hint);
        }
    }
}

/// The names in a path that begins at the root, without those that lead nowhere.
pub(crate) fn parts(path: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            name => parts.push(name),
        }
    }
    parts
}

/// The store that a file without mistakes names.
fn store(store: raw::Store) -> Store {
    let path = |path: Option<String>| path.map(PathBuf::from);
    if let Some(etcd) = store.etcd {
        return Store::Etcd(Etcd {
            endpoints: etcd.endpoints,
            prefix: etcd.prefix,
            ca_file: path(etcd.tls.ca_file),
            cert_file: path(etcd.tls.cert_file),
            key_file: path(etcd.tls.key_file),
            server_name: etcd.tls.server_name,
            username: etcd.auth.username,
            password_file: path(etcd.auth.password_file),
        });
    }
    if let Some(kubernetes) = store.kubernetes {
        return Store::Kubernetes {
            kubeconfig: path(kubernetes.kubeconfig),
            context: kubernetes.context,
            namespace: kubernetes.namespace,
        };
    }
    let file = store.file.unwrap_or_default();
    Store::File { path: PathBuf::from(file.path), allow_network_filesystem: file.allow_network_filesystem }
}

/// The configuration that a file without mistakes means.
pub(crate) fn config(file: raw::File) -> Config {
    Config {
        node: Node {
            name: file.node.name,
            underlay: underlay(file.node.underlay),
            labels: file.node.labels.0,
        },
        store: store(file.store),
        pools: file.pools.into_iter().map(pool).collect(),
        blocks: Blocks {
            source: match file.blocks.source {
                raw::BlockSource::Claim => BlockSource::Claim,
                raw::BlockSource::NodeSpec => BlockSource::NodeSpec,
            },
            per_node: file.blocks.per_node,
            reuse_after: file.blocks.reuse_after.0,
        },
        paths: Paths {
            same_subnet: path_use(file.paths.same_subnet),
            cross_subnet: off_link(file.paths.cross_subnet),
            fallback: off_link(file.paths.fallback),
            rules: file.paths.rules.into_iter().map(rule).collect(),
        },
        bgp: bgp(file.bgp),
        brake: Brake {
            share: file.brake.share.0,
            at_least: file.brake.at_least,
            within: file.brake.within.0,
            confirm_after: file.brake.confirm_after.0,
            grace: file.brake.grace.0,
        },
        vxlan: Vxlan { vni: file.vxlan.vni, port: file.vxlan.port, guard: file.vxlan.guard },
        masquerade: Masquerade { enabled: file.masquerade.enabled, exclude: file.masquerade.exclude },
        cni: Cni { subnet_env: path_or_none(file.cni.subnet_env), conflist: path_or_none(file.cni.conflist) },
        http: file.http.address,
        api_socket: PathBuf::from(file.api.socket),
        state_dir: PathBuf::from(file.state_dir),
        kernel: Kernel {
            route_protocol: file.kernel.route_protocol,
            route_metric: file.kernel.route_metric,
            table: file.kernel.table,
            rule_priority: file.kernel.rule_priority,
            nexthop_base: file.kernel.nexthop_base,
            device_prefix: file.kernel.device_prefix,
            firewall_table: file.kernel.firewall_table,
        },
    }
}

fn path_or_none(text: String) -> Option<PathBuf> {
    (text != raw::NONE).then(|| PathBuf::from(text))
}

fn underlay(underlay: raw::Underlay) -> Underlay {
    let selector = |text: String| match text.parse() {
        Ok(net) => UnderlaySelector::Cidr(net),
        Err(_) => UnderlaySelector::Interface(text),
    };
    match underlay {
        raw::Underlay::One(text) if text == "auto" => Underlay::Auto,
        raw::Underlay::One(text) => Underlay::Select(vec![selector(text)]),
        raw::Underlay::Any(texts) => Underlay::Select(texts.into_iter().map(selector).collect()),
    }
}

fn pool(pool: raw::Pool) -> Pool {
    Pool { cidr: pool.cidr, block_prefix: pool.block_prefix, nodes: pool.nodes.0, disabled: pool.disabled }
}

fn off_link(use_: raw::OffLink) -> PathUse {
    match use_ {
        raw::OffLink::Vxlan => PathUse::Vxlan,
        raw::OffLink::Ipip => PathUse::Ipip,
        raw::OffLink::None => PathUse::None,
    }
}

fn path_use(use_: raw::Use) -> PathUse {
    match use_ {
        raw::Use::Bgp => PathUse::Bgp,
        raw::Use::Direct => PathUse::Direct,
        raw::Use::Vxlan => PathUse::Vxlan,
        raw::Use::Ipip => PathUse::Ipip,
        raw::Use::None => PathUse::None,
    }
}

fn rule(rule: raw::Rule) -> PathRule {
    // The schema has made sure that there are two.
    let mut selectors = rule.between.into_iter().map(|s| NodeSelector { labels: s.labels.0, cidr: s.cidr });
    let mut selector = || selectors.next().unwrap_or(NodeSelector { labels: BTreeMap::new(), cidr: None });
    PathRule { between: [selector(), selector()], use_: path_use(rule.use_) }
}

fn bgp(bgp: raw::Bgp) -> Bgp {
    let peer = |peer: raw::Peer| BgpPeer {
        name: peer.name,
        address: peer.address,
        asn: peer.asn,
        port: peer.port,
        nodes: peer.nodes.0,
        import: peer.import,
        export: peer.export,
        graceful_shutdown: peer.graceful_shutdown,
    };
    Bgp {
        asn: bgp.asn,
        port: bgp.port,
        listen: bgp.listen,
        hold_time: bgp.hold_time.0,
        restart_time: bgp.restart_time.0,
        router_id: bgp.router_id.0,
        max_prefixes: bgp.max_prefixes,
        peers: bgp.peers.into_iter().map(peer).collect(),
    }
}
