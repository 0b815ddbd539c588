//! Which object is the configuration: as it is named at launch, and where the API has it.

use std::fmt;
use std::str::FromStr;

use kube::core::{ApiResource, GroupVersionKind};

use crate::agent::Origin;

/// The key of a ConfigMap that is taken unless another is named.
pub const DEFAULT_KEY: &str = "firewall.yaml";

/// The object that has the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// What it is.
    pub origin: Origin,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Of a ConfigMap: the key; `None`: [`DEFAULT_KEY`], or the only one there is.
    pub key: Option<String>,
}

impl Place {
    /// Reads `NAMESPACE/NAME/KEY`, the key being optional.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn config_map(text: &str) -> Result<Self, String> {
        let parts: Vec<&str> = text.split('/').collect();
        let (namespace, name, key) = match parts[..] {
            [namespace, name] => (namespace, name, None),
            [namespace, name, key] => (namespace, name, Some(key)),
            _ => return Err("write NAMESPACE/NAME or NAMESPACE/NAME/KEY".to_owned()),
        };
        let is_key = |key: &str| {
            (1..=253).contains(&key.len())
                && key
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
        };
        if let Some(key) = key.filter(|key| !is_key(key)) {
            return Err(format!("\"{key}\" cannot be a key of a ConfigMap"));
        }
        Ok(Self {
            origin: Origin::ConfigMap,
            key: key.map(str::to_owned),
            ..Self::named(namespace, name)?
        })
    }

    /// Reads `NAMESPACE/NAME`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn firewall(text: &str) -> Result<Self, String> {
        match text.split_once('/') {
            Some((namespace, name)) => Self::named(namespace, name),
            None => Err("write NAMESPACE/NAME".to_owned()),
        }
    }

    fn named(namespace: &str, name: &str) -> Result<Self, String> {
        if !is_label(namespace) {
            return Err(format!("\"{namespace}\" cannot be the name of a namespace"));
        }
        if name.len() > 253 || !name.split('.').all(is_label) {
            return Err(format!("\"{name}\" cannot be the name of an object"));
        }
        Ok(Self {
            origin: Origin::Firewall,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            key: None,
        })
    }

    /// Where the API has it.
    pub(crate) fn resource(&self) -> ApiResource {
        match self.origin {
            Origin::ConfigMap => ApiResource::from_gvk(&GroupVersionKind::gvk("", "v1", "ConfigMap")),
            Origin::Firewall => crate::crd::firewall_resource(),
        }
    }
}

/// RFC 1123: lower case letters, digits and hyphens within.
pub(crate) fn is_label(text: &str) -> bool {
    (1..=63).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.origin {
            Origin::ConfigMap => "configmap",
            Origin::Firewall => "firewall",
        };
        write!(f, "{kind} {}/{}", self.namespace, self.name)?;
        match &self.key {
            Some(key) => write!(f, "/{key}"),
            None => Ok(()),
        }
    }
}

/// A network attachment as `NAMESPACE/NAME`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Network {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let place = Place::firewall(text)?;
        Ok(Self {
            namespace: place.namespace,
            name: place.name,
        })
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_read_as_it_is_written() {
        let place = Place::config_map("edge/policy").expect("a place");
        assert_eq!(
            (place.key.as_deref(), place.to_string().as_str()),
            (None, "configmap edge/policy")
        );
        let place = Place::config_map("edge/policy/fw.yaml").expect("a place");
        assert_eq!(place.to_string(), "configmap edge/policy/fw.yaml");
        let place = Place::firewall("edge/a.b").expect("a place");
        assert_eq!(place.to_string(), "firewall edge/a.b");
        assert_eq!(
            "default/app-net"
                .parse::<Network>()
                .expect("a network")
                .to_string(),
            "default/app-net"
        );
    }

    #[test]
    fn what_the_api_would_not_have_is_refused_before_it_is_asked() {
        for text in [
            "policy",
            "",
            "a/b/c/d",
            "Edge/policy",
            "edge/",
            "/policy",
            "edge/policy/a b",
            "edge/-x",
        ] {
            assert!(Place::config_map(text).is_err(), "{text}");
        }
        for text in ["edge", "edge/a/b", "edge/A", "edge/a..b", "e.d/a"] {
            assert!(Place::firewall(text).is_err(), "{text}");
        }
    }
}
