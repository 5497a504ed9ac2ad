//! Simulated networks do what they say, as programs see it that are not ours.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use portway_tests::lab::Lab;

use crate::results::Results;
use crate::scenario;

pub(crate) const SCENARIOS: &[crate::Scenario] = &[
    scenario!(routers_are_of_the_kinds_they_say),
    scenario!(families_carriers_and_hairpins),
    scenario!(partitions_are_silent_and_heal),
    scenario!(links_delay_lose_and_limit),
];

/// Router, and what coturn's client finds out with our relay's second address (RFC 5780).
const KINDS: &[(&str, &str, &str)] = &[
    (
        "full-cone",
        "Endpoint Independent Mapping",
        "Endpoint Independent Filtering",
    ),
    (
        "address-restricted",
        "Endpoint Independent Mapping",
        "Address Dependent Filtering",
    ),
    (
        "port-restricted",
        "Endpoint Independent Mapping",
        "Address and Port Dependent Filtering",
    ),
    (
        "symmetric",
        "Address and Port Dependent Mapping",
        "Address and Port Dependent Filtering",
    ),
];

async fn routers_are_of_the_kinds_they_say(_: &Results) -> anyhow::Result<()> {
    let mut spec = String::from("[host.relay1]\nrun = \"relay\"\n");
    for (kind, _, _) in KINDS {
        spec += &format!("[lan.{kind}]\nnat = \"{kind}\"\n[host.in-{kind}]\nlan = \"{kind}\"\n");
    }
    for kind in ["udp-blocked", "tcp443"] {
        spec += &format!("[lan.{kind}]\nnat = \"{kind}\"\n[host.in-{kind}]\nlan = \"{kind}\"\n");
    }
    let lab = Lab::describe(&spec).await?;
    for (kind, mapping, filtering) in KINDS {
        let mut discover = lab.on(&format!("in-{kind}"), "turnutils_natdiscovery");
        let told = output(discover.args(["-m", "-f", "relay1"])).await?;
        for expected in [mapping, filtering] {
            ensure!(
                told.contains(expected),
                "{kind}: not {expected}, but\n{told}"
            );
        }
    }
    for (kind, tcp, tls) in [("udp-blocked", true, true), ("tcp443", false, true)] {
        let host = format!("in-{kind}");
        // It asks for ever where nobody answers.
        let stun = lab
            .on(&host, "timeout")
            .args(["3", "turnutils_stunclient", "relay1"])
            .output()
            .await?;
        let told = String::from_utf8_lossy(&stun.stdout).into_owned();
        ensure!(!told.contains("reflexive"), "{kind} lets UDP out:\n{told}");
        for (port, expected) in [(3478, tcp), (443, tls)] {
            let connects = connects(&lab, &host, "relay1", port).await?;
            ensure!(connects == expected, "{kind}: TCP to {port}: {connects}");
        }
    }
    Ok(())
}

async fn families_carriers_and_hairpins(_: &Results) -> anyhow::Result<()> {
    let lab = Lab::describe(
        "[host.server]\n\
         [lan.six]\nnat = \"firewall\"\nip = \"6\"\n[host.in-six]\nlan = \"six\"\n\
         [lan.dual]\nnat = \"port-restricted\"\nip = \"dual\"\n[host.in-dual]\nlan = \"dual\"\n\
         [lan.carrier]\nnat = \"port-restricted\"\n\
         [lan.below]\nnat = \"port-restricted\"\nvia = \"carrier\"\n[host.in-below]\nlan = \"below\"\n\
         [lan.pin]\nnat = \"full-cone\"\nhairpin = true\n[host.a]\nlan = \"pin\"\n[host.b]\nlan = \"pin\"\n",
    )
    .await?;
    let addresses = |host: &str| {
        let (lab, host) = (&lab, host.to_owned());
        async move { addresses(lab, &host).await }
    };
    let server = addresses("server").await?;
    let (v4, v6) = (first(&server, '.')?, first(&server, ':')?);
    for (host, target, answers) in [
        ("in-six", &v6, true),
        ("in-dual", &v4, true),
        ("in-dual", &v6, true),
        ("in-below", &v4, true),
    ] {
        ensure!(
            pings(&lab, host, target).await? == answers,
            "{host} to {target}"
        );
    }
    let six = addresses("in-six").await?;
    ensure!(
        !pings(&lab, "server", &six[0]).await?,
        "a firewall lets strangers in"
    );
    let below = addresses("in-below").await?;
    ensure!(below[0].starts_with("10."), "{below:?}");
    // Two hosts of one LAN meet at the router's outer address, which is what hairpinning is.
    let script = "import socket,sys
s=socket.socket(socket.AF_INET,socket.SOCK_DGRAM); s.bind(('',5000)); s.settimeout(10)
s.sendto(b'x',(sys.argv[1],9)); print('open',flush=True)
print(s.recvfrom(9)[0].decode(),flush=True)";
    let mut listening = lab
        .on("a", "python3")
        .args(["-c", script, &v4])
        .stdout(std::process::Stdio::piped())
        .spawn()?;
    let stdout = listening.stdout.take().context("a pipe")?;
    let mut lines = tokio::io::AsyncBufReadExt::lines(tokio::io::BufReader::new(stdout));
    ensure!(
        lines.next_line().await?.as_deref() == Some("open"),
        "it listens"
    );
    let status = lab.ask(&["status"]).await?;
    let outer = status["routers"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|router| router["router"] == "pin")
        .and_then(|router| router["addresses"][0].as_str())
        .context("the router's address")?;
    let send = format!(
        "import socket;s=socket.socket(socket.AF_INET,socket.SOCK_DGRAM);s.sendto(b'hello',('{outer}',5000))"
    );
    output(lab.on("b", "python3").args(["-c", &send])).await?;
    let heard = tokio::time::timeout(portway_tests::PATIENCE, lines.next_line()).await??;
    ensure!(heard.as_deref() == Some("hello"), "{heard:?}");
    Ok(())
}

async fn partitions_are_silent_and_heal(_: &Results) -> anyhow::Result<()> {
    let lab = Lab::describe(
        "[host.server]\n[host.other]\n\
         [lan.office]\nnat = \"port-restricted\"\n[host.a]\nlan = \"office\"\n[host.b]\nlan = \"office\"\n",
    )
    .await?;
    let server = first(&addresses(&lab, "server").await?, '.')?;
    let other = first(&addresses(&lab, "other").await?, '.')?;
    let b = first(&addresses(&lab, "b").await?, '.')?;
    lab.ask(&["cut", "a", "server"]).await?;
    ensure!(!pings(&lab, "a", &server).await?, "cut from the server");
    ensure!(pings(&lab, "a", &other).await?, "but not from another");
    ensure!(pings(&lab, "b", &server).await?, "nor its neighbour");
    lab.ask(&["cut", "a", "b"]).await?;
    ensure!(!pings(&lab, "a", &b).await?, "cut within a LAN");
    let healed = lab.ask(&["heal", "a", "b"]).await?;
    ensure!(healed["result"] == 1, "{healed}");
    ensure!(pings(&lab, "a", &b).await?, "healed between these");
    ensure!(!pings(&lab, "a", &server).await?, "not between those");
    lab.ask(&["heal"]).await?;
    ensure!(pings(&lab, "a", &server).await?, "healed");
    lab.ask(&["isolate", "office"]).await?;
    ensure!(
        !pings(&lab, "b", &server).await?,
        "a router and all behind it"
    );
    ensure!(pings(&lab, "a", &b).await?, "who still have each other");
    lab.ask(&["heal"]).await?;
    // An answer cannot come back where only one direction is cut, but what asks for none arrives.
    lab.ask(&["cut", "server", "other", "--one-way"]).await?;
    ensure!(!pings(&lab, "other", &server).await?, "no answer");
    let hear = "import socket,sys;s=socket.socket(socket.AF_INET,socket.SOCK_DGRAM);s.bind(('',5000));s.settimeout(20);print('open',flush=True);print(s.recvfrom(9)[0].decode())";
    let mut hearing = lab
        .on("server", "python3")
        .args(["-c", hear])
        .stdout(std::process::Stdio::piped())
        .spawn()?;
    let stdout = hearing.stdout.take().context("a pipe")?;
    let mut lines = tokio::io::AsyncBufReadExt::lines(tokio::io::BufReader::new(stdout));
    lines.next_line().await?;
    let send = format!(
        "import socket;s=socket.socket(socket.AF_INET,socket.SOCK_DGRAM);s.sendto(b'hello',('{server}',5000))"
    );
    output(lab.on("other", "python3").args(["-c", &send])).await?;
    ensure!(
        lines.next_line().await?.as_deref() == Some("hello"),
        "the other direction"
    );
    let unknown = lab.refusal(&["cut", "nobody", "a"]).await?;
    ensure!(
        unknown.contains("no host or router `nobody`") && unknown.contains("office"),
        "{unknown}"
    );
    Ok(())
}

async fn links_delay_lose_and_limit(_: &Results) -> anyhow::Result<()> {
    let lab = Lab::describe(
        "[host.server]\n[lan.far]\nnat = \"port-restricted\"\nlink = { delay = \"20ms\" }\n[host.a]\nlan = \"far\"\n",
    )
    .await?;
    let server = first(&addresses(&lab, "server").await?, '.')?;
    let rtt = async || -> anyhow::Result<f64> {
        let told = output(lab.on("a", "ping").args(["-c", "5", "-i", "0.2", &server])).await?;
        // rtt min/avg/max/mdev = …: the least is what the link adds.
        let line = told
            .lines()
            .find(|line| line.starts_with("rtt"))
            .context(told.clone())?;
        let least = line.split(['=', '/']).nth(4).context("figures")?;
        Ok(least.trim().parse()?)
    };
    let before = rtt().await?;
    ensure!((40.0..45.0).contains(&before), "{before} ms");
    lab.ask(&["slow", "far", "--delay", "0ms"]).await?;
    let good = rtt().await?;
    ensure!(good < 5.0, "{good} ms");
    // A plain link becomes an emulated one without losing its address.
    lab.ask(&["slow", "a", "--delay", "30ms"]).await?;
    let slow = rtt().await?;
    ensure!((60.0..65.0).contains(&slow), "{slow} ms");
    lab.ask(&["slow", "a", "--delay", "0ms", "--loss", "100%"])
        .await?;
    ensure!(!pings(&lab, "a", &server).await?, "all is lost");
    lab.ask(&["slow", "a", "--loss", "0%", "--rate", "8mbit"])
        .await?;
    let script = "import socket
l=socket.create_server(('',5001)); print('open',flush=True)
c,_=l.accept(); c.sendall(bytes(1000000)); c.close()";
    let mut sending = lab
        .on("server", "python3")
        .args(["-c", script])
        .stdout(std::process::Stdio::piped())
        .spawn()?;
    let stdout = sending.stdout.take().context("a pipe")?;
    let mut lines = tokio::io::AsyncBufReadExt::lines(tokio::io::BufReader::new(stdout));
    lines.next_line().await?;
    let read = format!(
        "import socket,time
s=socket.create_connection(('{server}',5001)); t=time.time(); n=0
while True:
  d=s.recv(65536)
  if not d: break
  n+=len(d)
print(n*8/(time.time()-t)/1e6)"
    );
    let mbit: f64 = output(lab.on("a", "python3").args(["-c", &read]))
        .await?
        .trim()
        .parse()?;
    ensure!(mbit < 8.5, "{mbit} Mbit/s");
    Ok(())
}

/// Addresses of a host.
async fn addresses(lab: &Lab, host: &str) -> anyhow::Result<Vec<String>> {
    let status = lab.ask(&["status"]).await?;
    let hosts = status["hosts"].as_array().cloned().unwrap_or_default();
    let host = hosts
        .iter()
        .find(|entry| entry["host"] == host)
        .context("a host")?;
    let addresses = host["addresses"].as_array().into_iter().flatten();
    Ok(addresses
        .filter_map(|address| Some(address.as_str()?.to_owned()))
        .collect())
}

fn first(addresses: &[String], mark: char) -> anyhow::Result<String> {
    let found = addresses.iter().find(|address| address.contains(mark));
    found.cloned().context("an address of the family")
}

async fn pings(lab: &Lab, host: &str, target: &str) -> anyhow::Result<bool> {
    let mut ping = lab.on(host, "ping");
    let status = ping
        .args(["-c", "2", "-i", "0.2", "-W", "1", target])
        .stdout(std::process::Stdio::null())
        .status();
    Ok(tokio::time::timeout(Duration::from_secs(30), status)
        .await??
        .success())
}

async fn connects(lab: &Lab, host: &str, target: &str, port: u16) -> anyhow::Result<bool> {
    let script = format!("import socket;socket.create_connection(('{target}',{port}),3)");
    let mut connect = lab.on(host, "python3");
    let status = connect
        .args(["-c", &script])
        .stderr(std::process::Stdio::null())
        .status();
    Ok(status.await?.success())
}

async fn output(command: &mut tokio::process::Command) -> anyhow::Result<String> {
    let output = command.output().await?;
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(
        output.status.success(),
        "{}: {told}{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(told)
}
