//! By which names a node may be asked for what it tells without a token. A site whose name was pointed at this machine's address (DNS
//! rebinding) is of the same origin as itself: the page of a stranger could read whatever answers to that name. It is told by the
//! name, which a browser sends and no page can change. Addresses and localhost nobody can point elsewhere.

use std::sync::Arc;

use http::{HeaderMap, header};
use url::{Host, Url};

/// The names that an operator has given, besides those that are nobody else's.
#[derive(Clone, Debug, Default)]
pub struct Hosts(Arc<[String]>);

impl Hosts {
    /// Without port, as in `admin.hosts`.
    pub fn new(names: Vec<String>) -> Self {
        Self(names.into())
    }

    /// Why a request is not answered where no token is asked for, if so: a sentence that says what to do.
    pub fn refusal(&self, headers: &HeaderMap) -> Option<&'static str> {
        match authority(headers).and_then(host_of) {
            None => Some(NAMELESS),
            Some(host) if is_local(&host) || self.has(&host) => None,
            Some(_) => Some(STRANGE),
        }
    }

    /// Whether the operator has given it.
    pub fn has(&self, host: &Host) -> bool {
        match host {
            Host::Domain(name) => self.0.iter().any(|known| known.eq_ignore_ascii_case(name)),
            Host::Ipv4(_) | Host::Ipv6(_) => false,
        }
    }
}

/// The host that a request names, and its port if it has one. `None`: it names none, several, or what is no host.
pub fn authority(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(header::HOST).iter();
    let (value, others) = (values.next()?, values.next());
    let authority = value.to_str().ok().filter(|_| others.is_none())?;
    host_of(authority).map(|_| authority)
}

fn host_of(authority: &str) -> Option<Host> {
    let url = Url::parse(&format!("http://{authority}/")).ok()?;
    let is_bare = url.username().is_empty() && url.password().is_none() && url.path() == "/";
    is_bare.then(|| url.host().map(|host| host.to_owned()))?
}

/// No name that somebody else could point here.
fn is_local(host: &Host) -> bool {
    match host {
        Host::Domain(name) => {
            let name = name.strip_suffix('.').unwrap_or(name);
            name == "localhost" || name.ends_with(".localhost")
        }
        Host::Ipv4(_) | Host::Ipv6(_) => true,
    }
}

const NAMELESS: &str = "The request names no host, or what is none: send one Host header, with the node's address, localhost, or a name in \
                        admin.hosts.";

const STRANGE: &str = "This node is asked for by a name that it does not know. Without a token it answers to localhost, to addresses and \
                       to the names in admin.hosts: any other may have been pointed here by a stranger. Ask by its address, or name it there.";

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn names_that_nobody_else_could_point_here() {
        for (host, local) in [
            ("localhost:9180", true),
            ("LOCALHOST", true),
            ("localhost.", true),
            ("console.localhost:1", true),
            ("127.0.0.1:9180", true),
            ("[::1]:9180", true),
            ("192.0.2.7", true),
            ("rebound.example.com:9180", false),
            ("localhost.example.com", false),
            ("127.0.0.1.example.com", false),
            ("notlocalhost", false),
        ] {
            assert_eq!(host_of(host).map(|host| is_local(&host)), Some(local), "{host}");
        }
        for host in ["", "a b", "a@localhost", "localhost/x", "localhost:x"] {
            assert_eq!(host_of(host), None, "{host:?}");
        }
    }

    #[test]
    fn who_asks_by_a_name_that_a_stranger_may_have_pointed_here_is_refused() {
        let hosts = Hosts::new(vec!["console.example.com".to_owned()]);
        let refusal = |named: &[&'static str]| {
            let named = named.iter().map(|name| (header::HOST, HeaderValue::from_static(name)));
            hosts.refusal(&named.collect())
        };
        for known in
            ["localhost:9180", "127.0.0.1", "[::1]:9180", "192.0.2.7:9180", "Console.Example.Com:9180"]
        {
            assert_eq!(refusal(&[known]), None, "{known}");
        }
        for strange in ["rebound.example.com", "rebound.example.com:9180", "example.com", "smartlink-1:9180"]
        {
            assert_eq!(refusal(&[strange]), Some(STRANGE), "{strange}");
        }
        for wrong in [&[][..], &["localhost", "localhost"], &["a b"]] {
            assert_eq!(refusal(wrong), Some(NAMELESS), "{wrong:?}");
        }
    }
}
