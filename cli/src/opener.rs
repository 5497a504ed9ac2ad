//! What opens a service on another machine: a browser by its link, or a command.

use portway_protocol::id::ServiceName;
use portway_protocol::target::ServiceTarget;

/// The command that opens a service on another machine. What it leaves open is in capitals.
pub(crate) fn command(service: &ServiceName, target: &ServiceTarget) -> String {
    match target {
        ServiceTarget::Http(_)
        | ServiceTarget::Https(_)
        | ServiceTarget::Unix(_)
        | ServiceTarget::Tcp(_)
        | ServiceTarget::TcpUnix(_) => format!("portway connect {service} -L PORT"),
        ServiceTarget::Udp(_) => format!("portway connect {service} --udp -L PORT"),
        ServiceTarget::Listen(_) => format!("portway connect {service} -R PORT"),
        ServiceTarget::Files(..) => format!("portway cp {service}:PATH ."),
        ServiceTarget::Messages => format!("portway subscribe '{service}/*'"),
    }
}

/// The same for what no browser opens; nothing for what one does.
pub(crate) fn command_only(service: &ServiceName, target: &ServiceTarget) -> Option<String> {
    match target {
        ServiceTarget::Http(_)
        | ServiceTarget::Https(_)
        | ServiceTarget::Unix(_)
        | ServiceTarget::Files(..) => None,
        ServiceTarget::Tcp(_)
        | ServiceTarget::TcpUnix(_)
        | ServiceTarget::Udp(_)
        | ServiceTarget::Listen(_)
        | ServiceTarget::Messages => Some(command(service, target)),
    }
}

/// A command with the link of the service, which is in a file of its name: never where all can read it.
pub(crate) fn with_link(service: &ServiceName, command: &str) -> String {
    format!("{command} --link-file {service}.link")
}
