//! Any text is either a configuration or a list of mistakes; any configuration can be written and read.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use config::{
    Bgp, BgpPeer, BlockSource, Blocks, Brake, Cni, Config, ConfigFile, Etcd, Kernel, Masquerade, Node,
    NodeSelector, PathRule, PathUse, Paths, Pool, Store, Underlay, UnderlaySelector, Vxlan,
};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;

fn labels() -> impl Strategy<Value = BTreeMap<String, String>> {
    // Among the values are words that YAML would take for something else.
    let value = prop_oneof![
        "[A-Za-z0-9]([-A-Za-z0-9_.]{0,10}[A-Za-z0-9])?",
        Just("true".into()),
        Just("12".into()),
        Just("".into()),
        Just("1e3".into())
    ];
    btree_map("([a-z]{1,8}/)?[a-z]([-a-z0-9_.]{0,8}[a-z0-9])?", value, 0..3)
}

fn net() -> impl Strategy<Value = IpNet> {
    prop_oneof![
        (any::<u32>(), 1..=32_u8)
            .prop_map(|(bits, len)| Ipv4Net::new_assert(Ipv4Addr::from_bits(bits), len).trunc().into()),
        (any::<u64>(), 1..=128_u8).prop_map(|(bits, len)| {
            let address = Ipv6Addr::from_bits((0x2001_0db8 << 96) | u128::from(bits));
            Ipv6Net::new_assert(address, len).trunc().into()
        }),
    ]
}

/// An address of the documentation ranges: no pool of `pools` has it.
fn address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        any::<u8>().prop_map(|n| IpAddr::from([192, 0, 2, n])),
        any::<u16>().prop_map(|n| IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, n])),
    ]
}

fn pools() -> impl Strategy<Value = Vec<Pool>> {
    let pool = |cidr: IpNet, block_prefix| {
        (labels(), any::<bool>()).prop_map(move |(nodes, disabled)| Pool {
            cidr,
            block_prefix,
            nodes,
            disabled,
        })
    };
    let v4 = (0..200_u8, 24..=30_u8).prop_flat_map(move |(n, bits)| {
        pool(Ipv4Net::new_assert(Ipv4Addr::new(10, n, 0, 0), 16).into(), bits)
    });
    let v6 = (64..=72_u8).prop_flat_map(move |bits| {
        pool(Ipv6Net::new_assert(Ipv6Addr::new(0xfd10, 0x244, 0, 0, 0, 0, 0, 0), 48).into(), bits)
    });
    (v4, option::of(v6)).prop_map(|(v4, v6)| [Some(v4), v6].into_iter().flatten().collect())
}

fn path_use() -> impl Strategy<Value = PathUse> {
    prop_oneof![
        Just(PathUse::Bgp),
        Just(PathUse::Direct),
        Just(PathUse::Vxlan),
        Just(PathUse::Ipip),
        Just(PathUse::None)
    ]
}

fn paths() -> impl Strategy<Value = Paths> {
    let selector = || (labels(), option::of(net())).prop_map(|(labels, cidr)| NodeSelector { labels, cidr });
    let rule = ([selector(), selector()], path_use()).prop_map(|(between, use_)| PathRule { between, use_ });
    let off_link = || prop_oneof![Just(PathUse::Vxlan), Just(PathUse::Ipip), Just(PathUse::None)];
    (path_use(), off_link(), off_link(), vec(rule, 0..3)).prop_map(
        |(same_subnet, cross_subnet, fallback, rules)| Paths { same_subnet, cross_subnet, fallback, rules },
    )
}

fn bgp() -> impl Strategy<Value = Bgp> {
    let peer = (
        address(),
        1..23_456_u32,
        1..=u16::MAX,
        labels(),
        vec(Just("0.0.0.0/0".parse().unwrap()), 0..2),
        option::of(vec(Just("0.0.0.0/0".parse().unwrap()), 0..2)),
        proptest::bool::ANY,
    );
    let peers = vec(peer, 0..4).prop_map(|peers| {
        let mut peers: Vec<BgpPeer> = peers
            .into_iter()
            .enumerate()
            .map(|(n, (address, asn, port, nodes, import, export, graceful_shutdown))| BgpPeer {
                name: format!("p{n}"),
                address,
                asn,
                port,
                nodes,
                import,
                export,
                graceful_shutdown,
            })
            .collect();
        peers.sort_by_key(|peer| peer.address);
        peers.dedup_by_key(|peer| peer.address);
        peers
    });
    let times = (prop_oneof![Just(0), 3..=65_535_u64], 0..=4095_u64);
    let identity = (64_512..65_535_u32, 1..9000_u16, option::of(1..=u32::MAX));
    (identity, option::of(address()), times, 1..=u32::MAX, peers).prop_map(
        |((asn, port, id), listen, (hold_time, restart_time), max_prefixes, peers)| Bgp {
            asn,
            port,
            listen: listen.into_iter().collect(),
            hold_time: Duration::from_secs(hold_time),
            restart_time: Duration::from_secs(restart_time),
            router_id: id.map(Ipv4Addr::from_bits),
            max_prefixes,
            peers,
        },
    )
}

fn node() -> impl Strategy<Value = Node> {
    let interface = "[a-z][a-z0-9.-]{0,10}".prop_filter("`auto` is a word of its own", |name| name != "auto");
    let selector = prop_oneof![
        interface.prop_map(UnderlaySelector::Interface),
        // No part of a pool of `pools`.
        any::<u8>().prop_map(|n| UnderlaySelector::Cidr(
            Ipv4Net::new_assert(Ipv4Addr::new(192, 0, n, 0), 24).into()
        )),
    ];
    let underlay = option::of(vec(selector, 1..3))
        .prop_map(|selectors| selectors.map_or(Underlay::Auto, Underlay::Select));
    ("[a-z0-9]([-a-z0-9]{0,10}[a-z0-9])?", underlay, labels()).prop_map(|(name, underlay, labels)| Node {
        name,
        underlay,
        labels,
    })
}

fn kernel() -> impl Strategy<Value = Kernel> {
    let numbers = (100..180_u8, 1..=u32::MAX - 1, 256..=u32::MAX, 1..=32_765_u32, 1_u32 << 28..=15 << 28);
    (numbers, "[a-zA-Z][-_a-zA-Z0-9]{0,9}", "[a-zA-Z][-_a-zA-Z0-9]{0,30}").prop_map(
        |(
            (route_protocol, route_metric, table, rule_priority, nexthop_base),
            device_prefix,
            firewall_table,
        )| Kernel {
            route_protocol,
            route_metric,
            table,
            rule_priority,
            nexthop_base,
            device_prefix,
            firewall_table,
        },
    )
}

fn brake() -> impl Strategy<Value = Brake> {
    let times = (1000..=600_000_u64, 1000..=3_600_000_u64)
        .prop_flat_map(|(within, grace)| (Just(within), 0..=grace, Just(grace)));
    (0..=100_u8, 1..=u32::MAX, times).prop_map(|(share, at_least, (within, confirm_after, grace))| Brake {
        share,
        at_least,
        within: Duration::from_millis(within),
        confirm_after: Duration::from_millis(confirm_after),
        grace: Duration::from_millis(grace),
    })
}

fn folder() -> impl Strategy<Value = PathBuf> {
    "/[ -~]{0,20}x".prop_map(PathBuf::from)
}

fn store() -> impl Strategy<Value = Store> {
    let file = (folder(), any::<bool>())
        .prop_map(|(path, allow_network_filesystem)| Store::File { path, allow_network_filesystem });
    let some = || option::of("[a-z]{1,9}");
    let kubernetes = (option::of(folder()), some(), some())
        .prop_map(|(kubeconfig, context, namespace)| Store::Kubernetes { kubeconfig, context, namespace });
    let tls = option::of((folder(), option::of((folder(), folder())), some()));
    let auth = option::of(("[a-z]{1,9}", folder()));
    let etcd = (vec("[a-z]{1,9}:[1-9][0-9]{0,3}", 1..4), "(/[a-z]{1,5}){1,3}", tls, auth).prop_map(
        |(hosts, prefix, tls, auth)| {
            let scheme = if tls.is_some() { "https" } else { "http" };
            let (ca_file, pair, server_name) =
                tls.map_or((None, None, None), |(ca, pair, name)| (Some(ca), pair, name));
            let (cert_file, key_file) = pair.unzip();
            let (username, password_file) = auth.unzip();
            Store::Etcd(Etcd {
                endpoints: hosts.iter().map(|host| format!("{scheme}://{host}")).collect(),
                prefix,
                ca_file,
                cert_file,
                key_file,
                server_name,
                username,
                password_file,
            })
        },
    );
    prop_oneof![file, kubernetes, etcd]
}

fn config() -> impl Strategy<Value = Config> {
    let places = (folder(), store(), folder(), any::<bool>());
    let http = (any::<[u8; 4]>().prop_filter("pools", |a| a[0] != 10), 9000..=u16::MAX);
    let blocks = (1..=256_u16, 0..=86_400_000_u64);
    let vxlan = (1..=0xff_ffff_u32, 1..=u16::MAX, any::<bool>()).prop_map(|(vni, port, guard)| Vxlan {
        vni,
        port,
        guard,
    });
    let exclude = vec((any::<[u8; 4]>(), 0..=32_u8), 0..3).prop_map(|nets| {
        nets.into_iter().map(|(ip, length)| Ipv4Net::new_assert(ip.into(), length).trunc().into()).collect()
    });
    let masquerade = (any::<bool>(), exclude).prop_map(|(enabled, exclude)| Masquerade { enabled, exclude });
    let cni = (option::of(folder()), option::of(folder())).prop_map(|(subnet_env, folder)| Cni {
        subnet_env,
        conflist: folder.map(|folder| folder.join("10-pairway.conflist")),
    });
    (node(), pools(), paths(), bgp(), kernel(), (vxlan, masquerade, brake(), cni), blocks, http, places)
        .prop_map(
            |(
                node,
                pools,
                paths,
                bgp,
                kernel,
                (vxlan, masquerade, brake, cni),
                blocks,
                http,
                (state, store, socket, from_node),
            )| {
                // Only Kubernetes gives blocks.
                let source = match &store {
                    Store::Kubernetes { .. } if from_node => BlockSource::NodeSpec,
                    Store::Kubernetes { .. } | Store::File { .. } | Store::Etcd(_) => BlockSource::Claim,
                };
                Config {
                    node,
                    store,
                    pools,
                    blocks: Blocks {
                        source,
                        per_node: blocks.0,
                        reuse_after: Duration::from_millis(blocks.1),
                    },
                    paths,
                    bgp,
                    vxlan,
                    brake,
                    masquerade,
                    cni,
                    http: SocketAddr::from(http),
                    api_socket: socket,
                    state_dir: state,
                    kernel,
                }
            },
        )
        .prop_filter(
            "directories differ",
            |config| !matches!(&config.store, Store::File { path, .. } if *path == config.state_dir),
        )
        .prop_filter("files for CNI plugins have places of their own", |config| {
            let store = match &config.store {
                Store::File { path, .. } => Some(path),
                Store::Kubernetes { .. } | Store::Etcd(_) => None,
            };
            let taken = |path: &PathBuf| {
                let folders = [Some(&config.state_dir), store];
                *path == config.api_socket
                    || folders.into_iter().flatten().any(|folder| path.starts_with(folder))
            };
            let files = [&config.cni.subnet_env, &config.cni.conflist];
            // What `..` leads to is told by tables.
            let plain = |path: &PathBuf| !path.to_string_lossy().contains("..");
            let all = files.into_iter().flatten().chain([&config.state_dir, &config.api_socket]).chain(store);
            all.into_iter().all(plain) && !files.into_iter().flatten().any(taken)
        })
        .prop_filter("IP-in-IP goes over IPv4", |config| {
            let ipv6 = |selector: &UnderlaySelector| matches!(selector, UnderlaySelector::Cidr(IpNet::V6(_)));
            let only_ipv6 = matches!(&config.node.underlay, Underlay::Select(all) if all.iter().all(ipv6));
            !(only_ipv6 && config.paths.uses_ipip())
        })
}

/// Text that looks like a configuration, more or less.
fn nearly_yaml() -> impl Strategy<Value = String> {
    let word = prop_oneof![
        Just("pools"),
        Just("cidr"),
        Just("blockPrefix"),
        Just("bgp"),
        Just("peers"),
        Just("overrides"),
        Just("match"),
        Just("name"),
        Just("node"),
        Just("underlay"),
        Just("labels"),
        Just("10.244.0.0/16"),
        Just("fd10::/48"),
        Just("24"),
        Just("-1"),
        Just("0x10"),
        Just("1e9"),
        Just("99999999999999999999999999999999999999999"),
        Just("true"),
        Just("~"),
        Just(": "),
        Just("\n"),
        Just("\n  "),
        Just("\n    "),
        Just("- "),
        Just("{"),
        Just("}"),
        Just("["),
        Just("]"),
        Just(", "),
        Just("\""),
        Just("'"),
        Just("&a "),
        Just("*a"),
        Just("!!str "),
        Just("<<"),
        Just("|\n"),
        Just(">-\n"),
        Just("# "),
        Just("? "),
        Just("---\n"),
        Just("...\n"),
        Just("%YAML 1.2\n"),
        Just("\t"),
        Just("\u{feff}"),
        Just("\u{0}"),
        Just("é"),
        Just("\r\n"),
        Just("9s"),
        Just("holdTime"),
        Just("rules"),
        Just("between"),
        Just("use"),
        Just("kernel"),
    ];
    vec(word, 0..60).prop_map(|words| words.concat())
}

fn holds_together(text: &str) {
    match ConfigFile::parse(text, "any") {
        Ok(file) => {
            let config = file.for_node("n1");
            assert_eq!(ConfigFile::parse(&config.to_yaml(), "again").unwrap().for_node("n1"), config);
        }
        Err(errors) => {
            assert!(errors.iter().count() > 0);
            assert!(!errors.to_string().is_empty());
            // `str::lines` knows `\n` and `\r\n`; YAML also ends a line at a lone `\r`.
            let lines = text.split(['\n', '\r']).count();
            for error in &errors {
                assert!(error.line as usize <= lines + 1, "{error}\n{text:?}");
                assert!(error.column >= 1 && !error.problem.is_empty());
                assert!(!error.to_string().contains(|c: char| c.is_control() && c != '\n'), "{error:?}");
            }
        }
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read(config in config()) {
        let yaml = config.to_yaml();
        let again = ConfigFile::parse(&yaml, "rendered").map_err(|errors| TestCaseError::fail(format!("{errors}\n{yaml}")))?;
        let name = again.node_name(Some("not-this-one"), "nor-this").unwrap();
        prop_assert_eq!(again.for_node(&name), config);
    }

    #[test]
    fn any_text_is_judged(text in any::<String>()) {
        holds_together(&text);
    }

    #[test]
    fn any_yaml_is_judged(text in nearly_yaml()) {
        holds_together(&text);
    }

    #[test]
    fn a_spoilt_sample_is_judged(at in any::<prop::sample::Index>(), with in "[ -~\n]{0,3}", cut in 0..4_usize) {
        let sample = include_str!("../../samples/two-zones.yaml");
        let start = at.index(sample.len());
        let end = (start + cut).min(sample.len());
        holds_together(&format!("{}{with}{}", &sample[..start], &sample[end..]));
    }

    #[test]
    fn a_changed_configuration_says_so(before in config(), after in config()) {
        prop_assert_eq!(before.changes(&after).is_empty(), before == after);
        prop_assert_eq!(before.changes(&before), vec![]);
    }
}
