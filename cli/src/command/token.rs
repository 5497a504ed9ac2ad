//! `portway token`: issue, accept, inspect, revoke.

use std::io::Read as _;

use portway_protocol::limits::MAX_TOKEN;
use portway_protocol::token::TrustedKeys;
use portway_protocol::token::machine::{MachineClaims, RevokedBy};
use portway_protocol::token::user::UserClaims;
use serde::Serialize;

use super::client::ask;
use super::links;
use crate::args::{Global, Issue, Token};
use crate::cluster::{Cluster, Kept};
use crate::control::gateway::{Accepted, Presented};
use crate::enrolment::issuer::{InvitationRequest, JoinToken};
use crate::enrolment::ledger::{Entries, Ledger, Member};
use crate::exit::Failure;
use crate::links::{GrantRequest, Granted, Links, unix_now};
use crate::output;
use crate::state;
use portway_gateway::portal::Portal;
use portway_protocol::printable::printable;

#[derive(Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
enum Inspected {
    User { claims: UserClaims },
    Machine { claims: MachineClaims },
}

/// Runs the sub-command.
pub(crate) fn run(global: &Global, args: &Token) -> anyhow::Result<()> {
    match args {
        Token::Issue(issue) => run_issue(global, issue),
        Token::Accept => accept(global),
        Token::Inspect => inspect(global),
        Token::Revoke { grant } => links::revoke(global, grant),
    }
}

fn run_issue(global: &Global, issue: &Issue) -> anyhow::Result<()> {
    match issue {
        Issue::User {
            services,
            terms,
            origin,
        } => {
            let request = GrantRequest::new(services, terms);
            request.require_people()?;
            match origin {
                Some(portal) => issue_here(global, &request, portal)?,
                None => issue_there(global, &request)?,
            }
        }
        Issue::Join {
            node,
            lifetime,
            certificate,
        } => {
            let request = InvitationRequest {
                node: node.clone(),
                lifetime_s: lifetime.as_secs(),
                certificate_s: certificate.as_secs(),
            };
            let made: JoinToken = ask(global, "POST", "/invitations", Some(&request))?;
            output::print(global.format(), &made, |made| made.token.clone())?;
        }
        Issue::Machine {
            node,
            key,
            lifetime,
        } => {
            let state = state::locate(global)?;
            let cluster = Cluster::required(global, &state)?;
            let token =
                cluster.machine_token(node, *key, lifetime.as_secs(), RevokedBy::Nothing)?;
            let member = Member {
                node: node.clone(),
                key: *key,
                grant: None,
                certificate_s: lifetime.as_secs(),
                expires: token.expires,
            };
            let ledger = Ledger::new(state);
            let certify = |entries: &mut Entries| anyhow::Ok(entries.certify(member));
            if ledger.change(unix_now(), certify)? {
                tracing::warn!(
                    "this node was forgotten before: restart the instance that runs here, so that it signs a list of \
                     revoked nodes without it"
                );
            }
            output::print(global.format(), &token, |token| token.token.clone())?;
        }
    }
    Ok(())
}

/// By the running instance, which knows the grant from then on.
fn issue_there(global: &Global, request: &GrantRequest) -> anyhow::Result<()> {
    let granted: Granted = ask(global, "POST", "/grants", Some(request))?;
    output::print(global.format(), &granted, |granted| {
        format!(
            "{}\n(grant {}; revoke it with `portway links revoke {}`)",
            granted.link, granted.id, granted.id
        )
    })?;
    Ok(())
}

/// By the cluster key of the state directory. Nobody knows the grant yet.
fn issue_here(global: &Global, request: &GrantRequest, portal: &Portal) -> anyhow::Result<()> {
    let cluster = Cluster::required(global, &state::locate(global)?)?;
    if !portal.is_of(&cluster.name) {
        let message = format!(
            "{portal} is not the portal of the cluster `{}`",
            cluster.name
        );
        return Err(Failure::configuration(message).into());
    }
    let granted = Links::of_cluster(cluster, portal.clone()).issue(request)?;
    output::print(global.format(), &granted, |granted| {
        format!(
            "{}\n\nIt works once the node of the service knows the grant {}. There, run\n\n  \
             portway token accept <<'END'\n{}\nEND",
            granted.link, granted.id, granted.token
        )
    })?;
    Ok(())
}

/// Gives a token to the running gateway.
fn accept(global: &Global) -> anyhow::Result<()> {
    let presented = Presented {
        token: read_token()?,
    };
    let accepted: Accepted = ask(global, "POST", "/grants/accept", Some(&presented))?;
    output::print(global.format(), &accepted, |accepted| {
        let services = accepted.services.iter().map(ToString::to_string);
        format!(
            "{} may open {} (grant {}; revoke it with `portway links revoke {}`)",
            printable(&accepted.user),
            services.collect::<Vec<_>>().join(", "),
            accepted.id,
            accepted.id
        )
    })?;
    Ok(())
}

/// A token on standard input.
fn read_token() -> anyhow::Result<String> {
    let mut token = String::new();
    std::io::stdin()
        .take(MAX_TOKEN as u64 + 2)
        .read_to_string(&mut token)?;
    Ok(token.trim().to_owned())
}

fn inspect(global: &Global) -> anyhow::Result<()> {
    let token = read_token()?;
    let kept = Kept::required(&state::locate(global)?)?;
    let keys = TrustedKeys::new([kept.public()]);
    let name = kept.name;
    let now = unix_now();
    let user = UserClaims::verify_any_service(&token, &name, &keys, now);
    let inspected = match user {
        Ok(claims) => Inspected::User { claims },
        Err(as_user) => match MachineClaims::verify(&token, &name, &keys, now) {
            Ok(claims) => Inspected::Machine { claims },
            Err(_) => {
                return Err(
                    Failure::because(as_user.reason(), format!("not valid: {as_user}")).into(),
                );
            }
        },
    };
    output::print(global.format(), &inspected, |inspected| {
        serde_json::to_string_pretty(inspected).unwrap_or_default()
    })?;
    Ok(())
}
