//! The connection to the server or the cluster: runs scripts, and waits until the replicas have what they wrote.
//!
//! A script and the WAIT after it go out together, on one connection: WAIT tells of the writes of its own connection, so on
//! another, or on one that was made anew in between, it would promise what it does not know.

use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use redis::cluster::ClusterClientBuilder;
use redis::cluster_async::ClusterConnection;
use redis::cluster_routing::{
    MultipleNodeRoutingInfo, ResponsePolicy, Route, RoutingInfo, SingleNodeRoutingInfo, Slot, SlotAddr,
};
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ConnectionInfo, ErrorKind, IntoConnectionInfo,
    Pipeline, RedisConnectionInfo, RedisError, RedisResult, ServerErrorKind, Value,
};
use tokio::sync::Mutex;

use crate::ledger::error::LedgerError;

use super::lanes::{Answer, Lanes};
use super::options::ValkeyOptions;

pub(super) struct Link {
    options: ValkeyOptions,
    open: Mutex<Open>,
    lanes: Lanes,
}

#[derive(Default)]
struct Open {
    wire: Option<Wire>,
    /// When there was no connection the last time, and why: whoever waited for it is told, and does not try once more.
    refused: Option<(Instant, LedgerError)>,
    /// Whether it was looked at how the server keeps what is written.
    is_checked: bool,
}

#[derive(Clone)]
enum Wire {
    One(MultiplexedConnection),
    Cluster(ClusterConnection),
}

/// A script, and the name that servers which have seen it know it by.
pub(super) struct Script {
    code: String,
    hash: String,
}

impl Script {
    pub fn new(code: String) -> Self {
        let hash = redis::Script::new(&code).get_hash().to_owned();
        Self { code, hash }
    }
}

/// What a script is given.
#[derive(Clone, Debug, Default)]
pub(super) struct Call {
    /// All of one offer.
    pub keys: Vec<String>,
    pub arguments: Vec<String>,
}

impl Link {
    pub fn new(options: ValkeyOptions) -> Self {
        Self { options, open: Mutex::default(), lanes: Lanes::default() }
    }

    pub fn options(&self) -> &ValkeyOptions {
        &self.options
    }

    /// Runs a script that only reads.
    pub async fn read(&self, script: &Script, call: &Call) -> Result<Value, LedgerError> {
        self.run(script, call, 0).await
    }

    /// Runs a script that writes; when it returns, as many replicas have what was written as are to be waited for.
    pub async fn write(&self, script: &Script, call: &Call) -> Result<Value, LedgerError> {
        self.run(script, call, self.options.replicas_to_wait).await
    }

    async fn run(&self, script: &Script, call: &Call, replicas: usize) -> Result<Value, LedgerError> {
        let wire = self.wire().await?;
        let key = call.keys.first().map(String::as_str).unwrap_or_default();
        let answer = match self.ask(&wire, command("EVALSHA", &script.hash, call), key, replicas).await {
            Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                self.ask(&wire, command("EVAL", &script.code, call), key, replicas).await
            }
            answer => answer,
        };
        match answer {
            Ok((_, acknowledged)) if acknowledged < replicas => Err(self.remote(format!(
                "{acknowledged} of {replicas} replicas have what was written after {} ms; nothing is granted until they do \
                 (look at INFO replication of the server, or lower replicas_to_wait)",
                self.options.wait.as_millis()
            ))),
            Ok((value, _)) => Ok(value),
            Err(error) => {
                self.forsake(&error).await;
                Err(self.trouble(&error))
            }
        }
    }

    async fn ask(&self, wire: &Wire, command: Cmd, key: &str, replicas: usize) -> Answer {
        if replicas == 0 {
            let answers = self.send(wire.clone(), vec![command], key, 0).await;
            return answers.into_iter().next().unwrap_or_else(|| Ok((Value::Nil, 0)));
        }
        let slot = matches!(wire, Wire::Cluster(_)).then(|| Slot::for_key(key));
        self.lanes.send(slot, command, |commands| self.send(wire.clone(), commands, key, replicas)).await
    }

    /// Commands of one server, or of one slot, and one WAIT for all of them.
    async fn send(&self, wire: Wire, commands: Vec<Cmd>, key: &str, replicas: usize) -> Vec<Answer> {
        let asked = commands.len();
        let mut pipeline = Pipeline::new();
        for command in commands {
            pipeline.add_command(command);
        }
        if replicas > 0 {
            pipeline.cmd("WAIT").arg(replicas).arg(self.options.wait.as_millis() as u64);
        }
        // The errors of single commands come as their answers.
        pipeline.ignore_errors();
        let count = pipeline.len();
        let answered = match wire {
            Wire::One(mut connection) => connection.send_packed_commands(&pipeline, 0, count).await,
            Wire::Cluster(connection) => route(connection, pipeline, key).await,
        };
        let mut answers = match answered {
            Ok(answers) => answers,
            Err(error) => return vec![Err(error); asked],
        };
        let acknowledged = match answers.get(asked) {
            Some(Value::Int(number)) => usize::try_from(*number).unwrap_or(0),
            _ => 0,
        };
        answers.truncate(asked);
        let each = |answer| match answer {
            Value::ServerError(error) => Err(error.into()),
            value => Ok((value, acknowledged)),
        };
        answers.into_iter().map(each).collect()
    }

    async fn wire(&self) -> Result<Wire, LedgerError> {
        let mut open = self.open.lock().await;
        if let Some(wire) = &open.wire {
            return Ok(wire.clone());
        }
        if let Some((at, error)) = &open.refused
            && at.elapsed() < TRY_AGAIN
        {
            return Err(error.clone());
        }
        let wire = match tokio::time::timeout(CONNECT, self.connect()).await {
            Ok(connected) => connected.map_err(|error| self.trouble(&error)),
            Err(_) => Err(self.remote(format!(
                "there is no connection within {} ms; check that the server runs and that the address is right",
                CONNECT.as_millis()
            ))),
        };
        open.refused = wire.as_ref().err().map(|error| (Instant::now(), error.clone()));
        let wire = wire?;
        if !std::mem::replace(&mut open.is_checked, true) {
            self.check_durability(wire.clone()).await;
        }
        open.wire = Some(wire.clone());
        Ok(wire)
    }

    async fn connect(&self) -> RedisResult<Wire> {
        let patience = self.options.wait + PATIENCE;
        let places: Vec<ConnectionInfo> = self
            .options
            .servers
            .iter()
            .map(|(host, port)| {
                let place = ConnectionAddr::Tcp(host.clone(), *port).into_connection_info()?;
                Ok(place.set_redis_settings(self.login()))
            })
            .collect::<RedisResult<_>>()?;
        if self.options.is_cluster {
            let mut cluster = ClusterClientBuilder::new(places)
                .connection_timeout(CONNECT)
                .response_timeout(patience)
                // A node repeats its request itself.
                .retries(2);
            if let Some(username) = &self.options.username {
                cluster = cluster.username(username);
            }
            if let Some(password) = &self.options.password {
                cluster = cluster.password(password);
            }
            return Ok(Wire::Cluster(cluster.build()?.get_async_connection().await?));
        }
        let Some(place) = places.into_iter().next() else {
            return Err((ErrorKind::InvalidClientConfig, "no server is named").into());
        };
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT))
            .set_response_timeout(Some(patience));
        let client = Client::open(place)?;
        Ok(Wire::One(client.get_multiplexed_async_connection_with_config(&config).await?))
    }

    fn login(&self) -> RedisConnectionInfo {
        let mut login = RedisConnectionInfo::default().set_db(self.options.database).set_skip_set_lib_name();
        if let Some(username) = &self.options.username {
            login = login.set_username(username);
        }
        if let Some(password) = &self.options.password {
            login = login.set_password(password);
        }
        login
    }

    /// Warns where a server may forget what it granted: with its power, or to make room. One that does not let itself be asked says
    /// nothing, as those that somebody else runs.
    async fn check_durability(&self, wire: Wire) {
        let mut command = redis::cmd("CONFIG");
        command.arg("GET").arg("append*").arg("maxmemory*");
        let asked = async {
            match wire {
                Wire::One(mut connection) => connection.send_packed_command(&command).await,
                Wire::Cluster(mut connection) => {
                    let all = MultipleNodeRoutingInfo::AllMasters;
                    let one = Some(ResponsePolicy::OneSucceeded);
                    connection.route_command(command, RoutingInfo::MultiNode((all, one))).await
                }
            }
        };
        let Ok(Ok(answer)) = tokio::time::timeout(CONNECT, asked).await else { return };
        let Ok(settings) = redis::from_redis_value::<std::collections::HashMap<String, String>>(answer)
        else {
            return;
        };
        let is = |name, value| settings.get(name).is_none_or(|found| found == value);
        if !is("appendonly", "yes") || !is("appendfsync", "always") {
            tracing::warn!(
                "the server of the ledger at {} does not sync its append-only file with each write: when it loses its power, \
                 it may forget what it granted; set `appendonly yes` and `appendfsync always` there",
                self.options
            );
        }
        if !is("maxmemory", "0") && !is("maxmemory-policy", "noeviction") {
            tracing::warn!(
                "the server of the ledger at {} may evict what it knows of caps, which begins them anew; set `maxmemory-policy \
                 noeviction` there",
                self.options
            );
        }
    }

    /// Connects anew with the next call, where this connection is of no use any more. That to a cluster mends itself.
    async fn forsake(&self, error: &RedisError) {
        let is_replica = error.kind() == ErrorKind::Server(ServerErrorKind::ReadOnly);
        let mut open = self.open.lock().await;
        if matches!(open.wire, Some(Wire::One(_))) && (!is_of_server(error) || is_replica) {
            open.wire = None;
        }
    }

    fn trouble(&self, error: &RedisError) -> LedgerError {
        self.remote(match error.kind() {
            ErrorKind::AuthenticationFailed => {
                "the server refuses the user or the password; check both in the address".to_owned()
            }
            ErrorKind::Server(ServerErrorKind::ReadOnly) => {
                "the server is a replica; name the primary in the address".to_owned()
            }
            ErrorKind::Server(ServerErrorKind::NoPerm) => format!(
                "the user may not do what the ledger needs ({}); allow it all commands on the keys smartlink:*",
                error.detail().unwrap_or_default()
            ),
            ErrorKind::Server(ServerErrorKind::ClusterDown) => {
                "the cluster is down; look at CLUSTER INFO of its servers".to_owned()
            }
            _ if error.code() == Some("NOAUTH") => {
                "the server asks for a password, and the address has none".to_owned()
            }
            _ if error.is_timeout() => "the server did not answer in time".to_owned(),
            _ if !is_of_server(error) => {
                format!("{error}; check that the server runs and that the address is right")
            }
            _ => error.to_string(),
        })
    }

    fn remote(&self, problem: String) -> LedgerError {
        LedgerError::Remote { at: self.options.to_string(), problem }
    }
}

async fn route(mut cluster: ClusterConnection, pipeline: Pipeline, key: &str) -> RedisResult<Vec<Value>> {
    let to = SingleNodeRoutingInfo::SpecificNode(Route::with_key(key, SlotAddr::Master));
    let count = pipeline.len();
    let answered = cluster.route_pipeline(pipeline, 0, count, to.clone()).await;
    let is_error = |answer: &Value| matches!(answer, Value::ServerError(_));
    if answered.as_ref().map_or(true, |answers| answers.iter().any(is_error)) {
        // A pipeline does not follow a slot that has moved. A command does, and learns where it is.
        let mut exists = redis::cmd("EXISTS");
        exists.arg(key);
        let looked = cluster.route_command(exists, RoutingInfo::SingleNode(to));
        let _ = tokio::time::timeout(CONNECT, looked).await;
    }
    answered
}

fn command(name: &str, script: &str, call: &Call) -> Cmd {
    let mut command = redis::cmd(name);
    command.arg(script).arg(call.keys.len()).arg(&call.keys).arg(&call.arguments);
    command
}

fn is_of_server(error: &RedisError) -> bool {
    matches!(error.kind(), ErrorKind::Server(_) | ErrorKind::Extension)
}

/// Less than a node waits for an answer.
const CONNECT: Duration = Duration::from_millis(800);

/// After a connection that was refused.
const TRY_AGAIN: Duration = Duration::from_millis(100);

/// How long an answer may take, beside what replicas may.
const PATIENCE: Duration = Duration::from_millis(500);
