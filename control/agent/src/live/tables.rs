//! What is made once, at the start, so that a commit must fit into it: the room that the tables have, and the name that pins go
//! by.

use bulkhead_config::{Config, Size};
use bulkhead_dataplane::bpf::Sizes;

use super::CommitError;
use crate::translate;

/// What the tables were made for at the start; they cannot grow.
#[derive(Clone, Copy, Debug)]
pub struct Tables {
    size: Size,
    sessions: u32,
    half_open: u32,
}

impl Tables {
    /// Those of the configuration that the engine was started with.
    pub const fn of(config: &Config) -> Self {
        Self {
            size: config.size,
            sessions: config.sessions.max,
            half_open: config.sessions.half_open,
        }
    }

    /// How much there is room for.
    pub const fn size(&self) -> &Size {
        &self.size
    }

    /// As the data plane makes them.
    pub fn sizes(&self) -> Sizes {
        translate::table_sizes(&self.size, self.sessions, self.half_open)
    }

    /// Refuses what does not fit; a warning if another size is asked for than there is.
    ///
    /// # Errors
    /// [`CommitError::Impossible`]
    pub fn judge(&self, config: &Config) -> Result<Option<String>, CommitError> {
        let excess = config.extent.excess(&self.size);
        if let Some(excess) = excess.first() {
            return Err(CommitError::Impossible(format!(
                "{} {} do not fit the tables, which were made for {} when the daemon started; put the document into the \
                 file of --config and start the daemon again, which makes them as large as its size says",
                excess.number, excess.what, excess.room
            )));
        }
        let same = (self.size, self.sessions, self.half_open)
            == (config.size, config.sessions.max, config.sessions.half_open);
        Ok((!same).then(|| {
            format!(
                "spec.size, spec.sessions.max and halfOpen take effect at the next start; until then there is room for {} \
                 sessions, {} of them half-open, {} policies and {} addresses",
                self.sessions, self.half_open, self.size.policies, self.size.addresses
            )
        }))
    }
}

/// Refuses another name than that of `pinned`, what is pinned: the next start would look for it under the new name, and find
/// interfaces that somebody else guards.
///
/// # Errors
/// [`CommitError::Impossible`]
pub fn judge_name(pinned: Option<&str>, config: &Config) -> Result<(), CommitError> {
    let next = &config.name;
    match pinned.filter(|pinned| pinned != next) {
        None => Ok(()),
        Some(pinned) => Err(CommitError::Impossible(format!(
            "metadata.name cannot change from \"{pinned}\" to \"{next}\" while the daemon runs, since what it enforces is \
             pinned by that name; put the document into the file of --config, stop the daemon, run `bulkhead detach \
             {pinned}` and start it again, or keep the name"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use bulkhead_config::SizeName;

    use super::*;

    fn config(size: &str, policies: usize) -> Config {
        let rules: String = (0..policies)
            .map(|number| format!("    - {{ name: p{number}, from: a, to: a, action: deny }}\n"))
            .collect();
        let text = format!(
            "apiVersion: bulkhead.dev/v1alpha1\nkind: Firewall\nmetadata: {{ name: x }}\nspec:\n  size: {size}\n  \
             interfaces: [{{ name: net1, zone: a }}]\n  zones: [{{ name: a }}]\n  policies:\n{rules}"
        );
        match bulkhead_config::parse("x.yaml", text) {
            Ok(parsed) => parsed.config,
            Err(refused) => panic!("{refused}"),
        }
    }

    #[test]
    fn what_does_not_fit_the_tables_is_refused_and_what_fits_is_warned_of() {
        let tables = Tables::of(&config("{ policies: 3 }", 3));
        assert_eq!(
            tables.judge(&config("{ policies: 3 }", 2)).expect("it fits"),
            None
        );
        let warning = tables.judge(&config("large", 3)).expect("it fits");
        assert!(
            warning
                .as_ref()
                .is_some_and(|text| text.contains("at the next start")
                    && text.contains("262144 sessions")
                    && text.contains("3 policies")),
            "{warning:?}"
        );
        // Of its own size it is no fault: `check` accepts it, and a start does.
        let error = tables.judge(&config("large", 4)).expect_err("a refusal");
        assert!(
            error
                .to_string()
                .contains("4 policies do not fit the tables, which were made for 3"),
            "{error}"
        );
    }

    #[test]
    fn what_is_pinned_keeps_its_name() {
        let next = config("small", 1);
        judge_name(Some("x"), &next).expect("its name");
        judge_name(None, &next).expect("nothing is pinned");
        let error = judge_name(Some("edge"), &next).expect_err("another name");
        assert!(
            error.to_string().contains("from \"edge\" to \"x\"")
                && error.to_string().contains("`bulkhead detach edge`"),
            "{error}"
        );
    }

    #[test]
    fn sizes_by_name_are_those_of_the_data_plane() {
        assert_eq!(
            bulkhead_config::Extent::MOST_RULES,
            bulkhead_dataplane::compile::MAX_RULES
        );
        let sizes = [Sizes::small(), Sizes::medium(), Sizes::large(), Sizes::xlarge()];
        for (name, expected) in SizeName::ALL.into_iter().zip(sizes) {
            let made = translate::sizes(&config(name.name(), 1));
            assert_eq!(
                [
                    made.sessions,
                    made.half_open,
                    // The rules of hostInbound, in two generations.
                    made.rules - 512,
                    made.addresses,
                    made.routes,
                    made.neighbours
                ],
                [
                    expected.sessions,
                    expected.half_open,
                    expected.rules,
                    expected.addresses,
                    expected.routes,
                    expected.neighbours
                ],
                "{}",
                name.name()
            );
        }
    }
}
