//! Every series that a node shows, one documented field each.
//!
//! The click path counts in cells of its own worker ([`Counters`]): one writer, no sharing, no label lookup. They are
//! summed when Prometheus asks. `*Vec` types of the prometheus crate are used only for labels from a fixed list:
//! they key a label set by a hash of its values joined without a separator, so ids as labels can collide. For the
//! same reason everything with an id goes through our own [`Collector`].

use std::sync::{Arc, Mutex};

use prometheus::core::Collector;
use prometheus::{IntCounterVec, IntGauge, Opts, Registry, TextEncoder};

use super::collect::{CapCollector, CapsLeft, PREFIX, TableCollector, WorkerCollector, Workers};
use super::conversions::ConversionCount;
use super::counters::{Counters, LinkSeries, lock};
use super::live::LiveTable;
use super::refresh::RefreshResult;
use crate::types::CapKey;

/// The node's metrics. Shared by all rooms; each field is one series or family.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    workers: Arc<Workers>,
    /// `snapshot_refreshes_total{result}`: attempts to refresh, by what came of them.
    refreshes: IntCounterVec,
    /// `snapshot_quarantined`: items left out of the live table.
    pub snapshot_quarantined: IntGauge,
    /// `ledger_reachable`: 1 while the ledger answers; without it, capped offers close when their leases are spent.
    pub ledger_reachable: IntGauge,
    /// `conversions_total{result}`: postbacks, by what came of them.
    conversions: IntCounterVec,
    /// `cap_remaining{offer_id,affiliate_id,cap_type,cap_interval}`, on the node that has the ledger.
    caps_left: Arc<CapsLeft>,
    /// `geo_database_build_timestamp_seconds`: when the geo database in use was made; 0 for none.
    pub geo_database_build: IntGauge,
    /// `geo_reloads_total{result}`: attempts to load a changed geo database.
    geo_reloads: IntCounterVec,
    /// `configuration_reloads_total{result}`: what SIGHUP came to.
    configuration_reloads: IntCounterVec,
    /// `certificate_reloads_total{result}`: attempts to load a changed certificate.
    certificate_reloads: IntCounterVec,
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
            caps_left: Arc::default(),
            geo_database_build: gauge(
                "geo_database_build_timestamp_seconds",
                "When the geo database in use was made; 0 for none.",
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
            certificate_reloads: counter_vec(
                "certificate_reloads_total",
                "Attempts to load a changed certificate.",
                "result",
            ),
            registry,
        };
        for result in RefreshResult::ALL {
            metrics.refreshes.with_label_values(&[result.as_str()]);
        }
        for count in ConversionCount::ALL {
            metrics.conversions.with_label_values(&[count.as_str()]);
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
        metrics.register(metrics.ledger_reachable.clone());
        metrics.register(metrics.conversions.clone());
        metrics.register(CapCollector::new(Arc::clone(&metrics.caps_left)));
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

    /// What is left of each cap, in place of what was told before.
    pub fn caps_are(&self, caps: Vec<(CapKey, u64)>) {
        *lock(&self.caps_left) = caps;
    }

    pub fn geo_reloaded(&self, loaded: bool) {
        self.geo_reloads.with_label_values(&[if loaded { "loaded" } else { "failed" }]).inc();
    }

    pub fn configuration_reloaded(&self, loaded: bool) {
        self.configuration_reloads.with_label_values(&[if loaded { "loaded" } else { "failed" }]).inc();
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
    use crate::types::{AffiliateId, CapInterval, CapKind, LinkId, OfferId};

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
        metrics.caps_are(vec![(key(30, 11), 5), (key(301, 1), 6), (key(3011, 0), 7)]);
        let text = metrics.text().unwrap();
        for (offer, affiliate, left) in [("30", "11", 5), ("301", "1", 6), ("3011", "", 7)] {
            let line = format!(
                "smartlink_cap_remaining{{offer_id=\"{offer}\",affiliate_id=\"{affiliate}\",cap_type=\"click\",\
                 cap_interval=\"daily\"}} {left}\n"
            );
            assert!(text.contains(&line), "{line}{text}");
        }
        metrics.caps_are(Vec::new());
        assert!(!metrics.text().unwrap().contains("cap_remaining"));
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
