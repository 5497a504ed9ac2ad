//! `portway relay` as its operator has it: the real binary, and coturn's client as a user.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod running;

use std::os::unix::fs::PermissionsExt as _;

use running::{Relay, SECRET, Talker};
use serde_json::Value;

#[test]
fn an_operator_sees_who_is_there_and_ends_one_session() {
    let relay = Relay::start(&["--listen", "udp://127.0.0.1:0"]);
    let quiet = relay.ask(&["status"]);
    assert_eq!((&quiet["v"], &quiet["allocations"]), (&1.into(), &0.into()));
    assert_eq!(quiet["listeners"][0]["transport"], "udp");
    assert_eq!(quiet["realm"], "portway");
    let _ann = Talker::start(&relay, "ann");
    let busy = relay.until(|status| talking(status).is_some());
    let session = talking(&busy).unwrap();
    assert_eq!(
        (&session["user"], &session["transport"]),
        (&"ann".into(), &"udp".into())
    );
    assert!(
        session["client"]
            .as_str()
            .unwrap()
            .starts_with("127.0.0.1:")
    );
    assert!(session["expires_in_s"].as_u64().unwrap() <= 600);
    let table = relay.told(&["status"]);
    let id = session["session"].as_str().unwrap();
    assert!(table.contains(id) && table.contains("ann"), "{table}");

    let ended = relay.ask(&["revoke", id]);
    assert_eq!(
        (&ended["revoked"], &ended["user"]),
        (&"session".into(), &"ann".into())
    );
    let refused = relay.command(&["revoke", id]);
    assert_eq!(refused.status.code(), Some(1));
    let left = relay.ask(&["status"]);
    let is_left = |session: &Value| session["session"] == id;
    assert!(!left["sessions"].as_array().unwrap().iter().any(is_left));
}

#[test]
fn a_revoked_name_is_out_and_stays_out() {
    let relay = Relay::start(&["--listen", "udp://127.0.0.1:0"]);
    let ann = Talker::start(&relay, "ann");
    let bob = Talker::start(&relay, "bob");
    relay.until(|status| {
        ["ann", "bob"]
            .iter()
            .all(|name| sessions_of(status, name) > 0)
    });
    let revoked = relay.ask(&["revoke", "ann", "--lifetime", "10m"]);
    assert!(revoked["ended"].as_u64().unwrap() > 0, "{revoked}");
    assert_eq!(revoked["has_password"], false);
    let after = relay.ask(&["status"]);
    assert_eq!(sessions_of(&after, "ann"), 0);
    assert!(sessions_of(&after, "bob") > 0, "{after}");
    assert_eq!(after["revocations"], 1);
    let said = ann.tries_again(&relay);
    assert!(said.contains("Cannot complete Allocation"), "{said}");
    let said = bob.tries_again(&relay);
    assert!(!said.contains("Cannot complete Allocation"), "{said}");
    assert!(!relay.told(&["status"]).contains(SECRET));
}

#[test]
fn a_scrape_tells_what_a_user_passes_while_it_does() {
    let relay = Relay::configured("metrics = \"127.0.0.1:0\"\nper_user_metrics = true\n");
    let _ann = Talker::start(&relay, "ann");
    relay.until(|status| talking(status).is_some());
    let first = relay.scrape();
    let passed = "portway_relay_user_bytes_to_peers_total{user=\"ann\"}";
    assert!(value(&first, passed) > 0, "{first}");
    assert!(value(&first, "portway_relay_allocations{transport=\"udp\"}") > 0);
    assert!(value(&first, "portway_relay_refused_total{code=\"401\"}") > 0);
    let more = relay.until(|_| value(&relay.scrape(), passed) > value(&first, passed));
    let live = relay.ask(&["revoke", "ann"])["ended"].as_u64().unwrap();
    assert!(live > 0, "{more}");
    let last = relay.scrape();
    let ended = "portway_relay_allocations_ended_total{reason=\"revoked\"}";
    assert_eq!(value(&last, ended), live);
    assert_eq!(
        value(&last, "portway_relay_user_allocations{user=\"ann\"}"),
        0
    );
    assert!(
        value(&last, passed) > value(&first, passed),
        "it never falls"
    );
}

#[test]
fn a_relay_that_drains_ends_with_its_last_client() {
    let mut relay = Relay::start(&["--listen", "udp://127.0.0.1:0", "--drain", "1h"]);
    let ann = Talker::start(&relay, "ann");
    relay.until(|status| talking(status).is_some());
    relay.signal("TERM");
    let before = relay.until(|status| status["draining"] == true);
    let said = ann.tries_again(&relay);
    assert!(said.contains("508"), "nobody new is let in: {said}");
    relay.until(|status| passed(status) > passed(&before));
    assert!(relay.is_running());
    relay.ask(&["revoke", "ann"]);
    assert_eq!(relay.ended().code(), Some(0));
    assert!(relay.log().contains("draining"), "{}", relay.log());
}

#[test]
fn a_drain_has_an_end() {
    let mut relay = Relay::configured("drain = \"1s\"\n");
    let _ann = Talker::start(&relay, "ann");
    relay.until(|status| talking(status).is_some());
    relay.signal("TERM");
    assert_eq!(relay.ended().code(), Some(0));
    assert!(relay.log().contains("cut off"), "{}", relay.log());
}

#[test]
fn a_second_signal_does_not_wait() {
    for (second, code) in [("TERM", 0), ("INT", 130)] {
        let mut relay = Relay::start(&["--listen", "udp://127.0.0.1:0", "--drain", "1h"]);
        let _ann = Talker::start(&relay, "ann");
        relay.until(|status| talking(status).is_some());
        relay.signal("TERM");
        relay.until(|status| status["draining"] == true);
        relay.signal(second);
        assert_eq!(relay.ended().code(), Some(code));
    }
}

#[test]
fn a_relay_without_clients_ends_at_once() {
    let mut relay = Relay::start(&["--listen", "udp://127.0.0.1:0", "--drain", "1h"]);
    relay.signal("TERM");
    assert_eq!(relay.ended().code(), Some(0));
}

#[test]
fn the_control_socket_is_private_and_leaves_with_the_relay() {
    let relay = Relay::start(&["--listen", "udp://127.0.0.1:0"]);
    let socket = relay.state().join("relay.sock");
    assert_eq!(relay.ready["control"], socket.display().to_string());
    let mode = std::fs::metadata(&socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    // A second one on the same directory relays, without a word for its operator.
    let second = Relay::start_in(relay.home.clone(), &["--listen", "udp://127.0.0.1:0"]);
    assert!(second.ready.get("control").is_none(), "{}", second.ready);
    let listening = &relay.ask(&["status"])["listeners"][0]["address"];
    let url = relay.ready["relay"][0].as_str().unwrap();
    assert!(url.contains(listening.as_str().unwrap()), "{url}");
    drop(second);
    assert!(socket.exists());

    assert_eq!(relay.end("INT").code(), Some(130));
    assert!(!socket.exists());
}

#[test]
fn without_a_relay_the_operator_is_told_what_to_do() {
    let relay = Relay::start(&["--listen", "udp://127.0.0.1:0"]);
    let elsewhere = relay.home.path().join("elsewhere");
    let output = running::portway()
        .args(["relay", "status", "--state"])
        .arg(elsewhere)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(69));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        said.contains("no relay runs on") && said.contains("--state"),
        "{said}"
    );
}

fn passed(status: &Value) -> u64 {
    status["bytes_to_peers"].as_u64().unwrap()
}

/// A value of a scrape.
fn value(scrape: &str, name: &str) -> u64 {
    let line = scrape.lines().find(|line| line.starts_with(name));
    let value = line.and_then(|line| line.rsplit(' ').next());
    value
        .unwrap_or_else(|| panic!("{name} in {scrape}"))
        .parse()
        .unwrap()
}

fn sessions_of(status: &Value, user: &str) -> usize {
    let sessions = status["sessions"].as_array().unwrap();
    let theirs = sessions.iter().filter(|session| session["user"] == user);
    theirs.count()
}

/// A session with a permission that has passed something in both directions.
fn talking(status: &Value) -> Option<&Value> {
    let passed = |session: &&Value| {
        ["permissions", "packets_to_peers", "bytes_to_client"]
            .iter()
            .all(|key| session[key] != 0)
    };
    status["sessions"].as_array()?.iter().find(passed)
}
