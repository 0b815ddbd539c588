//! The part of STIX patterns (STIX 2.1, part 9) that is a plain alternative of addresses.
//!
//! `[a OR b] OR [c]`, parentheses, and the comparisons `=`, `IN` and `ISSUBSET` of `ipv4-addr:value` and `ipv6-addr:value`.
//! Alternatives about other things (names, files) are left out: the rest of the alternative still holds.

/// How deep parentheses may go.
const DEEPEST: u32 = 32;

/// The addresses of a pattern; `None` if it says more than that any of them is bad.
pub(super) fn addresses(pattern: &str) -> Option<Vec<String>> {
    let mut parser = Parser {
        rest: pattern,
        addresses: Vec::new(),
    };
    parser.alternatives(Level::Observations, 0)?;
    parser.rest.trim().is_empty().then_some(parser.addresses)
}

#[derive(Clone, Copy, PartialEq)]
enum Level {
    /// Outside `[ ]`.
    Observations,
    /// Inside.
    Comparisons,
}

struct Parser<'p> {
    rest: &'p str,
    addresses: Vec<String>,
}

impl<'p> Parser<'p> {
    /// `a OR b OR c`
    fn alternatives(&mut self, level: Level, depth: u32) -> Option<()> {
        loop {
            self.one(level, depth)?;
            if !self.word("OR") {
                return Some(());
            }
        }
    }

    fn one(&mut self, level: Level, depth: u32) -> Option<()> {
        if self.sign('(') {
            self.alternatives(level, Some(depth + 1).filter(|&depth| depth < DEEPEST)?)?;
            return self.sign(')').then_some(());
        }
        match level {
            Level::Observations => {
                self.expect('[')?;
                self.alternatives(Level::Comparisons, depth)?;
                self.expect(']')
            }
            Level::Comparisons => self.comparison(),
        }
    }

    /// `ipv4-addr:value IN ('192.0.2.1', '192.0.2.2')`
    fn comparison(&mut self) -> Option<()> {
        let path = self.path()?;
        let counts = matches!(path, "ipv4-addr:value" | "ipv6-addr:value");
        let operator = ["=", "IN", "ISSUBSET", "LIKE", "MATCHES", "ISSUPERSET"]
            .into_iter()
            .find(|operator| match *operator {
                "=" => self.sign('='),
                word => self.word(word),
            })?;
        let mut values = Vec::new();
        if operator == "IN" {
            self.expect('(')?;
            loop {
                values.push(self.literal()?);
                if !self.sign(',') {
                    break;
                }
            }
            self.expect(')')?;
        } else {
            values.push(self.literal()?);
        }
        match (counts, operator) {
            (true, "=" | "IN" | "ISSUBSET") => self.addresses.append(&mut values),
            // A pattern of text over addresses cannot be written as prefixes.
            (true, _) => return None,
            (false, _) => {}
        }
        Some(())
    }

    fn sign(&mut self, sign: char) -> bool {
        self.rest = self.rest.trim_start();
        match self.rest.strip_prefix(sign) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn expect(&mut self, sign: char) -> Option<()> {
        self.sign(sign).then_some(())
    }

    /// A keyword, whole.
    fn word(&mut self, word: &str) -> bool {
        self.rest = self.rest.trim_start();
        match self.rest.strip_prefix(word) {
            Some(rest) if !rest.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_') => {
                self.rest = rest;
                true
            }
            _ => false,
        }
    }

    /// An object path, such as `file:hashes.'SHA-256'`.
    fn path(&mut self) -> Option<&'p str> {
        self.rest = self.rest.trim_start();
        let mut quoted = false;
        let end = self.rest.find(|c: char| {
            quoted ^= c == '\'';
            !quoted && (c.is_whitespace() || matches!(c, '=' | '!' | '<' | '>' | '(' | ')' | ']'))
        })?;
        let (path, rest) = self.rest.split_at(end);
        self.rest = rest;
        path.contains(':').then_some(path)
    }

    /// A text in quotes, with `\'` and `\\`; numbers and the like as they stand.
    fn literal(&mut self) -> Option<String> {
        self.rest = self.rest.trim_start();
        let Some(quoted) = self.rest.strip_prefix('\'') else {
            let end = self
                .rest
                .find(|c: char| c.is_whitespace() || matches!(c, ',' | ')' | ']' | '\''))?;
            let (literal, rest) = self.rest.split_at(end);
            self.rest = rest;
            return (!literal.is_empty()).then(|| literal.to_owned());
        };
        let (mut text, mut escaped) = (String::new(), false);
        for (at, c) in quoted.char_indices() {
            match c {
                '\\' if !escaped => {
                    escaped = true;
                    continue;
                }
                '\'' if !escaped => {
                    self.rest = quoted.get(at + 1..)?;
                    return Some(text);
                }
                _ => text.push(c),
            }
            escaped = false;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::addresses;

    #[test]
    fn alternatives_of_addresses() {
        for (pattern, expected) in [
            ("[ipv4-addr:value = '198.51.100.1']", "198.51.100.1"),
            (
                "[ipv4-addr:value='198.51.100.1' OR ipv6-addr:value = '2001:db8::1']",
                "198.51.100.1 2001:db8::1",
            ),
            (
                "[ipv4-addr:value = '198.51.100.1'] OR ([ipv4-addr:value = '198.51.100.2'])",
                "198.51.100.1 198.51.100.2",
            ),
            (
                "[ipv4-addr:value IN ('198.51.100.1', '198.51.100.2')]",
                "198.51.100.1 198.51.100.2",
            ),
            ("[ipv4-addr:value ISSUBSET '198.51.100.0/24']", "198.51.100.0/24"),
            (
                "[(domain-name:value = 'it\\'s' OR file:hashes.'SHA-256' = 'ab' OR ipv4-addr:value = '198.51.100.1')]",
                "198.51.100.1",
            ),
            ("[domain-name:value = 'bad.example']", ""),
            ("[network-traffic:dst_port = 443]", ""),
        ] {
            assert_eq!(
                addresses(pattern).map(|addresses| addresses.join(" ")).as_deref(),
                Some(expected),
                "{pattern}"
            );
        }
    }

    #[test]
    fn what_says_less_than_an_address_is_left_alone() {
        for pattern in [
            "[ipv4-addr:value = '198.51.100.1' AND network-traffic:dst_port = 443]",
            "[ipv4-addr:value = '198.51.100.1'] AND [ipv4-addr:value = '198.51.100.2']",
            "[ipv4-addr:value = '198.51.100.1'] FOLLOWEDBY [ipv4-addr:value = '198.51.100.2']",
            "[ipv4-addr:value = '198.51.100.1'] REPEATS 5 TIMES",
            "[ipv4-addr:value != '198.51.100.1']",
            "[ipv4-addr:value NOT = '198.51.100.1']",
            "[NOT ipv4-addr:value = '198.51.100.1']",
            "[ipv4-addr:value LIKE '198.51.100.%']",
            "[ipv4-addr:value = '198.51.100.1'",
            "[ipv4-addr:value = '198.51.100.1]",
            "ipv4-addr:value = '198.51.100.1'",
            "",
            "[",
        ] {
            assert_eq!(addresses(pattern), None, "{pattern}");
        }
        let deep = "(".repeat(10_000) + "[ipv4-addr:value = '198.51.100.1']";
        assert_eq!(addresses(&deep), None);
    }
}
