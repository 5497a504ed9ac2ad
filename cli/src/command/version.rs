//! `portway version` and `portway completions`.

use clap::CommandFactory as _;
use serde::Serialize;

use crate::args::{Cli, Global};
use crate::{assets, output};

#[derive(Serialize)]
struct Version {
    version: &'static str,
    commit: &'static str,
    web_client: Option<String>,
}

/// Prints what this binary is.
pub(crate) fn run(global: &Global) -> anyhow::Result<()> {
    let version = Version {
        version: crate::VERSION,
        commit: crate::COMMIT,
        web_client: assets::are_embedded().then(assets::hash),
    };
    output::print(global.format(), &version, |version| {
        format!(
            "portway {} ({})\nweb client {}",
            version.version,
            version.commit,
            version.web_client.as_deref().unwrap_or("not built in")
        )
    })?;
    Ok(())
}

/// Prints a completion script.
pub(crate) fn completions(shell: clap_complete::Shell) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "portway", &mut script);
    std::io::Write::write_all(&mut std::io::stdout(), &script)?;
    Ok(())
}
