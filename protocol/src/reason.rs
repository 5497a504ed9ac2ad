//! Reason codes: one vocabulary for every failure that a user can meet.
//!
//! A code is stable, appears in messages, pages, logs and `--json`, and comes with plain words,
//! a hint and an exit code.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Makes the enum, its names and its words from one table.
macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident = $code:literal, $exit:ident, $message:literal, $hint:literal;)*) => {
        /// Why something did not work.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[non_exhaustive]
        pub enum Reason {
            $($(#[$doc])* #[serde(rename = $code)] $variant,)*
            /// A code of a newer version.
            #[serde(other, rename = "UNKNOWN")]
            Unknown,
        }

        impl Reason {
            /// All codes but [`Reason::Unknown`], for documentation and tests.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// The stable code, e.g. `NODE_OFFLINE`.
            #[must_use]
            pub const fn code(self) -> &'static str {
                match self {
                    $(Self::$variant => $code,)*
                    Self::Unknown => "UNKNOWN",
                }
            }

            /// What happened, in plain words.
            #[must_use]
            pub const fn message(self) -> &'static str {
                match self {
                    $(Self::$variant => $message,)*
                    Self::Unknown => "Something failed that this version does not know.",
                }
            }

            /// What to do about it.
            #[must_use]
            pub const fn hint(self) -> &'static str {
                match self {
                    $(Self::$variant => $hint,)*
                    Self::Unknown => "Update Portway on both ends.",
                }
            }

            /// Exit code of a command that fails for this reason.
            #[must_use]
            pub const fn exit(self) -> Exit {
                match self {
                    $(Self::$variant => Exit::$exit,)*
                    Self::Unknown => Exit::Failure,
                }
            }
        }
    };
}

/// Exit codes of the command line (sysexits where one fits).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Any other failure.
    Failure = 1,
    /// Wrong arguments.
    Usage = 2,
    /// The other side is not there.
    Unavailable = 69,
    /// Not allowed.
    Denied = 77,
    /// Bad configuration.
    Configuration = 78,
}

reasons! {
    /// The address had no link and this browser has no grant for the service.
    LinkMissing = "LINK_MISSING", Denied,
        "This service opens with a link.",
        "Ask its owner for the link, or open the link that you already have once more.";
    /// The fragment is damaged, or for another cluster.
    LinkInvalid = "LINK_INVALID", Denied,
        "This link is damaged or belongs to another place.",
        "Copy the whole link again, up to its last character.";
    /// No node knows the grant (any more).
    GrantUnknown = "GRANT_UNKNOWN", Denied,
        "This link is not valid any more.",
        "It was revoked, or the machine it came from was set up anew: ask for a new one.";
    /// The grant's time is over.
    GrantExpired = "GRANT_EXPIRED", Denied,
        "This link has expired.",
        "Ask its owner for a new one.";
    /// The link is for one device, and another has opened it.
    LinkUsed = "LINK_USED", Denied,
        "This link was for one device, and another one has used it.",
        "Open it where it was opened first, or ask its owner for a new one. If you have never opened it, tell \
         its owner: somebody else has.";
    /// A token is malformed, forged or for another audience.
    TokenInvalid = "TOKEN_INVALID", Denied,
        "The token was refused.",
        "Issue a new one with `portway token issue`.";
    /// A token's time is over.
    TokenExpired = "TOKEN_EXPIRED", Denied,
        "The token has expired.",
        "Issue a new one with `portway token issue`; check the clocks of both machines.";
    /// A proof does not match the key.
    ProofInvalid = "PROOF_INVALID", Denied,
        "The proof of identity was refused.",
        "The key on this side does not belong to the token: enrol again.";
    /// An end did not prove who it is, or that it is the other end of this very channel.
    E2eAuthFailed = "E2E_AUTH_FAILED", Denied,
        "The two ends could not prove to each other who they are.",
        "Somebody may stand in between: nothing was sent. Ask the owner for a new link by another way; if the \
         machine was set up anew, the old one is for another.";
    /// An offer with this session came before.
    OfferReplayed = "OFFER_REPLAYED", Denied,
        "This introduction has been used before.",
        "Somebody may stand in between and repeat what you have sent; nothing was opened by it.";
    /// The link has another cluster key than the one that opened the service here before.
    ClusterKeyChanged = "CLUSTER_KEY_CHANGED", Denied,
        "The key of this place has changed.",
        "Compare its eight words with those of the owner (`portway key show`), by another way than the link came.";
    /// The node's certificate is not valid now.
    CertificateExpired = "NODE_CERTIFICATE_EXPIRED", Denied,
        "The machine's certificate is not valid at this time.",
        "Check the clock of this device; if it is right, the machine needs a new one (`portway token issue machine`).";
    /// The node's certificate was taken back.
    NodeRevoked = "NODE_REVOKED", Denied,
        "This machine was taken out of its cluster.",
        "If it was not you, ask its owner; `portway join` with a new join token takes it in again.";
    /// No list of revoked nodes is in force.
    RevocationsOutdated = "REVOCATIONS_OUTDATED", Unavailable,
        "Nobody says which machines still belong to this cluster.",
        "The machine with the cluster key has been away for too long, or somebody holds its word back; we try again \
         by ourselves.";
    /// The grant does not cover this request.
    PermissionDenied = "PERMISSION_DENIED", Denied,
        "Your link does not allow this.",
        "Ask its owner for one that does.";
    /// Another node key has the name.
    NodeNameTaken = "NODE_NAME_TAKEN", Denied,
        "Another machine has this name.",
        "Give another one with `--node NAME`; if that machine is gone, free its name with `portway nodes forget NAME`.";
    /// No node has a window open for the service.
    PairingClosed = "PAIRING_CLOSED", Unavailable,
        "Nobody is waiting to pair with this service.",
        "Ask its owner to run `portway share SERVICE --pair`, and try again while that waits.";
    /// The window has its guest already.
    PairingTaken = "PAIRING_TAKEN", Unavailable,
        "Another device is pairing with this service now.",
        "Tell its owner, who can stop that (Ctrl-C) and wait anew.";
    /// The owner has typed other digits than those of the node.
    PairingMismatch = "PAIRING_MISMATCH", Denied,
        "The six digits are not the same on both sides.",
        "Somebody may stand in between; nothing was opened. Try again once, in case of a slip. If it fails again, \
         do not go on.";
    /// The other end has gone.
    PairingCancelled = "PAIRING_CANCELLED", Unavailable,
        "The other side has ended the pairing.",
        "Begin again on both sides.";
    /// It took longer than a node waits.
    PairingExpired = "PAIRING_EXPIRED", Unavailable,
        "The pairing took too long.",
        "Begin again on both sides.";
    /// Too many attempts came to nothing.
    PairingSuspended = "PAIRING_SUSPENDED", Denied,
        "Too many attempts to pair with this service have failed today.",
        "Somebody may be guessing. Send a link (`portway share SERVICE`), or wait a day.";
    /// No online node offers the service.
    ServiceUnknown = "SERVICE_UNKNOWN", Unavailable,
        "No machine offers this service.",
        "Check the name, or expose it with `portway expose`.";
    /// The node has as many connections to the service as its owner allows.
    ServiceFull = "SERVICE_FULL", Unavailable,
        "The machine allows no more connections to this service at a time.",
        "End some, or ask its owner for more (`connections` in the [limits] of its configuration).";
    /// The cluster has no node of that name.
    NodeUnknown = "NODE_UNKNOWN", Failure,
        "The cluster has no machine of that name.",
        "`portway nodes` lists those there are.";
    /// The node that offers the service is offline.
    NodeOffline = "NODE_OFFLINE", Unavailable,
        "The machine behind this service is offline.",
        "It reconnects by itself when it is back; this page will notice.";
    /// The node that was asked for is offline; another one offers the service to the same grant.
    ServedElsewhere = "SERVED_ELSEWHERE", Unavailable,
        "The machine that was asked for is not there; another one offers this service, too.",
        "The next attempt that names no machine leads there.";
    /// No connection to the signaling service.
    SignalingUnreachable = "SIGNALING_UNREACHABLE", Unavailable,
        "The meeting point cannot be reached.",
        "Check the network; we keep trying.";
    /// Signaling refused this end.
    SignalingRefused = "SIGNALING_REFUSED", Denied,
        "The meeting point refused this connection.",
        "See its log for the reason.";
    /// Too many messages or attempts.
    RateLimited = "RATE_LIMITED", Unavailable,
        "Too many attempts.",
        "Wait a moment; we try again by ourselves.";
    /// Another connection of the same node took over.
    Replaced = "REPLACED", Unavailable,
        "Another process of the same node has taken over.",
        "Run only one gateway per node name.";
    /// The other end is shutting down.
    Draining = "DRAINING", Unavailable,
        "The other end is shutting down.",
        "We reconnect when it is back.";
    /// No pair of candidates worked.
    IceFailed = "ICE_FAILED", Unavailable,
        "No path between this browser and the machine was found.",
        "A firewall blocks direct traffic: a relay helps, see `portway doctor`.";
    /// The peer did not answer in time.
    SessionTimeout = "SESSION_TIMEOUT", Unavailable,
        "The machine did not answer in time.",
        "We try again by ourselves.";
    /// The session ended while something was under way.
    SessionLost = "SESSION_LOST", Unavailable,
        "The connection to the machine was lost.",
        "We reconnect by ourselves; repeat what was under way.";
    /// The other end broke the protocol.
    ProtocolViolation = "PROTOCOL_VIOLATION", Failure,
        "The other end spoke out of turn.",
        "Update Portway on both ends.";
    /// No common version.
    VersionUnsupported = "VERSION_UNSUPPORTED", Failure,
        "The two ends speak different versions.",
        "Update Portway on both ends.";
    /// The request cannot be forwarded as it is.
    RequestInvalid = "REQUEST_INVALID", Usage,
        "The request is malformed.",
        "";
    /// The service speaks something else than HTTP.
    ServiceNotHttp = "SERVICE_NOT_HTTP", Usage,
        "This service is no web page.",
        "Programs reach it through `portway connect`.";
    /// The service speaks HTTP.
    ServiceIsHttp = "SERVICE_IS_HTTP", Usage,
        "This service speaks HTTP: it has no plain stream.",
        "Use `portway connect -L PORT`, and ask there.";
    /// The service speaks UDP.
    ServiceIsUdp = "SERVICE_IS_UDP", Usage,
        "This service speaks UDP: it has no plain stream.",
        "Use `portway connect --udp -L PORT`.";
    /// The service does not speak UDP.
    ServiceNotUdp = "SERVICE_NOT_UDP", Usage,
        "This service does not speak UDP.",
        "Use `portway connect` without `--udp`.";
    /// The service takes connections, for a client to serve.
    ServiceListens = "SERVICE_LISTENS", Usage,
        "This service takes connections on its machine, for you to serve.",
        "Use `portway connect -R PORT`, with the port of your program.";
    /// The service takes no connections for a client to serve.
    ServiceNotListening = "SERVICE_NOT_LISTENING", Usage,
        "This service takes no connections for you to serve.",
        "Use `portway connect -L PORT`; only a `listen://` service goes the other way.";
    /// The node cannot take connections at the service's address.
    ListenFailed = "LISTEN_FAILED", Unavailable,
        "The machine cannot take connections where this service says.",
        "Another program may have the port, or it needs more rights: look there.";
    /// Nothing listens at the service's address.
    UpstreamRefused = "UPSTREAM_REFUSED", Unavailable,
        "The service is not running.",
        "Start it on its machine; this page reloads by itself.";
    /// The service's answer is no HTTP.
    UpstreamInvalid = "UPSTREAM_INVALID", Failure,
        "The service gave an invalid answer.",
        "Check that the target's scheme and port are right.";
    /// The service did not accept a connection in time.
    UpstreamConnectTimeout = "UPSTREAM_CONNECT_TIMEOUT", Unavailable,
        "The service does not accept connections.",
        "It may be overloaded, or a firewall on its machine drops them.";
    /// The service did not answer in time.
    UpstreamTimeout = "UPSTREAM_TIMEOUT", Unavailable,
        "The service took too long to answer.",
        "It may be overloaded; try again.";
    /// The certificate of an `https` target was refused.
    UpstreamCertificate = "UPSTREAM_CERTIFICATE", Configuration,
        "The service's certificate is not trusted.",
        "Give its authority with `ca=FILE`, or `insecure` if you accept any.";
    /// A body ended early.
    BodyTruncated = "BODY_TRUNCATED", Failure,
        "The transfer ended early.",
        "Nothing was saved as complete; try again.";
    /// There is no such file.
    FileNotFound = "FILE_NOT_FOUND", Failure,
        "There is no such file.",
        "Check its name; the service's page, or `portway cp` of the directory, shows what is there.";
    /// The node may not read or write it, or a link leads out of the root.
    FileDenied = "FILE_DENIED", Denied,
        "The machine may not touch this file.",
        "Its owner has to allow it to the user that Portway runs as; links that lead out of the shared directory are \
         never followed.";
    /// A device, a socket, a pipe.
    FileNotRegular = "FILE_NOT_REGULAR", Failure,
        "This is no file with content.",
        "Only files and directories are copied.";
    /// A directory is where a file should be.
    FileIsDirectory = "FILE_IS_DIRECTORY", Failure,
        "This is a directory.",
        "Copy it with `-r`, or give the name of a file in it.";
    /// There is one already.
    FileExists = "FILE_EXISTS", Failure,
        "There is another file of this name.",
        "`--force` replaces it.";
    /// It changed while it was read.
    FileChanged = "FILE_CHANGED", Failure,
        "The file changed while it was copied.",
        "Copy it again when nobody writes to it.";
    /// The service's files may be read alone.
    FilesReadOnly = "FILES_READ_ONLY", Denied,
        "These files may be read, not written.",
        "Their owner can offer the directory as `files+rw:/PATH`.";
    /// The directory that a file should be in is not there.
    DirectoryMissing = "DIRECTORY_MISSING", Failure,
        "The directory is not there.",
        "Make it first, or check its name; `portway cp -r` makes the last one of its path.";
    /// No space is left.
    DiskFull = "DISK_FULL", Failure,
        "The disk is full.",
        "Make room, and run the same command again: it goes on where it ended.";
    /// The system failed.
    FileFailed = "FILE_FAILED", Failure,
        "The machine could not read or write the file.",
        "Its log says why.";
    /// What arrived is not what was sent.
    DigestMismatch = "DIGEST_MISMATCH", Failure,
        "What arrived is not what was sent.",
        "Nothing was kept. Copy it again; if that fails too, a disk or memory may be broken.";
    /// It is no service of files.
    ServiceNotFiles = "SERVICE_NOT_FILES", Usage,
        "This service offers no files.",
        "A node offers them as `files:/PATH`.";
    /// No topic, or no filter of topics.
    TopicInvalid = "TOPIC_INVALID", Usage,
        "This is no topic of messages.",
        "A topic is like alarms/cellar: a-z, 0-9, `.`, `_` and `-`; whoever subscribes may end it in `/*`.";
    /// The body of a message is too large.
    MessageTooLarge = "MESSAGE_TOO_LARGE", Usage,
        "The message is larger than 64 KiB.",
        "Send what is large by another service, and say here where it is.";
    /// It is no message bus.
    ServiceNotMessages = "SERVICE_NOT_MESSAGES", Usage,
        "This service is no message bus.",
        "A node offers one as `messages:`.";
    /// A request reached the web server instead of the service.
    AppRequestBypassed = "APP_REQUEST_BYPASSED", Failure,
        "This request did not go through Portway and was refused.",
        "Reload the page.";
    /// The browser lacks something that is needed.
    BrowserUnsupported = "BROWSER_UNSUPPORTED", Failure,
        "This browser lacks something that Portway needs.",
        "Use a current Chromium, Chrome, Edge or Firefox, not in a mode without service workers.";
    /// A bug.
    Internal = "INTERNAL", Failure,
        "Portway failed.",
        "Please report it with the log.";
}

impl Reason {
    /// The reason of a code; one of a newer version is [`Reason::Unknown`].
    #[must_use]
    pub fn from_code(code: &[u8]) -> Self {
        let mut all = Self::ALL.iter();
        let known = all.find(|reason| reason.code().as_bytes() == code);
        known.copied().unwrap_or(Self::Unknown)
    }

    /// Whether trying to connect again is pointless until somebody does something.
    #[must_use]
    pub fn is_final(self) -> bool {
        [
            Self::LinkInvalid,
            Self::GrantUnknown,
            Self::GrantExpired,
            Self::LinkUsed,
            Self::TokenInvalid,
            Self::ProofInvalid,
            Self::E2eAuthFailed,
            Self::ClusterKeyChanged,
            Self::PermissionDenied,
            Self::VersionUnsupported,
        ]
        .contains(&self)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_and_survive_json() {
        for (i, reason) in Reason::ALL.iter().enumerate() {
            let json = serde_json::to_string(reason).unwrap();
            assert_eq!(json, format!("\"{}\"", reason.code()));
            assert_eq!(serde_json::from_str::<Reason>(&json).unwrap(), *reason);
            assert!(
                Reason::ALL[..i].iter().all(|r| r.code() != reason.code()),
                "{reason}"
            );
        }
    }

    #[test]
    fn a_code_of_a_newer_version_is_unknown_not_an_error() {
        let reason: Reason = serde_json::from_str("\"FROM_THE_FUTURE\"").unwrap();
        assert_eq!(reason, Reason::Unknown);
    }
}
