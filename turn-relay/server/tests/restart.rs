//! A relay that is killed while clients are talking, and is started again.
//!
//! Alone in its program: a process that is being started holds, for a moment, every socket of who
//! starts it, so that no other test could say that its ports are free.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod client;
mod loopback;

use std::io::{self, BufRead as _, BufReader};
use std::net::{SocketAddr, UdpSocket};
use std::process::{Child, Command, Stdio};

use client::Client;
use client::world::code;
use portway_relay::Relay;
use portway_relay::config::{Config, Listen, Transport};
use turn_types::message::REFRESH;

const CHANNEL: u16 = 0x4000;

/// Where a child listens: UDP and TCP.
const LISTEN: &str = "PORTWAY_TEST_LISTEN";

/// What a child says before it says where it listens.
const LISTENING: &str = "the child listens on ";

/// A relay in a process of its own: this program once more, with nothing to do but [`serve`].
struct Process {
    child: Child,
    udp: SocketAddr,
    tcp: SocketAddr,
}

impl Process {
    fn start(udp: SocketAddr, tcp: SocketAddr) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "serve", "--ignored", "--nocapture"])
            .env(LISTEN, format!("{udp} {tcp}"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let said = BufReader::new(child.stdout.take().unwrap());
        let listening = said
            .lines()
            .map(Result::unwrap)
            .find_map(|line| Some(line.split_once(LISTENING)?.1.to_owned()))
            .expect("the child listens");
        let [udp, tcp] = addresses(&listening);
        Self { child, udp, tcp }
    }

    /// As `kill -9` does.
    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

#[test]
#[ignore = "the relay of another test, which runs it"]
fn serve() {
    let [udp, tcp] = addresses(&std::env::var(LISTEN).unwrap());
    let listen = |transport, address| Listen { transport, address };
    let relay = Relay::start(&Config {
        listen: vec![listen(Transport::Udp, udp), listen(Transport::Tcp, tcp)],
        ..loopback::config(2)
    })
    .unwrap();
    let [udp, tcp] = relay.listening() else {
        panic!("as it was told")
    };
    println!("{LISTENING}{} {}", udp.address, tcp.address);
    // Until who started it is gone.
    io::stdin().read_line(&mut String::new()).unwrap();
}

fn addresses(text: &str) -> [SocketAddr; 2] {
    let addresses: Vec<_> = text.split(' ').map(|word| word.parse().unwrap()).collect();
    addresses.try_into().unwrap()
}

/// One message to the peer and back.
fn echo(client: &Client, peer: &UdpSocket, relayed: SocketAddr) {
    let mut heard = [0; 16];
    client.send_on(CHANNEL, b"there");
    assert_eq!(peer.recv_from(&mut heard).unwrap(), (5, relayed));
    peer.send_to(b"back", relayed).unwrap();
    assert_eq!(&client.receive()[4..], b"back");
}

#[test]
fn clients_go_on_when_a_killed_relay_is_back() {
    let any = "127.0.0.1:0".parse().unwrap();
    let relay = Process::start(any, any);
    let (udp, tcp) = (relay.udp, relay.tcp);
    let peer = client::peer();
    let (mut client, relayed) = Client::talking(udp, CHANNEL, &peer);
    let connected = Client::over_tcp(tcp);
    connected.allocate();
    echo(&client, &peer, relayed);

    // More is on its way than comes back.
    for _packet in 0..1000 {
        client.send_on(CHANNEL, b"there");
    }
    relay.kill();
    let over = connected.try_receive().unwrap_err().kind();
    assert_ne!(over, io::ErrorKind::WouldBlock, "its connection is over");
    let silence = loop {
        if let Err(error) = client.try_send_on(CHANNEL, b"anyone?") {
            break error;
        }
    };
    assert_eq!(silence.kind(), io::ErrorKind::ConnectionRefused);
    UdpSocket::bind(relayed).expect("its relay ports are free");

    let relay = Process::start(udp, tcp);
    assert_eq!((relay.udp, relay.tcp), (udp, tcp));
    let answer = client.ask(REFRESH, &[]);
    assert_eq!(code(&answer), Some(438), "it does not know its old nonces");
    client.learn_nonce(&answer);
    let answer = client.ask(REFRESH, &[]);
    assert_eq!(code(&answer), Some(437), "nor its allocations");
    let (relayed, peer) = (client.allocate(), client::peer());
    assert_eq!(client.bind(CHANNEL, peer.local_addr().unwrap()), None);
    echo(&client, &peer, relayed);
    Client::over_tcp(tcp).allocate();
    relay.kill();
}
