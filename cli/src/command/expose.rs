//! `portway expose`: one more service, on the running instance or on one that it starts.

use std::process::ExitCode;

use super::client::{ask, is_running};
use super::up;
use crate::args::{Expose, Global, Up};
use crate::control::gateway::{Exposed, NewService};
use crate::output;

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
    output::print(global.format(), &exposed, |exposed| match &exposed.link {
        Some(link) => format!("{}  {link}", exposed.name),
        None => format!(
            "{}  {}\n(a link: `portway share {}`)",
            exposed.name, exposed.url, exposed.name
        ),
    })?;
    Ok(ExitCode::SUCCESS)
}
