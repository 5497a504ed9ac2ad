//! What processes use, as the system tells it.

use std::collections::HashMap;
use std::fs;
use std::time::Duration;

use anyhow::Context as _;

/// Unit of processor time in `/proc`, the same on all of Linux.
const TICKS_PER_SECOND: u32 = 100;

/// Unit of memory in `/proc/PID/stat`.
const PAGE: usize = 4096;

/// What some processes and those that they have started use together.
#[derive(Debug, Clone, Copy, Default)]
pub struct Usage {
    /// Processor time so far.
    pub cpu: Duration,
    /// Memory held now, bytes. What processes share is counted in each.
    pub resident: usize,
    /// Threads.
    pub threads: usize,
    /// Open file descriptors.
    pub files: usize,
}

impl Usage {
    /// Of these processes and their descendants.
    ///
    /// # Errors
    /// If one of `roots` has ended.
    pub fn of(roots: &[u32]) -> anyhow::Result<Self> {
        let all = processes()?;
        let mut usage = Self::default();
        let mut family = roots.to_vec();
        while let Some(process) = family.pop() {
            let stat = all.get(&process).context("a process has ended")?;
            usage.cpu += stat.cpu;
            usage.resident += stat.resident;
            usage.threads += stat.threads;
            usage.files += fs::read_dir(format!("/proc/{process}/fd")).map_or(0, Iterator::count);
            let children = all.iter().filter(|(_, stat)| stat.parent == process);
            family.extend(children.map(|(child, _)| *child));
        }
        Ok(usage)
    }
}

/// One process.
struct Stat {
    parent: u32,
    cpu: Duration,
    threads: usize,
    resident: usize,
}

/// All of the machine.
fn processes() -> anyhow::Result<HashMap<u32, Stat>> {
    let mut all = HashMap::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(process) = name.to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        // It may end while we look.
        if let Ok(stat) = fs::read_to_string(format!("/proc/{process}/stat")) {
            all.insert(process, parse(&stat).context("/proc has another form")?);
        }
    }
    Ok(all)
}

/// A line of `/proc/PID/stat`, see proc(5).
fn parse(stat: &str) -> Option<Stat> {
    // The name in parentheses may contain spaces; what follows begins with field 3.
    let (_, after) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = after.split_whitespace().collect();
    let field = |number: usize| fields.get(number - 3);
    let ticks = field(14)?.parse::<u32>().ok()? + field(15)?.parse::<u32>().ok()?;
    Some(Stat {
        parent: field(4)?.parse().ok()?,
        cpu: Duration::from_secs(1) * ticks / TICKS_PER_SECOND,
        threads: field(20)?.parse().ok()?,
        resident: field(24)?.parse::<usize>().ok()? * PAGE,
    })
}
