//! Impairment by the kernel's own emulator, where it has it.

use std::process::{Command, Stdio};

use super::NetworkError;
use super::namespace::Namespace;
use crate::spec::Impairment;

/// Packets that may wait unless the lab says otherwise: what `netem` itself takes.
const DEFAULT_LIMIT: u32 = 1000;

/// Delay that `reorder` and `jitter` need to have an effect.
const LEAST_DELAY: f64 = 0.001;

/// Whether the kernel has it. Tried in a namespace of its own.
pub(crate) fn is_available() -> Result<bool, NetworkError> {
    Namespace::create()?.run(|| {
        let tried = Command::new("tc")
            .args(["qdisc", "add", "dev", "lo", "root", "netem", "delay", "1ms"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        Ok(tried.is_ok_and(|status| status.success()))
    })
}

/// Lines for `tc -batch`: a device does this to what it sends, in place of what it did before.
pub(crate) fn commands(device: &str, impairment: &Impairment) -> String {
    let mut line = format!(
        "qdisc replace dev {device} root netem limit {}",
        impairment.queue.unwrap_or(DEFAULT_LIMIT)
    );
    let seconds = |span: Option<crate::spec::Span>| span.map(|span| span.0.as_secs_f64());
    let needs_delay = impairment.jitter.is_some() || impairment.reorder.is_some();
    let delay = seconds(impairment.delay).or(needs_delay.then_some(LEAST_DELAY));
    if let Some(delay) = delay {
        let jitter = seconds(impairment.jitter).unwrap_or_default();
        line.push_str(&format!(" delay {}ms {}ms", delay * 1e3, jitter * 1e3));
    }
    if let Some(loss) = impairment.loss {
        line.push_str(&format!(" loss {}%", loss.0 * 100.0));
    }
    if let Some(reorder) = impairment.reorder {
        line.push_str(&format!(" reorder {}%", reorder.0 * 100.0));
    }
    if let Some(rate) = impairment.rate {
        line.push_str(&format!(" rate {}bit", rate.0.round()));
    }
    line.push('\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{Rate, Share, Span};

    #[test]
    fn a_link_is_told_as_the_kernel_wants_it() {
        let impairment = Impairment {
            delay: Some(Span(std::time::Duration::from_millis(20))),
            loss: Some(Share(0.01)),
            rate: Some(Rate(20e6)),
            ..Impairment::default()
        };
        assert_eq!(
            commands("eth0", &impairment),
            "qdisc replace dev eth0 root netem limit 1000 delay 20ms 0ms loss 1% rate 20000000bit\n"
        );
        let reorder = Impairment {
            reorder: Some(Share(0.05)),
            ..Impairment::default()
        };
        assert!(commands("wan", &reorder).contains("delay 1ms 0ms reorder 5%"));
    }
}
