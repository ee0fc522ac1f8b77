//! Which pages of which origins may use a bucket from within a browser: the rules, and what they answer.
//!
//! Sources: "Using cross-origin resource sharing (CORS)" and "Elements of a CORS configuration" in AWS's S3 User Guide; the
//! Fetch Standard of the WHATWG.

/// The methods that a rule may allow.
pub const METHODS: [&str; 5] = ["GET", "PUT", "POST", "DELETE", "HEAD"];
/// The most rules of a bucket.
pub const RULE_MAX_COUNT: usize = 100;

/// One rule. `*` in an origin or a header stands for any text, at most once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// For people.
    pub id: Option<String>,
    /// At least one.
    pub origins: Vec<String>,
    /// At least one of [`METHODS`].
    pub methods: Vec<String>,
    /// What a preflight may ask for.
    pub headers: Vec<String>,
    /// What scripts may read of an answer.
    pub exposed: Vec<String>,
    /// How long a browser may remember a preflight.
    pub max_age_s: Option<u32>,
}

/// What a browser says of a request that is to come, or that it makes.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// `https://example.com`.
    pub origin: &'a str,
    /// The method.
    pub method: &'a str,
    /// The headers that it asks for in a preflight.
    pub headers: &'a [&'a str],
}

impl Rule {
    fn allows(&self, asked: &Asked<'_>) -> bool {
        let header_is_allowed = |name: &&str| {
            self.headers.iter().any(|pattern| is_like(&pattern.to_ascii_lowercase(), &name.to_ascii_lowercase()))
        };
        self.origins.iter().any(|pattern| is_like(pattern, asked.origin))
            && self.methods.iter().any(|method| method == asked.method)
            && asked.headers.iter().all(header_is_allowed)
    }

    /// What an answer to `asked` says, by header.
    fn answer(&self, asked: &Asked<'_>) -> Vec<(&'static str, String)> {
        let is_open = self.origins.iter().any(|origin| origin == "*");
        let origin = if is_open { "*" } else { asked.origin };
        let mut answer = vec![
            ("access-control-allow-origin", origin.to_owned()),
            ("access-control-allow-methods", self.methods.join(", ")),
            ("vary", "Origin, Access-Control-Request-Headers, Access-Control-Request-Method".to_owned()),
        ];
        if !is_open {
            answer.push(("access-control-allow-credentials", "true".to_owned()));
        }
        if !asked.headers.is_empty() {
            answer.push(("access-control-allow-headers", asked.headers.join(", ").to_ascii_lowercase()));
        }
        if !self.exposed.is_empty() {
            answer.push(("access-control-expose-headers", self.exposed.join(", ")));
        }
        answer.extend(self.max_age_s.map(|seconds| ("access-control-max-age", seconds.to_string())));
        answer
    }
}

/// What the first rule answers that allows it. None: none does.
pub fn answer(rules: &[Rule], asked: &Asked<'_>) -> Option<Vec<(&'static str, String)>> {
    rules.iter().find(|rule| rule.allows(asked)).map(|rule| rule.answer(asked))
}

/// Whether `text` is the pattern, whose first `*` stands for any text.
fn is_like(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((start, end)) => text.len() >= start.len() + end.len() && text.starts_with(start) && text.ends_with(end),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn rule(origins: &[&str], methods: &[&str], headers: &[&str]) -> Rule {
        let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        Rule { origins: owned(origins), methods: owned(methods), headers: owned(headers), ..Rule::default() }
    }

    fn allow_origin(rules: &[Rule], origin: &str, method: &str, headers: &[&str]) -> Option<String> {
        let answer = answer(rules, &Asked { origin, method, headers })?;
        Some(answer.into_iter().find(|(name, _)| *name == "access-control-allow-origin").unwrap().1)
    }

    #[test]
    fn a_star_stands_for_any_text_and_no_shorter_one() {
        for (pattern, text, is) in [
            ("*", "", true),
            ("https://*.example.com", "https://a.b.example.com", true),
            ("https://*.example.com", "https://example.com", false),
            ("ab*ba", "aba", false),
            ("x-amz-*", "x-amz-meta-a", true),
            ("exact", "exact", true),
            ("exact", "exactly", false),
        ] {
            assert_eq!(is_like(pattern, text), is, "{pattern} {text}");
        }
    }

    #[test]
    fn the_first_rule_that_allows_it_answers() {
        let rules = [
            rule(&["https://one.example"], &["GET"], &[]),
            rule(&["https://*.example"], &["PUT", "GET"], &["X-Amz-*", "content-type"]),
            rule(&["*"], &["HEAD"], &["*"]),
        ];
        let one = Some("https://one.example".to_owned());
        assert_eq!(allow_origin(&rules, "https://one.example", "GET", &[]), one);
        assert_eq!(allow_origin(&rules, "https://one.example", "PUT", &["x-amz-date", "Content-Type"]), one);
        assert_eq!(allow_origin(&rules, "https://one.example", "PUT", &["authorization"]), None);
        assert_eq!(allow_origin(&rules, "http://one.example", "GET", &[]), None);
        assert_eq!(allow_origin(&rules, "null", "HEAD", &["anything"]), Some("*".to_owned()));
        assert_eq!(allow_origin(&[], "https://one.example", "GET", &[]), None);
    }

    #[test]
    fn credentials_go_with_a_named_origin_only() {
        let has_credentials = |origins: &[&str]| {
            let asked = Asked { origin: "https://a.example", method: "GET", headers: &[] };
            answer(&[rule(origins, &["GET"], &[])], &asked)
                .unwrap()
                .iter()
                .any(|(name, _)| name.ends_with("credentials"))
        };
        assert!(has_credentials(&["https://*.example"]) && !has_credentials(&["*"]));
    }
}
