//! What a conversation came to.

use std::fmt;
use std::io;
use std::net::IpAddr;

use anyhow::{Result, bail};

/// An ICMP or ICMPv6 error that reached a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IcmpError {
    /// Who sent it.
    pub from: Option<IpAddr>,
    /// Type, in the numbers of the family.
    pub kind: u8,
    /// Code.
    pub code: u8,
    /// The path MTU that a "too big" carries; 0 otherwise.
    pub mtu: u32,
}

impl fmt::Display for IcmpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "icmp type {} code {}", self.kind, self.code)?;
        if self.mtu != 0 {
            write!(f, " mtu {}", self.mtu)?;
        }
        match self.from {
            Some(from) => write!(f, " from {from}"),
            None => Ok(()),
        }
    }
}

/// What came of a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome<T> {
    /// The other side answered as it should.
    Answered(T),
    /// Nothing came back in time.
    TimedOut,
    /// A TCP reset came back.
    Refused,
    /// An ICMP error came back, or this side's kernel had no way to send.
    Unreachable {
        /// The error message, if there was one.
        icmp: Option<IcmpError>,
        /// What the socket reported.
        errno: i32,
    },
    /// It began, and then went wrong: cut off, or the content changed on the way.
    Broken(String),
}

impl<T> Outcome<T> {
    /// Whether the other side answered.
    pub const fn is_answered(&self) -> bool {
        matches!(self, Self::Answered(_))
    }

    /// The answer; an error that says what came instead.
    pub fn answered(self) -> Result<T> {
        match self {
            Self::Answered(answer) => Ok(answer),
            other => bail!("no answer: {}", other.describe()),
        }
    }

    /// The ICMP error, if that is what came back.
    pub const fn icmp(&self) -> Option<IcmpError> {
        match self {
            Self::Unreachable { icmp, .. } => *icmp,
            _ => None,
        }
    }

    /// The answer, or what came instead as the outcome of a larger conversation.
    pub(crate) fn split<U>(self) -> std::result::Result<T, Outcome<U>> {
        match self {
            Self::Answered(answer) => Ok(answer),
            Self::TimedOut => Err(Outcome::TimedOut),
            Self::Refused => Err(Outcome::Refused),
            Self::Unreachable { icmp, errno } => Err(Outcome::Unreachable { icmp, errno }),
            Self::Broken(reason) => Err(Outcome::Broken(reason)),
        }
    }

    /// Changes the type of the answer.
    pub fn map<U>(self, change: impl FnOnce(T) -> U) -> Outcome<U> {
        match self.split() {
            Ok(answer) => Outcome::Answered(change(answer)),
            Err(outcome) => outcome,
        }
    }

    /// In a word or two, for tables.
    pub fn describe(&self) -> String {
        match self {
            Self::Answered(_) => "answered".into(),
            Self::TimedOut => "timed out".into(),
            Self::Refused => "refused".into(),
            Self::Unreachable { icmp: Some(icmp), .. } => format!("unreachable ({icmp})"),
            Self::Unreachable { icmp: None, errno } => {
                format!("unreachable ({})", io::Error::from_raw_os_error(*errno))
            }
            Self::Broken(reason) => format!("broken: {reason}"),
        }
    }
}
