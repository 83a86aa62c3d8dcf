//! Whom a node believes to be its upstream: whoever has a certificate of the system's roots or of `upstream.ca_file`,
//! for the right name and in time. Certificates are made here, for a stub behind TLS.

mod support;

use std::path::Path;

use support::certificate::{Authority, Front, Validity};
use support::node::{Node, Setup};
use support::stub::Stub;

const CLICK: &str = "/sl?id=1&aff_id=7";

/// A node whose upstream is behind TLS, with this file of authorities.
fn node_of(front: &Front, ca_file: Option<&Path>) -> Node {
    let mut setup = Setup::of_upstream(&front.url(), "canary-of-tls");
    if let Some(path) = ca_file {
        setup = setup.setting(&format!("upstream.ca_file = {:?}", path.to_str().unwrap()));
    }
    setup.start()
}

#[test]
fn a_private_authority_is_believed_when_it_is_named() {
    let (stub, authority) = (Stub::start(), Authority::new());
    let front = authority.front(&stub, "localhost", Validity::Now);
    let file = authority.file();
    let node = node_of(&front, Some(file.path()));
    node.wait_ready();
    assert_eq!(node.click(CLICK).destination(), "ten.example.com");
}

#[test]
fn whatever_is_not_certain_is_refused() {
    let stub = Stub::start();
    let (ours, other) = (Authority::new(), Authority::new());
    let (our_file, other_file) = (ours.file(), other.file());
    for (how, name, validity, ca_file) in [
        ("not named", "localhost", Validity::Now, None),
        ("another authority", "localhost", Validity::Now, Some(other_file.path())),
        ("expired", "localhost", Validity::Expired, Some(our_file.path())),
        ("not yet valid", "localhost", Validity::NotYet, Some(our_file.path())),
        ("another name", "upstream.example.com", Validity::Now, Some(our_file.path())),
    ] {
        let front = ours.front(&stub, name, validity);
        let node = node_of(&front, ca_file);
        let reason = node.failed_refresh();
        assert!(reason.contains("offers.json") && reason.contains("certificate"), "{how}: {reason}");
        assert_eq!((node.readyz(), node.metrics().generation()), (503, 0), "{how}");
        assert!(!node.log().contains("canary-of-tls"), "{how}");
    }
    assert_eq!(stub.asked(), 0, "no call went through");
}
