//! `/metrics`: every value is read from [`Published`] at the moment of the scrape, so that nothing lingers that
//! the agent no longer believes. `docs/metrics.md` is the reference, held to this table by a test.
//!
//! Label values are words of ours (paths, reasons, kinds, states) and never names of peers or prefixes: the number
//! of series does not grow with the cluster.

use std::collections::BTreeMap;
use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};

use crate::status::{PassDurations, Published, STORE_UNAVAILABLE};

#[cfg(test)]
mod tests;

/// Content type of [`encode`]'s text.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The metrics as OpenMetrics text.
///
/// # Errors
/// Never in practice: formatting into memory.
pub fn encode(published: &Published) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Families(families(published))));
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry)?;
    Ok(text)
}

/// A metric with all its series. `name` is without unit and `_total`.
#[derive(Debug)]
struct Family {
    name: &'static str,
    help: &'static str,
    seconds: bool,
    samples: Samples,
}

#[derive(Debug)]
enum Samples {
    Gauge(Vec<Sample>),
    Counter(Vec<Sample>),
    Histogram(PassDurations),
}

type Labels = Vec<(&'static str, String)>;

#[derive(Debug)]
struct Sample {
    labels: Labels,
    value: u64,
}

#[derive(Debug)]
struct Families(Vec<Family>);

impl Collector for Families {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        for family in &self.0 {
            let unit = family.seconds.then_some(&Unit::Seconds);
            let kind = match family.samples {
                Samples::Gauge(_) => MetricType::Gauge,
                Samples::Counter(_) => MetricType::Counter,
                Samples::Histogram(_) => MetricType::Histogram,
            };
            let mut metric = encoder.encode_descriptor(family.name, family.help, unit, kind)?;
            match &family.samples {
                Samples::Gauge(samples) => {
                    for Sample { labels, value } in samples {
                        if labels.is_empty() {
                            metric.encode_gauge(value)?;
                        } else {
                            metric.encode_family(labels)?.encode_gauge(value)?;
                        }
                    }
                }
                Samples::Counter(samples) => {
                    for Sample { labels, value } in samples {
                        if labels.is_empty() {
                            metric.encode_counter::<NoLabelSet, u64, f64>(value, None)?;
                        } else {
                            metric
                                .encode_family(labels)?
                                .encode_counter::<NoLabelSet, u64, f64>(value, None)?;
                        }
                    }
                }
                Samples::Histogram(durations) => {
                    let seconds = |micros: u64| micros as f64 / 1e6;
                    let bounds = PassDurations::BOUNDS_MICROS.iter().map(|bound| seconds(*bound));
                    let buckets: Vec<(f64, u64)> =
                        bounds.chain([f64::INFINITY]).zip(durations.buckets.iter().copied()).collect();
                    let count = durations.buckets.iter().sum();
                    metric.encode_histogram::<NoLabelSet>(
                        seconds(durations.sum_micros),
                        count,
                        &buckets,
                        None,
                    )?;
                }
            }
        }
        Ok(())
    }
}

fn families(published: &Published) -> Vec<Family> {
    let mut families = node(published);
    families.extend(pairs(published));
    families.extend(kernel(published));
    families.extend(bgp(published));
    families.extend(passes(published));
    families
}

fn node(published: &Published) -> Vec<Family> {
    let status = &published.status;
    let started = status.started_at.as_deref().and_then(|time| time.parse::<jiff::Timestamp>().ok());
    let store_healthy = !status.conditions.iter().any(|condition| condition.kind == STORE_UNAVAILABLE);
    vec![
        gauge(
            "pairway_build_info",
            "Version of the agent; always 1",
            vec![Sample { labels: vec![("version", env!("CARGO_PKG_VERSION").to_owned())], value: 1 }],
        ),
        Family {
            seconds: true,
            ..gauge(
                "pairway_start_time",
                "When the agent started, since the Unix epoch",
                started
                    .and_then(|time| u64::try_from(time.as_second()).ok())
                    .map(plain)
                    .into_iter()
                    .collect(),
            )
        },
        gauge("pairway_ready", "1 while this node's network is ready", vec![plain(u64::from(status.ready))]),
        gauge(
            "pairway_snapshot_revision",
            "Revision of the store's snapshot that the last pass used; 0 before the first",
            vec![plain(status.revision)],
        ),
        gauge("pairway_store_healthy", "1 while the store answers", vec![plain(u64::from(store_healthy))]),
        gauge(
            "pairway_blocks",
            "Blocks of pod addresses that this node holds",
            tally(status.blocks.iter().map(|block| vec![("family", family_of(block).to_owned())])),
        ),
        gauge(
            "pairway_conditions",
            "Conditions that an operator should know, by type",
            tally(status.conditions.iter().map(|condition| vec![("type", condition.kind.clone())])),
        ),
    ]
}

fn pairs(published: &Published) -> Vec<Family> {
    let pairs = &published.pairs;
    let flips = published.counters.flips.iter().map(|((from, to, reason), count)| Sample {
        labels: vec![("from", from.clone()), ("to", to.clone()), ("reason", reason.clone())],
        value: *count,
    });
    vec![
        gauge(
            "pairway_pairs",
            "Pairs of this node with another, by the path in use and why",
            tally(pairs.iter().map(|pair| {
                vec![
                    ("family", pair.family.clone()),
                    ("path", pair.path.clone()),
                    ("reason", pair.reason.clone()),
                ]
            })),
        ),
        gauge(
            "pairway_pairs_off_prediction",
            "Pairs whose path is not the one that policy alone predicts",
            tally(
                pairs
                    .iter()
                    .filter(|pair| pair.path != pair.predicted)
                    .map(|pair| vec![("predicted", pair.predicted.clone()), ("path", pair.path.clone())]),
            ),
        ),
        gauge(
            "pairway_pairs_unready",
            "Pairs whose path is not completely in the kernel",
            vec![plain(pairs.iter().filter(|pair| !pair.ready).count() as u64)],
        ),
        counter("pairway_path_flips", "Changes of a pair's path", flips.collect()),
    ]
}

fn kernel(published: &Published) -> Vec<Family> {
    let counters = &published.counters;
    let changes = counters.changes.iter().map(|((kind, operation), count)| Sample {
        labels: vec![("kind", kind.clone()), ("operation", operation.clone())],
        value: *count,
    });
    vec![
        counter("pairway_kernel_changes", "Changes of kernel objects that were applied", changes.collect()),
        counter(
            "pairway_kernel_change_failures",
            "Changes of kernel objects that the kernel refused",
            by_label("kind", &counters.change_failures),
        ),
        counter(
            "pairway_kernel_repairs",
            "Kernel objects of ours that somebody else had undone and that were put back",
            by_label("kind", &counters.repairs),
        ),
        gauge(
            "pairway_kernel_objects_wanted",
            "Kernel objects that the agent wants to exist",
            by_label("kind", &counters.objects_wanted),
        ),
        gauge(
            "pairway_kernel_conflicts",
            "Objects of others that stand where one of ours should",
            vec![plain(counters.conflicts)],
        ),
        counter(
            "pairway_masqueraded_connections",
            "Connections that got this node's address on their way out of the cluster",
            vec![plain(counters.masqueraded.total)],
        ),
        counter(
            "pairway_tunnel_guard_drops",
            "Packets with our VNI that were dropped because they came from no known node",
            vec![plain(counters.guarded.total)],
        ),
        gauge(
            "pairway_routes",
            "Routes that the agent owns or wants",
            tally(
                published
                    .routes
                    .iter()
                    .map(|route| vec![("kind", route.kind.clone()), ("state", route.state.clone())]),
            ),
        ),
    ]
}

fn bgp(published: &Published) -> Vec<Family> {
    let neighbors = &published.neighbors;
    let by_kind = |value: fn(&crate::status::BgpNeighbor) -> u64| {
        sum(neighbors.iter().map(|neighbor| (vec![("kind", neighbor.kind.clone())], value(neighbor))))
    };
    let refused = neighbors.iter().flat_map(|neighbor| {
        neighbor.refused_by_reason.iter().map(|(reason, count)| {
            (vec![("kind", neighbor.kind.clone()), ("reason", reason.clone())], *count)
        })
    });
    vec![
        gauge(
            "pairway_bgp_neighbors",
            "BGP neighbours by kind and state of their session",
            tally(
                neighbors
                    .iter()
                    .map(|neighbor| vec![("kind", neighbor.kind.clone()), ("state", neighbor.state.clone())]),
            ),
        ),
        gauge(
            "pairway_bgp_neighbors_restarting",
            "BGP neighbours that restart and whose routes are kept",
            by_kind(|neighbor| u64::from(neighbor.restarting)),
        ),
        gauge(
            "pairway_bgp_prefixes_accepted",
            "Prefixes accepted from BGP neighbours",
            by_kind(|neighbor| neighbor.accepted),
        ),
        gauge(
            "pairway_bgp_prefixes_announced",
            "Prefixes announced to BGP neighbours",
            by_kind(|neighbor| neighbor.announced),
        ),
        gauge("pairway_bgp_prefixes_refused", "Prefixes from BGP neighbours that are refused", sum(refused)),
    ]
}

fn passes(published: &Published) -> Vec<Family> {
    let counters = &published.counters;
    vec![
        counter("pairway_passes", "Passes of the agent's loop", vec![plain(counters.passes)]),
        Family {
            name: "pairway_pass_duration",
            help: "How long a pass of the agent's loop took",
            seconds: true,
            samples: Samples::Histogram(counters.pass_durations),
        },
    ]
}

fn gauge(name: &'static str, help: &'static str, samples: Vec<Sample>) -> Family {
    Family { name, help, seconds: false, samples: Samples::Gauge(samples) }
}

fn counter(name: &'static str, help: &'static str, samples: Vec<Sample>) -> Family {
    Family { name, help, seconds: false, samples: Samples::Counter(samples) }
}

fn plain(value: u64) -> Sample {
    Sample { labels: Labels::new(), value }
}

fn family_of(cidr: &str) -> &'static str {
    if cidr.contains(':') { "ipv6" } else { "ipv4" }
}

/// How often each set of labels comes.
fn tally(labels: impl Iterator<Item = Labels>) -> Vec<Sample> {
    sum(labels.map(|labels| (labels, 1)))
}

fn sum(values: impl Iterator<Item = (Labels, u64)>) -> Vec<Sample> {
    let mut sums = BTreeMap::<Labels, u64>::new();
    for (labels, value) in values {
        *sums.entry(labels).or_default() += value;
    }
    sums.into_iter().map(|(labels, value)| Sample { labels, value }).collect()
}

fn by_label(label: &'static str, values: &BTreeMap<String, u64>) -> Vec<Sample> {
    values.iter().map(|(name, value)| Sample { labels: vec![(label, name.clone())], value: *value }).collect()
}
