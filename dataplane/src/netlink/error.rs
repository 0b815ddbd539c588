//! What can go wrong between us and rtnetlink, with the operation named in words.

use std::io;

/// The result of a netlink operation.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a netlink operation failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The socket itself failed: opening, binding, sending or receiving.
    #[error("netlink socket failed while trying to {operation}: {source}")]
    Socket {
        /// What was being done, as an infinitive: "list routes".
        operation: String,
        /// The system call's error.
        source: io::Error,
    },
    /// The kernel understood the request and refused it.
    #[error("the kernel refused to {operation}: {}{}", io::Error::from_raw_os_error(*.errno), explain(.message.as_deref()))]
    Kernel {
        /// What was being done, as an infinitive: "add route 10.0.0.0/8".
        operation: String,
        /// The positive errno.
        errno: i32,
        /// The kernel's own explanation (extended acknowledgement), where it gave one.
        message: Option<String>,
    },
    /// The answer was not what the protocol promises.
    #[error("cannot understand the kernel's answer to {operation}: {reason}")]
    Protocol {
        /// What was being done.
        operation: String,
        /// What was wrong with the answer.
        reason: String,
    },
    /// The table changed under every attempt to read it.
    #[error(
        "cannot {operation}: the table changed during each of {attempts} attempts; try again when it is quieter"
    )]
    Unstable {
        /// What was being done.
        operation: String,
        /// How often it was tried.
        attempts: u32,
    },
    /// There is no interface of this name in this network namespace.
    #[error("no interface named \"{name}\" in this network namespace; `ip link` lists the ones there are")]
    NoSuchInterface {
        /// The name asked for.
        name: String,
    },
    /// An argument that no kernel would accept.
    #[error("cannot {operation}: {reason}")]
    Invalid {
        /// What was being done.
        operation: String,
        /// What is wrong with the argument.
        reason: String,
    },
}

impl Error {
    /// The errno behind this error, where there is one.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Socket { source, .. } => source.raw_os_error(),
            Self::Kernel { errno, .. } => Some(*errno),
            _ => None,
        }
    }

    /// Whether the thing to be created is there already.
    pub fn is_exists(&self) -> bool {
        self.errno() == Some(libc::EEXIST)
    }

    /// Whether the thing asked for does not exist: no such entry, device, route or address.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NoSuchInterface { .. })
            || matches!(
                self.errno(),
                Some(libc::ENOENT | libc::ENODEV | libc::ESRCH | libc::EADDRNOTAVAIL)
            )
    }

    /// Whether this kernel was built or booted without the family asked for.
    pub(super) fn is_unsupported_family(&self) -> bool {
        matches!(
            self.errno(),
            Some(libc::EAFNOSUPPORT | libc::EOPNOTSUPP | libc::EPFNOSUPPORT)
        )
    }
}

fn explain(message: Option<&str>) -> String {
    message
        .map(|text| format!(" (kernel: {text})"))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_operation_errno_and_explanation() {
        let error = Error::Kernel {
            operation: "add route 10.0.0.0/8".into(),
            errno: libc::ENETUNREACH,
            message: Some("Nexthop has invalid gateway".into()),
        };
        assert_eq!(
            error.to_string(),
            "the kernel refused to add route 10.0.0.0/8: Network is unreachable (os error 101) \
             (kernel: Nexthop has invalid gateway)"
        );
        assert!(!error.is_not_found() && !error.is_exists());
    }
}
