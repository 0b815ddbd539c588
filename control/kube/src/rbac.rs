//! What this crate asks of the API, and therefore what a role must allow. Nothing else is asked.

/// One permission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Permission {
    /// The API group; empty: core.
    pub group: &'static str,
    /// The resource, with its subresource.
    pub resource: &'static str,
    /// What is done with it.
    pub verbs: &'static [&'static str],
    /// Whether the role may name the one object: `resourceNames`.
    pub one_object: bool,
    /// When it is needed.
    pub when: &'static str,
}

/// All permissions.
pub const PERMISSIONS: &[Permission] = &[
    Permission {
        group: "",
        resource: "configmaps",
        // A status is annotations of the object itself.
        verbs: &["list", "watch", "patch"],
        one_object: true,
        when: "--config-map",
    },
    Permission {
        group: "bulkhead.dev",
        resource: "firewalls",
        verbs: &["list", "watch"],
        one_object: true,
        when: "--firewall-resource",
    },
    Permission {
        group: "bulkhead.dev",
        resource: "firewalls/status",
        verbs: &["patch"],
        one_object: true,
        when: "--firewall-resource",
    },
    Permission {
        group: "",
        resource: "pods",
        verbs: &["list", "watch"],
        one_object: false,
        when: "address groups with `pods`",
    },
    Permission {
        group: "",
        resource: "namespaces",
        verbs: &["list", "watch"],
        one_object: false,
        when: "address groups with `namespaceSelector`",
    },
    Permission {
        group: "events.k8s.io",
        resource: "events",
        verbs: &["create"],
        one_object: false,
        when: "--config-map, --firewall-resource",
    },
];
