//! `portway token`: issue, inspect, revoke.

use std::io::Read as _;

use portway_protocol::id::ClusterName;
use portway_protocol::limits::MAX_TOKEN;
use portway_protocol::permission::Permission;
use portway_protocol::token::machine::MachineClaims;
use portway_protocol::token::user::UserClaims;
use portway_protocol::token::{Confirmation, TrustedKeys};
use serde::Serialize;

use super::client::ask;
use crate::args::{Global, Issue, Token};
use crate::control::Revoked;
use crate::exit::Failure;
use crate::links::{GrantRequest, Granted, random_id, unix_now};
use crate::output;
use crate::state::State;

/// Longest life of a machine token.
const MAX_MACHINE_LIFETIME: u64 = 30 * 24 * 3600;

#[derive(Serialize)]
struct MachineToken {
    token: String,
    expires: u64,
}

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
        Token::Inspect => inspect(global),
        Token::Revoke { grant } => {
            let revoked: Revoked = ask(global, "DELETE", &format!("/grants/{grant}"), None::<&()>)?;
            if !revoked.revoked {
                return Err(Failure::configuration(format!("there is no grant {grant}")).into());
            }
            output::print(global.format(), &revoked, |_| {
                format!("grant {grant} is revoked; its sessions end now")
            })?;
            Ok(())
        }
    }
}

fn run_issue(global: &Global, issue: &Issue) -> anyhow::Result<()> {
    match issue {
        Issue::User {
            services,
            user,
            lifetime,
            methods,
            paths,
        } => {
            let permission = |name: &portway_protocol::id::ServiceName| Permission {
                name: name.clone(),
                methods: methods.clone(),
                paths: paths.clone(),
            };
            let request = GrantRequest {
                services: services.iter().map(permission).collect(),
                user: user.clone(),
                lifetime_s: lifetime.as_secs(),
            };
            let granted: Granted = ask(global, "POST", "/grants", Some(&request))?;
            output::print(global.format(), &granted, |granted| {
                format!(
                    "{}\n(grant {}; revoke it with `portway token revoke {}`)",
                    granted.link, granted.id, granted.id
                )
            })?;
        }
        Issue::Machine {
            node,
            key,
            lifetime,
        } => {
            if lifetime.as_secs() > MAX_MACHINE_LIFETIME {
                return Err(Failure::configuration("a machine token lives at most 30 days").into());
            }
            let (state, cluster) = cluster(global)?;
            let now = unix_now();
            let expires = now + lifetime.as_secs();
            let claims = MachineClaims {
                iss: cluster.clone(),
                aud: cluster.clone(),
                sub: node.clone(),
                node_id: node.clone(),
                cluster_id: cluster,
                iat: now,
                exp: expires,
                jti: random_id(),
                cnf: Confirmation { ed25519: *key },
            };
            let token = MachineToken {
                token: claims.issue(&state.key(super::up::CLUSTER_KEY)?),
                expires,
            };
            output::print(global.format(), &token, |token| token.token.clone())?;
        }
    }
    Ok(())
}

fn inspect(global: &Global) -> anyhow::Result<()> {
    let mut token = String::new();
    std::io::stdin()
        .take(MAX_TOKEN as u64 + 2)
        .read_to_string(&mut token)?;
    let token = token.trim();
    let (state, cluster) = cluster(global)?;
    let keys = TrustedKeys::new([state.key(super::up::CLUSTER_KEY)?.public()]);
    let now = unix_now();
    let user = UserClaims::verify_any_service(token, &cluster, &keys, now);
    let inspected = match user {
        Ok(claims) => Inspected::User { claims },
        Err(as_user) => match MachineClaims::verify(token, &cluster, &keys, now) {
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

/// The cluster whose key is in the state directory.
fn cluster(global: &Global) -> anyhow::Result<(State, ClusterName)> {
    let state = State::locate(global)?;
    let name = std::fs::read_to_string(state.path(super::up::CLUSTER_NAME)).map_err(|_| {
        Failure::configuration(
            "there is no cluster in this state directory: run `portway up` first",
        )
    })?;
    Ok((state, name.trim().parse()?))
}
