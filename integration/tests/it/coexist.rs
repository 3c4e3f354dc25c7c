//! What others do on a node is said, with what mends it, and never touched; each with the packets that show that it is so.

use integration::cluster::{CONFIG, Cluster};
use integration::eventually::eventually;
use node_agent::status::Condition;

use crate::firewall::status_has;
use crate::support::{SETTLE, kernel, ping, pod_of, pods, settled};

fn conditions(cluster: &Cluster, node: &str, kind: &str) -> Vec<Condition> {
    let status = cluster.status(node).unwrap();
    status.conditions.into_iter().filter(|condition| condition.kind == kind).collect()
}

#[test]
fn drops_of_others_in_input_are_reported_with_what_mends_them() {
    let config = format!("{CONFIG}paths: {{ sameSubnet: vxlan }}\n");
    let (mut cluster, nodes, _) = settled("two-nodes", &config);
    let pods = pods(&mut cluster, &nodes);
    let (n1, n2) = (pod_of(&pods, "n1"), pod_of(&pods, "n2"));
    let close = "\
        iptables-nft -A INPUT -i lo -j ACCEPT; \
        iptables-nft -A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT; \
        iptables-nft -A INPUT -p tcp --dport 22 -j ACCEPT";
    cluster.node("n1").sh(close).unwrap();
    ping(&cluster, n1, n2, false, 56).unwrap();
    status_has(&cluster, "n1", "InputDropped", false);
    cluster.node("n1").sh("iptables-nft -P INPUT DROP").unwrap();
    status_has(&cluster, "n1", "InputDropped", true);
    assert!(ping(&cluster, n1, n2, false, 56).is_err(), "it really drops");
    assert!(ping(&cluster, n1, n2, true, 56).is_err(), "of both families");
    let found = conditions(&cluster, "n1", "InputDropped");
    // No session is asked for, so none is missed.
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].subject.starts_with("UDP port 4789 to 192.0.2.1: ip filter INPUT"), "{found:?}");
    let remedy = found[0].message.split_once("for a try: ").unwrap().1;
    cluster.node("n1").sh(remedy).unwrap();
    for ipv6 in [false, true] {
        ping(&cluster, n1, n2, ipv6, 56).unwrap();
    }
    status_has(&cluster, "n1", "InputDropped", false);
    assert!(cluster.status("n1").unwrap().ready);
}

/// Rules and routes past ours: the pods' packets go elsewhere, and every surface says so until it is over.
#[test]
fn what_leads_packets_past_our_routes_is_a_conflict_while_it_lasts() {
    let (mut cluster, nodes, _) = settled("two-nodes", CONFIG);
    let pods = pods(&mut cluster, &nodes);
    let (n1, n2) = (pod_of(&pods, "n1"), pod_of(&pods, "n2"));
    let before = kernel(&cluster, "n1");
    let well = |cluster: &Cluster| {
        eventually("all is well", SETTLE, || {
            let pairs = cluster.pairs("n1").map_err(|err| err.to_string())?;
            let routes = cluster.routes("n1").map_err(|err| err.to_string())?;
            let status = cluster.status("n1").map_err(|err| err.to_string())?;
            if pairs.iter().all(|pair| pair.ready)
                && routes.iter().all(|route| route.state == "installed")
                && status.conditions.is_empty()
            {
                Ok(())
            } else {
                Err(format!("{pairs:?} {routes:?} {status:?}"))
            }
        })
        .unwrap();
    };
    well(&cluster);
    let pod = n2.address(false).unwrap();
    let cases = [
        ("a rule", "ip rule add from 10.244.0.0/16 lookup 77 pref 100", "ip rule del pref 100"),
        (
            "a route inside of the block",
            &format!("ip route add blackhole {pod}/32"),
            &format!("ip route del blackhole {pod}/32"),
        ),
    ];
    cluster.node("n1").sh("ip route add blackhole default table 77").unwrap();
    for (what, begin, end) in cases {
        ping(&cluster, n1, n2, false, 56).unwrap();
        cluster.node("n1").sh(begin).unwrap();
        assert!(ping(&cluster, n1, n2, false, 56).is_err(), "{what} does what is said of it");
        status_has(&cluster, "n1", "Conflict", true);
        eventually("every surface to say so", SETTLE, || {
            let pair = cluster.pair("n1", "n2", "ipv4").map_err(|err| err.to_string())?;
            let routes = cluster.routes("n1").map_err(|err| err.to_string())?;
            let diverted =
                routes.iter().filter(|route| route.state == "diverted" && !route.detail.is_empty());
            if !pair.ready && pair.not_ready.is_some() && diverted.count() > 0 {
                Ok(())
            } else {
                Err(format!("{pair:?} {routes:?}"))
            }
        })
        .unwrap();
        assert!(cluster.pair("n1", "n2", "ipv6").unwrap().ready, "IPv6 is not concerned");
        assert!(cluster.status("n1").unwrap().ready, "nor is the node");
        assert_eq!(kernel(&cluster, "n1"), before, "nothing of ours is changed for it");
        cluster.node("n1").sh(end).unwrap();
        well(&cluster);
    }
    ping(&cluster, n1, n2, false, 56).unwrap();
}

#[test]
fn a_device_that_does_not_forward_is_said_with_what_mends_it() {
    let (mut cluster, nodes, _) = settled("two-nodes", CONFIG);
    let pods = pods(&mut cluster, &nodes);
    let (n1, n2) = (pod_of(&pods, "n1"), pod_of(&pods, "n2"));
    ping(&cluster, n2, n1, false, 56).unwrap();
    status_has(&cluster, "n1", "ForwardingDisabled", false);
    cluster
        .node("n1")
        .sh("sysctl -w net.ipv4.conf.eth1.forwarding=0 net.ipv6.conf.eth1.forwarding=0")
        .unwrap();
    status_has(&cluster, "n1", "ForwardingDisabled", true);
    assert!(ping(&cluster, n2, n1, false, 56).is_err(), "it really drops");
    // In IPv6 the setting for all devices decides alone.
    ping(&cluster, n2, n1, true, 56).unwrap();
    let found = conditions(&cluster, "n1", "ForwardingDisabled");
    assert_eq!(found.iter().map(|it| it.subject.as_str()).collect::<Vec<_>>(), ["ipv4 eth1"]);
    let remedy = found[0].message.split('`').nth(1).unwrap();
    cluster.node("n1").sh(remedy).unwrap();
    ping(&cluster, n2, n1, false, 56).unwrap();
    status_has(&cluster, "n1", "ForwardingDisabled", false);
}
