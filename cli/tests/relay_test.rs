//! `portway relay test` against our relay, coturn, and what is no good.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod running;

use std::net::UdpSocket;
use std::path::Path;

use running::{Coturn, Relay, SECRET, portway};
use serde_json::Value;

/// Its exit code and what it says to programs.
fn test(url: &str, args: &[&str]) -> (i32, Value) {
    let output = portway()
        .args(["relay", "test", url, "--json", "--duration", "1s"])
        .args(args)
        .output()
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(
        !said.contains(SECRET) && !said.contains(Coturn::PASSWORD),
        "{said}"
    );
    let report = serde_json::from_str(&said).unwrap();
    (output.status.code().unwrap(), report)
}

/// Outcome of a step, and its words.
fn step<'a>(report: &'a Value, name: &str) -> (&'a str, &'a str) {
    let steps = report["steps"].as_array().unwrap();
    let step = steps.iter().find(|step| step["step"] == name);
    let step = step.unwrap_or_else(|| panic!("no step {name}: {report}"));
    (
        step["outcome"].as_str().unwrap(),
        step["detail"].as_str().unwrap(),
    )
}

fn secret(relay: &Relay) -> String {
    relay.home.path().join("secret").display().to_string()
}

#[test]
fn our_relay_is_good_over_udp_tcp_and_tls() {
    let home = tempfile::tempdir().unwrap();
    let (certificate, key) = certificate(home.path());
    let relay = Relay::start(&[
        "--listen",
        "udp://127.0.0.1:0",
        "--listen",
        "tcp://127.0.0.1:0",
        "--listen",
        "tls://127.0.0.1:0",
        "--tls-cert",
        &certificate,
        "--tls-key",
        &key,
    ]);
    for url in relay.ready["relay"].as_array().unwrap() {
        let url = url.as_str().unwrap();
        let (code, report) = test(
            url,
            &["--secret-file", &secret(&relay), "--ca", &certificate],
        );
        assert_eq!((code, &report["ok"]), (0, &true.into()), "{url}: {report}");
        assert_eq!(
            (&report["v"], &report["challenge_bytes"]),
            (&1.into(), &64.into())
        );
        assert_eq!(report["lifetime_s"], 600, "{url}");
        assert!(
            report["relayed"]
                .as_str()
                .unwrap()
                .starts_with("127.0.0.1:")
        );
        assert!(report["rtt_p50_ms"].as_f64() <= report["rtt_p99_ms"].as_f64());
        assert!(report["bits_per_s"].as_f64().unwrap() > 1e6, "{report}");
        for good in [
            "wrong-password",
            "indication",
            "channel",
            "round-trip",
            "release",
        ] {
            assert_eq!(step(&report, good).0, "good", "{good} of {url}: {report}");
        }
        // It was told to.
        let (outcome, detail) = step(&report, "peers");
        assert_eq!(outcome, "warning");
        assert!(detail.contains("accepts 127.0.0.1:"), "{detail}");
        assert_eq!(step(&report, "ipv6").0, "skipped");
    }
    assert_eq!(
        relay.ask(&["status"])["allocations"],
        0,
        "all was given back"
    );
    let last = relay.ready["relay"][2].as_str().unwrap();
    let (code, report) = test(last, &["--secret-file", &secret(&relay)]);
    let (outcome, detail) = step(&report, "tls");
    assert_eq!((code, outcome), (1, "bad"));
    assert!(
        detail.contains("self-signed") && detail.contains("--insecure"),
        "{detail}"
    );
    let (code, _) = test(last, &["--insecure"]);
    assert_eq!(code, 0);
}

#[test]
fn ipv6_is_tried_where_it_is_offered() {
    let relay = Relay::start(&[
        "--listen",
        "udp://127.0.0.1:0",
        "--relay-ip",
        "127.0.0.1",
        "--relay-ip",
        "::1",
    ]);
    let url = relay.ready["relay"][0].as_str().unwrap();
    let (code, report) = test(url, &["--secret-file", &secret(&relay)]);
    assert_eq!(code, 0, "{report}");
    assert_eq!(step(&report, "ipv6").0, "good");
    assert!(
        report["relayed_ipv6"]
            .as_str()
            .unwrap()
            .starts_with("[::1]:")
    );
    let (outcome, detail) = step(&report, "peers-ipv6");
    assert_eq!(outcome, "warning", "{detail}");
    assert!(
        detail.contains("accepts ::ffff:127.0.0.1:"),
        "as it was told: {detail}"
    );
}

#[test]
fn a_strict_relay_on_loopback_is_good_as_far_as_it_goes() {
    let relay = Relay::start(&[
        "--listen",
        "udp://127.0.0.1:0",
        "--deny-peer",
        "127.0.0.0/8",
    ]);
    let url = relay.ready["relay"][0].as_str().unwrap();
    let (code, report) = test(url, &["--secret-file", &secret(&relay)]);
    assert_eq!(code, 0, "{report}");
    let (outcome, detail) = step(&report, "peers");
    assert_eq!(outcome, "good");
    for refused in ["127.0.0.1 (403)", "169.254.169.254 (403)", "10.0.0.1 (403)"] {
        assert!(detail.contains(refused), "{detail}");
    }
    let (outcome, detail) = step(&report, "permission");
    assert_eq!(outcome, "skipped");
    assert!(
        detail.contains("private ranges") && detail.contains("--peer"),
        "{detail}"
    );
    assert_eq!(
        relay.ask(&["status"])["allocations"],
        0,
        "all was given back"
    );
}

#[test]
fn a_peer_that_sends_back_measures_too() {
    let relay = Relay::start(&["--listen", "udp://127.0.0.1:0"]);
    let echo = UdpSocket::bind("127.0.0.1:0").unwrap();
    let peer = echo.local_addr().unwrap().to_string();
    let _echo = std::thread::spawn(move || {
        let mut packet = [0; 2048];
        while let Ok((length, from)) = echo.recv_from(&mut packet) {
            echo.send_to(&packet[..length], from).unwrap();
        }
    });
    let url = relay.ready["relay"][0].as_str().unwrap();
    let (code, report) = test(url, &["--secret-file", &secret(&relay), "--peer", &peer]);
    assert_eq!(code, 0, "{report}");
    assert_eq!(step(&report, "round-trip").0, "good");
}

#[test]
fn coturn_is_judged_by_the_same_steps() {
    let coturn = Coturn::start();
    let file = coturn.password_file();
    let args = ["--username", Coturn::USERNAME, "--credential-file", &file];
    for url in [coturn.url(), format!("{}?transport=tcp", coturn.url())] {
        let (code, report) = test(&url, &args);
        assert_eq!((code, &report["ok"]), (0, &true.into()), "{url}: {report}");
        assert!(step(&report, "binding").1.contains("Coturn"));
        assert_eq!(step(&report, "round-trip").0, "good", "{report}");
        let (outcome, detail) = step(&report, "peers");
        assert_eq!(outcome, "warning");
        assert!(detail.contains("169.254.169.254"), "{detail}");
    }
    let args = ["--username", "eve", "--credential-file", &file];
    let (code, report) = test(&coturn.url(), &args);
    let (outcome, detail) = step(&report, "allocate");
    assert_eq!((code, outcome), (77, "bad"));
    assert!(detail.contains("user name or the password"), "{detail}");
}

#[test]
fn what_is_wrong_is_said_and_told_by_the_exit_code() {
    let relay = Relay::start(&["--listen", "udp://127.0.0.1:0"]);
    let url = relay.ready["relay"][0].as_str().unwrap();
    let wrong = relay.home.path().join("wrong");
    std::fs::write(&wrong, "another secret\n").unwrap();
    let (code, report) = test(url, &["--secret-file", &wrong.display().to_string()]);
    let (outcome, detail) = step(&report, "allocate");
    assert_eq!((code, outcome), (77, "bad"));
    assert!(detail.contains("another secret"), "{detail}");

    let (code, report) = test(url, &[]);
    assert_eq!((code, step(&report, "allocate").0), (0, "skipped"));
    let (code, _) = test(&url.replace("turn:", "stun:"), &[]);
    assert_eq!(code, 0);

    let closed = UdpSocket::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let (code, report) = test(&format!("turn:{closed}"), &[]);
    assert_eq!(
        (code, step(&report, "binding").1),
        (69, "nobody listens there")
    );
    let (code, report) = test(&format!("turn:{closed}?transport=tcp"), &[]);
    assert_eq!((code, step(&report, "connect").0), (69, "bad"));

    let output = portway()
        .args(["relay", "test", url, "--username", "ann"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    let output = portway()
        .args(["relay", "test", "turns:h?transport=udp"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn people_read_a_line_for_each_step() {
    let relay = Relay::start(&[
        "--listen",
        "udp://127.0.0.1:0",
        "--deny-peer",
        "127.0.0.0/8",
    ]);
    let url = relay.ready["relay"][0].as_str().unwrap();
    let told = relay.told(&["test", url, "--secret-file", &secret(&relay)]);
    assert!(
        told.contains("✓ binding") && told.contains("– permission"),
        "{told}"
    );
    assert!(
        told.ends_with("Good; what is marked – is not offered or was not tried.\n"),
        "{told}"
    );
}

/// A certificate for loopback that signs itself, and its key.
fn certificate(home: &Path) -> (String, String) {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let (certificate, key) = (home.join("cert.pem"), home.join("key.pem"));
    std::fs::write(&certificate, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    (certificate.display().to_string(), key.display().to_string())
}
