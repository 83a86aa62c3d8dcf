//! Where a ledger on Valkey or Redis is, and how sure it is to be of what it wrote.

use std::fmt;
use std::time::Duration;

use percent_encoding::percent_decode_str;

/// What [`ValkeyOptions::parse`] reads out of an address.
#[derive(Clone, PartialEq, Eq)]
pub struct ValkeyOptions {
    /// Host and port: one server, or some of a cluster.
    pub servers: Vec<(String, u16)>,
    pub is_cluster: bool,
    pub username: Option<String>,
    pub password: Option<String>,
    pub database: i64,
    /// How many replicas must have what is granted before it is answered.
    pub replicas_to_wait: usize,
    /// How long they may take.
    pub wait: Duration,
    /// For how long nothing is granted of an offer whose server has become another, or was started anew.
    pub learning: Duration,
}

impl ValkeyOptions {
    /// `redis://[user:password@]host[:port][/database]` is one server, `redis+cluster://[user:password@]host[:port],…` a
    /// cluster; `valkey` may be written for `redis`. `?replicas_to_wait=`, `wait_ms=` and `learning_ms=` may follow.
    pub fn parse(address: &str) -> Result<Self, String> {
        let (scheme, rest) = address.split_once("://").ok_or_else(|| {
            "an address of Valkey or Redis begins with redis:// or redis+cluster://".to_owned()
        })?;
        let is_cluster = match scheme {
            "redis" | "valkey" => false,
            "redis+cluster" | "valkey+cluster" => true,
            "rediss" | "valkeys" | "rediss+cluster" | "valkeys+cluster" => {
                return Err(format!(
                    "{scheme}:// is not supported: this version speaks no TLS to Valkey or Redis; use redis:// within a \
                     private network, or through a tunnel"
                ));
            }
            _ => {
                return Err(format!(
                    "{scheme}:// is none of redis://, redis+cluster://, valkey://, valkey+cluster://"
                ));
            }
        };
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        // The last one: a password that was not encoded may have one, too.
        let (user, places) =
            rest.rsplit_once('@').map_or((None, rest), |(user, places)| (Some(user), places));
        let (hosts, database) = places.split_once('/').unwrap_or((places, ""));
        let (username, password) = user.map_or(Ok((None, None)), credentials)?;
        let mut options = Self {
            servers: hosts.split(',').map(server).collect::<Result<_, _>>()?,
            is_cluster,
            username,
            password,
            database: match database {
                "" => 0,
                number => number
                    .parse()
                    .ok()
                    .filter(|number| (0..=65_535).contains(number))
                    .ok_or_else(|| format!("`{number}` is no number of a database"))?,
            },
            replicas_to_wait: 0,
            wait: WAIT,
            learning: LEARNING,
        };
        if !is_cluster && options.servers.len() > 1 {
            return Err(
                "redis:// names one server; redis+cluster:// may name several of a cluster".to_owned()
            );
        }
        if is_cluster && options.database != 0 {
            return Err("a cluster has one database only: leave out what follows the last `/`".to_owned());
        }
        for setting in query.split('&').filter(|setting| !setting.is_empty()) {
            options.set(setting)?;
        }
        Ok(options)
    }

    fn set(&mut self, setting: &str) -> Result<(), String> {
        let (name, value) = setting.split_once('=').unwrap_or((setting, ""));
        let number = |max: u64| {
            let number = value.parse().ok().filter(|number: &u64| *number <= max);
            number.ok_or_else(|| format!("`{name}` is a number up to {max}, not `{value}`"))
        };
        match name {
            "replicas_to_wait" => self.replicas_to_wait = number(10)? as usize,
            // WAIT takes 0 for ever.
            "wait_ms" => self.wait = Duration::from_millis(number(900)?.max(1)),
            "learning_ms" => self.learning = Duration::from_millis(number(600_000)?),
            _ => return Err(format!("`{name}` is none of replicas_to_wait, wait_ms, learning_ms")),
        }
        Ok(())
    }
}

/// Without the password.
impl fmt::Display for ValkeyOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_cluster { "redis+cluster://" } else { "redis://" })?;
        for (place, (host, port)) in self.servers.iter().enumerate() {
            let comma = if place == 0 { "" } else { "," };
            match host.contains(':') {
                true => write!(f, "{comma}[{host}]:{port}")?,
                false => write!(f, "{comma}{host}:{port}")?,
            }
        }
        match self.database {
            0 => Ok(()),
            database => write!(f, "/{database}"),
        }
    }
}

impl fmt::Debug for ValkeyOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ValkeyOptions({self}, replicas_to_wait {})", self.replicas_to_wait)
    }
}

fn server(text: &str) -> Result<(String, u16), String> {
    let wrong = || format!("`{text}` is no host and port of a server");
    let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, "")) => (host, PORT),
        Some((host, port)) => {
            (host, port.strip_prefix(':').and_then(|port| port.parse().ok()).ok_or_else(wrong)?)
        }
        None => match text.split_once(':') {
            Some((host, port)) => (host, port.parse().map_err(|_| wrong())?),
            None => (text, PORT),
        },
    };
    match host.is_empty() || port == 0 {
        true => Err(wrong()),
        false => Ok((host.to_owned(), port)),
    }
}

type Credentials = (Option<String>, Option<String>);

fn credentials(text: &str) -> Result<Credentials, String> {
    let decoded = |part: &str| match part {
        "" => Ok(None),
        part => percent_decode_str(part)
            .decode_utf8()
            .map(|text| Some(text.into_owned()))
            .map_err(|_| "the user or the password of the address is no UTF-8".to_owned()),
    };
    let (user, password) = text.split_once(':').unwrap_or((text, ""));
    Ok((decoded(user)?, decoded(password)?))
}

const PORT: u16 = 6379;

/// Less than a node waits for an answer.
const WAIT: Duration = Duration::from_millis(400);

/// Nodes tell what they hold twice in that time.
const LEARNING: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_shown_without_their_passwords() {
        let options =
            ValkeyOptions::parse("redis://me:p%40ss@db.internal:7000/3?replicas_to_wait=2").unwrap();
        assert_eq!(options.servers, [("db.internal".to_owned(), 7000)]);
        assert_eq!((options.username.as_deref(), options.password.as_deref()), (Some("me"), Some("p@ss")));
        assert_eq!((options.database, options.replicas_to_wait, options.is_cluster), (3, 2, false));
        assert_eq!(options.to_string(), "redis://db.internal:7000/3");
        assert!(!format!("{options:?}").contains("ss@"));

        let cluster = ValkeyOptions::parse("valkey+cluster://:secret@a:7000,b,[::1]:7002").unwrap();
        assert!(cluster.is_cluster);
        assert_eq!((cluster.username.as_deref(), cluster.password.as_deref()), (None, Some("secret")));
        assert_eq!(cluster.to_string(), "redis+cluster://a:7000,b:6379,[::1]:7002");
    }

    #[test]
    fn what_is_wrong_is_said_without_the_password() {
        for (address, said) in [
            ("host:6379", "begins with redis://"),
            ("http://host", "is none of"),
            ("rediss://host", "no TLS"),
            ("redis://a,b", "names one server"),
            ("redis+cluster://a/1", "one database"),
            ("redis://:secret@host:port", "no host and port"),
            ("redis://:secret@/0", "no host and port"),
            ("redis://:secret@host/x", "no number of a database"),
            ("redis://:secret@host?wait_ms=1000", "up to 900"),
            ("redis://:secret@host?color=red", "none of replicas_to_wait"),
        ] {
            let error = ValkeyOptions::parse(address).unwrap_err();
            assert!(error.contains(said), "{address}: {error}");
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
