//! `portway share`: a link that opens a service, for somebody else. [`pairing`]: where it cannot be sent.

mod pairing;

use std::process::ExitCode;

use portway_protocol::id::{NodeId, ServiceName};
use portway_protocol::target::ServiceTarget;
use serde::Serialize;

use super::client::{ask, duration};
use crate::args::{Global, Share, Terms};
use crate::control::gateway::ServiceView;
use crate::links::{GrantRequest, Granted, NodeGrantRequest, NodeGranted, unix_now};
use crate::{opener, output};

/// The link, as programs get it.
#[derive(Serialize)]
struct Shared {
    link: String,
    id: String,
    expires: u64,
}

/// A service that a node may open, as programs get it.
#[derive(Serialize)]
struct SharedWithNode {
    node: NodeId,
    id: String,
    expires: u64,
}

/// Has the running instance make it, which knows it from then on.
pub(crate) fn run(global: &Global, args: &Share) -> anyhow::Result<ExitCode> {
    if args.pair {
        return pairing::run(global, args);
    }
    if let Some(node) = &args.to_node {
        return with_node(global, args, node);
    }
    let target = target(global, &args.service)?;
    let command = target.and_then(|target| opener::command_only(&args.service, &target));
    let request = GrantRequest::new([&args.service], &args.terms);
    let granted: Granted = ask(global, "POST", "/links", Some(&request))?;
    let shared = Shared {
        link: granted.link,
        id: granted.id.to_string(),
        expires: granted.expires,
    };
    let human = |shared: &Shared| human(shared, args, command.as_deref());
    output::print(global.format(), &shared, human)?;
    Ok(ExitCode::SUCCESS)
}

/// What is behind a service, if it is of the running instance.
fn target(global: &Global, service: &ServiceName) -> anyhow::Result<Option<ServiceTarget>> {
    let services: Vec<ServiceView> = ask(global, "GET", "/services", None::<&()>)?;
    let found = services.into_iter().find(|it| it.name == *service);
    Ok(found.map(|it| it.target))
}

/// Lets a node of the cluster in. It needs no link.
fn with_node(global: &Global, args: &Share, node: &NodeId) -> anyhow::Result<ExitCode> {
    let command = match target(global, &args.service)? {
        Some(target) => opener::command(&args.service, &target),
        None => format!("portway connect {} -L PORT", args.service),
    };
    let request = NodeGrantRequest {
        node: node.clone(),
        service: args.terms.permission(&args.service),
        lifetime_s: args.terms.node_lifetime().as_secs(),
    };
    let granted: NodeGranted = ask(global, "POST", "/links/node", Some(&request))?;
    let shared = SharedWithNode {
        node: node.clone(),
        id: granted.id.to_string(),
        expires: granted.expires,
    };
    output::print(global.format(), &shared, |shared| {
        let left = duration(shared.expires.saturating_sub(unix_now()));
        let (node, service) = (&shared.node, &args.service);
        format!(
            "{node} may open {service} for {left}{}. There: {command}\nTo take it back: \
             portway links revoke {}",
            limits(&args.terms),
            shared.id
        )
    })?;
    Ok(ExitCode::SUCCESS)
}

/// `command`: what to run on the other machine, where no browser opens it.
fn human(shared: &Shared, args: &Share, command: Option<&str>) -> String {
    let mut text = format!("{}\n\n", shared.link);
    if command.is_none()
        && output::is_fancy()
        && let Some(qr) = output::qr(&shared.link)
    {
        text.push_str(&qr);
        text.push_str("\n\n");
    }
    let left = duration(shared.expires.saturating_sub(unix_now()));
    text.push_str(&format!("It opens {} for {left}", args.service));
    text.push_str(&limits(&args.terms));
    if let Some(command) = command {
        text.push_str(&format!(
            ". It is no web page; with the link in a file there: {}",
            opener::with_link(&args.service, command)
        ));
    }
    text.push_str(&format!(
        ". Send it as you would send a key.\nTo take it back: portway links revoke {}",
        shared.id
    ));
    text
}

/// What it does not allow.
fn limits(terms: &Terms) -> String {
    let mut text = String::new();
    if let Some(methods) = &terms.methods {
        text.push_str(&format!(", {} only", methods.join(" and ")));
    }
    if let Some(paths) = &terms.paths {
        text.push_str(&format!(", at {} only", paths.join(" and ")));
    }
    if terms.once {
        text.push_str(", on the first device that opens it only");
    }
    text
}
