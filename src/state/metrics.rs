//! Every series that a node shows, one documented field each.
//!
//! The click path counts in cells of its own worker ([`Counters`]): one writer, no sharing, no label lookup. They are
//! summed when Prometheus asks. `*Vec` types of the prometheus crate are used only for labels from a fixed list:
//! they key a label set by a hash of its values joined without a separator, so ids as labels can collide. For the
//! same reason everything with an id goes through our own [`Collector`].

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prometheus::core::{Collector, Desc};
use prometheus::proto::{
    Bucket, Counter as CounterProto, Gauge as GaugeProto, Histogram as HistogramProto, LabelPair, Metric,
    MetricFamily, MetricType,
};
use prometheus::{IntCounterVec, IntGauge, Opts, Registry, TextEncoder};

use crate::routing::Outcome;
use crate::types::{LinkId, OfferId};

use super::clock::now;
use super::live::LiveTable;

/// The node's metrics. Shared by all rooms; each field is one series or family.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    workers: Arc<Workers>,
    /// `snapshot_refreshes_total{result}`: attempts to refresh, by what came of them.
    refreshes: IntCounterVec,
    /// `snapshot_quarantined`: items left out of the live table.
    pub snapshot_quarantined: IntGauge,
    /// `geo_database_build_timestamp_seconds`: when the geo database in use was made; 0 for none.
    pub geo_database_build: IntGauge,
    /// `geo_reloads_total{result}`: attempts to load a changed geo database.
    geo_reloads: IntCounterVec,
}

/// What one worker counts. Written by that worker alone, read by the scrape.
#[derive(Debug, Default)]
pub struct Counters {
    clicks: [Cell; ClickCount::COUNT],
    geo: [Cell; GeoCount::ALL.len()],
    sub_ids_cut: Cell,
    opened: Cell,
    closed: [Cell; CloseReason::ALL.len()],
    accept_errors: Cell,
    duration: Durations,
    /// Locked by the worker for a few nanoseconds a click, and by a scrape while it copies.
    by_id: Mutex<ById>,
    series: Arc<LinkSeries>,
}

/// Under which outcome a click is counted. Beyond the outcomes of a decision there are clicks that never come to one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClickCount {
    Decided(Outcome),
    /// HEAD, prefetch, preview: answered like a click, in no fill rate.
    Probe,
    /// The finished URL was over 8 KiB; the fallback was taken.
    LocationTooLong,
    /// 400 or 405: nothing was decided.
    Invalid,
}

/// What a geo lookup found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GeoCount {
    Found,
    NotFound,
    Error,
    NoDatabase,
}

/// Why a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// Either side was done.
    Done,
    /// The header did not arrive in time.
    HeaderTimeout,
    /// What arrived was not HTTP/1.
    BadRequest,
    /// Reset or broken in the middle.
    Broken,
    /// Still open at the end of the drain.
    DrainDeadline,
}

/// What came of an attempt to refresh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefreshResult {
    Published,
    Unchanged,
    /// It looked like an accident.
    Refused,
    Failed,
}

impl Metrics {
    /// `links_max` bounds the links that get series of their own.
    pub fn new(links_max: usize, live: Arc<LiveTable>) -> Self {
        let registry = Registry::new();
        let workers =
            Arc::new(Workers { series: Arc::new(LinkSeries::new(links_max)), counters: Mutex::default() });
        let metrics = Self {
            workers: Arc::clone(&workers),
            refreshes: counter_vec("snapshot_refreshes_total", "Attempts to refresh the snapshot.", "result"),
            snapshot_quarantined: gauge("snapshot_quarantined", "Items left out of the live table."),
            geo_database_build: gauge(
                "geo_database_build_timestamp_seconds",
                "When the geo database in use was made; 0 for none.",
            ),
            geo_reloads: counter_vec(
                "geo_reloads_total",
                "Attempts to load a changed geo database.",
                "result",
            ),
            registry,
        };
        for result in RefreshResult::ALL {
            metrics.refreshes.with_label_values(&[result.as_str()]);
        }
        for result in ["loaded", "failed"] {
            metrics.geo_reloads.with_label_values(&[result]);
        }
        metrics.register(metrics.refreshes.clone());
        metrics.register(metrics.snapshot_quarantined.clone());
        metrics.register(metrics.geo_database_build.clone());
        metrics.register(metrics.geo_reloads.clone());
        metrics.register(WorkerCollector { workers, descs: descs(WORKER_FAMILIES) });
        metrics.register(TableCollector { live, descs: descs(TABLE_FAMILIES) });
        metrics.register(build_info());
        #[cfg(target_os = "linux")]
        metrics.register(prometheus::process_collector::ProcessCollector::for_self());
        metrics
    }

    /// Counters for one more worker.
    pub fn worker(&self) -> Arc<Counters> {
        let counters = Arc::new(Counters { series: Arc::clone(&self.workers.series), ..Counters::default() });
        lock(&self.workers.counters).push(Arc::clone(&counters));
        counters
    }

    pub fn refreshed(&self, result: RefreshResult) {
        self.refreshes.with_label_values(&[result.as_str()]).inc();
    }

    pub fn geo_reloaded(&self, loaded: bool) {
        self.geo_reloads.with_label_values(&[if loaded { "loaded" } else { "failed" }]).inc();
    }

    /// All series in Prometheus' text format.
    pub fn text(&self) -> Result<String, prometheus::Error> {
        let mut text = String::new();
        TextEncoder::new().encode_utf8(&self.registry.gather(), &mut text)?;
        Ok(text)
    }

    fn register(&self, collector: impl Collector + 'static) {
        // Names are constants of this file; a clash is found by the first test that makes a `Metrics`.
        self.registry.register(Box::new(collector)).expect("metric names are unique");
    }
}

impl Counters {
    /// Counts a click. `link` only if the table knows it, so that visitors cannot make series; `offer` only if a
    /// person's click went there.
    pub fn click(&self, count: ClickCount, link: Option<LinkId>, offer: Option<OfferId>) {
        self.clicks[count.index()].add_one();
        if link.is_none() && offer.is_none() {
            return;
        }
        let mut by_id = lock(&self.by_id);
        if let Some(link) = link {
            match by_id.links.get_mut(&link) {
                Some(counts) => counts[count.index()] += 1,
                None if self.series.admit(link) => {
                    let mut counts = [0; ClickCount::COUNT];
                    counts[count.index()] = 1;
                    by_id.links.insert(link, counts);
                }
                None => by_id.other_links[count.index()] += 1,
            }
        }
        if let Some(offer) = offer {
            *by_id.offers.entry(offer).or_default() += 1;
        }
    }

    pub fn geo(&self, count: GeoCount) {
        self.geo[count as usize].add_one();
    }

    pub fn sub_id_cut(&self) {
        self.sub_ids_cut.add_one();
    }

    pub fn connection_opened(&self) {
        self.opened.add_one();
    }

    pub fn connection_closed(&self, reason: CloseReason) {
        self.closed[reason as usize].add_one();
    }

    pub fn accept_failed(&self) {
        self.accept_errors.add_one();
    }

    /// Notes how long a click took from its parsed head to its answer.
    pub fn took(&self, duration: Duration) {
        self.duration.observe(duration);
    }
}

impl ClickCount {
    const COUNT: usize = Outcome::ALL.len() + 3;

    fn index(self) -> usize {
        match self {
            ClickCount::Decided(outcome) => outcome as usize,
            ClickCount::Probe => Outcome::ALL.len(),
            ClickCount::LocationTooLong => Outcome::ALL.len() + 1,
            ClickCount::Invalid => Outcome::ALL.len() + 2,
        }
    }

    fn all() -> impl Iterator<Item = ClickCount> {
        let beyond = [ClickCount::Probe, ClickCount::LocationTooLong, ClickCount::Invalid];
        Outcome::ALL.into_iter().map(ClickCount::Decided).chain(beyond)
    }

    /// The `outcome` label.
    pub fn as_str(self) -> &'static str {
        match self {
            ClickCount::Decided(outcome) => outcome.as_str(),
            ClickCount::Probe => "probe",
            ClickCount::LocationTooLong => "location_too_long",
            ClickCount::Invalid => "invalid",
        }
    }
}

impl GeoCount {
    const ALL: [GeoCount; 4] = [GeoCount::Found, GeoCount::NotFound, GeoCount::Error, GeoCount::NoDatabase];

    const fn as_str(self) -> &'static str {
        match self {
            GeoCount::Found => "found",
            GeoCount::NotFound => "not_found",
            GeoCount::Error => "error",
            GeoCount::NoDatabase => "no_database",
        }
    }
}

impl CloseReason {
    const ALL: [CloseReason; 5] = [
        CloseReason::Done,
        CloseReason::HeaderTimeout,
        CloseReason::BadRequest,
        CloseReason::Broken,
        CloseReason::DrainDeadline,
    ];

    const fn as_str(self) -> &'static str {
        match self {
            CloseReason::Done => "done",
            CloseReason::HeaderTimeout => "header_timeout",
            CloseReason::BadRequest => "bad_request",
            CloseReason::Broken => "broken",
            CloseReason::DrainDeadline => "drain_deadline",
        }
    }
}

impl RefreshResult {
    pub const ALL: [RefreshResult; 4] =
        [RefreshResult::Published, RefreshResult::Unchanged, RefreshResult::Refused, RefreshResult::Failed];

    pub const fn as_str(self) -> &'static str {
        match self {
            RefreshResult::Published => "published",
            RefreshResult::Unchanged => "unchanged",
            RefreshResult::Refused => "refused",
            RefreshResult::Failed => "failed",
        }
    }
}

/// A count with one writer.
#[derive(Debug, Default)]
struct Cell(AtomicU64);

impl Cell {
    #[inline]
    fn add_one(&self) {
        // Relaxed and not read-modify-write: only one thread writes, and a scrape may be a moment behind.
        self.0.store(self.0.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    fn read(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[derive(Debug, Default)]
struct Durations {
    /// One more than the bounds: the last is over all of them.
    buckets: [Cell; DURATION_BOUNDS_NANOS.len() + 1],
    sum_nanos: AtomicU64,
}

impl Durations {
    fn observe(&self, duration: Duration) {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let bucket = DURATION_BOUNDS_NANOS.partition_point(|&bound| bound < nanos);
        self.buckets[bucket].add_one();
        let sum = self.sum_nanos.load(Ordering::Relaxed).saturating_add(nanos);
        self.sum_nanos.store(sum, Ordering::Relaxed);
    }
}

#[derive(Debug, Default)]
struct ById {
    links: HashMap<LinkId, [u64; ClickCount::COUNT]>,
    other_links: [u64; ClickCount::COUNT],
    offers: HashMap<OfferId, u64>,
}

/// Which links have series of their own, over all workers.
#[derive(Debug, Default)]
struct LinkSeries {
    links_max: usize,
    admitted: Mutex<HashSet<LinkId>>,
}

impl LinkSeries {
    fn new(links_max: usize) -> Self {
        Self { links_max, admitted: Mutex::default() }
    }

    fn admit(&self, link: LinkId) -> bool {
        let mut admitted = lock(&self.admitted);
        admitted.contains(&link) || (admitted.len() < self.links_max && admitted.insert(link))
    }
}

#[derive(Debug)]
struct Workers {
    series: Arc<LinkSeries>,
    counters: Mutex<Vec<Arc<Counters>>>,
}

/// Sums the workers' counters when asked.
struct WorkerCollector {
    workers: Arc<Workers>,
    descs: Vec<Desc>,
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
        ];
        families(WORKER_FAMILIES, metrics)
    }
}

/// Reads the live table when asked.
struct TableCollector {
    live: Arc<LiveTable>,
    descs: Vec<Desc>,
}

impl Collector for TableCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.descs.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let live = self.live.current();
        let age_millis = match live.generation {
            0 => 0,
            _ => (now().0 - live.published_at.0).max(0),
        };
        families(
            TABLE_FAMILIES,
            [
                vec![gauge_value(live.generation as f64)],
                vec![gauge_value(age_millis as f64 / 1000.0)],
                vec![gauge_value(live.table.links() as f64)],
                vec![gauge_value(live.table.entries() as f64)],
                vec![gauge_value(live.table.heap_bytes() as f64)],
            ],
        )
    }
}

fn by_id(workers: &[Arc<Counters>]) -> (Vec<Metric>, Vec<Metric>) {
    let mut sums = ById::default();
    for worker in workers {
        let counts = lock(&worker.by_id);
        for (&link, counts) in &counts.links {
            add(sums.links.entry(link).or_default(), counts);
        }
        add(&mut sums.other_links, &counts.other_links);
        for (&offer, count) in &counts.offers {
            *sums.offers.entry(offer).or_default() += count;
        }
    }
    let mut links: Vec<_> = sums.links.iter().map(|(link, counts)| (link.to_string(), counts)).collect();
    links.sort_unstable_by_key(|(link, _)| (link.len(), link.clone()));
    links.push(("other".to_owned(), &sums.other_links));
    let links = links
        .into_iter()
        .flat_map(|(link, counts)| {
            ClickCount::all().filter(|count| counts[count.index()] > 0).map(move |count| {
                let labels = [("smart_link_id", link.as_str()), ("outcome", count.as_str())];
                counter(&labels, counts[count.index()])
            })
        })
        .collect();
    let mut offers: Vec<_> = sums.offers.into_iter().collect();
    offers.sort_unstable();
    let offers = offers
        .into_iter()
        .map(|(offer, count)| counter(&[("offer_id", &offer.to_string())], count))
        .collect();
    (links, offers)
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

fn counter(labels: &[(&str, &str)], value: u64) -> Metric {
    let mut count = CounterProto::default();
    count.set_value(value as f64);
    let mut metric = Metric::default();
    metric.set_counter(count);
    metric.set_label(
        labels
            .iter()
            .map(|(name, value)| {
                let mut label = LabelPair::default();
                label.set_name((*name).to_owned());
                label.set_value((*value).to_owned());
                label
            })
            .collect(),
    );
    metric
}

fn gauge_value(value: f64) -> Metric {
    let mut gauge = GaugeProto::default();
    gauge.set_value(value);
    let mut metric = Metric::default();
    metric.set_gauge(gauge);
    metric
}

fn counter_vec(name: &str, help: &str, label: &str) -> IntCounterVec {
    IntCounterVec::new(Opts::new(name, help).namespace(PREFIX), &[label]).expect("the name is well-formed")
}

fn gauge(name: &str, help: &str) -> IntGauge {
    IntGauge::with_opts(Opts::new(name, help).namespace(PREFIX)).expect("the name is well-formed")
}

fn build_info() -> IntGauge {
    let opts = Opts::new("build_info", "Always 1; the version is in the label.")
        .namespace(PREFIX)
        .const_label("version", env!("CARGO_PKG_VERSION"));
    let info = IntGauge::with_opts(opts).expect("the name is well-formed");
    info.set(1);
    info
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

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Counts are right after any panic: each update is one addition.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

type Family = (&'static str, &'static str, MetricType);

const PREFIX: &str = "smartlink";

const WORKER_FAMILIES: [Family; 9] = [
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
];

const TABLE_FAMILIES: [Family; 5] = [
    ("snapshot_generation", "Generation of the live table; 0 before the first.", MetricType::GAUGE),
    ("snapshot_age_seconds", "Time since the live table was published.", MetricType::GAUGE),
    ("snapshot_links", "Smart links in the live table.", MetricType::GAUGE),
    ("snapshot_entries", "Entries in the live table.", MetricType::GAUGE),
    ("snapshot_table_bytes", "Heap bytes of the live table.", MetricType::GAUGE),
];

/// From half a microsecond to ten milliseconds.
const DURATION_BOUNDS_NANOS: [u64; 14] = [
    500, 1_000, 2_000, 3_000, 5_000, 7_500, 10_000, 20_000, 50_000, 100_000, 500_000, 1_000_000, 5_000_000,
    10_000_000,
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routing::{BotPolicy, Table};

    fn metrics(links_max: usize) -> Metrics {
        let live = Arc::new(LiveTable::new(Table::empty(None, BotPolicy::Fallback)));
        Metrics::new(links_max, live)
    }

    fn link(id: u32) -> Option<LinkId> {
        LinkId::new(id)
    }

    #[test]
    fn ids_that_collide_when_joined_stay_apart() {
        let metrics = metrics(100);
        let worker = metrics.worker();
        for id in [301, 3011, 30] {
            worker.click(ClickCount::Decided(Outcome::Offer), link(id), OfferId::new(1042));
        }
        let text = metrics.text().unwrap();
        for id in [301, 3011, 30] {
            let series =
                format!("smartlink_link_clicks_total{{smart_link_id=\"{id}\",outcome=\"offer\"}} 1\n");
            assert!(text.contains(&series), "{text}");
        }
        assert!(text.contains("smartlink_offer_clicks_total{offer_id=\"1042\"} 3\n"));
    }

    #[test]
    fn workers_are_summed() {
        let metrics = metrics(100);
        for _ in 0..3 {
            let worker = metrics.worker();
            worker.click(ClickCount::Decided(Outcome::NoMatch), link(1), None);
            worker.click(ClickCount::Invalid, None, None);
            worker.connection_opened();
        }
        let text = metrics.text().unwrap();
        assert!(text.contains("smartlink_clicks_total{outcome=\"no_match\"} 3\n"), "{text}");
        assert!(text.contains("smartlink_clicks_total{outcome=\"invalid\"} 3\n"), "{text}");
        assert!(text.contains("smartlink_connections_active 3\n"), "{text}");
    }

    #[test]
    fn links_beyond_the_bound_are_counted_together() {
        let metrics = metrics(2);
        let (one, two) = (metrics.worker(), metrics.worker());
        for id in 1..=5 {
            one.click(ClickCount::Decided(Outcome::Offer), link(id), None);
            two.click(ClickCount::Decided(Outcome::Offer), link(id), None);
        }
        let text = metrics.text().unwrap();
        let series: Vec<&str> =
            text.lines().filter(|line| line.starts_with("smartlink_link_clicks_total{")).collect();
        assert_eq!(
            series,
            [
                "smartlink_link_clicks_total{smart_link_id=\"1\",outcome=\"offer\"} 2",
                "smartlink_link_clicks_total{smart_link_id=\"2\",outcome=\"offer\"} 2",
                "smartlink_link_clicks_total{smart_link_id=\"other\",outcome=\"offer\"} 6",
            ]
        );
    }

    #[test]
    fn durations_are_cumulative() {
        let metrics = metrics(1);
        let worker = metrics.worker();
        for nanos in [400, 500, 501, 20_000_000] {
            worker.took(Duration::from_nanos(nanos));
        }
        let text = metrics.text().unwrap();
        for line in [
            "smartlink_decision_duration_seconds_bucket{le=\"0.0000005\"} 2\n",
            "smartlink_decision_duration_seconds_bucket{le=\"0.000001\"} 3\n",
            "smartlink_decision_duration_seconds_bucket{le=\"+Inf\"} 4\n",
            "smartlink_decision_duration_seconds_count 4\n",
        ] {
            assert!(text.contains(line), "{line}{text}");
        }
    }
}
