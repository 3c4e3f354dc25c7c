use super::*;
use crate::fixtures;

use std::collections::BTreeSet;

use expect_test::expect;

#[test]
fn a_node_with_pairs_sessions_and_trouble() {
    let text = encode(&fixtures::published()).unwrap();
    let samples: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    expect![[r#"
        pairway_build_info{version="0.1.0"} 1
        pairway_start_time_seconds 1795251600
        pairway_ready 1
        pairway_snapshot_revision 42
        pairway_store_healthy 1
        pairway_blocks{family="ipv4"} 1
        pairway_blocks{family="ipv6"} 1
        pairway_conditions{type="PeerUnreachable"} 1
        pairway_pairs{family="ipv4",path="native",reason="bgp"} 1
        pairway_pairs{family="ipv4",path="vxlan",reason="cross-subnet"} 1
        pairway_pairs{family="ipv6",path="native",reason="bgp"} 1
        pairway_pairs_unready 1
        pairway_path_flips_total{from="vxlan",to="native",reason="bgp"} 2
        pairway_kernel_changes_total{kind="nexthop",operation="set"} 1
        pairway_kernel_changes_total{kind="route",operation="add"} 3
        pairway_kernel_change_failures_total{kind="route"} 1
        pairway_kernel_repairs_total{kind="fdb"} 1
        pairway_kernel_repairs_total{kind="route"} 2
        pairway_kernel_objects_wanted{kind="link"} 1
        pairway_kernel_objects_wanted{kind="route"} 3
        pairway_kernel_conflicts 1
        pairway_masqueraded_connections_total 0
        pairway_tunnel_guard_drops_total 0
        pairway_routes{kind="native",state="installed"} 1
        pairway_routes{kind="unreachable",state="installed"} 1
        pairway_routes{kind="vxlan",state="missing"} 1
        pairway_bgp_neighbors{kind="external",state="active"} 1
        pairway_bgp_neighbors{kind="node",state="established"} 1
        pairway_bgp_neighbors_restarting{kind="external"} 0
        pairway_bgp_neighbors_restarting{kind="node"} 0
        pairway_bgp_prefixes_accepted{kind="external"} 0
        pairway_bgp_prefixes_accepted{kind="node"} 2
        pairway_bgp_prefixes_announced{kind="external"} 0
        pairway_bgp_prefixes_announced{kind="node"} 2
        pairway_bgp_prefixes_refused{kind="node",reason="claimed-by-other"} 1
        pairway_passes_total 2
        pairway_pass_duration_seconds_sum 0.0307
        pairway_pass_duration_seconds_count 2
        pairway_pass_duration_seconds_bucket{le="0.0005"} 0
        pairway_pass_duration_seconds_bucket{le="0.001"} 1
        pairway_pass_duration_seconds_bucket{le="0.0025"} 1
        pairway_pass_duration_seconds_bucket{le="0.005"} 1
        pairway_pass_duration_seconds_bucket{le="0.01"} 1
        pairway_pass_duration_seconds_bucket{le="0.05"} 2
        pairway_pass_duration_seconds_bucket{le="0.1"} 2
        pairway_pass_duration_seconds_bucket{le="0.5"} 2
        pairway_pass_duration_seconds_bucket{le="1.0"} 2
        pairway_pass_duration_seconds_bucket{le="5.0"} 2
        pairway_pass_duration_seconds_bucket{le="+Inf"} 2
    "#]]
    .assert_eq(&(samples.join("\n") + "\n"));
    check_syntax(&text);
}

#[test]
fn an_agent_before_its_first_pass() {
    let text = encode(&Published::default()).unwrap();
    check_syntax(&text);
    for line in ["pairway_ready 0", "pairway_snapshot_revision 0", "pairway_passes_total 0"] {
        assert!(text.lines().any(|found| found == line), "{line} is missing in\n{text}");
    }
}

#[test]
fn label_values_from_outside_are_escaped() {
    let mut published = fixtures::published();
    published.pairs[0].reason = "a\"b\\c\nd".to_owned();
    let text = encode(&published).unwrap();
    assert!(text.contains(r#"reason="a\"b\\c\nd""#), "{text}");
    check_syntax(&text);
}

#[test]
fn series_do_not_grow_with_the_cluster() {
    let series = |peers: u32| {
        let mut published = fixtures::published();
        let pair = published.pairs[0].clone();
        let neighbor = published.neighbors[0].clone();
        for number in 0..peers {
            published.pairs.push(crate::status::Pair { peer: format!("m{number}"), ..pair.clone() });
            published
                .neighbors
                .push(crate::status::BgpNeighbor { name: format!("m{number}"), ..neighbor.clone() });
        }
        encode(&published).unwrap().lines().count()
    };
    assert_eq!(series(1), series(1000));
}

#[test]
fn the_reference_lists_exactly_what_is_exported() {
    let exported: BTreeSet<String> = encode(&Published::default())
        .unwrap()
        .lines()
        .filter_map(|line| {
            let (name, kind) = line.strip_prefix("# TYPE ")?.split_once(' ')?;
            Some(if kind == "counter" { format!("{name}_total") } else { name.to_owned() })
        })
        .collect();
    let reference = include_str!("../../../docs/metrics.md");
    let documented: BTreeSet<String> = reference
        .lines()
        .filter_map(|line| line.strip_prefix("| `"))
        .filter_map(|line| line.split_once('`'))
        .map(|(name, _)| name.to_owned())
        .collect();
    assert_eq!(documented, exported);
}

/// The rules of OpenMetrics 1.0 that scrapers trip over: every sample belongs to the family described before it,
/// with a suffix that its type allows; no series comes twice; buckets are cumulative; the text ends with `# EOF`.
fn check_syntax(text: &str) {
    let body = text.strip_suffix("# EOF\n").expect("ends with # EOF");
    let mut family = None;
    let mut families = BTreeSet::new();
    let mut series = BTreeSet::new();
    let mut last_bucket = 0.0;
    let mut ends_with_infinity = false;
    for line in body.lines() {
        if let Some(rest) = line.strip_prefix("# ") {
            let (keyword, rest) = rest.split_once(' ').expect("keyword");
            let (name, value) = rest.split_once(' ').expect("name and value");
            match keyword {
                "HELP" => {
                    assert!(families.insert(name.to_owned()), "{name} is described twice");
                    assert!(name.starts_with("pairway_"), "{name}");
                    family = Some((name.to_owned(), String::new()));
                    last_bucket = 0.0;
                }
                "TYPE" => {
                    let (described, kind) = family.as_mut().expect("HELP comes first");
                    assert_eq!(described, name);
                    assert!(!name.ends_with("_total"), "{name}: the type adds the suffix");
                    *kind = value.to_owned();
                }
                "UNIT" => assert!(name.ends_with(&format!("_{value}")), "{line}"),
                other => panic!("unknown keyword {other}"),
            }
            continue;
        }
        let (name, rest) = line.split_at(line.find(['{', ' ']).expect("a value"));
        let (labels, value) = match rest.strip_prefix('{') {
            Some(rest) => rest.rsplit_once("} ").expect("closing brace"),
            None => ("", rest.trim_start()),
        };
        let value: f64 = value.parse().expect("a number");
        assert!(value >= 0.0 && !line.contains("{}"), "{line}");
        assert!(series.insert((name.to_owned(), labels.to_owned())), "twice: {line}");
        let (described, kind) = family.as_ref().expect("a family");
        let suffix = name.strip_prefix(described.as_str()).unwrap_or_else(|| panic!("{name} in {described}"));
        match kind.as_str() {
            "gauge" => assert_eq!(suffix, ""),
            "counter" => assert_eq!(suffix, "_total"),
            "histogram" => {
                assert!(["_bucket", "_count", "_sum"].contains(&suffix), "{line}");
                if suffix == "_bucket" {
                    assert!(value >= last_bucket, "{line}");
                    last_bucket = value;
                    ends_with_infinity = labels.ends_with("le=\"+Inf\"");
                }
            }
            other => panic!("unknown type {other}"),
        }
    }
    assert!(ends_with_infinity, "the only histogram has a bucket without bound");
}
