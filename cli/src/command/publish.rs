//! `portway publish`: says something on a message bus.

use std::io::{IsTerminal as _, Read as _};
use std::process::ExitCode;

use anyhow::Context as _;
use hyper::body::Bytes;
use portway_gateway::client::messages::publish;
use portway_gateway::client::{ClientError, connect};
use portway_protocol::message::{DEFAULT_CONTENT_TYPE, MAX_BODY, MAX_CONTENT_TYPE};
use portway_protocol::reason::Reason;

use crate::args::{Global, Publish};
use crate::exit::Failure;
use crate::keyring::Keyring;
use crate::output;
use crate::signals::Signals;

/// Media type of text.
const TEXT: &str = "text/plain; charset=utf-8";

/// Publishes one message.
pub(crate) fn run(global: &Global, args: &Publish) -> anyhow::Result<ExitCode> {
    let body = body(args)?;
    let content_type = content_type(args, &body)?;
    let keyring = Keyring::open(global, &args.credentials, Some(&args.topic.service))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut signals = Signals::hear()?;
        let sending = send(global, args, &keyring, &content_type, body);
        tokio::select! {
            sent = sending => sent,
            asked = signals.end() => Ok(asked.code()),
        }
    })
}

async fn send(
    global: &Global,
    args: &Publish,
    keyring: &Keyring,
    content_type: &str,
    body: Bytes,
) -> anyhow::Result<ExitCode> {
    let service = &args.topic.service;
    let failure = |error: ClientError| keyring.failure(service, &error);
    let session = connect(&keyring.target(service)?).await.map_err(failure)?;
    let mut requests = session.requests();
    let published = publish(&mut requests, &args.topic.topic, content_type, body).await;
    session.close().await;
    output::print(global.format(), &published.map_err(failure)?, |published| {
        let listened = match published.subscribers {
            1 => "1 subscriber".to_owned(),
            many => format!("{many} subscribers"),
        };
        format!("{}  {listened}", published.id)
    })?;
    Ok(ExitCode::SUCCESS)
}

/// What it says.
fn body(args: &Publish) -> anyhow::Result<Bytes> {
    let body = match &args.message {
        Some(text) => text.clone().into_bytes(),
        None => input(args)?,
    };
    if body.len() > MAX_BODY {
        return Err(
            Failure::because(Reason::MessageTooLarge, Reason::MessageTooLarge.message()).into(),
        );
    }
    Ok(body.into())
}

/// Standard input, up to what is certainly too much.
fn input(args: &Publish) -> anyhow::Result<Vec<u8>> {
    if args.credentials.take_standard_input() {
        let message = "standard input cannot be both the link and the message: give one in a file, or the other by \
             --message";
        return Err(Failure::usage(message).into());
    }
    let mut stdin = std::io::stdin();
    if stdin.is_terminal() {
        eprintln!("Type the message, then Ctrl-D:");
    }
    let mut body = Vec::new();
    stdin
        .by_ref()
        .take(MAX_BODY as u64 + 1)
        .read_to_end(&mut body)
        .context("cannot read the message from standard input")?;
    Ok(body)
}

fn content_type(args: &Publish, body: &[u8]) -> Result<String, Failure> {
    match &args.content_type {
        Some(given) if given.len() > MAX_CONTENT_TYPE || !given.bytes().all(is_visible) => {
            let message =
                format!("a media type has at most {MAX_CONTENT_TYPE} characters of ASCII");
            Err(Failure::usage(message))
        }
        Some(given) => Ok(given.clone()),
        None if std::str::from_utf8(body).is_ok() => Ok(TEXT.to_owned()),
        None => Ok(DEFAULT_CONTENT_TYPE.to_owned()),
    }
}

const fn is_visible(byte: u8) -> bool {
    byte.is_ascii_graphic() || byte == b' '
}
