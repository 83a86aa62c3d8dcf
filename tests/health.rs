//! `smartlink health`, as a container runtime calls it: an exit code, and a word for people.

mod command;
mod support;

use std::net::{SocketAddr, TcpListener};

use command::{Desk, Told};
use support::node::Setup;

/// Asks the node on this address.
fn health(desk: &Desk, admin: SocketAddr, more: &[&str]) -> Told {
    let admin = admin.to_string();
    desk.run(&[&["health", "--admin", &admin], more].concat())
}

#[test]
fn a_node_is_ready_until_it_drains() {
    let (desk, node) = (Desk::new(), Setup::demo().setting("edge.goodbye_seconds = 60.0").start_ready());
    for more in [&[][..], &["--live"]] {
        let told = health(&desk, node.admin, more);
        assert_eq!((told.code, told.stderr.as_str()), (Some(0), ""), "{told:?}");
        assert_eq!(told.stdout, if more.is_empty() { "ready\n" } else { "alive\n" });
    }
    node.signal("TERM");
    node.wait_for_log(&["draining"]);
    let told = health(&desk, node.admin, &[]);
    assert_eq!((told.code, told.stdout.as_str()), (Some(1), "not ready: draining\n"), "{told:?}");
    assert_eq!(health(&desk, node.admin, &["--live"]).code, Some(0));
}

#[test]
fn a_node_without_a_table_lives_and_is_not_ready() {
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (desk, node) = (Desk::new(), Setup::of_upstream(&format!("http://{gone}"), "k").start());
    let told = health(&desk, node.admin, &[]);
    assert_eq!((told.code, told.stdout.as_str()), (Some(1), "not ready: no table is live yet\n"), "{told:?}");
    assert_eq!(health(&desk, node.admin, &["--live"]).code, Some(0));
}

#[test]
fn where_nobody_answers_it_says_so_and_is_not_well() {
    let (desk, silent) = (Desk::new(), TcpListener::bind("127.0.0.1:0").unwrap());
    let told = health(&desk, silent.local_addr().unwrap(), &["--timeout", "0.2"]);
    assert_eq!((told.code, told.stdout.as_str()), (Some(1), ""), "{told:?}");
    assert!(told.stderr.starts_with("smartlink: no node answers on 127.0.0.1:"), "{told:?}");
    let gone = silent.local_addr().unwrap();
    drop(silent);
    let told = health(&desk, gone, &[]);
    assert_eq!(told.code, Some(1), "{told:?}");
    assert!(told.stderr.contains("no node answers on") && told.stderr.lines().count() == 1, "{told:?}");
}

#[test]
fn the_address_is_that_of_the_node_wherever_it_is_configured() {
    // On every address of the machine, which is none that can be asked.
    let everywhere = ([0, 0, 0, 0], 0).into();
    let setup =
        Setup::demo().variable("SMARTLINK_ADMIN_TOKEN", "t").on(([127, 0, 0, 1], 0).into(), everywhere);
    let (desk, node) = (Desk::new(), setup.start_ready());
    let listen = format!("0.0.0.0:{}", node.admin.port());
    // Neither a token nor anything else that the node needs is at hand.
    let file = format!("[admin]\nlisten = \"{listen}\"\ntoken_file = \"absent\"\n");
    let of_file = desk.run(&["health", "--config", desk.file("smartlink.toml", file)]);
    assert_eq!(of_file.code, Some(0), "{of_file:?}");
    let of_variable = desk.run_with(&[("SMARTLINK_ADMIN", &listen)], &["health"]);
    assert_eq!(of_variable.code, Some(0), "{of_variable:?}");
    let wrong = desk.run(&["health", "--admin", "9180"]);
    assert_eq!(wrong.code, Some(1), "{wrong:?}");
    assert!(wrong.stderr.contains("--admin (SMARTLINK_ADMIN) is \"9180\""), "{wrong:?}");
}
