//! From counters to Prometheus' families, when it asks.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use prometheus::core::{Collector, Desc};
use prometheus::proto::{
    Bucket, Counter as CounterProto, Gauge as GaugeProto, Histogram as HistogramProto, LabelPair, Metric,
    MetricFamily, MetricType,
};

use super::cap_levels::CapLevel;
use super::clock::now;
use super::counters::{Cell, ClickCount, CloseReason, Counters, DURATION_BOUNDS_NANOS, LinkSeries, lock};
use super::geo::GeoCount;
use super::live::LiveTable;
use crate::routing::Outcome;
use crate::types::{CapKey, LinkId, OfferId};

/// Every worker's counters.
#[derive(Debug)]
pub(super) struct Workers {
    pub(super) series: Arc<LinkSeries>,
    pub(super) counters: Mutex<Vec<Arc<Counters>>>,
}

/// Sums the workers' counters when asked.
pub(super) struct WorkerCollector {
    workers: Arc<Workers>,
    descs: Vec<Desc>,
}

impl WorkerCollector {
    pub(super) fn new(workers: Arc<Workers>) -> Self {
        Self { workers, descs: descs(WORKER_FAMILIES) }
    }
}

impl Collector for WorkerCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.descs.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let workers: Vec<Arc<Counters>> = lock(&self.workers.counters).clone();
        let sum = |read: &dyn Fn(&Counters) -> u64| workers.iter().map(|worker| read(worker)).sum::<u64>();

        let clicks = ClickCount::all()
            .map(|count| {
                counter(&[("outcome", count.as_str())], sum(&|worker| worker.clicks[count.index()].read()))
            })
            .collect();
        let geo = GeoCount::ALL.map(|count| {
            counter(&[("result", count.as_str())], sum(&|worker| worker.geo[count as usize].read()))
        });
        let closed = CloseReason::ALL.map(|reason| {
            counter(&[("reason", reason.as_str())], sum(&|worker| worker.closed[reason as usize].read()))
        });
        let closed_sum = sum(&|worker| worker.closed.iter().map(Cell::read).sum());
        let active = sum(&|worker| worker.opened.read()).saturating_sub(closed_sum);
        let (links, offers) = by_id(&workers);
        let metrics: [Vec<Metric>; WORKER_FAMILIES.len()] = [
            clicks,
            links,
            offers,
            vec![durations(&workers)],
            geo.into(),
            vec![counter(&[], sum(&|worker| worker.sub_ids_cut.read()))],
            vec![gauge_value(active as f64)],
            closed.into(),
            vec![counter(&[], sum(&|worker| worker.accept_errors.read()))],
            vec![counter(&[], sum(&|worker| worker.accept_pauses.read()))],
            vec![counter(&[], sum(&|worker| worker.log_records.read()))],
            vec![counter(&[], sum(&|worker| worker.log_dropped.read()))],
        ];
        families(WORKER_FAMILIES, metrics)
    }
}

/// Reads the live table when asked.
pub(super) struct TableCollector {
    live: Arc<LiveTable>,
    descs: Vec<Desc>,
}

impl TableCollector {
    pub(super) fn new(live: Arc<LiveTable>) -> Self {
        Self { live, descs: descs(TABLE_FAMILIES) }
    }
}

impl Collector for TableCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.descs.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let live = self.live.current();
        let age_millis = match live.generation {
            0 => 0,
            _ => (now().0 - self.live.confirmed_at().0).max(0),
        };
        families(
            TABLE_FAMILIES,
            [
                vec![gauge_value(live.generation as f64)],
                vec![gauge_value(age_millis as f64 / 1000.0)],
                vec![gauge_value(live.table.links() as f64)],
                vec![gauge_value(live.table.entries() as f64)],
                vec![gauge_value(live.caps.len() as f64)],
                vec![gauge_value(live.table.heap_bytes() as f64)],
            ],
        )
    }
}

/// How full each cap is.
pub(super) type CapLevels = Mutex<Arc<[CapLevel]>>;

/// Shows how full each cap is, when asked.
pub(super) struct CapCollector {
    levels: Arc<CapLevels>,
    descs: Vec<Desc>,
}

impl CapCollector {
    pub(super) fn new(levels: Arc<CapLevels>) -> Self {
        Self { levels, descs: descs(CAP_FAMILIES) }
    }
}

impl Collector for CapCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.descs.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let levels = Arc::clone(&lock(&self.levels));
        let amounts = levels.iter().map(|level| of_cap(&level.cap, level.amount)).collect();
        let remaining = levels.iter().map(|level| of_cap(&level.cap, level.remaining())).collect();
        families(CAP_FAMILIES, [amounts, remaining])
    }
}

fn of_cap(cap: &CapKey, value: u64) -> Metric {
    let offer = cap.offer.to_string();
    // To Prometheus, an empty label is none.
    let affiliate = cap.affiliate.map(|affiliate| affiliate.to_string()).unwrap_or_default();
    let mut metric = gauge_value(value as f64);
    metric.set_label(labels(&[
        ("offer_id", &offer),
        ("affiliate_id", &affiliate),
        ("cap_type", cap.kind.as_str()),
        ("cap_interval", cap.interval.as_str()),
    ]));
    metric
}

fn by_id(workers: &[Arc<Counters>]) -> (Vec<Metric>, Vec<Metric>) {
    let (mut link_sums, mut offer_sums) = (HashMap::<LinkId, _>::new(), HashMap::<OfferId, u64>::new());
    let mut other_links = [0; ClickCount::COUNT];
    for worker in workers {
        let counts = lock(&worker.by_id);
        for (&link, counts) in &counts.links {
            add(link_sums.entry(link).or_insert([0; ClickCount::COUNT]), &counts.outcomes);
            for &(offer, count) in &counts.offers {
                *offer_sums.entry(offer).or_default() += count;
            }
        }
        add(&mut other_links, &counts.other_links);
        for (&offer, count) in &counts.other_offers {
            *offer_sums.entry(offer).or_default() += count;
        }
    }
    let mut links: Vec<_> = link_sums.iter().map(|(link, counts)| (link.to_string(), counts)).collect();
    links.sort_unstable_by_key(|(link, _)| (link.len(), link.clone()));
    links.push(("other".to_owned(), &other_links));
    let links = links
        .into_iter()
        .flat_map(|(link, counts)| {
            ClickCount::all().filter(|&count| is_shown(count, counts)).map(move |count| {
                let labels = [("smart_link_id", link.as_str()), ("outcome", count.as_str())];
                counter(&labels, counts[count.index()])
            })
        })
        .collect();
    let mut offers: Vec<_> = offer_sums.into_iter().collect();
    offers.sort_unstable();
    let offers = offers
        .into_iter()
        .map(|(offer, count)| counter(&[("offer_id", &offer.to_string())], count))
        .collect();
    (links, offers)
}

/// What a link has not had is not shown, which keeps most of its series from being; but for offers, once it has had
/// anything: the fill rate of a link that fills nothing is 0, and not unknown.
fn is_shown(count: ClickCount, counts: &[u64; ClickCount::COUNT]) -> bool {
    let is_seen = || counts.iter().any(|&count| count > 0);
    counts[count.index()] > 0 || (count == ClickCount::Decided(Outcome::Offer) && is_seen())
}

fn add(sums: &mut [u64; ClickCount::COUNT], counts: &[u64; ClickCount::COUNT]) {
    for (sum, count) in sums.iter_mut().zip(counts) {
        *sum += count;
    }
}

fn durations(workers: &[Arc<Counters>]) -> Metric {
    let mut histogram = HistogramProto::default();
    let mut cumulative = 0;
    let mut buckets = Vec::with_capacity(DURATION_BOUNDS_NANOS.len());
    for (index, bound) in DURATION_BOUNDS_NANOS.iter().enumerate() {
        cumulative += workers.iter().map(|worker| worker.duration.buckets[index].read()).sum::<u64>();
        let mut bucket = Bucket::default();
        bucket.set_upper_bound(*bound as f64 / 1e9);
        bucket.set_cumulative_count(cumulative);
        buckets.push(bucket);
    }
    let over = DURATION_BOUNDS_NANOS.len();
    let total = cumulative + workers.iter().map(|worker| worker.duration.buckets[over].read()).sum::<u64>();
    let sum_nanos: u64 = workers.iter().map(|worker| worker.duration.sum_nanos.load(Ordering::Relaxed)).sum();
    histogram.set_bucket(buckets);
    histogram.set_sample_count(total);
    histogram.set_sample_sum(sum_nanos as f64 / 1e9);
    let mut metric = Metric::default();
    metric.set_histogram(histogram);
    metric
}

fn families<const N: usize>(described: [Family; N], metrics: [Vec<Metric>; N]) -> Vec<MetricFamily> {
    described
        .into_iter()
        .zip(metrics)
        .filter(|(_, metrics)| !metrics.is_empty())
        .map(|((name, help, kind), metrics)| {
            let mut family = MetricFamily::default();
            family.set_name(format!("{PREFIX}_{name}"));
            family.set_help(help.to_owned());
            family.set_field_type(kind);
            family.set_metric(metrics);
            family
        })
        .collect()
}

fn counter(labelled: &[(&str, &str)], value: u64) -> Metric {
    let mut count = CounterProto::default();
    count.set_value(value as f64);
    let mut metric = Metric::default();
    metric.set_counter(count);
    metric.set_label(labels(labelled));
    metric
}

fn labels(labelled: &[(&str, &str)]) -> Vec<LabelPair> {
    labelled
        .iter()
        .map(|(name, value)| {
            let mut label = LabelPair::default();
            label.set_name((*name).to_owned());
            label.set_value((*value).to_owned());
            label
        })
        .collect()
}

fn gauge_value(value: f64) -> Metric {
    let mut gauge = GaugeProto::default();
    gauge.set_value(value);
    let mut metric = Metric::default();
    metric.set_gauge(gauge);
    metric
}

fn descs<const N: usize>(families: [Family; N]) -> Vec<Desc> {
    families
        .into_iter()
        .map(|(name, help, _)| {
            Desc::new(format!("{PREFIX}_{name}"), help.to_owned(), Vec::new(), HashMap::new())
                .expect("the name is well-formed")
        })
        .collect()
}

type Family = (&'static str, &'static str, MetricType);

pub(super) const PREFIX: &str = "smartlink";

const WORKER_FAMILIES: [Family; 12] = [
    ("clicks_total", "Requests to /sl by outcome.", MetricType::COUNTER),
    ("link_clicks_total", "Clicks on links of the table, by link and outcome.", MetricType::COUNTER),
    ("offer_clicks_total", "Clicks of persons that went to an offer.", MetricType::COUNTER),
    (
        "decision_duration_seconds",
        "From the parsed head of a request to its answer; one click in 16.",
        MetricType::HISTOGRAM,
    ),
    ("geo_lookups_total", "Geo look-ups of clicks by result.", MetricType::COUNTER),
    ("sub_ids_cut_total", "Sub ids longer than 255 bytes, cut.", MetricType::COUNTER),
    ("connections_active", "Open connections on the click listeners.", MetricType::GAUGE),
    ("connections_closed_total", "Closed connections by reason.", MetricType::COUNTER),
    ("accept_errors_total", "Connections that could not be accepted.", MetricType::COUNTER),
    (
        "accept_pauses_total",
        "Times that a thread stopped to accept, because as many connections were open as may be.",
        MetricType::COUNTER,
    ),
    ("click_log_records_total", "Clicks written to the click log.", MetricType::COUNTER),
    (
        "click_log_dropped_total",
        "Clicks that were answered and for which the click log had no room.",
        MetricType::COUNTER,
    ),
];

const CAP_FAMILIES: [Family; 2] = [
    ("cap_amount", "Clicks or conversions that a cap allows in a window.", MetricType::GAUGE),
    ("cap_remaining", "Clicks or conversions that are left of a cap in its window.", MetricType::GAUGE),
];

const TABLE_FAMILIES: [Family; 6] = [
    ("snapshot_generation", "Generation of the live table; 0 before the first.", MetricType::GAUGE),
    (
        "snapshot_age_seconds",
        "Time since the upstream last gave or confirmed the live snapshot.",
        MetricType::GAUGE,
    ),
    ("snapshot_links", "Smart links in the live table.", MetricType::GAUGE),
    ("snapshot_entries", "Entries in the live table.", MetricType::GAUGE),
    ("snapshot_caps", "Caps in force beside the live table.", MetricType::GAUGE),
    ("snapshot_table_bytes", "Heap bytes of the live table.", MetricType::GAUGE),
];
