//! The servers that are compared, each started on the server's core, and what the kernel says that they have used of it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::cores::{SERVER, on_cores};
use crate::load;
use crate::support::certificate::Authority;
use crate::support::http::Connection;
use crate::support::node::{Metrics, Node, Setup};
use crate::support::store::{ENTRIES, Rows};
use crate::support::wait;

pub struct Server {
    pub name: &'static str,
    pub address: SocketAddr,
    pub tls_address: Option<SocketAddr>,
    /// The one process whose time counts.
    process: u32,
    kind: Kind,
    /// Ended with the server.
    _program: Option<Program>,
}

enum Kind {
    Smartlink(Box<Node>),
    /// With its access log, if it keeps one.
    Nginx(Option<PathBuf>),
    Bare,
}

/// Of both servers that are compared over TLS: paths of PEM files.
pub struct Certificate {
    chain: String,
    key: String,
}

/// What a server had done before a round.
pub struct Before {
    times: BTreeMap<u32, Times>,
    metrics: Option<Metrics>,
}

/// What the kernel accounts for.
#[derive(Clone, Copy, Default)]
pub struct Times {
    pub on_core: Duration,
    /// Runnable, while the core was somebody else's.
    pub in_line: Duration,
}

/// A child process, ended by SIGTERM when it is dropped.
struct Program(Child);

pub const SMARTLINK: &str = "smartlink";
pub const NGINX_FIXED: &str = "nginx, fixed redirect";
pub const NGINX_SAME_JOB: &str = "nginx, same job";
pub const BARE: &str = "bare epoll loop";

impl Server {
    /// With a click log, metrics, a geo database and everything else as a node has it by default.
    pub fn smartlink(
        rows: Rows,
        threads: u64,
        geo: &Path,
        certificate: Option<&Certificate>,
        cores: &[usize],
    ) -> Self {
        let mut setup = Setup::new().start_ready().kill();
        rows.fill(&setup.path().join("data/smartlink.sqlite3"));
        if let Some(Certificate { chain, key }) = certificate {
            setup = setup
                .setting("edge.tls_listen = [\"127.0.0.1:0\"]")
                .setting(&format!("edge.tls_certificate_file = {chain:?}"))
                .setting(&format!("edge.tls_key_file = {key:?}"));
        }
        let setup = setup
            .setting("upstream.refresh_interval_seconds = 15.0")
            .setting("click_log.segment_bytes = 33554432")
            // What one run writes is more than a small machine has room for.
            .setting("click_log.keep_bytes = 1073741824")
            .flag("--threads")
            .flag(&threads.to_string())
            .flag("--trust-proxy")
            .flag("127.0.0.0/8")
            .flag("--geo")
            .flag(geo.to_str().expect("a path in UTF-8"));
        let mut node = on_cores(cores, || setup.start_ready());
        let tls_address = certificate.map(|_| node.wait_for_address("clicks on https://"));
        wait::until_equal("the links of the table", rows.links, || {
            node.metrics().value("smartlink_snapshot_links")
        });
        Self {
            name: SMARTLINK,
            address: node.clicks,
            tls_address,
            process: node.id(),
            kind: Kind::Smartlink(Box::new(node)),
            _program: None,
        }
    }

    /// `return 302` and nothing else, the least that nginx can do.
    pub fn nginx_fixed(directory: &Path, certificate: &Certificate) -> Self {
        let location = "return 302 https://shop301.example.com/landing?aff=7&r=AZtbGO4AAAAABQcAAABLAAAAAQAAEwAAAAAAAAAAAAAA&sub=campaign-1;";
        Self::nginx(NGINX_FIXED, directory, "", "access_log off;", location, Some(certificate), None)
    }

    /// What a click is to smartlink, in nginx's own words: country, device, one of four offers by weight, a click id, a
    /// line of JSON. Conditions, tiers, caps and the metrics of links have no counterpart; they are left out.
    pub fn nginx_same_job(directory: &Path, rows: Rows, geo: &Path) -> Self {
        let log = directory.join("same_job/clicks.log");
        let module = std::env::var("SMARTLINK_COMPARE_NGINX_MODULES")
            .unwrap_or_else(|_| "/usr/lib/nginx/modules".to_owned());
        let mut destinations = String::new();
        for link in 1..=rows.links {
            for nth in 0..ENTRIES {
                let offer = rows.offer_of(link, nth);
                let url = format!(
                    "https://shop{offer}.example.com/landing?aff=$arg_aff_id&r=$request_id&sub=$arg_s1"
                );
                writeln!(destinations, "    {link}/{nth} {url};").expect("a string takes all");
            }
        }
        let http = format!(
            r#"
  map_hash_max_size 16384;
  map_hash_bucket_size 128;
  geoip2 {geo} {{ $country default=- source=$remote_addr country iso_code; }}
  set_real_ip_from 127.0.0.0/8;
  real_ip_header X-Forwarded-For;
  real_ip_recursive on;
  map $http_user_agent $device {{
    default desktop;
    "~*bot|crawl|spider|preview" bot;
    "~*ipad|tablet|android(?!.*mobile)" tablet;
    "~*iphone|ipod|mobile" mobile;
    "~*smart-tv|hbbtv|appletv|roku" tv;
  }}
  split_clients $request_id $entry {{ 40% 0; 30% 1; 20% 2; * 3; }}
  map $arg_id/$entry $destination {{
    default https://www.example.com/none;
{destinations}  }}
  log_format click escape=json '{{"click_id":"$request_id","time":"$time_iso8601","status":$status,"smart_link_id":"$arg_id",'
    '"affiliate_id":"$arg_aff_id","entry":"$entry","ip":"$remote_addr","country":"$country","device":"$device",'
    '"user_agent":"$http_user_agent","referrer":"$http_referer","s1":"$arg_s1","destination":"$destination"}}';
"#,
            geo = geo.display(),
        );
        let main = format!("load_module {module}/ngx_http_geoip2_module.so;");
        let logging = format!("{http}  access_log {} click buffer=64k flush=1s;", log.display());
        Self::nginx(NGINX_SAME_JOB, directory, &main, &logging, "return 302 $destination;", None, Some(log))
    }

    fn nginx(
        name: &'static str,
        directory: &Path,
        main: &str,
        http: &str,
        location: &str,
        certificate: Option<&Certificate>,
        log: Option<PathBuf>,
    ) -> Self {
        let directory = directory.join(if log.is_some() { "same_job" } else { "fixed" });
        fs::create_dir(&directory).expect("the directory takes directories");
        let address = free_address();
        let tls_address = certificate.map(|_| free_address());
        let tls =
            tls_address.zip(certificate).map_or(String::new(), |(address, Certificate { chain, key })| {
                format!(
                    "listen {address} ssl backlog=4096; ssl_protocols TLSv1.3; ssl_certificate {chain}; ssl_certificate_key {key};"
                )
            });
        // Only root has to say that its workers are to be this user too.
        let user = if rustix::process::geteuid().is_root() { "user root;" } else { "" };
        let here = directory.display();
        let configuration = format!(
            "daemon off;\n{user}\nworker_processes 1;\npid {here}/nginx.pid;\nerror_log {here}/error.log;\n{main}\n\
             events {{ worker_connections 4096; }}\n\
             http {{\n  {http}\n  server_tokens off;\n  keepalive_requests 1000000000;\n  keepalive_timeout 600s;\n\
             \x20 client_body_temp_path {here}/body;\n  proxy_temp_path {here}/proxy;\n  fastcgi_temp_path {here}/fastcgi;\n\
             \x20 uwsgi_temp_path {here}/uwsgi;\n  scgi_temp_path {here}/scgi;\n\
             \x20 server {{\n    listen {address} backlog=4096;\n    {tls}\n    location / {{ {location} }}\n  }}\n}}\n"
        );
        let path = directory.join("nginx.conf");
        fs::write(&path, configuration).expect("the directory takes files");
        let errors = directory.join("error.log");
        let mut command = Command::new("nginx");
        command.arg("-e").arg(&errors).arg("-p").arg(&directory).arg("-c").arg(&path);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut program = on_cores(&[SERVER], || Program::start(&mut command));
        let process = program.0.id();
        let worker = wait::until("nginx to have its worker", || {
            if program.0.try_wait().expect("a child can be looked at").is_some() {
                panic!("nginx ended: {}", fs::read_to_string(&errors).unwrap_or_default());
            }
            let children = fs::read_to_string(format!("/proc/{process}/task/{process}/children")).ok()?;
            children.split_whitespace().next()?.parse().ok()
        });
        wait::until("nginx to listen", || Connection::try_to(address).ok());
        Self { name, address, tls_address, process: worker, kind: Kind::Nginx(log), _program: Some(program) }
    }

    /// This very program, as `bare::serve`.
    pub fn bare() -> Self {
        let mut command = Command::new(std::env::current_exe().expect("a program knows its own path"));
        command.env(BARE_VARIABLE, "1").stdin(Stdio::null()).stdout(Stdio::piped());
        let mut program = on_cores(&[SERVER], || Program::start(&mut command));
        let mut line = String::new();
        let output = program.0.stdout.take().expect("its output is ours");
        BufReader::new(output).read_line(&mut line).expect("it says where it listens");
        let address = line.trim().parse().expect("it says its address");
        Self {
            name: BARE,
            address,
            tls_address: None,
            process: program.0.id(),
            kind: Kind::Bare,
            _program: Some(program),
        }
    }

    pub fn before(&self) -> Before {
        if let Kind::Nginx(Some(log)) = &self.kind {
            // nginx appends: what it writes next is the beginning.
            fs::File::options()
                .write(true)
                .open(log)
                .and_then(|log| log.set_len(0))
                .expect("the log is ours");
        }
        let metrics = match &self.kind {
            Kind::Smartlink(node) => Some(node.metrics()),
            _ => None,
        };
        Before { times: times(self.process), metrics }
    }

    /// What the process has had of its core since then, and how long it could have run and somebody else did.
    pub fn spent(&self, before: &Before) -> Times {
        let mut spent = Times::default();
        for (thread, now) in times(self.process) {
            // A thread that has ended takes its last few microseconds along.
            let before = before.times.get(&thread).copied().unwrap_or_default();
            spent.on_core += now.on_core - before.on_core;
            spent.in_line += now.in_line - before.in_line;
        }
        spent
    }

    /// That every click which was answered since then was what it should be, as far as the server itself tells; as many
    /// clicks as there were connections may have been cut off at the end.
    pub fn check(&self, before: &Before, sent: load::Sent, connections: u64) {
        let served = match &self.kind {
            Kind::Smartlink(node) => {
                let (before, now) = (before.metrics.as_ref().expect("it was scraped"), node.metrics());
                let clicks =
                    |metrics: &Metrics| (metrics.sum("smartlink_clicks_total"), metrics.clicks("offer"));
                let (all, offers) = (clicks(&now).0 - clicks(before).0, clicks(&now).1 - clicks(before).1);
                assert_eq!(all, offers, "some clicks reached no offer");
                let dropped = "smartlink_click_log_dropped_total";
                assert_eq!(now.sum(dropped), before.sum(dropped), "the disk was slower than the clicks");
                offers
            }
            Kind::Nginx(Some(log)) => wait::until("nginx to have written its clicks", || {
                let text = fs::read(log).expect("the log is ours");
                let redirects = memchr::memmem::find_iter(&text, br#""status":302,"#).count() as u64;
                let lines = memchr::memchr_iter(b'\n', &text).count() as u64;
                assert!(redirects >= lines, "nginx answered something else than redirects");
                (lines >= sent.requests).then_some(lines)
            }),
            Kind::Nginx(None) | Kind::Bare => return,
        };
        assert!(
            (sent.requests..=sent.requests + connections).contains(&served),
            "{}: {served} clicks served, {} counted by wrk",
            self.name,
            sent.requests
        );
    }

    /// Publishes a new table, all of it read and compiled.
    pub fn publish(&self, nth: u64) {
        let Kind::Smartlink(node) = &self.kind else { panic!("{} has no tables", self.name) };
        let fallback = format!("https://www.example.com/fallback{nth}");
        node.post(
            "update_smart_link.json",
            serde_json::json!({"smart_link_id": 1, "fallback_url": fallback}),
        );
        node.refresh_with("?force=true", 200);
    }

    pub fn generation(&self) -> u64 {
        let Kind::Smartlink(node) = &self.kind else { panic!("{} has no tables", self.name) };
        node.metrics().generation()
    }

    /// One click: that it is redirected as it should be, and in how many bytes.
    pub fn answer_bytes(&self, request: &str) -> usize {
        let answer = Connection::to(self.address).ask_raw(request);
        assert_eq!(answer.status, 302, "{}: {answer:?}", self.name);
        let location = answer.header("location").unwrap_or_default();
        assert!(location.contains(".example.com/landing?aff=7&r="), "{}: {location}", self.name);
        let headers: usize = answer.headers.iter().map(|(name, value)| name.len() + value.len() + 4).sum();
        answer.status_line.len() + 2 + headers + 2 + answer.bytes.len()
    }
}

impl Certificate {
    pub fn written_to(directory: &Path) -> Self {
        let (chain, key) = Authority::new().certificate("go.example.com");
        let write = |name: &str, text: String| {
            let path = directory.join(name);
            fs::write(&path, text).expect("the directory takes files");
            path.to_str().expect("a path in UTF-8").to_owned()
        };
        Self { chain: write("chain.pem", chain), key: write("key.pem", key) }
    }
}

/// Free a moment ago. If somebody else was quicker, the server says so and the run ends.
fn free_address() -> SocketAddr {
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("there is a free port");
    listener.local_addr().expect("it is bound")
}

impl Program {
    fn start(command: &mut Command) -> Self {
        Self(command.spawn().unwrap_or_else(|error| panic!("cannot run {command:?}: {error}")))
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // By SIGTERM, so that nginx ends its worker. It may have ended already.
        let process = rustix::process::Pid::from_child(&self.0);
        let _ = rustix::process::kill_process(process, rustix::process::Signal::TERM);
        let _ = self.0.wait();
    }
}

/// By thread.
fn times(process: u32) -> BTreeMap<u32, Times> {
    let tasks = fs::read_dir(format!("/proc/{process}/task")).expect("the server runs");
    let times = |task: std::io::Result<fs::DirEntry>| {
        let task = task.ok()?;
        let schedule = fs::read_to_string(task.path().join("schedstat")).ok()?;
        let mut nanos = schedule.split(' ').map(|field| field.parse().ok().map(Duration::from_nanos));
        let times = Times { on_core: nanos.next()??, in_line: nanos.next()?? };
        Some((task.file_name().to_str()?.parse().ok()?, times))
    };
    tasks.filter_map(times).collect()
}

/// Set for the process that is to be `bare::serve`.
pub const BARE_VARIABLE: &str = "SMARTLINK_COMPARE_BARE";
