//! Label selectors, as Kubernetes has them: all requirements must hold, none select everything.

use std::collections::{BTreeMap, BTreeSet};

use super::part::{Part, Wrong};

/// Labels of a pod or of a namespace.
pub type Labels = BTreeMap<String, String>;

/// Labels that are asked for. Two that ask for the same are equal.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Selector(BTreeSet<Requirement>);

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Requirement {
    key: String,
    wants: Wants,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Wants {
    OneOf(BTreeSet<String>),
    /// Absent will do.
    NoneOf(BTreeSet<String>),
    Present,
    Absent,
}

impl Selector {
    /// Whether it asks for nothing.
    pub fn is_everything(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether labels are those.
    pub fn selects(&self, labels: &Labels) -> bool {
        self.0.iter().all(|Requirement { key, wants }| {
            let value = labels.get(key);
            match wants {
                Wants::OneOf(values) => value.is_some_and(|value| values.contains(value)),
                Wants::NoneOf(values) => value.is_none_or(|value| !values.contains(value)),
                Wants::Present => value.is_some(),
                Wants::Absent => value.is_none(),
            }
        })
    }

    pub fn read(part: &Part<'_>) -> Result<Self, Wrong> {
        let [labels, expressions] = part.fields(["matchLabels", "matchExpressions"])?;
        let mut requirements = BTreeSet::new();
        if let Some(labels) = labels {
            for (key, value) in labels.entries()? {
                requirements.insert(Requirement {
                    key: key.to_owned(),
                    wants: Wants::OneOf(BTreeSet::from([value.text()?.to_owned()])),
                });
            }
        }
        if let Some(expressions) = expressions {
            for expression in expressions.list()? {
                requirements.insert(Requirement::read(&expression)?);
            }
        }
        Ok(Self(requirements))
    }
}

impl Requirement {
    fn read(part: &Part<'_>) -> Result<Self, Wrong> {
        let [key, operator, values] = part.fields(["key", "operator", "values"])?;
        let (Some(key), Some(operator)) = (key, operator) else {
            return Err(part.wrong(format!("{} has no key or no operator", part.shown())));
        };
        let mut listed = BTreeSet::new();
        for value in values.iter().map(Part::list) {
            for value in value? {
                listed.insert(value.text()?.to_owned());
            }
        }
        let wants = match (operator.text()?, listed.is_empty()) {
            ("In", false) => Wants::OneOf(listed),
            ("NotIn", false) => Wants::NoneOf(listed),
            ("Exists", true) => Wants::Present,
            ("DoesNotExist", true) => Wants::Absent,
            (name @ ("In" | "NotIn"), true) => {
                return Err(part.wrong(format!("{name} has no values, list at least one")));
            }
            (name @ ("Exists" | "DoesNotExist"), false) => {
                return Err(part.wrong(format!("{name} has values, leave them out")));
            }
            (name, _) => {
                let what = format!("\"{name}\" is not In, NotIn, Exists or DoesNotExist");
                return Err(operator.wrong(what));
            }
        };
        Ok(Self {
            key: key.text()?.to_owned(),
            wants,
        })
    }
}
