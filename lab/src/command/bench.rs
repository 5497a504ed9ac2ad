//! Figures of a lab.

use std::path::Path;

use crate::Format;
use crate::state::LabDir;

/// `portway-lab bench`.
pub(super) fn run(_dir: &LabDir, _size: u32, _format: Format) -> anyhow::Result<()> {
    anyhow::bail!("not yet")
}

/// `portway-lab report`.
pub(super) fn report(_results: &Path, _output: &Path) -> anyhow::Result<()> {
    anyhow::bail!("not yet")
}
