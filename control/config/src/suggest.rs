//! "Did you mean": the known name nearest to a mistyped one.
//!
//! Optimal string alignment distance (insert, delete, replace, swap of neighbours), ignoring case. Offers nothing
//! rather than something far-fetched: at most one edit per three letters, and always a third of the name kept.

/// Only so many names are compared, so that 100,000 faults over 100,000 names stay a matter of seconds.
const MAX_CANDIDATES: usize = 4096;

/// The nearest of `known`, the first one of equals; `None` if none is near.
#[must_use]
pub fn nearest<'a>(wanted: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let limit = (wanted.chars().count() / 3).clamp(1, 3);
    known
        .into_iter()
        .take(MAX_CANDIDATES)
        .filter(|name| name.len().abs_diff(wanted.len()) <= 4 * limit)
        .map(|name| (distance(wanted, name), name))
        .filter(|&(edits, name)| edits <= limit && edits < name.chars().count())
        .min_by_key(|&(edits, _)| edits)
        .map(|(_, name)| name)
}

fn distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.chars().flat_map(char::to_lowercase).collect();
    let b: Vec<char> = b.chars().flat_map(char::to_lowercase).collect();
    let mut before_last = vec![0; b.len() + 1];
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let replaced = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            row[j] = replaced.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before_last[j - 2] + 1);
            }
        }
        before_last = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::{distance, nearest};

    #[test]
    fn counts_edits() {
        for (a, b, edits) in [
            ("", "abc", 3),
            ("web", "web", 0),
            ("wbe", "web", 1),
            ("paymnts", "payments", 1),
            ("Zone", "zone", 0),
        ] {
            assert_eq!(distance(a, b), edits, "{a} {b}");
        }
    }

    #[test]
    fn offers_the_nearest_or_nothing() {
        assert_eq!(nearest("wbe", ["app", "web"]), Some("web"));
        assert_eq!(
            nearest("destinaton", ["source", "destination"]),
            Some("destination")
        );
        assert_eq!(nearest("db", ["a", "web", "financial"]), None);
        assert_eq!(nearest("x", ["a"]), None);
    }
}
