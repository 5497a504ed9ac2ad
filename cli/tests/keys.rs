//! The cluster key under a passphrase.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod running;

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use running::portway;

/// Of configuration and state.
const CONFIGURATION: i32 = 78;

/// A machine with a state directory, and files with passphrases.
struct Machine(TempDir);

impl Machine {
    fn new() -> Self {
        let machine = Self(tempfile::tempdir().unwrap());
        std::fs::write(machine.path("right"), "correct horse\n").unwrap();
        std::fs::write(machine.path("wrong"), "correct horses\n").unwrap();
        std::fs::write(machine.path("empty"), "\n").unwrap();
        machine
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn key(&self) -> String {
        std::fs::read_to_string(self.path("state/cluster.key")).unwrap()
    }

    /// Runs a command; `passphrase` names a file.
    fn run(&self, args: &[&str], passphrase: Option<&str>) -> Output {
        let mut command = portway();
        command.args(args).arg("--json").arg("--state");
        command.arg(self.path("state"));
        command.env("XDG_CONFIG_HOME", self.0.path());
        if let Some(name) = passphrase {
            command.arg("--passphrase-file").arg(self.path(name));
        }
        command.stdin(Stdio::null()).output().unwrap()
    }

    fn told(&self, args: &[&str], passphrase: Option<&str>) -> Value {
        let output = self.run(args, passphrase);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{args:?}: {said}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    fn refused(&self, args: &[&str], passphrase: Option<&str>) -> String {
        let output = self.run(args, passphrase);
        assert_eq!(output.status.code(), Some(CONFIGURATION), "{args:?}");
        assert!(output.stdout.is_empty());
        String::from_utf8(output.stderr).unwrap()
    }
}

#[test]
fn a_key_under_a_passphrase_signs_with_it_only() {
    let machine = Machine::new();
    let made = machine.told(&["init"], Some("right"));
    assert!(machine.key().starts_with("portway-sealed-key-1 "));
    let mode = std::fs::metadata(machine.path("state/cluster.key")).unwrap();
    assert_eq!(mode.permissions().mode() & 0o777, 0o600);

    // The public half needs none.
    let shown = machine.told(&["key", "show"], None);
    assert_eq!(shown["cluster_key"], made["cluster_key"]);
    assert_eq!(machine.told(&["init"], None), made);

    let key = shown["node_key"].as_str().unwrap();
    let issue = [
        "token", "issue", "machine", "--node", "office", "--key", key,
    ];
    let said = machine.refused(&issue, None);
    assert!(said.contains("--passphrase-file"), "{said}");
    let said = machine.refused(&issue, Some("wrong"));
    assert!(said.contains("passphrase is wrong"), "{said}");
    assert!(!said.contains("horses"), "{said}");
    let said = machine.refused(&issue, Some("empty"));
    assert!(said.contains("there is none"), "{said}");
    let said = machine.refused(&issue, Some("missing"));
    assert!(said.contains("missing"), "{said}");
    assert!(machine.told(&issue, Some("right"))["token"].is_string());
}

#[test]
fn a_passphrase_comes_and_goes() {
    let machine = Machine::new();
    let made = machine.told(&["init"], None);
    let plain = machine.key();
    let said = machine.refused(&["init", "--encrypt"], Some("right"));
    assert!(said.contains("portway key encrypt"), "{said}");
    // Nobody is there to type one.
    machine.refused(&["key", "encrypt"], None);
    assert_eq!(machine.key(), plain);

    machine.told(&["key", "encrypt"], Some("right"));
    assert!(!machine.key().contains(plain.trim()));
    machine.refused(&["key", "encrypt"], Some("right"));
    machine.refused(&["key", "decrypt"], Some("wrong"));
    machine.told(&["key", "decrypt"], Some("right"));
    assert_eq!(machine.key(), plain);
    machine.refused(&["key", "decrypt"], None);
    let shown = machine.told(&["key", "show"], None);
    assert_eq!(shown["cluster_key"], made["cluster_key"]);
}
