//! The configuration file as written: every key, its default, its unit. `config/smartlink.toml` shows the same, and
//! a test holds the two together.

use serde::{Deserialize, Serialize};

/// A whole file. Every key may be left out; one that is not known is an error.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Raw {
    pub data_dir: DataDir,
    pub edge: Edge,
    pub network: Network,
    pub destinations: Destinations,
    pub geo: Geo,
    pub upstream: Upstream,
    pub caps: Caps,
    pub conversions: Conversions,
    pub click_log: ClickLog,
    pub api: Api,
    pub admin: Admin,
    pub metrics: Metrics,
    pub log: Log,
}

/// A path whose default is not the empty one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DataDir(pub String);

/// `[edge]`: the click listeners.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Edge {
    pub listen: Vec<String>,
    pub tls_listen: Vec<String>,
    pub tls_certificate_file: String,
    pub tls_key_file: String,
    pub proxy_protocol: Vec<String>,
    pub threads: usize,
    pub trusted_proxies: Vec<String>,
    pub bots: String,
    pub referrer_policy: String,
    pub click_id_key_file: String,
    pub header_read_timeout_seconds: f64,
    pub idle_timeout_seconds: f64,
    pub write_timeout_seconds: f64,
    pub connections_max: usize,
    pub connections_per_address_max: usize,
    pub requests_per_connection_max: u32,
    pub connection_age_max_seconds: f64,
    pub head_bytes_max: usize,
    pub uri_bytes_max: usize,
    pub goodbye_seconds: f64,
    pub drain_timeout_seconds: f64,
}

/// `[network]`: what holds for the whole affiliate network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Network {
    pub default_fallback_url: String,
    pub time_zone: String,
    pub public_base_url: String,
}

/// `[destinations]`: what an `offer_url` or a `fallback_url` may be.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Destinations {
    pub allow_http: bool,
    pub allow_internal_hosts: bool,
    pub allowed_hosts: Vec<String>,
}

/// `[geo]`: MaxMind DB files.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Geo {
    pub database: String,
    pub asn_database: String,
}

/// `[upstream]`: where the snapshot comes from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Upstream {
    pub url: String,
    pub api_key_file: String,
    pub overlay: String,
    pub ca_file: String,
    pub refresh_interval_seconds: f64,
    pub refresh_interval_max_seconds: f64,
    pub call_timeout_seconds: f64,
    pub body_bytes_max: usize,
    pub rows_max: usize,
    pub lost_share_max: f64,
    pub lost_count_min: usize,
}

/// `[caps]`: who counts them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Caps {
    pub ledger: String,
}

/// `[conversions]`: which of them count.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Conversions {
    pub click_age_days_max: usize,
}

/// `[click_log]`: a line for every click.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClickLog {
    pub enabled: bool,
    pub directory: String,
    pub addresses: String,
    pub when_full: String,
    pub segment_bytes: usize,
    pub seal_after_seconds: f64,
    pub sync_interval_seconds: f64,
    pub keep_bytes: u64,
    pub keep_days: f64,
}

/// `[api]`: what a caller may ask of the embedded API.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Api {
    pub requests_per_second: f64,
    pub burst: u32,
    pub body_read_timeout_seconds: f64,
}

/// `[admin]`: the admin listener.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Admin {
    pub listen: String,
    pub token_file: String,
    pub hosts: Vec<String>,
}

/// `[metrics]`: bounds on series.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Metrics {
    pub links_max: usize,
}

/// `[log]`: what the process says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    pub format: String,
    pub level: String,
    pub file: String,
}

impl Default for DataDir {
    fn default() -> Self {
        Self("./smartlink-data".to_owned())
    }
}

impl Default for Edge {
    fn default() -> Self {
        Self {
            listen: vec!["0.0.0.0:8080".to_owned()],
            tls_listen: Vec::new(),
            tls_certificate_file: String::new(),
            tls_key_file: String::new(),
            proxy_protocol: Vec::new(),
            threads: 0,
            trusted_proxies: Vec::new(),
            bots: "fallback".to_owned(),
            referrer_policy: "strict-origin-when-cross-origin".to_owned(),
            click_id_key_file: String::new(),
            header_read_timeout_seconds: 15.0,
            idle_timeout_seconds: 60.0,
            write_timeout_seconds: 15.0,
            connections_max: 0,
            connections_per_address_max: 1000,
            requests_per_connection_max: 0,
            connection_age_max_seconds: 3600.0,
            head_bytes_max: 16 * 1024,
            uri_bytes_max: 8 * 1024,
            goodbye_seconds: 5.0,
            drain_timeout_seconds: 30.0,
        }
    }
}

impl Default for Network {
    fn default() -> Self {
        Self {
            default_fallback_url: String::new(),
            time_zone: "UTC".to_owned(),
            public_base_url: String::new(),
        }
    }
}

impl Default for Upstream {
    fn default() -> Self {
        Self {
            url: String::new(),
            api_key_file: String::new(),
            overlay: String::new(),
            ca_file: String::new(),
            refresh_interval_seconds: 15.0,
            refresh_interval_max_seconds: 300.0,
            call_timeout_seconds: 10.0,
            body_bytes_max: 64 * 1024 * 1024,
            rows_max: 20_000_000,
            lost_share_max: 0.2,
            lost_count_min: 100,
        }
    }
}

impl Default for Caps {
    fn default() -> Self {
        Self { ledger: "auto".to_owned() }
    }
}

impl Default for Conversions {
    fn default() -> Self {
        Self { click_age_days_max: 90 }
    }
}

impl Default for ClickLog {
    fn default() -> Self {
        Self {
            enabled: true,
            directory: String::new(),
            addresses: "full".to_owned(),
            when_full: "serve".to_owned(),
            segment_bytes: 32 * 1024 * 1024,
            seal_after_seconds: 900.0,
            sync_interval_seconds: 1.0,
            keep_bytes: 20 * 1024 * 1024 * 1024,
            keep_days: 30.0,
        }
    }
}

impl Default for Api {
    fn default() -> Self {
        Self { requests_per_second: 200.0, burst: 400, body_read_timeout_seconds: 10.0 }
    }
}

impl Default for Admin {
    fn default() -> Self {
        Self { listen: "127.0.0.1:9180".to_owned(), token_file: String::new(), hosts: Vec::new() }
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self { links_max: 10_000 }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self { format: "pretty".to_owned(), level: "info".to_owned(), file: String::new() }
    }
}
