//! A program that is a node of a cluster by itself: it offers a service and opens that of another one.
//!
//! ```text
//! embed-rust serve STATE NODE    offers `shout`, and lets NODE in
//! embed-rust ask STATE TEXT      opens `shout` of whoever offers it, says TEXT and prints the answer
//! ```
//! STATE is what `portway join --state STATE` has left.

#![allow(clippy::print_stdout, reason = "a program of its own")]

use std::time::Duration;

use anyhow::{Context as _, bail};
use portway_gateway::Node;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

/// Name of the service.
const SERVICE: &str = "shout";

/// How long the other node may open it.
const A_DAY: Duration = Duration::from_secs(24 * 3600);

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[..] {
        ["serve", state, node] => serve(state, node).await,
        ["ask", state, text] => ask(state, text).await,
        _ => bail!("usage: embed-rust serve STATE NODE | ask STATE TEXT"),
    }
}

/// A service of this very process, behind whatever NAT it runs.
async fn serve(state: &str, other: &str) -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let target = format!("tcp://{}", listener.local_addr()?);
    let node = Node::builder()
        .joined(state)
        .expose(SERVICE, target)
        .start()
        .await?;
    node.online().await;
    node.let_in(other, SERVICE, A_DAY).await?;
    println!("{SERVICE} is offered, {other} may open it; Ctrl-C ends it");
    let serving = async {
        loop {
            let (mut stream, _) = listener.accept().await?;
            let mut said = String::new();
            stream.read_to_string(&mut said).await?;
            stream.write_all(said.to_uppercase().as_bytes()).await?;
        }
    };
    let outcome = tokio::select! {
        outcome = serving => outcome,
        interrupted = tokio::signal::ctrl_c() => interrupted.context("no signals"),
    };
    node.shutdown().await;
    outcome
}

/// A client without a socket of its own.
async fn ask(state: &str, text: &str) -> anyhow::Result<()> {
    let node = Node::builder().joined(state).start().await?;
    let mut stream = node.connect(SERVICE).await?;
    stream.write_all(text.as_bytes()).await?;
    stream.shutdown().await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    println!("{answer}");
    node.shutdown().await;
    Ok(())
}
