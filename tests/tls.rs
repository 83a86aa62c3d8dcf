//! Whom a node believes to be its upstream: whoever has a certificate of the system's roots or of `upstream.ca_file`,
//! for the right name and in time; and whom the commands believe, by `--ca-file`. Certificates are made here, for a
//! stub or a node behind TLS.

mod command;
mod support;

use std::path::Path;

use command::Desk;
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
    let front = authority.front(stub.address, "localhost", Validity::Now);
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
        let front = ours.front(stub.address, name, validity);
        let node = node_of(&front, ca_file);
        let reason = node.failed_refresh();
        assert!(reason.contains("offers.json") && reason.contains("certificate"), "{how}: {reason}");
        assert_eq!((node.readyz(), node.metrics().generation()), (503, 0), "{how}");
        assert!(!node.log().contains("canary-of-tls"), "{how}");
    }
    assert_eq!(stub.asked(), 0, "no call went through");
}

#[test]
fn commands_believe_a_private_authority_when_it_is_named() {
    let (node, authority, desk) = (Setup::demo().start_ready(), Authority::new(), Desk::new());
    let front = authority.front(node.admin, "localhost", Validity::Now);
    let (url, key, file) = (front.url(), node.key(), authority.file());
    let ca_file = file.path().to_str().unwrap();
    let variables = [("SMARTLINK_API_URL", url.as_str()), ("SMARTLINK_API_KEY", key.as_str())];
    for (command, said) in [
        (&["link", "list"][..], "Finance Rotator"),
        (&["offer", "list"], "Personal Loan"),
        (&["rule", "list"], "country in GB"),
        (&["geo-target", "list"], "1045"),
        (&["link", "attach", "--smart-link-id", "301", "--offer-id", "1045"], "offer 1045 attached"),
        (&["export", "network.toml"], ""),
        (&["import", "network.toml"], "smart_link_offers"),
    ] {
        desk.run_with(&variables, command).fails_saying(&[&url, "certificate", "--ca-file"]);
        let told = desk.run_with(&variables, &[command, &["--ca-file", ca_file]].concat());
        assert_eq!((told.code, told.stderr.as_str()), (Some(0), ""), "{command:?}: {told:?}");
        assert!(told.stdout.contains(said), "{command:?}: {told:?}");
        let of_file = std::fs::read_to_string(desk.path("network.toml")).unwrap_or_default();
        assert!(command[0] != "export" || of_file.contains("Finance Rotator"), "{of_file}");
    }
    let with_variable = [&variables[..], &[("SMARTLINK_CA_FILE", ca_file)]].concat();
    let told = desk.run_with(&with_variable, &["link", "list"]);
    assert!(told.code == Some(0) && told.stdout.contains("Finance Rotator"), "{told:?}");

    // Another upstream without a word on TLS is what it was: --ca-file says nothing there.
    let plain = format!("http://{}", node.admin);
    let list = ["link", "list", "--upstream", plain.as_str(), "--ca-file", "nowhere.pem"];
    assert_eq!(desk.run_with(&variables, &list).code, Some(0));
}

#[test]
fn a_ca_file_that_cannot_be_used_is_named() {
    let (desk, variables) = (Desk::new(), [("SMARTLINK_API_KEY", "canary-of-tls")]);
    desk.file("empty.pem", "");
    // Nobody is asked: the file is read first.
    for (path, said) in [("nowhere.pem", "No such file"), ("empty.pem", "holds no certificate")] {
        let list = ["link", "list", "--upstream", "https://cake.example.com", "--ca-file", path];
        desk.run_with(&variables, &list).fails_saying(&[path, "--ca-file", said]);
        let serve = ["serve", "--upstream", "https://cake.example.com", "--ca-file", path];
        let on_free_ports = ["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
        desk.run_with(&variables, &[&serve[..], &on_free_ports].concat()).fails_saying(&[
            path,
            "--ca-file",
            said,
        ]);
    }
}

#[test]
fn a_node_takes_the_flag_before_its_configuration() {
    let (stub, ours, other) = (Stub::start(), Authority::new(), Authority::new());
    let front = ours.front(stub.address, "localhost", Validity::Now);
    let (our_file, other_file) = (ours.file(), other.file());
    let setup = Setup::of_upstream(&front.url(), "canary-of-tls")
        .setting(&format!("upstream.ca_file = {:?}", other_file.path().to_str().unwrap()));
    let node = setup.flag("--ca-file").flag(our_file.path().to_str().unwrap()).start_ready();
    assert_eq!(node.click(CLICK).destination(), "ten.example.com");
}
