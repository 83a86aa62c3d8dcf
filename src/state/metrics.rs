//! Every series that a node shows, one documented field each.
//!
//! The click path counts in cells of its own worker ([`Counters`]): one writer, no sharing, no label lookup. They are
//! summed when Prometheus asks. `*Vec` types of the prometheus crate are used only for labels from a fixed list:
//! they key a label set by a hash of its values joined without a separator, so ids as labels can collide. For the
//! same reason everything with an id goes through our own [`Collector`].

use std::sync::{Arc, Mutex};

use prometheus::core::Collector;
use prometheus::{IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder};

use super::cap_levels::CapLevel;
use super::collect::{CapCollector, CapLevels, PREFIX, TableCollector, WorkerCollector, Workers};
use super::conversions::ConversionCount;
use super::counters::{Counters, LinkSeries, lock};
use super::geo::GeoDatabase;
use super::live::LiveTable;
use super::refresh::RefreshResult;

/// The node's metrics. Shared by all rooms; each field is one series or family.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    pub(super) workers: Arc<Workers>,
    /// `snapshot_refreshes_total{result}`: attempts to refresh, by what came of them.
    refreshes: IntCounterVec,
    /// `snapshot_quarantined`: items left out of the live table.
    pub snapshot_quarantined: IntGauge,
    /// `ledger_reachable`: 1 while the ledger answers; without it, capped offers close when their leases are spent.
    pub ledger_reachable: IntGauge,
    /// `conversions_total{result}`: postbacks, by what came of them.
    conversions: IntCounterVec,
    /// `cap_amount` and `cap_remaining{offer_id,affiliate_id,cap_type,cap_interval}`, as the ledger tells.
    cap_levels: Arc<CapLevels>,
    /// `geo_database_build_timestamp_seconds{database}`: when the geo databases in use were made.
    geo_database_build: IntGaugeVec,
    /// `geo_reloads_total{result}`: attempts to load a changed geo database.
    geo_reloads: IntCounterVec,
    /// `configuration_reloads_total{result}`: what SIGHUP came to.
    configuration_reloads: IntCounterVec,
    /// `console_logins_total{outcome}`: who came to the console's login, and with what.
    console_logins: IntCounterVec,
    /// `certificate_reloads_total{result}`: attempts to load a changed certificate.
    certificate_reloads: IntCounterVec,
    /// `certificate_expires_timestamp_seconds{file}`: until when the certificate of the click listeners is valid.
    certificate_expires: IntGaugeVec,
    /// `filesystem_avail_bytes{directory}`: what the node may still write where its data are.
    filesystem_avail: IntGaugeVec,
    /// `filesystem_size_bytes{directory}`: of how much.
    filesystem_size: IntGaugeVec,
}

/// What became of a login to the console.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Login {
    Accepted,
    /// The token, or the key, was wrong.
    Refused,
    /// Too many wrong ones had come from its address, and it was not looked at.
    Limited,
    /// The node could not look at it: its key cannot be read, or there is no randomness.
    Failed,
}

impl Login {
    pub const ALL: [Login; 4] = [Login::Accepted, Login::Refused, Login::Limited, Login::Failed];

    pub const fn as_str(self) -> &'static str {
        match self {
            Login::Accepted => "accepted",
            Login::Refused => "refused",
            Login::Limited => "limited",
            Login::Failed => "failed",
        }
    }
}

/// The file system below a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// For whoever is not root.
    pub avail_bytes: u64,
    pub size_bytes: u64,
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
            ledger_reachable: gauge("ledger_reachable", "Whether the ledger of caps answers."),
            conversions: counter_vec("conversions_total", "Postbacks by what came of them.", "result"),
            cap_levels: Arc::default(),
            geo_database_build: gauge_vec(
                "geo_database_build_timestamp_seconds",
                "When the geo database in use was made, in seconds since 1970.",
                "database",
            ),
            geo_reloads: counter_vec(
                "geo_reloads_total",
                "Attempts to load a changed geo database.",
                "result",
            ),
            configuration_reloads: counter_vec(
                "configuration_reloads_total",
                "SIGHUPs, by whether the configuration was taken up.",
                "result",
            ),
            console_logins: counter_vec(
                "console_logins_total",
                "Logins to the console, by what became of them.",
                "outcome",
            ),
            certificate_reloads: counter_vec(
                "certificate_reloads_total",
                "Attempts to load a changed certificate.",
                "result",
            ),
            certificate_expires: gauge_vec(
                "certificate_expires_timestamp_seconds",
                "Until when the certificate of the click listeners is valid, in seconds since 1970.",
                "file",
            ),
            filesystem_avail: gauge_vec(
                "filesystem_avail_bytes",
                "Bytes that the node may still write, by what it keeps there.",
                "directory",
            ),
            filesystem_size: gauge_vec(
                "filesystem_size_bytes",
                "Bytes of the file system, by what the node keeps there.",
                "directory",
            ),
            registry,
        };
        for result in RefreshResult::ALL {
            metrics.refreshes.with_label_values(&[result.as_str()]);
        }
        for count in ConversionCount::ALL {
            metrics.conversions.with_label_values(&[count.as_str()]);
        }
        for outcome in Login::ALL {
            metrics.console_logins.with_label_values(&[outcome.as_str()]);
        }
        for result in ["loaded", "failed"] {
            metrics.geo_reloads.with_label_values(&[result]);
            metrics.certificate_reloads.with_label_values(&[result]);
            metrics.configuration_reloads.with_label_values(&[result]);
        }
        metrics.register(metrics.refreshes.clone());
        metrics.register(metrics.snapshot_quarantined.clone());
        metrics.register(metrics.geo_database_build.clone());
        metrics.register(metrics.geo_reloads.clone());
        metrics.register(metrics.certificate_reloads.clone());
        metrics.register(metrics.configuration_reloads.clone());
        metrics.register(metrics.console_logins.clone());
        metrics.register(metrics.ledger_reachable.clone());
        metrics.register(metrics.conversions.clone());
        metrics.register(metrics.certificate_expires.clone());
        metrics.register(metrics.filesystem_avail.clone());
        metrics.register(metrics.filesystem_size.clone());
        metrics.register(CapCollector::new(Arc::clone(&metrics.cap_levels)));
        metrics.register(WorkerCollector::new(workers));
        metrics.register(TableCollector::new(live));
        metrics.register(build_info());
        #[cfg(target_os = "linux")]
        metrics.register(prometheus::process_collector::ProcessCollector::for_self());
        metrics
    }

    /// Counters for one more worker.
    pub fn worker(&self) -> Arc<Counters> {
        let counters = Arc::new(Counters::new(Arc::clone(&self.workers.series)));
        lock(&self.workers.counters).push(Arc::clone(&counters));
        counters
    }

    pub fn refreshed(&self, result: RefreshResult) {
        self.refreshes.with_label_values(&[result.as_str()]).inc();
    }

    pub fn conversion(&self, count: ConversionCount) {
        self.conversions.with_label_values(&[count.as_str()]).inc();
    }

    /// How full each cap is, in place of what was told before.
    pub fn caps_are(&self, caps: Vec<CapLevel>) {
        *lock(&self.cap_levels) = caps.into();
    }

    /// How full each cap is, as it was told last. Empty: there is none, or the ledger is away.
    pub fn cap_levels(&self) -> Arc<[CapLevel]> {
        Arc::clone(&lock(&self.cap_levels))
    }

    /// When the database in use was made, in seconds since 1970; `None`: there is none.
    pub fn geo_database_built(&self, database: GeoDatabase, epoch: Option<u64>) {
        match epoch {
            Some(epoch) => {
                self.geo_database_build.with_label_values(&[database.as_str()]).set(saturated(epoch));
            }
            // It is an error if there was none before, and no matter.
            None => drop(self.geo_database_build.remove_label_values(&[database.as_str()])),
        }
    }

    /// The certificate in use, and until when it is valid, in seconds since 1970; `None`: it does not say so.
    pub fn certificate_expires(&self, file: &str, epoch: Option<i64>) {
        // There is one at a time; that of before may have been of another file.
        self.certificate_expires.reset();
        if let Some(epoch) = epoch {
            self.certificate_expires.with_label_values(&[file]).set(epoch);
        }
    }

    /// Until when the certificate in use is valid, in seconds since 1970; `None`: there is none, or it does not say so.
    pub fn certificate_expires_at(&self) -> Option<i64> {
        let families = self.certificate_expires.collect();
        let gauge = families.first()?.get_metric().first()?;
        Some(gauge.get_gauge().get_value() as i64)
    }

    /// What there is room for in `directory`, by what is kept there; `None`: it cannot be told.
    pub fn room_is(&self, directory: &str, room: Option<Room>) {
        for (gauges, bytes) in [
            (&self.filesystem_avail, room.map(|room| room.avail_bytes)),
            (&self.filesystem_size, room.map(|room| room.size_bytes)),
        ] {
            match bytes {
                Some(bytes) => gauges.with_label_values(&[directory]).set(saturated(bytes)),
                None => drop(gauges.remove_label_values(&[directory])),
            }
        }
    }

    pub fn geo_reloaded(&self, loaded: bool) {
        self.geo_reloads.with_label_values(&[if loaded { "loaded" } else { "failed" }]).inc();
    }

    pub fn configuration_reloaded(&self, loaded: bool) {
        self.configuration_reloads.with_label_values(&[if loaded { "loaded" } else { "failed" }]).inc();
    }

    pub fn console_login(&self, outcome: Login) {
        self.console_logins.with_label_values(&[outcome.as_str()]).inc();
    }

    pub fn certificate_reloaded(&self, loaded: bool) {
        self.certificate_reloads.with_label_values(&[if loaded { "loaded" } else { "failed" }]).inc();
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

fn counter_vec(name: &str, help: &str, label: &str) -> IntCounterVec {
    IntCounterVec::new(Opts::new(name, help).namespace(PREFIX), &[label]).expect("the name is well-formed")
}

fn gauge_vec(name: &str, help: &str, label: &str) -> IntGaugeVec {
    IntGaugeVec::new(Opts::new(name, help).namespace(PREFIX), &[label]).expect("the name is well-formed")
}

fn saturated(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::counters::ClickCount;
    use super::*;
    use crate::routing::{BotPolicy, Outcome, Table};
    use crate::types::{AffiliateId, CapInterval, CapKey, CapKind, LinkId, OfferId};

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
    fn what_is_left_of_caps_is_shown_by_all_of_their_name() {
        let metrics = metrics(1);
        let key = |offer, affiliate| CapKey {
            offer: OfferId::new(offer).unwrap(),
            affiliate: AffiliateId::new(affiliate),
            kind: CapKind::Click,
            interval: CapInterval::Daily,
        };
        let level =
            |cap, left: u64| CapLevel { cap, amount: left + 100, used: 60, leased: 40, window_ends_at: None };
        metrics.caps_are(vec![level(key(30, 11), 5), level(key(301, 1), 6), level(key(3011, 0), 7)]);
        let text = metrics.text().unwrap();
        for (offer, affiliate, left) in [("30", "11", 5), ("301", "1", 6), ("3011", "", 7)] {
            let labels = format!(
                "{{offer_id=\"{offer}\",affiliate_id=\"{affiliate}\",cap_type=\"click\",cap_interval=\"daily\"}}"
            );
            for (name, value) in [("remaining", left), ("amount", left + 100)] {
                let line = format!("smartlink_cap_{name}{labels} {value}\n");
                assert!(text.contains(&line), "{line}{text}");
            }
        }
        metrics.caps_are(Vec::new());
        assert!(metrics.cap_levels().is_empty());
        assert!(!metrics.text().unwrap().contains("smartlink_cap_"));
    }

    #[test]
    fn a_link_that_fills_nothing_has_filled_0_and_one_without_clicks_has_no_series() {
        let metrics = metrics(100);
        let worker = metrics.worker();
        assert!(!metrics.text().unwrap().contains("smart_link_id"));
        worker.click(ClickCount::Decided(Outcome::Capped), link(7), None);
        let text = metrics.text().unwrap();
        let series: Vec<&str> =
            text.lines().filter(|line| line.starts_with("smartlink_link_clicks_total{")).collect();
        assert_eq!(
            series,
            [
                "smartlink_link_clicks_total{smart_link_id=\"7\",outcome=\"capped\"} 1",
                "smartlink_link_clicks_total{smart_link_id=\"7\",outcome=\"offer\"} 0",
            ]
        );
    }

    #[test]
    fn what_is_gone_is_not_shown() {
        let metrics = metrics(1);
        let shows = |text: &str| metrics.text().unwrap().contains(text);
        let room = Room { avail_bytes: 5, size_bytes: 6 };
        metrics.room_is("data", Some(room));
        assert!(shows("smartlink_filesystem_avail_bytes{directory=\"data\"} 5\n"));
        assert!(shows("smartlink_filesystem_size_bytes{directory=\"data\"} 6\n"));
        metrics.room_is("data", None);
        assert!(!shows("smartlink_filesystem"));
        metrics.geo_database_built(GeoDatabase::Networks, Some(7));
        assert!(shows("smartlink_geo_database_build_timestamp_seconds{database=\"networks\"} 7\n"));
        metrics.geo_database_built(GeoDatabase::Networks, None);
        assert!(!shows("geo_database_build"));
        metrics.certificate_expires("a.pem", Some(8));
        metrics.certificate_expires("b.pem", Some(9));
        assert!(shows("smartlink_certificate_expires_timestamp_seconds{file=\"b.pem\"} 9\n"));
        assert!(!shows("a.pem"));
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
