//! What the file will be able to say one day, and can't yet: refused by name, never accepted without effect.

/// Keys, as `key path` and the feature that it belongs to. `[]` stands for any place in a list.
const KEYS: &[(&str, &str)] = &[
    ("bgp.bfd", "BFD"),
    ("bgp.communities", "communities"),
    ("bgp.password", "TCP-MD5"),
    ("bgp.peers[].bfd", "BFD"),
    ("bgp.peers[].communities", "communities"),
    ("bgp.peers[].interface", "unnumbered peering"),
    ("bgp.peers[].password", "TCP-MD5"),
    ("bgp.peers[].ttlSecurity", "TTL security"),
    ("bgp.reflectors", "route reflection"),
    ("firewall", "firewall rules"),
    ("ipip", "settings of IP-in-IP"),
    ("mtu", "MTU settings"),
    ("probes", "path probes"),
    ("telemetry", "telemetry export"),
    ("wireguard", "WireGuard"),
];

/// Values of a key, as `key path`, value and feature.
const VALUES: &[(&str, &str, &str)] = &[
    ("paths.crossSubnet", "bgp", "native paths between subnets"),
    ("paths.crossSubnet", "direct", "native paths between subnets"),
    ("paths.crossSubnet", "wireguard", "WireGuard"),
    ("paths.fallback", "wireguard", "WireGuard"),
    ("paths.rules[].use", "wireguard", "WireGuard"),
    ("paths.sameSubnet", "wireguard", "WireGuard"),
];

/// The feature of a key that this version does not have.
pub(crate) fn key(path: &str) -> Option<&'static str> {
    let path = general(path);
    KEYS.iter().find(|(key, _)| *key == path).map(|(_, feature)| *feature)
}

/// The feature of a value that this version does not have.
pub(crate) fn value(path: &str, value: &str) -> Option<&'static str> {
    let path = general(path);
    VALUES.iter().find(|(key, text, _)| *key == path && *text == value).map(|(_, _, feature)| *feature)
}

/// `overrides[1].paths.rules[3].use` -> `paths.rules[].use`.
fn general(path: &str) -> String {
    let mut general = String::new();
    let mut index = false;
    for c in path.chars() {
        match c {
            '[' => {
                index = true;
                general.push('[');
            }
            ']' => {
                index = false;
                general.push(']');
            }
            _ if index => {}
            _ => general.push(c),
        }
    }
    general.strip_prefix("overrides[].").map(str::to_owned).unwrap_or(general)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_keys_are_not_in_the_schema() {
        for (path, _) in KEYS {
            let mut schema = Some(crate::schema());
            for step in path.split('.') {
                let (name, list) = step.strip_suffix("[]").map_or((step, false), |name| (name, true));
                schema = schema.and_then(|schema| schema["properties"].get(name));
                if list {
                    schema = schema.map(|schema| &schema["items"]);
                }
            }
            assert_eq!(schema, None, "{path} has come: take it out of the list");
        }
    }

    #[test]
    fn indices_and_overrides_do_not_matter() {
        assert_eq!(value("overrides[1].paths.rules[3].use", "wireguard"), Some("WireGuard"));
        assert_eq!(key("overrides[0].wireguard"), Some("WireGuard"));
        assert_eq!(key("bgp.peers[7].password"), Some("TCP-MD5"));
        assert_eq!(key("bgp.peers[7].name"), None);
    }
}
