//! What became of the daemon's own configuration file, for those who do not read the log.
//!
//! Owns the telling: `history` has the last refusal, and where the daemon runs in a pod that may write events, the pod gets one.
//! The status of a ConfigMap that the file is mounted from follows from the same ([`bulkhead_kube::OwnFile`]). Refuses nothing and
//! commits nothing.

use std::path::Path;
use std::sync::Arc;

use bulkhead_kube::{Kubernetes, Notice, OwnPod, Reason};

use crate::configuration::Refused;
use crate::kubernetes::findings;
use crate::launch::Launch;
use crate::live::{CommitError, LiveFirewall};

/// Where a pod finds what its service account is.
const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// The pod that this runs in, if the API can be asked to write an event about it.
pub fn pod(launch: &Launch) -> Option<OwnPod> {
    let account = Path::new(ACCOUNT);
    if launch.kubeconfig.is_none() && !account.join("token").exists() {
        return None;
    }
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let of_account = || std::fs::read_to_string(account.join("namespace")).ok();
    Some(OwnPod {
        name: variable("POD_NAME")?,
        namespace: variable("POD_NAMESPACE").or_else(of_account)?.trim().to_owned(),
        uid: variable("POD_UID").unwrap_or_default(),
    })
}

/// Whom to tell.
#[derive(Clone, Debug)]
pub struct Teller {
    kubernetes: Arc<Kubernetes>,
    instance: String,
}

impl Teller {
    /// Events go through this, in the name of an instance.
    pub const fn new(kubernetes: Arc<Kubernetes>, instance: String) -> Self {
        Self { kubernetes, instance }
    }

    /// The file is in force, as this revision.
    pub fn accepted(&self, firewall: &LiveFirewall, file: &Path, revision: u64, changed: bool) {
        let mended = firewall.note_accepted(&file.display().to_string());
        if changed || mended {
            self.kubernetes.notice(Notice {
                bad: false,
                reason: "Committed",
                note: format!("{}: revision {revision} is in force", self.instance),
            });
            self.kubernetes.changed();
        }
    }

    /// The file is not in force.
    pub fn refused(&self, firewall: &LiveFirewall, file: &Path, error: &CommitError) {
        let (reason, message) = why(error);
        self.tell(firewall, file, reason, &message);
    }

    /// The file was not in force from the start on.
    pub fn refused_at_start(&self, firewall: &LiveFirewall, file: &Path, refused: &Refused) {
        let (reason, message) = why_refused(refused);
        self.tell(firewall, file, reason, &message);
    }

    fn tell(&self, firewall: &LiveFirewall, file: &Path, reason: Reason, message: &str) {
        firewall.note_refused(&file.display().to_string(), reason.name(), message);
        self.kubernetes.notice(Notice {
            bad: true,
            reason: reason.name(),
            note: format!("{}: {message}", self.instance),
        });
        self.kubernetes.changed();
    }
}

fn why(error: &CommitError) -> (Reason, String) {
    let reason = match error {
        CommitError::Refused(refused) => return why_refused(refused),
        CommitError::Conflict(_) => Reason::AwaitingConfirmation,
        CommitError::Impossible(_) => Reason::Invalid,
        CommitError::Engine(_) | CommitError::Store(_) | CommitError::Other(_) => Reason::Failed,
    };
    (reason, error.to_string())
}

/// An interface that is not there may come, and a file that cannot be read may be written; what is written stays wrong.
fn why_refused(refused: &Refused) -> (Reason, String) {
    match &refused.unreadable {
        Some(_) => (Reason::Failed, refused.to_string()),
        None if refused.missing.is_empty() => (Reason::Invalid, findings(refused)),
        None => (Reason::Failed, findings(refused)),
    }
}
