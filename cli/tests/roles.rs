//! A gateway on its own, what it is told, and what it tells.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod running;

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Child, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use running::portway;

/// Nobody listens there.
const PORTAL: &str = "http://home.localhost:9";

/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(20);

/// The machine with the cluster key, and a node.
struct World(TempDir);

impl World {
    fn new() -> Self {
        let world = Self(tempfile::tempdir().unwrap());
        world.owner(&["init", "--cluster", "home"]);
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, content: &str) {
        std::fs::write(self.path(name), content).unwrap();
    }

    /// Runs a command on a state directory, with some input.
    fn run(&self, state: &str, args: &[&str], input: &str) -> Output {
        let mut process = portway()
            .args(args)
            .arg("--state")
            .arg(self.path(state))
            .env("XDG_CONFIG_HOME", self.0.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = process.stdin.take().unwrap();
        // Who does not read it may have ended.
        drop(stdin.write_all(input.as_bytes()));
        drop(stdin);
        process.wait_with_output().unwrap()
    }

    fn told(&self, state: &str, args: &[&str], input: &str) -> Value {
        let output = self.run(state, &[args, &["--json"]].concat(), input);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{args:?}: {said}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    fn owner(&self, args: &[&str]) -> Value {
        self.told("owner", args, "")
    }

    fn node(&self, args: &[&str]) -> Value {
        self.told("node", args, "")
    }

    /// The gateway's file, with these services.
    fn configure(&self, services: &str) -> String {
        let key = self.owner(&["key", "show"])["cluster_key"].clone();
        let config = format!(
            "cluster = \"home\"\n[gateway]\ncluster_key = {key}\nnode = \"office\"\n\
             signaling = [\"{PORTAL}\"]\nmachine_token_file = \"token\"\n[services]\n{services}"
        );
        self.write("portway.toml", &config);
        self.path("portway.toml").display().to_string()
    }

    /// A machine token for a node of this name, with the key that the node has.
    fn certify(&self, name: &str) {
        let key = self.node(&["key", "show"])["node_key"].clone();
        let key = key.as_str().unwrap();
        let issued = self.owner(&["token", "issue", "machine", "--node", name, "--key", key]);
        self.write("token", issued["token"].as_str().unwrap());
    }

    /// A gateway that answers on its control socket.
    fn gateway(&self, config: &str) -> Running {
        let process = portway()
            .args(["gateway", "--json", "-v", "--config", config, "--state"])
            .arg(self.path("node"))
            .env("XDG_CONFIG_HOME", self.0.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(self.path("log")).unwrap())
            .spawn()
            .unwrap();
        let running = Running(process);
        until(|| self.run("node", &["status"], "").status.success());
        running
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.path("log")).unwrap()
    }

    fn names(&self) -> Vec<String> {
        let services = self.node(&["services"])["services"].clone();
        let name = |service: &Value| service["name"].as_str().unwrap().to_owned();
        services.as_array().unwrap().iter().map(name).collect()
    }
}

/// A process; killed when dropped.
struct Running(Child);

impl Running {
    fn signal(&self, name: &str) {
        let pid = self.0.id().to_string();
        let sent = std::process::Command::new("kill")
            .args(["-s", name, &pid])
            .status();
        assert!(sent.unwrap().success());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn until(mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "it never came");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_gateway_without_a_token_says_how_to_get_one() {
    let world = World::new();
    let config = world.configure("");
    let refused = |world: &World| {
        let output = world.run("node", &["gateway", "--config", &config], "");
        assert_eq!(output.status.code(), Some(78));
        String::from_utf8(output.stderr).unwrap()
    };
    let key = world.node(&["key", "show"])["node_key"].clone();
    let key = key.as_str().unwrap();
    let command = format!("portway token issue machine --node office --key {key}");
    let said = refused(&world);
    assert!(said.contains(&command) && said.contains("token"), "{said}");

    world.certify("attic");
    let said = refused(&world);
    assert!(
        said.contains("for the node `attic`") && said.contains(&command),
        "{said}"
    );

    world.certify("office");
    std::fs::remove_file(world.path("node/node.key")).unwrap();
    let said = refused(&world);
    assert!(said.contains("another node key"), "{said}");

    world.write("token", "nonsense");
    let said = refused(&world);
    assert!(said.contains("of no use"), "{said}");
}

#[test]
fn a_gateway_answers_while_signaling_is_away() {
    let world = World::new();
    let config = world.configure("lab = \"http://127.0.0.1:8888\"\n");
    world.certify("office");
    let mut gateway = world.gateway(&config);

    let status = world.node(&["status"]);
    assert_eq!(status["role"], "gateway");
    assert_eq!(status["pid"], gateway.0.id());
    assert_eq!(status["signaling"][0]["url"], PORTAL);
    assert_eq!(status["signaling"][0]["connected"], false);
    assert_eq!(status["executable"].as_str().unwrap().len(), 64);
    assert!(status["now_ms"].as_u64().unwrap() / 1000 >= status["started"].as_u64().unwrap());

    let exposed = world.node(&["expose", "nas=http://127.0.0.1:5000"]);
    assert_eq!(exposed["url"], "http://nas.home.localhost:9/");
    assert!(exposed["link"].is_null(), "the cluster key is elsewhere");

    let issue = [
        "token",
        "issue",
        "user",
        "--service",
        "lab",
        "--user",
        "ann",
    ];
    let granted = world.owner(&[&issue[..], &["--origin", PORTAL]].concat());
    let link = granted["link"].as_str().unwrap();
    assert!(
        link.starts_with("http://lab.home.localhost:9/#v1.home."),
        "{link}"
    );
    let token = granted["token"].as_str().unwrap();
    let accepted = world.told("node", &["token", "accept"], token);
    assert_eq!(
        (&accepted["id"], &accepted["user"]),
        (&granted["id"], &"ann".into())
    );
    let kept = std::fs::read_to_string(world.path("node/grants.json")).unwrap();
    assert!(kept.contains(token));
    let id = granted["id"].as_str().unwrap();
    assert_eq!(world.node(&["token", "revoke", id])["revoked"], true);
    assert!(
        !world
            .run("node", &["token", "accept"], "x")
            .status
            .success()
    );

    // What is wrong changes nothing; what is right is applied.
    world.configure("lab = \"ftp://127.0.0.1\"\n");
    gateway.signal("HUP");
    until(|| world.log().contains("kept as it was"));
    world.write("token", "nonsense");
    world.configure("wiki = \"http://127.0.0.1:8000\"\n");
    gateway.signal("HUP");
    until(|| world.log().contains("of no use"));
    assert_eq!(world.names(), ["lab", "nas"]);
    world.certify("office");
    gateway.signal("HUP");
    until(|| world.log().contains("was reloaded"));
    assert_eq!(world.names(), ["nas", "wiki"]);

    gateway.signal("TERM");
    assert_eq!(gateway.0.wait().unwrap().code(), Some(0));
    assert!(!world.path("node/control.sock").exists());
}

#[test]
fn the_audit_log_of_a_gateway_is_followed_and_checked() {
    let world = World::new();
    let config = world.configure("lab = \"http://127.0.0.1:8888\"\n");
    world.certify("office");
    let mut gateway = world.gateway(&config);

    let mut following = portway()
        .args(["events", "--follow", "--json", "--state"])
        .arg(world.path("node"))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(following.stdout.take().unwrap()).lines();
    let mut next = || serde_json::from_str::<Value>(&lines.next().unwrap().unwrap()).unwrap();
    assert_eq!(next()["event"], "gateway_started");
    assert_eq!(next()["service"], "lab");
    world.node(&["expose", "nas=http://127.0.0.1:5000"]);
    let added = next();
    assert_eq!(
        (&added["v"], &added["source"], &added["event"]),
        (&1.into(), &"gateway".into(), &"service_added".into())
    );
    let following = Running(following);
    following.signal("INT");
    assert_eq!({ following }.0.wait().unwrap().code(), Some(130));

    let told = world.node(&["events", "-n", "2"]);
    assert_eq!(told["events"][1]["hash"], added["hash"]);
    assert_eq!(told["events"].as_array().unwrap().len(), 2);
    let status = world.node(&["status"]);
    assert_eq!(status["audit"]["hash"], added["hash"]);
    let checked = world.node(&["events", "verify"]);
    assert_eq!(checked["head"], added["hash"]);
    assert_eq!(
        (&checked["valid"], &checked["records"]),
        (&true.into(), &3.into())
    );

    // While it runs, it knows where its log ends; afterwards whoever has noted that.
    let log = world.path("node/audit.jsonl");
    let whole = std::fs::read_to_string(&log).unwrap();
    let end = whole.trim_end().rfind('\n').unwrap() + 1;
    std::fs::write(&log, &whole[..end]).unwrap();
    let refused = |args: &[&str]| {
        let output = world.run("node", &[&["events", "verify"], args].concat(), "");
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
    };
    let said = refused(&[]);
    assert!(
        said.contains("audit.jsonl, line 2") && said.contains("cut off"),
        "{said}"
    );
    std::fs::write(&log, &whole).unwrap();
    gateway.0.kill().unwrap();
    gateway.0.wait().unwrap();
    std::fs::write(&log, &whole[..end]).unwrap();
    let head = added["hash"].as_str().unwrap();
    let fault: Value = serde_json::from_str(&refused(&["--json", "--head", head])).unwrap();
    assert_eq!(
        (&fault["valid"], &fault["flaw"]),
        (&false.into(), &"truncated".into())
    );
    assert_eq!(world.node(&["events", "verify"])["records"], 2);

    std::fs::write(&log, whole.replace("127.0.0.1:8888", "127.0.0.1:8889")).unwrap();
    let fault: Value = serde_json::from_str(&refused(&["--json"])).unwrap();
    assert_eq!(
        (&fault["flaw"], &fault["line"], &fault["seq"]),
        (&"changed".into(), &2.into(), &2.into())
    );
}

/// The cluster key is elsewhere: the node itself says who may open its services.
#[test]
fn a_gateway_shares_its_own_services() {
    let world = World::new();
    let config =
        world.configure("lab = \"http://127.0.0.1:8888\"\nwiki = \"http://127.0.0.1:8000\"\n");
    world.certify("office");
    let gateway = world.gateway(&config);

    let refused = world.run("node", &["share", "nas"], "");
    assert!(!refused.status.success());
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(said.contains("no service `nas` here"), "{said}");
    assert!(
        said.contains("lab, wiki"),
        "it names those there are: {said}"
    );
    for wrong in [["--path", "d/*"], ["--methods", "G T"], ["--for", "0"]] {
        let refused = world.run("node", &[&["share", "lab"], &wrong[..]].concat(), "");
        assert_eq!(refused.status.code(), Some(2), "{wrong:?}");
    }

    let limits = [
        "--once",
        "--for",
        "2h",
        "--methods",
        "get,HEAD",
        "--path",
        "/d/*",
    ];
    let shared = world.node(&[&["share", "lab", "--user", "ann"], &limits[..]].concat());
    let fields: Vec<_> = shared.as_object().unwrap().keys().cloned().collect();
    assert_eq!(fields, ["expires", "id", "link", "v"]);
    let cluster_key = world.owner(&["key", "show"])["cluster_key"].clone();
    let pinned = format!(
        "http://lab.home.localhost:9/#v1.home.{}.{}.",
        cluster_key.as_str().unwrap(),
        shared["id"].as_str().unwrap()
    );
    let link = shared["link"].as_str().unwrap();
    assert!(link.starts_with(&pinned), "{link}");

    let told = world.run("node", &["share", "wiki"], "");
    let told = String::from_utf8(told.stdout).unwrap();
    assert!(
        told.starts_with("http://wiki.home.localhost:9/#v1."),
        "{told}"
    );
    assert!(told.contains("It opens wiki for 1d 0h"), "{told}");
    assert!(told.contains("portway links revoke "), "{told}");

    // They are there after a restart, for the node trusts its own key.
    gateway.signal("TERM");
    drop(gateway);
    let _gateway = world.gateway(&config);
    let links = world.node(&["links"])["links"].clone();
    assert_eq!(links.as_array().unwrap().len(), 2);
    let of_ann = |links: &Value| {
        let links = links.as_array().unwrap();
        links.iter().find(|link| link["user"] == "ann").cloned()
    };
    let ann = of_ann(&links).unwrap();
    assert_eq!(
        ann["services"],
        serde_json::json!([{"name": "lab", "methods": ["GET", "HEAD"], "paths": ["/d/*"]}])
    );
    assert_eq!(
        (&ann["id"], &ann["expires"]),
        (&shared["id"], &shared["expires"])
    );
    assert_eq!(
        ann["expires"].as_u64().unwrap(),
        ann["made"].as_u64().unwrap() + 7200
    );
    assert_eq!(
        (&ann["once"], &ann["used"], &ann["sessions"]),
        (&true.into(), &false.into(), &0.into())
    );

    let id = shared["id"].as_str().unwrap();
    let revoked = world.node(&["links", "revoke", id]);
    assert_eq!(
        (&revoked["revoked"], &revoked["sessions"]),
        (&true.into(), &0.into())
    );
    assert!(of_ann(&world.node(&["links"])["links"]).is_none());
    let again = world.run("node", &["links", "revoke", id], "");
    assert!(
        String::from_utf8(again.stderr)
            .unwrap()
            .contains("there is no link")
    );
}
