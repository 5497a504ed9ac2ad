//! `portway links`: what was shared, and how to take it back.

use portway_gateway::links::LinkView;
use portway_protocol::id::GrantId;
use portway_protocol::permission::Permission;
use serde::Serialize;

use super::client::{ask, bytes, duration};
use crate::args::{Global, Links, LinksCommand};
use crate::control::gateway::Revoked;
use crate::exit::Failure;
use crate::links::unix_now;
use crate::output;
use portway_protocol::printable::printable;

#[derive(Serialize)]
struct Listed {
    links: Vec<LinkView>,
}

/// Runs the sub-command, or lists.
pub(crate) fn run(global: &Global, args: &Links) -> anyhow::Result<()> {
    match &args.command {
        Some(LinksCommand::Revoke { link }) => revoke(global, link),
        None => list(global),
    }
}

fn list(global: &Global) -> anyhow::Result<()> {
    let listed = Listed {
        links: ask(global, "GET", "/links", None::<&()>)?,
    };
    output::print(global.format(), &listed, |listed| {
        let now = unix_now();
        let rows: Vec<_> = listed.links.iter().map(|link| row(link, now)).collect();
        let head = [
            "ID",
            "USER",
            "OPENS",
            "MADE",
            "EXPIRES",
            "DEVICES",
            "LAST OPENED",
            "SESSIONS",
            "IN",
            "OUT",
        ];
        output::table(&head, &rows)
    })?;
    Ok(())
}

/// Takes a link back: what it opened is closed at once.
pub(crate) fn revoke(global: &Global, id: &GrantId) -> anyhow::Result<()> {
    let revoked: Revoked = ask(global, "DELETE", &format!("/links/{id}"), None::<&()>)?;
    if !revoked.revoked {
        return Err(Failure::configuration(format!("there is no link {id}")).into());
    }
    output::print(global.format(), &revoked, |revoked| {
        let ended = match revoked.sessions {
            0 => "nobody was there".to_owned(),
            1 => "one session ended".to_owned(),
            count => format!("{count} sessions ended"),
        };
        format!("link {id} is revoked; {ended}")
    })?;
    Ok(())
}

fn row(link: &LinkView, now: u64) -> Vec<String> {
    let opens: Vec<_> = link.services.iter().map(permission).collect();
    let last = link.last.map_or_else(
        || "never".to_owned(),
        |last| {
            let from = last
                .address
                .map(|address| format!(" from {address}"))
                .unwrap_or_default();
            let ago = duration(now.saturating_sub(last.at));
            format!("{ago} ago{from}, device {}", last.device.id())
        },
    );
    vec![
        link.id.to_string(),
        printable(&link.user),
        opens.join(", "),
        format!("{} ago", duration(now.saturating_sub(link.made))),
        match link.expires.checked_sub(now) {
            Some(left) if left > 0 => format!("in {}", duration(left)),
            Some(_) | None => "expired".to_owned(),
        },
        match (link.once, link.used) {
            (false, _) => "any",
            (true, false) => "one, not yet",
            (true, true) => "one, used",
        }
        .to_owned(),
        last,
        match link.open {
            0 => link.sessions.to_string(),
            open => format!("{} ({open} now)", link.sessions),
        },
        bytes(link.received),
        bytes(link.sent),
    ]
}

/// `lab`, or `lab (GET,HEAD /d/*)`.
fn permission(permission: &Permission) -> String {
    let methods = permission.methods.as_ref().map(|list| list.join(","));
    let paths = permission.paths.as_ref().map(|list| list.join(" "));
    let limits: Vec<_> = methods.into_iter().chain(paths).collect();
    if limits.is_empty() {
        return permission.name.to_string();
    }
    format!("{} ({})", permission.name, printable(&limits.join(" ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_link_opens_is_said_with_its_limits() {
        let all = Permission::all("lab".parse().unwrap());
        assert_eq!(permission(&all), "lab");
        let some = Permission {
            methods: Some(vec!["GET".into(), "HEAD".into()]),
            paths: Some(vec!["/d/*".into(), "/".into()]),
            ..all
        };
        assert_eq!(permission(&some), "lab (GET,HEAD /d/* /)");
    }
}
