//! `bulkhead doctor`: whether a firewall can run here. Needs no daemon, changes nothing.

use std::path::Path;

use anyhow::Result;
use bulkhead_dataplane::preflight::{self, InterfaceCheck, Preflight};

use crate::configuration::Configuration;
use crate::launch::Terms;
use crate::report::{Check, CheckStatus, Doctor, InterfaceChecks};
use crate::translate;

/// Looks at the machine and, if a configuration is given, at its interfaces and the size of its tables.
///
/// # Errors
/// If the configuration is refused. An interface that does not exist is a finding, not an error.
pub fn examine(config: Option<&Path>) -> Result<Doctor> {
    let preflight = match config {
        Some(path) => {
            let config = Configuration::read(path, &Terms::default())?.parsed.config;
            Preflight::run_with(&translate::interfaces(&config), &translate::sizes(&config))
        }
        None => Preflight::run(&[]),
    };
    Ok(report(&preflight))
}

fn report(preflight: &Preflight) -> Doctor {
    Doctor {
        ok: preflight.status() != preflight::Status::Fail,
        kernel: preflight.kernel.clone(),
        checks: preflight.checks.iter().map(check).collect(),
        interfaces: preflight.interfaces.iter().map(interface).collect(),
    }
}

const fn status(status: preflight::Status) -> CheckStatus {
    match status {
        preflight::Status::Ok => CheckStatus::Ok,
        preflight::Status::Warn => CheckStatus::Warn,
        preflight::Status::Fail => CheckStatus::Fail,
    }
}

fn check(found: &preflight::Check) -> Check {
    Check {
        name: found.name.to_owned(),
        status: status(found.status),
        found: found.found.clone(),
        remedy: found.remedy.clone(),
    }
}

fn interface(found: &InterfaceCheck) -> InterfaceChecks {
    let (hook, hook_reason) = match &found.hook {
        Ok(choice) => (Some(choice.name().to_owned()), choice.reason.clone()),
        Err(reason) => (None, reason.clone()),
    };
    InterfaceChecks {
        name: found.name.clone(),
        status: status(found.status()),
        kind: found.kind.as_ref().map(ToString::to_string),
        driver: found.driver.clone(),
        mtu_bytes: found.mtu,
        rx_queues: found.queues.map(|queues| queues.rx),
        tx_queues: found.queues.map(|queues| queues.tx),
        hook,
        hook_reason,
        warnings: found.warnings.clone(),
    }
}

#[cfg(test)]
mod tests {
    use bulkhead_dataplane::preflight::HookChoice;

    use super::*;

    #[test]
    fn an_interface_without_hook_fails_the_whole() {
        let absent = InterfaceCheck {
            name: "net9".into(),
            exists: false,
            kind: None,
            driver: None,
            mtu: None,
            queues: None,
            hook: Err("no such interface".into()),
            warnings: vec![],
        };
        let warned = InterfaceCheck {
            name: "net1".into(),
            hook: Ok(HookChoice {
                xdp: true,
                reason: "asked for".into(),
                ..HookChoice::default()
            }),
            warnings: vec!["slow".into()],
            ..absent.clone()
        };
        let preflight = |interfaces| Preflight {
            kernel: "6.18".into(),
            checks: vec![],
            interfaces,
        };
        let bad = report(&preflight(vec![warned.clone(), absent]));
        assert!(!bad.ok);
        assert_eq!(
            (bad.interfaces[1].status, bad.interfaces[1].hook.as_deref()),
            (CheckStatus::Fail, None)
        );
        assert_eq!(bad.interfaces[1].hook_reason, "no such interface");
        let fair = report(&preflight(vec![warned]));
        assert!(fair.ok, "a warning is no failure");
        assert_eq!(
            (fair.interfaces[0].status, fair.interfaces[0].hook.as_deref()),
            (CheckStatus::Warn, Some("xdp+tcx"))
        );
    }
}
