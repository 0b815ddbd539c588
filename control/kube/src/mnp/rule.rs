//! The rules of a policy: whom they permit, and on which ports.
//!
//! A part that is not understood permits nothing, alone: the rest stays in force. An unknown field is not understood, since it may
//! narrow what a known one says.

use std::net::IpAddr;

use bulkhead_config::IpPrefix;

use super::part::{Fault, Part, Wrong};
use super::ports::Span;
use super::selector::Selector;
use crate::pod::protocol;

const NO_PEER: &str = "this peer is nobody";
const NO_PORT: &str = "this port permits nothing";
const NO_RULE: &str = "this rule permits nothing";
const NO_RULES: &str = "nothing is permitted in this direction";

/// What is permitted: any of the peers, on any of the ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rule {
    /// `None`: anybody.
    pub peers: Option<Vec<Peer>>,
    /// `None`: anything, protocols without ports included.
    pub ports: Option<Vec<Port>>,
}

/// Who is at the other end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Peer {
    Block(Block),
    Pods {
        /// Of which namespaces; `None`: of the policy's own.
        namespaces: Option<Selector>,
        pods: Selector,
    },
}

/// Addresses without some of them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Block {
    pub network: IpPrefix,
    pub except: Vec<IpPrefix>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Port {
    Span(Span),
    /// Whatever number the pod that is connected to gives a port of this protocol and name.
    Named(u8, String),
}

/// The rules of a direction whose peers are in the field `peers`.
pub(super) fn rules(part: Option<&Part<'_>>, peers: &str, faults: &mut Vec<Fault>) -> Vec<Rule> {
    let listed = part.map(Part::list).transpose().unwrap_or_else(|wrong| {
        faults.push(wrong.therefore(NO_RULES));
        None
    });
    let mut rules = Vec::new();
    for part in listed.unwrap_or_default() {
        match rule(&part, peers, faults) {
            Ok(rule) => rules.push(rule),
            Err(wrong) => faults.push(wrong.therefore(NO_RULE)),
        }
    }
    rules
}

fn rule(part: &Part<'_>, peers: &str, faults: &mut Vec<Fault>) -> Result<Rule, Wrong> {
    let [peers, ports] = part.fields([peers, "ports"])?;
    let peers = peers.as_ref().map(Part::list).transpose()?;
    let ports = ports.as_ref().map(Part::list).transpose()?;
    Ok(Rule {
        peers: understood(peers, peer, NO_PEER, faults),
        ports: understood(ports, port, NO_PORT, faults),
    })
}

/// `None` where the list is absent or empty, which means all; one of which nothing is understood is neither.
fn understood<T>(
    listed: Option<Vec<Part<'_>>>,
    read: impl Fn(&Part<'_>) -> Result<T, Wrong>,
    effect: &'static str,
    faults: &mut Vec<Fault>,
) -> Option<Vec<T>> {
    let listed = listed.filter(|listed| !listed.is_empty())?;
    let mut known = Vec::with_capacity(listed.len());
    for part in listed {
        match read(&part) {
            Ok(one) => known.push(one),
            Err(wrong) => faults.push(wrong.therefore(effect)),
        }
    }
    Some(known)
}

fn peer(part: &Part<'_>) -> Result<Peer, Wrong> {
    match part.fields(["ipBlock", "namespaceSelector", "podSelector"])? {
        [Some(block), None, None] => {
            let [cidr, except] = block.fields(["cidr", "except"])?;
            let cidr =
                cidr.ok_or_else(|| block.wrong("has no cidr, write one such as 10.4.0.0/16".to_owned()))?;
            let except = except.as_ref().map(Part::list).transpose()?.unwrap_or_default();
            let mut except = except.iter().map(prefix).collect::<Result<Vec<_>, _>>()?;
            except.sort_unstable();
            except.dedup();
            Ok(Peer::Block(Block {
                network: prefix(&cidr)?,
                except,
            }))
        }
        [None, None, None] => {
            Err(part.wrong("names nobody, write ipBlock, namespaceSelector or podSelector".to_owned()))
        }
        [None, namespaces, pods] => Ok(Peer::Pods {
            namespaces: namespaces.as_ref().map(Selector::read).transpose()?,
            pods: pods.as_ref().map(Selector::read).transpose()?.unwrap_or_default(),
        }),
        [Some(_), _, _] => Err(part.wrong("has ipBlock beside a selector, write two peers".to_owned())),
    }
}

/// A network; bits beyond its length do not count, as for NetworkPolicy.
fn prefix(part: &Part<'_>) -> Result<IpPrefix, Wrong> {
    let text = part.text()?;
    let prefix = text.split_once('/').and_then(|(address, length)| {
        let address: IpAddr = address.parse().ok()?;
        let carried = match address {
            IpAddr::V4(_) => true,
            IpAddr::V6(address) => address.to_ipv4_mapped().is_none(),
        };
        let digits = length.bytes().all(|byte| byte.is_ascii_digit());
        IpPrefix::around(address, length.parse().ok()?).filter(|_| carried && digits)
    });
    prefix.ok_or_else(|| {
        part.wrong(format!(
            "\"{text}\" is not a network, write one such as 10.4.0.0/16"
        ))
    })
}

fn port(part: &Part<'_>) -> Result<Port, Wrong> {
    let [protocol_name, port, end] = part.fields(["protocol", "port", "endPort"])?;
    let protocol = match &protocol_name {
        None => protocol(None),
        Some(name) => protocol(Some(name.text()?)),
    };
    let protocol = match (protocol, &protocol_name) {
        (Some(protocol), _) => protocol,
        (None, name) => {
            let name = name.as_ref().unwrap_or(part);
            return Err(name.wrong(format!("{} is not TCP, UDP or SCTP", name.shown())));
        }
    };
    let Some(port) = port else {
        return match end {
            None => Ok(Port::Span(Span::all(protocol))),
            Some(end) => Err(end.wrong("stands without port".to_owned())),
        };
    };
    // A number in quotes is a number: no port's name has digits alone.
    let number = |part: &Part<'_>| {
        let number = part.number().or_else(|| part.text().ok()?.parse().ok());
        let valid = number
            .and_then(|number| u16::try_from(number).ok())
            .filter(|port| *port != 0);
        valid.ok_or_else(|| part.wrong(format!("{} is not a port, write 1 to 65535", part.shown())))
    };
    let name = port
        .text()
        .ok()
        .filter(|text| text.bytes().any(|byte| byte.is_ascii_alphabetic()));
    match (name, end) {
        (Some(name), None) => Ok(Port::Named(protocol, name.to_owned())),
        (Some(name), Some(end)) => {
            Err(end.wrong(format!("stands beside the name \"{name}\", write numbers")))
        }
        (None, None) => {
            let port = number(&port)?;
            Ok(Port::Span(Span {
                protocol,
                first: port,
                last: port,
            }))
        }
        (None, Some(end)) => {
            let (first, last) = (number(&port)?, number(&end)?);
            if last < first {
                return Err(end.wrong(format!("{last} is less than port {first}")));
            }
            Ok(Port::Span(Span {
                protocol,
                first,
                last,
            }))
        }
    }
}
