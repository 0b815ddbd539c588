//! One text in, its diagnostics out, compared line by line.

use bulkhead_config::parse;

/// A text and the diagnostics it must give, each as `line:column: …`; one that ends in a space is a beginning, for
/// sentences that are the parser's own. Every diagnostic must say what to do.
pub struct Case {
    name: String,
    text: String,
    expected: Vec<String>,
}

/// A whole document around the fields of `spec`, which begin on line 5 and are indented by two.
pub fn spec(fields: &str) -> String {
    format!("apiVersion: bulkhead.dev/v1alpha1\nkind: Firewall\nmetadata: {{ name: edge }}\nspec:\n{fields}")
}

impl Case {
    pub fn raw(name: &str, text: &str, expected: &[&str]) -> Self {
        let expected = expected.iter().map(|line| (*line).to_owned()).collect();
        Self {
            name: name.to_owned(),
            text: text.to_owned(),
            expected,
        }
    }

    pub fn spec(name: &str, fields: &str, expected: &[&str]) -> Self {
        Self::raw(name, &spec(fields), expected)
    }
}

pub fn check(cases: &[Case]) {
    let mut failures = String::new();
    for case in cases {
        let found = match parse("f", &case.text) {
            Ok(parsed) => parsed.warnings,
            Err(refused) => refused,
        };
        for found in &found {
            assert!(
                found.help.is_some(),
                "{}: nobody says what to do: {found}",
                case.name
            );
        }
        let found: Vec<String> = found
            .iter()
            .map(|found| found.to_string().split_off("f:".len()))
            .collect();
        let same = found.len() == case.expected.len()
            && found
                .iter()
                .zip(&case.expected)
                .all(|(found, expected)| match expected.ends_with(' ') {
                    true => found.starts_with(expected.as_str()),
                    false => found == expected,
                });
        if !same {
            failures.push_str(&format!(
                "{}:\n{}\nfound\n  {}\nexpected\n  {}\n\n",
                case.name,
                case.text,
                found.join("\n  "),
                case.expected.join("\n  ")
            ));
        }
    }
    assert!(failures.is_empty(), "\n{failures}");
}
