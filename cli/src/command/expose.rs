//! `portway expose`: one more service, on the running instance or on one that it starts.

use std::process::ExitCode;

use super::client::{ask, is_running};
use super::up;
use crate::args::{Expose, Global, Up};
use crate::control::gateway::{Exposed, NewService};
use crate::{opener, output};

/// Adds the service; without a running instance, becomes one that has it.
pub(crate) fn run(global: &Global, args: &Expose) -> anyhow::Result<ExitCode> {
    let mut service = args.service.clone();
    // The running instance may have been started elsewhere.
    service.trust.resolve(&std::env::current_dir()?);
    if !is_running(global)? {
        eprintln!("portway: none is running here, so this one starts; Ctrl-C ends it");
        let args = Up {
            expose: vec![service],
            ..Up::default()
        };
        return up::run(global, &args);
    }
    let new = NewService::from(&service);
    let exposed: Exposed = ask(global, "POST", "/services", Some(&new))?;
    output::print(global.format(), &exposed, human)?;
    Ok(ExitCode::SUCCESS)
}

fn human(exposed: &Exposed) -> String {
    let Exposed {
        name,
        url,
        link,
        command,
    } = exposed;
    let command = command
        .as_ref()
        .map(|command| opener::with_link(name, command));
    match (link, command) {
        (Some(link), None) => format!("{name}  {link}"),
        (Some(link), Some(command)) => {
            format!("{name}  {link}\n(no web page; with the link in a file there: `{command}`)")
        }
        (None, None) => format!("{name}  {url}\n(a link: `portway share {name}`)"),
        (None, Some(command)) => format!(
            "{name}\n(a link: `portway share {name}`; with it in a file there: `{command}`)"
        ),
    }
}
