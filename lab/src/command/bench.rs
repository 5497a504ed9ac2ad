//! Figures of a lab.

use crate::Format;
use crate::state::LabDir;

/// `portway-lab bench`.
pub(super) fn run(_dir: &LabDir, _size: u32, _format: Format) -> anyhow::Result<()> {
    anyhow::bail!("not yet")
}
