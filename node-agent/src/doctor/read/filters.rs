//! Packet filters, as the programs of others list them.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::process::{Command, Output, Stdio};

use ipnet::IpNet;
use serde_json::Value;

use super::super::facts::{Chain, Known, Ruleset};

/// What `nft -j list ruleset` says.
pub(super) fn ruleset() -> Known<Ruleset> {
    let output = listed("nft", &["-j", "list", "ruleset"])?;
    let value: Value = serde_json::from_slice(&output.stdout)
        .map_err(|error| format!("`nft -j list ruleset` is not understood: {error}"))?;
    Ok(parse(&value))
}

/// The policy of FORWARD, where tables of the legacy iptables are in use.
pub(super) fn legacy_forward() -> Known<Option<String>> {
    const NAMES: &str = "/proc/net/ip_tables_names";
    match fs::read_to_string(NAMES) {
        Ok(names) if names.lines().any(|name| name == "filter") => {}
        Ok(_) => return Ok(None),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(format!("{NAMES} can't be read: {error}; run this as root")),
    }
    let output = listed("iptables-legacy", &["-w", "5", "-S", "FORWARD"])?;
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.lines().find_map(|line| line.strip_prefix("-P FORWARD ")).map(str::to_owned))
}

fn listed(program: &str, arguments: &[&str]) -> Known<Output> {
    let path = std::env::var("PATH").unwrap_or_default();
    let output = Command::new(program)
        .args(arguments)
        .env("PATH", format!("{path}:/usr/sbin:/sbin"))
        .stdin(Stdio::null())
        .output()
        .map_err(|error| {
            if error.kind() == io::ErrorKind::NotFound {
                format!("there is no `{program}` here to list the rules")
            } else {
                format!("`{program}` can't be run: {error}")
            }
        })?;
    if output.status.success() {
        return Ok(output);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let first = said.lines().next().unwrap_or_default();
    Err(format!("`{program}` fails ({}): {first}; run this as root", output.status))
}

/// libnftables-json(5).
fn parse(value: &Value) -> Ruleset {
    let objects = value["nftables"].as_array().map(Vec::as_slice).unwrap_or_default();
    let text = |value: &Value, key: &str| value[key].as_str().unwrap_or_default().to_owned();
    let mut ruleset = Ruleset::default();
    for object in objects {
        if let Some(table) = object.get("table") {
            ruleset.tables.insert(text(table, "name"));
        }
        if let Some(chain) = object.get("chain")
            && chain["hook"] == "forward"
            && chain["policy"] == "drop"
        {
            ruleset.drops.push(Chain {
                family: text(chain, "family"),
                table: text(chain, "table"),
                name: text(chain, "name"),
                accepts: BTreeSet::new(),
            });
        }
    }
    for rule in objects.iter().filter_map(|object| object.get("rule")) {
        let expressions = rule["expr"].as_array().map(Vec::as_slice).unwrap_or_default();
        if !expressions.iter().any(|expression| expression.get("accept").is_some()) {
            continue;
        }
        let harmless = |expression: &Value| {
            ["accept", "counter", "comment", "log"].iter().any(|key| expression.get(key).is_some())
        };
        let everything = expressions.iter().all(harmless);
        let nets: BTreeSet<IpNet> = expressions.iter().flat_map(addresses).collect();
        for chain in &mut ruleset.drops {
            if rule["family"] != chain.family.as_str() || rule["table"] != chain.table.as_str() {
                continue;
            }
            // A rule of another chain counts if it names addresses: base chains jump.
            chain.accepts.extend(nets.iter().copied());
            if everything && rule["chain"] == chain.name.as_str() {
                chain.accepts.extend(ALL);
            }
        }
    }
    ruleset
}

const ALL: [IpNet; 2] = [
    IpNet::V4(ipnet::Ipv4Net::new_assert(std::net::Ipv4Addr::UNSPECIFIED, 0)),
    IpNet::V6(ipnet::Ipv6Net::new_assert(std::net::Ipv6Addr::UNSPECIFIED, 0)),
];

/// The source or destination addresses that an expression matches.
fn addresses(expression: &Value) -> Vec<IpNet> {
    let matched = &expression["match"];
    let field = matched["left"]["payload"]["field"].as_str();
    if !matches!(field, Some("saddr" | "daddr")) || matched["op"] == "!=" {
        return Vec::new();
    }
    let right = &matched["right"];
    match right["set"].as_array() {
        Some(elements) => elements.iter().filter_map(net).collect(),
        None => net(right).into_iter().collect(),
    }
}

/// `"192.0.2.1"` or `{"prefix": {"addr": "10.244.0.0", "len": 16}}`
fn net(value: &Value) -> Option<IpNet> {
    if let Some(address) = value.as_str() {
        return address.parse::<IpAddr>().ok().map(IpNet::from).or_else(|| address.parse().ok());
    }
    let prefix = value.get("prefix")?;
    let length = u8::try_from(prefix["len"].as_u64()?).ok()?;
    IpNet::new(prefix["addr"].as_str()?.parse().ok()?, length).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn forward(family: &str, policy: &str) -> Value {
        json!({ "chain": { "family": family, "table": "filter", "name": "FORWARD", "hook": "forward", "policy": policy } })
    }

    fn rule(chain: &str, expr: Value) -> Value {
        json!({ "rule": { "family": "ip", "table": "filter", "chain": chain, "expr": expr } })
    }

    fn saddr(right: Value) -> Value {
        json!({ "match": { "op": "==", "left": { "payload": { "protocol": "ip", "field": "saddr" } }, "right": right } })
    }

    fn accepts(objects: &[Value]) -> Vec<Vec<String>> {
        let ruleset = parse(&json!({ "nftables": objects }));
        ruleset.drops.iter().map(|chain| chain.accepts.iter().map(ToString::to_string).collect()).collect()
    }

    #[test]
    fn chains_that_drop_and_what_their_tables_accept() {
        let pool = json!({ "prefix": { "addr": "10.244.0.0", "len": 16 } });
        let none: [&str; 0] = [];
        assert!(accepts(&[forward("ip", "accept")]).is_empty());
        assert_eq!(accepts(&[forward("ip", "drop")]), [none]);
        let by_prefix = rule("FORWARD", json!([saddr(pool.clone()), { "accept": null }]));
        assert_eq!(accepts(&[forward("ip", "drop"), by_prefix.clone()]), [["10.244.0.0/16"]]);
        assert_eq!(accepts(&[forward("ip6", "drop"), by_prefix]), [none], "another family");
        let in_jump = rule(
            "CNI-FORWARD",
            json!([saddr(json!({ "set": [pool.clone(), "192.0.2.1"] })), { "accept": null }]),
        );
        assert_eq!(accepts(&[forward("ip", "drop"), in_jump]), [["10.244.0.0/16", "192.0.2.1/32"]]);
        let all = json!([{ "counter": { "packets": 0, "bytes": 0 } }, { "accept": null }]);
        assert_eq!(accepts(&[forward("ip", "drop"), rule("FORWARD", all.clone())]), [["0.0.0.0/0", "::/0"]]);
        assert_eq!(
            accepts(&[forward("ip", "drop"), rule("OTHER", all)]),
            [none],
            "nobody says that it is reached"
        );
        let drops = rule("FORWARD", json!([saddr(pool), { "drop": null }]));
        assert_eq!(accepts(&[forward("ip", "drop"), drops]), [none]);
        let opaque =
            rule("FORWARD", json!([{ "xt": { "type": "match", "name": "conntrack" } }, { "accept": null }]));
        assert_eq!(accepts(&[forward("ip", "drop"), opaque]), [none], "a match that is not understood");
    }

    #[test]
    fn anything_is_read_without_a_panic() {
        for value in
            [json!(null), json!([]), json!({ "nftables": [1, { "chain": 7 }, { "rule": { "expr": {} } }] })]
        {
            assert_eq!(parse(&value), Ruleset::default());
        }
    }
}
