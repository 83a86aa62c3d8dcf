//! What was typed → what it means. Flags win over the environment, the environment over the file, the file over the
//! defaults; the result is each room's own options, already checked.

pub mod raw;

mod click_id_key;

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::HeaderValue;
use ipnet::IpNet;
use url::{Host, Url};

use crate::admin;
use crate::backoffice::{Limits, Rate};
use crate::cake::{ClientOptions, Key, KeyError, KeySource, parse_upstream};
use crate::click_id::WORKERS_MAX;
use crate::clicklog::{AddressDetail, StorageOptions};
use crate::edge::{
    self, ClickAddress, ClickOptions, ConnectionLimits, ConversionOptions, Deadlines, HeadLimits,
    WhenLogIsFull,
};
use crate::ledger::ValkeyOptions;
use crate::routing::{
    BotPolicy, CompileOptions, DestinationPolicy, HostSet, NetSet, Template, Zone, is_host_pattern, parse_net,
};
use crate::sync::{CertificateFiles, GeoFiles, GuardOptions, RefreshOptions};

pub use click_id_key::{ClickIdKeyError, ClickIdKeyFile, KeptKeys};
use raw::Raw;

/// What the command line (or, for each flag, its variable) says. `None` and empty: nothing was said.
#[derive(Clone, Debug, Default)]
pub struct Flags {
    pub config: Option<PathBuf>,
    pub data_dir: Option<PathBuf>,
    pub listen: Vec<String>,
    pub admin: Option<String>,
    pub upstream: Option<String>,
    pub ca_file: Option<PathBuf>,
    pub geo: Option<PathBuf>,
    pub asn: Option<PathBuf>,
    pub trust_proxy: Vec<String>,
    pub threads: Option<usize>,
    pub log_format: Option<String>,
    pub log_level: Option<String>,
    pub log_file: Option<PathBuf>,
    pub demo: bool,
}

/// A configuration that can be run.
#[derive(Clone, Debug)]
pub struct Config {
    /// As it was written.
    file: Raw,
    pub data_dir: PathBuf,
    pub edge: edge::Options,
    pub click_id_keys: ClickIdKeyFile,
    /// How long a node that was told to stop still accepts connections.
    pub goodbye: Duration,
    /// How long it then waits for what has begun.
    pub drain_timeout: Duration,
    pub admin: admin::Options,
    /// The names under which the admin listener is reached.
    pub admin_hosts: Vec<String>,
    /// Of the embedded API.
    pub api: Limits,
    pub geo: GeoFiles,
    pub refresh: RefreshOptions,
    pub upstream: Upstream,
    pub ledger: LedgerPlace,
    /// Of the click listeners with TLS.
    pub certificate: Option<CertificateFiles>,
    /// `None`: clicks are not written down.
    pub click_log: Option<StorageOptions>,
    /// `None`: the first click listener's address.
    pub public_base_url: Option<String>,
    pub links_max: usize,
    /// Seed the demonstration network.
    pub demo: bool,
    /// For the upstream's client: `upstream` and `key` are filled in by whoever knows the embedded API's address.
    pub call_timeout: Duration,
    pub body_bytes_max: usize,
    pub rows_max: usize,
    pub ca_file: Option<PathBuf>,
    pub log: LogOptions,
}

/// What the process says, and where.
#[derive(Clone, Debug)]
pub struct LogOptions {
    pub format: LogFormat,
    /// Unless RUST_LOG says otherwise.
    pub level: LogLevel,
    /// `None`: to standard error.
    pub file: Option<PathBuf>,
}

/// For whom lines of the log are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// People.
    Pretty,
    /// Programs: an object of JSON a line.
    Json,
}

/// From where on lines of the log are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

/// Where the snapshot comes from.
#[derive(Clone, Debug)]
pub enum Upstream {
    /// The API that this process runs. `key` if the operator keeps it; else the data directory does.
    Embedded { key: Option<KeySource> },
    /// A CAKE, or another smartlink's embedded API.
    Remote { url: Url, key: KeySource },
}

/// Where it is counted how full caps are.
#[derive(Clone, Debug)]
pub enum LedgerPlace {
    /// In this process, in a file of its data directory.
    Here,
    /// In the process of the upstream, which is a smartlink.
    Upstream,
    /// On Valkey or Redis, for all nodes that say so.
    Valkey(ValkeyOptions),
}

/// A configuration that cannot be run: which file or key, what is wrong, what would be right.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read the configuration {}: {source}", .path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("the configuration {}, {problem}", .path.display())]
    Parse { path: PathBuf, problem: FormError },
    #[error("{key} is {found:?}; expected {expected}")]
    Value { key: String, found: String, expected: String },
    #[error("{0}")]
    Conflict(String),
}

/// A text that is not TOML, or not ours.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {problem}")]
pub struct FormError {
    /// From 1.
    pub line: usize,
    pub problem: String,
}

impl Config {
    /// Reads the file, if one is named, and the environment's secrets, and checks everything.
    pub fn load(flags: &Flags) -> Result<Self, ConfigError> {
        let raw = match &flags.config {
            Some(path) => read_file(path)?,
            None => Raw::default(),
        };
        resolve(&raw, flags)
    }
}

/// What a file says otherwise than another one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changed {
    /// Keys that a running process takes up.
    pub live: Vec<&'static str>,
    /// Others, by which a process is started.
    pub fixed: Vec<String>,
}

impl Config {
    /// What the file of `new` says otherwise.
    pub fn changed(&self, new: &Config) -> Changed {
        let mut changed = Changed::default();
        let (old, new) = (keys(&self.file), keys(&new.file));
        for (key, _) in new.iter().filter(|(key, value)| old.get(*key) != Some(value)) {
            match LIVE_KEYS.iter().find(|live| *live == key) {
                Some(live) => changed.live.push(live),
                None => changed.fixed.push(key.clone()),
            }
        }
        changed
    }
}

/// Every key in full, with its value.
fn keys(file: &Raw) -> BTreeMap<String, toml::Value> {
    let mut keys = BTreeMap::new();
    for (section, value) in toml::Table::try_from(file).unwrap_or_default() {
        match value {
            toml::Value::Table(table) => {
                keys.extend(table.into_iter().map(|(key, value)| (format!("{section}.{key}"), value)));
            }
            value => drop(keys.insert(section, value)),
        }
    }
    keys
}

/// The data directory alone: for commands that work on it and run nothing, so that a secret which only a node needs
/// need not be at hand.
pub fn data_dir(flags: &Flags) -> Result<PathBuf, ConfigError> {
    let raw = flags.config.as_deref().map(read_file).transpose()?.unwrap_or_default();
    Ok(chosen_data_dir(&raw, flags))
}

/// The file of the click ids' keys alone, for the same reason.
pub fn click_id_keys(flags: &Flags) -> Result<ClickIdKeyFile, ConfigError> {
    let raw = flags.config.as_deref().map(read_file).transpose()?.unwrap_or_default();
    Ok(chosen_click_id_keys(&raw, &chosen_data_dir(&raw, flags)))
}

/// The directory of the click log alone, for the same reason.
pub fn click_log_directory(flags: &Flags) -> Result<PathBuf, ConfigError> {
    let raw = flags.config.as_deref().map(read_file).transpose()?.unwrap_or_default();
    Ok(chosen_click_log(&raw, &chosen_data_dir(&raw, flags)))
}

/// The address of the admin listener alone, for the same reason.
pub fn admin_address(flags: &Flags) -> Result<SocketAddr, ConfigError> {
    let raw = flags.config.as_deref().map(read_file).transpose()?.unwrap_or_default();
    chosen_admin_address(&raw, flags)
}

/// The admin token of the environment, for commands that ask a node.
pub fn admin_token() -> Result<Option<Key>, ConfigError> {
    chosen_admin_token("")
}

impl Config {
    /// The client's options for an upstream.
    /// As [`Config::client`], for the ledger behind it: a lease that does not come soon is asked for again.
    pub fn ledger_client(&self, upstream: Url, key: KeySource) -> ClientOptions {
        ClientOptions { call_timeout: self.call_timeout.min(LEDGER_TIMEOUT), ..self.client(upstream, key) }
    }

    pub fn client(&self, upstream: Url, key: KeySource) -> ClientOptions {
        ClientOptions {
            upstream,
            key,
            call_timeout: self.call_timeout,
            body_bytes_max: self.body_bytes_max,
            rows_max: self.rows_max,
            ca_file: self.ca_file.clone(),
        }
    }
}

/// Reads a file. Errors of form name the line.
pub fn read_file(path: &Path) -> Result<Raw, ConfigError> {
    let text =
        fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    parse(&text).map_err(|problem| ConfigError::Parse { path: path.to_owned(), problem })
}

/// Reads a text, in the words of somebody who writes TOML and not Rust.
fn parse(text: &str) -> Result<Raw, FormError> {
    toml::from_str(text).map_err(|error| {
        let start = error.span().map_or(0, |span| span.start);
        let line = 1 + text.bytes().take(start).filter(|&byte| byte == b'\n').count();
        let mut problem = error.message().to_owned();
        for (of_serde, of_toml) in [
            ("unknown field", "unknown key"),
            ("expected usize", "expected a whole number from 0"),
            ("expected u64", "expected a whole number from 0"),
            ("expected u32", "expected a whole number from 0 to 4294967295"),
            ("expected f64", "expected a number"),
            ("expected a sequence", "expected a list"),
        ] {
            problem = problem.replace(of_serde, of_toml);
        }
        FormError { line, problem }
    })
}

fn resolve(raw: &Raw, flags: &Flags) -> Result<Config, ConfigError> {
    let data_dir = chosen_data_dir(raw, flags);
    let bots = bots(raw, flags)?;
    let policy = destination_policy(raw)?;
    let upstream = upstream(raw, flags)?;
    if matches!(upstream, Upstream::Embedded { .. }) && !raw.upstream.overlay.is_empty() {
        return Err(ConfigError::Conflict(format!(
            "upstream.overlay is {:?}, but there is no upstream: the embedded API keeps entries and rules itself; name \
             a CAKE in upstream.url, or leave upstream.overlay out",
            raw.upstream.overlay
        )));
    }
    let compile = CompileOptions {
        network_fallback: network_fallback(&raw.network.default_fallback_url, &policy)?,
        policy,
        bots,
    };
    let config = Config {
        file: raw.clone(),
        edge: edge_options(raw, flags)?,
        click_id_keys: chosen_click_id_keys(raw, &data_dir),
        goodbye: seconds("edge.goodbye_seconds", raw.edge.goodbye_seconds, 0.0)?,
        drain_timeout: seconds("edge.drain_timeout_seconds", raw.edge.drain_timeout_seconds, 0.0)?,
        admin: admin_options(raw, flags)?,
        admin_hosts: admin_hosts(&raw.admin.hosts)?,
        api: api_limits(raw)?,
        geo: GeoFiles {
            places: flags.geo.clone().or_else(|| path(&raw.geo.database)),
            networks: flags.asn.clone().or_else(|| path(&raw.geo.asn_database)),
        },
        refresh: refresh_options(raw, compile, &data_dir)?,
        ledger: ledger_place(&raw.caps.ledger, &upstream)?,
        click_log: click_log(raw, &data_dir)?,
        certificate: certificate(raw)?,
        upstream,
        public_base_url: public_base_url(&raw.network.public_base_url)?,
        links_max: raw.metrics.links_max,
        demo: flags.demo,
        call_timeout: seconds("upstream.call_timeout_seconds", raw.upstream.call_timeout_seconds, 0.1)?,
        body_bytes_max: raw.upstream.body_bytes_max,
        rows_max: raw.upstream.rows_max,
        ca_file: flags.ca_file.clone().or_else(|| path(&raw.upstream.ca_file)),
        log: log_options(raw, flags)?,
        data_dir,
    };
    fit_together(&config)?;
    Ok(config)
}

fn chosen_data_dir(raw: &Raw, flags: &Flags) -> PathBuf {
    flags.data_dir.clone().unwrap_or_else(|| PathBuf::from(&raw.data_dir.0))
}

fn chosen_click_id_keys(raw: &Raw, data_dir: &Path) -> ClickIdKeyFile {
    let named = variable(CLICK_ID_KEY_FILE).or_else(|| path(&raw.edge.click_id_key_file));
    named.map_or_else(|| ClickIdKeyFile::Own(data_dir.join(CLICK_ID_KEYS)), ClickIdKeyFile::Named)
}

fn ledger_place(text: &str, upstream: &Upstream) -> Result<LedgerPlace, ConfigError> {
    match (text, upstream) {
        ("local", _) | ("auto", Upstream::Embedded { .. }) => Ok(LedgerPlace::Here),
        ("upstream" | "auto", Upstream::Remote { .. }) => Ok(LedgerPlace::Upstream),
        ("upstream", Upstream::Embedded { .. }) => Err(ConfigError::Conflict(
            "caps.ledger is \"upstream\", but this process is its own upstream; expected local, or auto"
                .to_owned(),
        )),
        (address, _) if address.contains("://") => {
            // Not as it was typed: it may hold a password.
            ValkeyOptions::parse(address)
                .map(LedgerPlace::Valkey)
                .map_err(|problem| ConfigError::Conflict(format!("caps.ledger: {problem}")))
        }
        _ => {
            // An address without its scheme may hold one, too.
            let shown = if text.contains('@') { "(an address with a user)" } else { text };
            Err(value("caps.ledger", shown, "auto, local, upstream, or an address such as redis://host:6379"))
        }
    }
}

/// What each key alone cannot tell.
fn fit_together(config: &Config) -> Result<(), ConfigError> {
    if config.data_dir.as_os_str().is_empty() {
        return Err(value("data_dir", "", "a directory such as ./smartlink-data"));
    }
    let clicks = config.edge.listen.iter().map(|click| click.address);
    let mut addresses: Vec<_> = clicks.chain([config.admin.listen]).collect();
    addresses.retain(|address| address.port() != 0);
    addresses.sort_unstable();
    if let Some(twice) = addresses.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(ConfigError::Conflict(format!(
            "the address {} is given twice; every listener, clicks and admin, needs one of its own",
            twice[0]
        )));
    }
    if let Upstream::Remote { url, .. } = &config.upstream
        && is_at(url, config.admin.listen)
    {
        return Err(ConfigError::Conflict(format!(
            "the upstream {url} is this node's own admin address; leave the upstream out, and the node runs its own API, or name \
             the address of another"
        )));
    }
    if config.body_bytes_max < BODY_BYTES_LEAST {
        let expected = format!("at least {BODY_BYTES_LEAST} bytes, which a page of 500 rows needs");
        return Err(value("upstream.body_bytes_max", config.body_bytes_max, &expected));
    }
    Ok(())
}

/// Whether the URL leads to this address, as far as can be told without asking for names.
fn is_at(url: &Url, address: SocketAddr) -> bool {
    let is_the_host = |ip: IpAddr| ip == address.ip() || (address.ip().is_unspecified() && is_loopback(ip));
    let is_local = is_loopback(address.ip()) || address.ip().is_unspecified();
    let same_host = match url.host() {
        Some(Host::Ipv4(ip)) => is_the_host(ip.into()),
        Some(Host::Ipv6(ip)) => is_the_host(ip.into()),
        Some(Host::Domain(name)) => is_local && name == "localhost",
        None => false,
    };
    same_host && url.port_or_known_default() == Some(address.port())
}

/// The demonstration is clicked with curl, which is a bot like any other; there it is routed, so that one sees
/// something.
fn bots(raw: &Raw, flags: &Flags) -> Result<BotPolicy, ConfigError> {
    // A value that is none is one in a demonstration, too: whoever takes its file to a node goes on from there.
    let wanted = BotPolicy::parse(&raw.edge.bots)
        .ok_or_else(|| value("edge.bots", &raw.edge.bots, "fallback, route or block"))?;
    Ok(if flags.demo { BotPolicy::Route } else { wanted })
}

fn edge_options(raw: &Raw, flags: &Flags) -> Result<edge::Options, ConfigError> {
    let (key, listen) = or("--listen (SMARTLINK_LISTEN)", &flags.listen, "edge.listen", &raw.edge.listen);
    let over_tls = &raw.edge.tls_listen;
    if listen.is_empty() && over_tls.is_empty() {
        return Err(value(key, "[]", "at least one address such as 0.0.0.0:8080"));
    }
    let plain = listen.iter().map(|text| (key, text, false));
    let listen = plain
        .chain(over_tls.iter().map(|text| ("edge.tls_listen", text, true)))
        .map(|(key, text, tls)| Ok(ClickAddress { address: address(key, text)?, tls, proxy_protocol: false }))
        .collect::<Result<Vec<_>, _>>()?;
    let (key, proxies) = or(
        "--trust-proxy (SMARTLINK_TRUST_PROXY)",
        &flags.trust_proxy,
        "edge.trusted_proxies",
        &raw.edge.trusted_proxies,
    );
    let proxies = proxies
        .iter()
        .map(|text| {
            parse_net(text).ok_or_else(|| value(key, text, "a network such as 10.0.0.0/8 or an address"))
        })
        .collect::<Result<Vec<_>, _>>()?;
    let listen = with_proxy_protocol(listen, &raw.edge.proxy_protocol, &proxies)?;
    let (key, threads) = match flags.threads {
        Some(threads) => ("--threads (SMARTLINK_THREADS)", threads),
        None => ("edge.threads", raw.edge.threads),
    };
    let threads = match threads {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        threads if threads <= THREADS_MAX => threads,
        threads => return Err(value(key, threads, "at most 1024, or 0 for one a core")),
    };
    let policy = raw.edge.referrer_policy.as_str();
    let Some(&policy) = REFERRER_POLICIES.iter().find(|known| **known == policy) else {
        let expected = format!("one of {}", REFERRER_POLICIES.join(", "));
        return Err(value("edge.referrer_policy", policy, &expected));
    };
    Ok(edge::Options {
        listen,
        threads,
        settings: edge::Settings {
            click: ClickOptions {
                trusted_proxies: NetSet::new(proxies),
                // Of the program itself: to copy it into an answer is to copy a pointer.
                referrer_policy: HeaderValue::from_static(policy),
                when_log_is_full: when_log_is_full(&raw.click_log.when_full)?,
            },
            deadlines: Deadlines {
                header: seconds(
                    "edge.header_read_timeout_seconds",
                    raw.edge.header_read_timeout_seconds,
                    0.1,
                )?,
                idle: seconds("edge.idle_timeout_seconds", raw.edge.idle_timeout_seconds, 0.1)?,
                write: seconds("edge.write_timeout_seconds", raw.edge.write_timeout_seconds, 0.1)?,
            },
            limits: connection_limits(&raw.edge)?,
        },
        conversion: conversion_options(raw)?,
    })
}

/// Marks those whose connections begin with a PROXY header.
fn with_proxy_protocol(
    mut listen: Vec<ClickAddress>,
    marked: &[String],
    proxies: &[IpNet],
) -> Result<Vec<ClickAddress>, ConfigError> {
    const KEY: &str = "edge.proxy_protocol";
    for text in marked {
        let marked = address(KEY, text)?;
        let mut named = listen.iter_mut().filter(|click| click.address == marked);
        let problem = match (named.next(), named.next()) {
            (Some(click), None) if !click.proxy_protocol => {
                click.proxy_protocol = true;
                continue;
            }
            (Some(_), None) => "which it has named before; leave one of them out",
            // With port 0 they are two, and which of them is meant nobody can tell.
            (Some(_), Some(_)) => "which is more than one listener; give them addresses or ports that differ",
            (None, _) => {
                "where no listener for clicks is; expected an address of edge.listen (--listen, SMARTLINK_LISTEN) or of \
                 edge.tls_listen"
            }
        };
        return Err(ConfigError::Conflict(format!("{KEY} names {text}, {problem}")));
    }
    if !marked.is_empty() && proxies.is_empty() {
        return Err(ConfigError::Conflict(format!(
            "{KEY} needs the proxies that may connect there, and nobody is trusted; name them in edge.trusted_proxies \
             (--trust-proxy, SMARTLINK_TRUST_PROXY), such as 10.0.0.0/8"
        )));
    }
    Ok(listen)
}

fn connection_limits(raw: &raw::Edge) -> Result<ConnectionLimits, ConfigError> {
    let by_descriptors = ConnectionLimits::connections_by_descriptors();
    let connections = match raw.connections_max {
        0 => by_descriptors,
        connections if connections <= by_descriptors => connections,
        connections => {
            let expected = format!(
                "at most {by_descriptors}, half of the descriptors that this process may have; raise them \
                 (ulimit -n, or LimitNOFILE= of systemd), or 0 for as many as there may be"
            );
            return Err(value("edge.connections_max", connections, &expected));
        }
    };
    let age = raw.connection_age_max_seconds;
    Ok(ConnectionLimits {
        connections,
        per_address: Some(raw.connections_per_address_max).filter(|&most| most > 0),
        requests: Some(raw.requests_per_connection_max).filter(|&most| most > 0),
        age: (age != 0.0).then(|| seconds("edge.connection_age_max_seconds", age, 1.0)).transpose()?,
        head: head_limits(raw)?,
    })
}

fn head_limits(raw: &raw::Edge) -> Result<HeadLimits, ConfigError> {
    let (bytes, uri_bytes) = (raw.head_bytes_max, raw.uri_bytes_max);
    if !(HEAD_BYTES_LEAST..=HEAD_BYTES_MOST).contains(&bytes) {
        let expected = format!("bytes from {HEAD_BYTES_LEAST} to {HEAD_BYTES_MOST}");
        return Err(value("edge.head_bytes_max", bytes, &expected));
    }
    if !(URI_BYTES_LEAST..=bytes).contains(&uri_bytes) {
        let expected = format!("bytes from {URI_BYTES_LEAST} to the {bytes} of edge.head_bytes_max");
        return Err(value("edge.uri_bytes_max", uri_bytes, &expected));
    }
    Ok(HeadLimits { bytes, uri_bytes })
}

fn certificate(raw: &Raw) -> Result<Option<CertificateFiles>, ConfigError> {
    let edge = &raw.edge;
    match (edge.tls_listen.is_empty(), path(&edge.tls_certificate_file), path(&edge.tls_key_file)) {
        (false, Some(chain), Some(key)) => Ok(Some(CertificateFiles { chain, key })),
        (true, None, None) => Ok(None),
        (false, _, _) => Err(ConfigError::Conflict(
            "edge.tls_listen needs a certificate and its key; name them in edge.tls_certificate_file and edge.tls_key_file"
                .to_owned(),
        )),
        (true, _, _) => Err(ConfigError::Conflict(
            "there is a certificate, but no address to use it on; name one in edge.tls_listen, such as 0.0.0.0:8443, or \
             leave edge.tls_certificate_file and edge.tls_key_file out"
                .to_owned(),
        )),
    }
}

fn when_log_is_full(text: &str) -> Result<WhenLogIsFull, ConfigError> {
    match text {
        "serve" => Ok(WhenLogIsFull::Serve),
        "refuse" => Ok(WhenLogIsFull::Refuse),
        _ => Err(value("click_log.when_full", text, "serve or refuse")),
    }
}

fn click_log(raw: &Raw, data_dir: &Path) -> Result<Option<StorageOptions>, ConfigError> {
    let log = &raw.click_log;
    let addresses = match log.addresses.as_str() {
        "full" => AddressDetail::Full,
        "truncated" => AddressDetail::Truncated,
        "hashed" => AddressDetail::Hashed,
        other => return Err(value("click_log.addresses", other, "full, truncated or hashed")),
    };
    if !(SEGMENT_BYTES_LEAST..=SEGMENT_BYTES_MOST).contains(&log.segment_bytes) {
        let expected = format!("bytes from {SEGMENT_BYTES_LEAST} to {SEGMENT_BYTES_MOST}");
        return Err(value("click_log.segment_bytes", log.segment_bytes, &expected));
    }
    if !(0.01..=KEEP_DAYS_MAX).contains(&log.keep_days) {
        let expected = format!("days from 0.01 to {KEEP_DAYS_MAX}");
        return Err(value("click_log.keep_days", log.keep_days, &expected));
    }
    let options = StorageOptions {
        directory: chosen_click_log(raw, data_dir),
        segment_bytes: log.segment_bytes,
        seal_after: seconds("click_log.seal_after_seconds", log.seal_after_seconds, 1.0)?,
        sync_every: seconds("click_log.sync_interval_seconds", log.sync_interval_seconds, 0.1)?,
        keep_bytes: log.keep_bytes,
        keep_for: Duration::from_secs_f64(log.keep_days * 86_400.0),
        addresses,
    };
    Ok(log.enabled.then_some(options))
}

fn chosen_click_log(raw: &Raw, data_dir: &Path) -> PathBuf {
    path(&raw.click_log.directory).unwrap_or_else(|| data_dir.join(CLICK_LOG))
}

fn log_options(raw: &Raw, flags: &Flags) -> Result<LogOptions, ConfigError> {
    let (key, format) = match &flags.log_format {
        Some(format) => ("--log-format (SMARTLINK_LOG_FORMAT)", format),
        None => ("log.format", &raw.log.format),
    };
    let format = LogFormat::parse(format).ok_or_else(|| value(key, format, "pretty or json"))?;
    let (key, level) = match &flags.log_level {
        Some(level) => ("--log-level (SMARTLINK_LOG_LEVEL)", level),
        None => ("log.level", &raw.log.level),
    };
    let level =
        LogLevel::parse(level).ok_or_else(|| value(key, level, "error, warn, info, debug or trace"))?;
    Ok(LogOptions { format, level, file: flags.log_file.clone().or_else(|| path(&raw.log.file)) })
}

impl LogFormat {
    fn parse(text: &str) -> Option<Self> {
        [Self::Pretty, Self::Json].into_iter().find(|format| format.name() == text)
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Pretty => "pretty",
            Self::Json => "json",
        }
    }
}

impl LogLevel {
    fn parse(text: &str) -> Option<Self> {
        [Self::Error, Self::Warn, Self::Info, Self::Debug, Self::Trace]
            .into_iter()
            .find(|level| level.name() == text)
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

fn conversion_options(raw: &Raw) -> Result<ConversionOptions, ConfigError> {
    let days = raw.conversions.click_age_days_max;
    if !(1..=CLICK_AGE_DAYS_MAX).contains(&days) {
        let expected = format!("days from 1 to {CLICK_AGE_DAYS_MAX}");
        return Err(value("conversions.click_age_days_max", days, &expected));
    }
    Ok(ConversionOptions { click_age_max: Duration::from_secs(days as u64 * 86_400) })
}

fn admin_options(raw: &Raw, flags: &Flags) -> Result<admin::Options, ConfigError> {
    let listen = chosen_admin_address(raw, flags)?;
    let token = chosen_admin_token(&raw.admin.token_file)?;
    if token.is_none() && !is_loopback(listen.ip()) {
        return Err(ConfigError::Conflict(format!(
            "the admin listener {listen} can be reached from other machines and has no token; set {ADMIN_TOKEN}, or \
             {ADMIN_TOKEN_FILE} or admin.token_file to a file that holds it, or listen on 127.0.0.1"
        )));
    }
    Ok(admin::Options { listen, token })
}

fn admin_hosts(hosts: &[String]) -> Result<Vec<String>, ConfigError> {
    let name = |text: &String| match Host::parse(text) {
        Ok(Host::Domain(name)) => Ok(name),
        _ => Err(value("admin.hosts", text, "names without port, such as console.example.com")),
    };
    hosts.iter().map(name).collect()
}

fn api_limits(raw: &Raw) -> Result<Limits, ConfigError> {
    let per_second = raw.api.requests_per_second;
    if !(0.0..=RATE_MAX).contains(&per_second) {
        let expected = format!("calls a second, up to {RATE_MAX}, or 0 for no limit");
        return Err(value("api.requests_per_second", per_second, &expected));
    }
    let body_read_timeout = seconds("api.body_read_timeout_seconds", raw.api.body_read_timeout_seconds, 0.1)?;
    if per_second == 0.0 {
        return Ok(Limits { rate: None, body_read_timeout });
    }
    let rate = Rate::new(per_second, raw.api.burst)
        .ok_or_else(|| value("api.burst", raw.api.burst, "at least 1: so many calls may come at once"))?;
    Ok(Limits { rate: Some(rate), body_read_timeout })
}

fn refresh_options(
    raw: &Raw,
    compile: CompileOptions,
    data_dir: &Path,
) -> Result<RefreshOptions, ConfigError> {
    let zone = &raw.network.time_zone;
    let up = &raw.upstream;
    Ok(RefreshOptions {
        interval: seconds("upstream.refresh_interval_seconds", up.refresh_interval_seconds, 0.1)?,
        interval_max: seconds("upstream.refresh_interval_max_seconds", up.refresh_interval_max_seconds, 0.1)?,
        zone: Zone::parse(zone)
            .ok_or_else(|| value("network.time_zone", zone, "an IANA name such as America/New_York"))?,
        compile,
        last_good: data_dir.join(LAST_GOOD),
        overlay: path(&up.overlay),
        guard: GuardOptions {
            lost_share_max: share("upstream.lost_share_max", up.lost_share_max)?,
            lost_count_min: up.lost_count_min,
        },
    })
}

fn upstream(raw: &Raw, flags: &Flags) -> Result<Upstream, ConfigError> {
    let (name, text) = match &flags.upstream {
        Some(text) => ("--upstream (SMARTLINK_UPSTREAM)", text.as_str()),
        None => ("upstream.url", raw.upstream.url.as_str()),
    };
    let key = secret_source(API_KEY, &raw.upstream.api_key_file, API_KEY_FILE);
    if text.is_empty() {
        return Ok(Upstream::Embedded { key });
    }
    if flags.demo {
        return Err(ConfigError::Conflict(format!(
            "--demo seeds the embedded API, but {name} names another one; leave one of the two out"
        )));
    }
    // What was written is not shown: people who paste a whole call paste the key in its query, too.
    let url = parse_upstream(text).ok_or_else(|| {
        ConfigError::Conflict(format!(
            "{name} is no scheme, host and path of an API, such as https://example.cakemarketing.com; a user, a query \
             and the key do not belong into it"
        ))
    })?;
    let key = key.ok_or_else(|| {
        ConfigError::Conflict(format!(
            "the upstream {url} needs an API key; set {API_KEY}, or {API_KEY_FILE} or upstream.api_key_file to a file that \
             holds it"
        ))
    })?;
    Ok(Upstream::Remote { url, key })
}

fn destination_policy(raw: &Raw) -> Result<DestinationPolicy, ConfigError> {
    let hosts = &raw.destinations.allowed_hosts;
    if let Some(bad) = hosts.iter().find(|host| !is_host_pattern(host)) {
        return Err(value(
            "destinations.allowed_hosts",
            bad,
            "hosts such as shop.example.com, or *.example.com for all below it",
        ));
    }
    Ok(DestinationPolicy {
        allow_http: raw.destinations.allow_http,
        allow_internal_hosts: raw.destinations.allow_internal_hosts,
        allowed_hosts: (!hosts.is_empty()).then(|| HostSet::new(hosts)),
    })
}

fn network_fallback(text: &str, policy: &DestinationPolicy) -> Result<Option<Template>, ConfigError> {
    if text.is_empty() {
        return Ok(None);
    }
    match Template::parse(text, policy) {
        Ok((template, warnings)) if warnings.is_empty() => Ok(Some(template)),
        Ok((_, warnings)) => Err(ConfigError::Conflict(format!(
            "network.default_fallback_url: {}; correct or remove the token",
            warnings.join(", ")
        ))),
        Err(error) => Err(ConfigError::Conflict(format!("network.default_fallback_url {error}"))),
    }
}

fn public_base_url(text: &str) -> Result<Option<String>, ConfigError> {
    if text.is_empty() {
        return Ok(None);
    }
    let valid = Url::parse(text).is_ok_and(|url| {
        matches!(url.scheme(), "http" | "https")
            && url.has_host()
            && url.query().is_none()
            && url.fragment().is_none()
    });
    if !valid {
        return Err(value("network.public_base_url", text, "a URL such as https://go.example.com"));
    }
    Ok(Some(text.trim_end_matches('/').to_owned()))
}

/// Where a secret is kept: in a variable, in the file that another variable names, or in the file that the
/// configuration names.
fn secret_source(secret: &str, file_key: &str, file_variable: &str) -> Option<KeySource> {
    if variable(secret).is_some() {
        return Some(KeySource::Environment(secret.to_owned()));
    }
    variable(file_variable).or_else(|| path(file_key)).map(KeySource::File)
}

/// A variable of the environment that is set, and not to nothing.
fn variable(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).filter(|text| !text.is_empty()).map(PathBuf::from)
}

fn chosen_admin_token(file: &str) -> Result<Option<Key>, ConfigError> {
    let source = secret_source(ADMIN_TOKEN, file, ADMIN_TOKEN_FILE);
    source.map(|source| read_admin_token(&source)).transpose()
}

fn chosen_admin_address(raw: &Raw, flags: &Flags) -> Result<SocketAddr, ConfigError> {
    match &flags.admin {
        Some(text) => address("--admin (SMARTLINK_ADMIN)", text),
        None => address("admin.listen", &raw.admin.listen),
    }
}

fn read_admin_token(source: &KeySource) -> Result<Key, ConfigError> {
    source.read().map_err(|error| {
        ConfigError::Conflict(match error {
            KeyError::Environment(name) => format!("the admin token in {name} is empty"),
            KeyError::File { path, reason } => {
                format!("cannot read the admin token from {}: {reason}", path.display())
            }
            KeyError::Malformed(place) => {
                format!("the admin token in {place} must be one line of visible ASCII characters")
            }
        })
    })
}

/// The flag's values if it was given, else the file's; with the name under which an error blames them.
fn or<'a>(
    flag: &'static str,
    of_flag: &'a [String],
    key: &'static str,
    of_file: &'a [String],
) -> (&'static str, &'a [String]) {
    if of_flag.is_empty() { (key, of_file) } else { (flag, of_flag) }
}

fn address(key: &str, text: &str) -> Result<SocketAddr, ConfigError> {
    text.parse().map_err(|_| value(key, text, "an address and port such as 127.0.0.1:8080 or [::1]:8080"))
}

fn seconds(key: &str, seconds: f64, least: f64) -> Result<Duration, ConfigError> {
    let in_range = seconds >= least && seconds <= SECONDS_MAX;
    if !in_range {
        return Err(value(key, seconds, &format!("seconds from {least} to {SECONDS_MAX}")));
    }
    Ok(Duration::from_secs_f64(seconds))
}

fn share(key: &str, share: f64) -> Result<f64, ConfigError> {
    if (0.0..=1.0).contains(&share) { Ok(share) } else { Err(value(key, share, "a share from 0 to 1")) }
}

fn path(text: &str) -> Option<PathBuf> {
    (!text.is_empty()).then(|| PathBuf::from(text))
}

fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

fn value(key: &str, found: impl std::fmt::Display, expected: &str) -> ConfigError {
    ConfigError::Value { key: key.to_owned(), found: found.to_string(), expected: expected.to_owned() }
}

/// What a running process takes up at SIGHUP; whoever documents a key says whether it is one of these.
pub const LIVE_KEYS: [&str; 24] = [
    "admin.token_file",
    "click_log.when_full",
    "edge.bots",
    "edge.connection_age_max_seconds",
    "edge.connections_max",
    "edge.connections_per_address_max",
    "edge.drain_timeout_seconds",
    "edge.goodbye_seconds",
    "edge.header_read_timeout_seconds",
    "edge.idle_timeout_seconds",
    "edge.referrer_policy",
    "edge.requests_per_connection_max",
    "edge.tls_certificate_file",
    "edge.tls_key_file",
    "edge.trusted_proxies",
    "edge.write_timeout_seconds",
    "geo.asn_database",
    "geo.database",
    "log.level",
    "network.default_fallback_url",
    "upstream.lost_count_min",
    "upstream.lost_share_max",
    "upstream.refresh_interval_max_seconds",
    "upstream.refresh_interval_seconds",
];

/// The variable that holds the API key.
pub const API_KEY: &str = "SMARTLINK_API_KEY";

/// The variable that names a file which holds it.
pub const API_KEY_FILE: &str = "SMARTLINK_API_KEY_FILE";

/// The variable that names the file of the keys which sign click ids.
pub const CLICK_ID_KEY_FILE: &str = "SMARTLINK_CLICK_ID_KEY_FILE";

/// The variable that holds the admin token.
pub const ADMIN_TOKEN: &str = "SMARTLINK_ADMIN_TOKEN";

/// The variable that names a file which holds it.
pub const ADMIN_TOKEN_FILE: &str = "SMARTLINK_ADMIN_TOKEN_FILE";

/// In the data directory: the newest snapshot that was accepted.
pub const LAST_GOOD: &str = "snapshot.last-good";

/// In the data directory: the embedded API's database.
pub const DATABASE: &str = "smartlink.sqlite3";

/// In the data directory: how full caps are. Apart from the API's own, so that neither waits for the other.
pub const LEDGER: &str = "ledger.sqlite3";

/// In the data directory: the segments of the click log.
pub const CLICK_LOG: &str = "clicks";

const LEDGER_TIMEOUT: Duration = Duration::from_secs(1);

/// In the data directory: the embedded API's key, where the operator keeps none.
pub const KEY_FILE: &str = "api-key";

/// In the data directory: the keys that sign click ids, where the operator keeps none.
pub const CLICK_ID_KEYS: &str = "click-id-key";

/// A click id tells threads apart, up to as many as these.
const THREADS_MAX: usize = WORKERS_MAX;

/// The ledger forgets a conversion 400 days after the click; until then it must know it, to count it once.
const CLICK_AGE_DAYS_MAX: usize = 365;

/// A segment that is mapped and cut is not worth it for less …
const SEGMENT_BYTES_LEAST: usize = 1024 * 1024;

/// … and each thread has two on the disk.
const SEGMENT_BYTES_MOST: usize = 1024 * 1024 * 1024;

const KEEP_DAYS_MAX: f64 = 3650.0;

/// Less has no room for what browsers send.
const HEAD_BYTES_LEAST: usize = 1024;

/// As much is kept of each connection whose client takes its time.
const HEAD_BYTES_MOST: usize = 64 * 1024;

/// Less has no room for a click with its sub ids.
const URI_BYTES_LEAST: usize = 256;

/// More than one node answers; a higher one is a mistake in units.
const RATE_MAX: f64 = 1_000_000.0;

/// Of one answer of the upstream.
const BODY_BYTES_LEAST: usize = 64 * 1024;

/// A day: longer waits are mistakes in units.
const SECONDS_MAX: f64 = 86_400.0;

/// The policies of the W3C's Referrer Policy, section 3.
const REFERRER_POLICIES: [&str; 8] = [
    "no-referrer",
    "no-referrer-when-downgrade",
    "same-origin",
    "origin",
    "strict-origin",
    "origin-when-cross-origin",
    "strict-origin-when-cross-origin",
    "unsafe-url",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn from(text: &str) -> Result<Config, String> {
        let raw = parse(text).map_err(|error| error.to_string())?;
        resolve(&raw, &Flags::default()).map_err(|error| error.to_string())
    }

    #[test]
    fn defaults_can_be_run() {
        let config = from("").unwrap();
        let listen: Vec<_> = config.edge.listen.iter().map(ToString::to_string).collect();
        assert_eq!(listen, ["http://0.0.0.0:8080"]);
        assert_eq!(config.admin.listen, "127.0.0.1:9180".parse().unwrap());
        assert!(matches!(config.upstream, Upstream::Embedded { .. }));
        assert_eq!(config.refresh.interval, Duration::from_secs(15));
        assert_eq!(config.api, Limits::default());
        assert_eq!(from("[api]\nrequests_per_second = 0\nburst = 0").unwrap().api.rate, None);
    }

    #[test]
    fn mistakes_name_their_key() {
        for (text, said) in [
            ("[edge]\nbots = \"ignore\"", "edge.bots is \"ignore\"; expected fallback, route or block"),
            ("[edge]\nlisten = []", "edge.listen"),
            ("[edge]\nlisten = [\"8080\"]", "edge.listen is \"8080\"; expected an address and port"),
            ("[edge]\ntrusted_proxies = [\"10.0.0.0/33\"]", "edge.trusted_proxies"),
            ("[edge]\nreferrer_policy = \"none\"", "edge.referrer_policy"),
            (
                "[edge]\nhead_bytes_max = 1000",
                "edge.head_bytes_max is \"1000\"; expected bytes from 1024 to 65536",
            ),
            ("[edge]\nhead_bytes_max = 65537", "edge.head_bytes_max"),
            (
                "[edge]\nuri_bytes_max = 255",
                "edge.uri_bytes_max is \"255\"; expected bytes from 256 to the 16384",
            ),
            (
                "[edge]\nhead_bytes_max = 8191",
                "edge.uri_bytes_max is \"8192\"; expected bytes from 256 to the 8191",
            ),
            ("[edge]\ndrain_timeout_seconds = -1.0", "edge.drain_timeout_seconds"),
            ("[edge]\nthreads = 5000", "edge.threads"),
            ("data_dir = \"\"", "data_dir is \"\""),
            ("[admin]\nlisten = \"0.0.0.0:8080\"", "no token"),
            ("[edge]\nlisten = [\"127.0.0.1:9180\"]", "the address 127.0.0.1:9180 is given twice"),
            ("[upstream]\nbody_bytes_max = 0", "upstream.body_bytes_max is \"0\"; expected at least 65536"),
            ("[network]\ntime_zone = \"Mars\"", "network.time_zone is \"Mars\""),
            (
                "[network]\ndefault_fallback_url = \"http://a.example/\"",
                "network.default_fallback_url must begin with https",
            ),
            ("[network]\ndefault_fallback_url = \"https://a.example/{oops}\"", "unknown token {oops}"),
            ("[network]\npublic_base_url = \"go.example.com\"", "network.public_base_url"),
            ("[destinations]\nallowed_hosts = [\"https://a.example\"]", "destinations.allowed_hosts"),
            ("[upstream]\nurl = \"ftp://a.example\"", "upstream.url is no scheme, host and path"),
            (
                "[upstream]\noverlay = \"routing.toml\"",
                "upstream.overlay is \"routing.toml\", but there is no upstream",
            ),
            ("[admin]\nlisten = \"0.0.0.0:9180\"", "has no token"),
            ("[admin]\nhosts = [\"console.example.com:443\"]", "admin.hosts"),
            ("[admin]\nhosts = [\"127.0.0.1\"]", "admin.hosts"),
            ("[edge]\nlisen = []", "line 2: unknown key `lisen`"),
            ("edge = 1\n", "line 1: "),
            ("\n\n[edge", "line 3: "),
            (
                "[upstream]\nrefresh_interval_seconds = \"15\"",
                "line 2: invalid type: string \"15\", expected a number",
            ),
            ("[edge]\n\nthreads = -1", "line 3: "),
            ("[api]\nburst = -1", "expected a whole number from 0 to 4294967295"),
            ("[click_log]\nkeep_bytes = -1", "expected a whole number from 0"),
            ("[edge]\nthreads = 1\nthreads = 2", "line 3: "),
            ("[edge]\nlisten = \"0.0.0.0:80\"", "expected a list"),
            (
                "[edge]\nproxy_protocol = [\"0.0.0.0:8081\"]\ntrusted_proxies = [\"10.0.0.0/8\"]",
                "edge.proxy_protocol names 0.0.0.0:8081, where no listener for clicks is; expected an address of edge.listen",
            ),
            (
                "[edge]\nproxy_protocol = [\"0.0.0.0:8080\", \"0.0.0.0:8080\"]\ntrusted_proxies = [\"10.0.0.0/8\"]",
                "edge.proxy_protocol names 0.0.0.0:8080, which it has named before",
            ),
            (
                "[edge]\nlisten = [\"127.0.0.1:0\", \"127.0.0.1:0\"]\nproxy_protocol = [\"127.0.0.1:0\"]\n\
                 trusted_proxies = [\"10.0.0.0/8\"]",
                "edge.proxy_protocol names 127.0.0.1:0, which is more than one listener",
            ),
            (
                "[edge]\nproxy_protocol = [\"8080\"]",
                "edge.proxy_protocol is \"8080\"; expected an address and port",
            ),
            (
                "[edge]\nproxy_protocol = [\"0.0.0.0:8080\"]",
                "edge.proxy_protocol needs the proxies that may connect there, and nobody is trusted; name them in \
                 edge.trusted_proxies",
            ),
            ("[log]\nformat = \"text\"", "log.format is \"text\"; expected pretty or json"),
            ("[log]\nlevel = \"INFO\"", "log.level is \"INFO\"; expected error, warn, info, debug or trace"),
            ("[api]\nrequests_per_second = -1.0", "api.requests_per_second is \"-1\""),
            ("[api]\nrequests_per_second = nan", "api.requests_per_second"),
            ("[api]\nburst = 0", "api.burst is \"0\"; expected at least 1"),
            ("[api]\nbody_read_timeout_seconds = 0", "api.body_read_timeout_seconds"),
        ] {
            let error = from(text).unwrap_err();
            assert!(error.contains(said), "{text:?} says {error:?}");
        }
    }

    #[test]
    fn listeners_are_marked_by_their_addresses() {
        let config = from(
            "[edge]\nlisten = [\"0.0.0.0:81\", \"[::]:81\"]\ntls_listen = [\"0.0.0.0:82\"]\n\
             tls_certificate_file = \"a\"\ntls_key_file = \"b\"\ntrusted_proxies = [\"10.0.0.0/8\"]\n\
             proxy_protocol = [\"0.0.0.0:82\", \"[0::0]:81\"]",
        );
        let marked: Vec<_> = config.unwrap().edge.listen.iter().map(|click| click.proxy_protocol).collect();
        assert_eq!(marked, [false, true, true]);
    }

    #[test]
    fn a_key_pasted_into_the_upstream_is_not_shown() {
        for url in ["https://a.example/api/2/offers.json?api_key=canary", "https://user:canary@a.example"] {
            let error = from(&format!("[upstream]\nurl = \"{url}\"")).unwrap_err();
            assert!(error.contains("upstream.url") && !error.contains("canary"), "{error}");
        }
    }

    #[test]
    fn flags_win_over_the_file() {
        let raw: Raw =
            toml::from_str("data_dir = \"/a\"\nedge.listen = [\"127.0.0.1:1\"]\nedge.threads = 3\nupstream.ca_file = \"/a.pem\"").unwrap();
        let flags = Flags {
            listen: vec!["127.0.0.1:2".to_owned(), "[::1]:3".to_owned()],
            data_dir: Some(PathBuf::from("/b")),
            ca_file: Some(PathBuf::from("/b.pem")),
            ..Flags::default()
        };
        let config = resolve(&raw, &flags).unwrap();
        assert_eq!(config.edge.listen.len(), 2);
        assert_eq!(config.ca_file, Some(PathBuf::from("/b.pem")));
        assert_eq!(config.data_dir, PathBuf::from("/b"));
        assert_eq!(config.edge.threads, 3);
    }

    #[test]
    fn the_demo_routes_bots_and_takes_no_value_that_is_none() {
        let flags = Flags { demo: true, ..Flags::default() };
        let with = |bots: &str| {
            let mut raw = Raw::default();
            raw.edge.bots = bots.to_owned();
            resolve(&raw, &flags)
        };
        assert_eq!(with("block").unwrap().refresh.compile.bots, BotPolicy::Route);
        assert!(with("roote").unwrap_err().to_string().contains("edge.bots"));
    }

    #[test]
    fn the_demo_has_no_other_upstream() {
        let flags = Flags { demo: true, upstream: Some("https://a.example".to_owned()), ..Flags::default() };
        assert!(resolve(&Raw::default(), &flags).unwrap_err().to_string().contains("--demo"));
    }
}
