//! Patterns: text with wildcards and policy variables, ARNs made of them, and how they match.
//!
//! Sources: "IAM policy elements: Variables and tags" and, for ARNs, "IAM JSON policy elements: Condition operators" in
//! AWS's IAM User Guide.

use std::borrow::Cow;

use super::VARIABLES_MAX;

/// Where variables get their values; none where a key has no single value.
pub(super) type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// One step of a pattern; each but `Many` stands for exactly one character.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token {
    /// A character that the policy's author wrote.
    Written(char),
    /// A character that came out of a variable: never a wildcard, never a separator of an ARN.
    Filled(char),
    /// `?`
    One,
    /// `*`
    Many,
}

/// Whether upper and lower case differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Case {
    Differs,
    Ignored,
}

/// What has a meaning in a pattern beside its characters.
#[derive(Clone, Copy, Debug)]
pub(super) struct Syntax {
    pub(super) variables: bool,
    pub(super) wildcards: bool,
}

#[derive(Clone, Debug)]
pub(super) enum Piece {
    Token(Token),
    /// `${key}` or `${key, 'default'}`; the key in lower case.
    Variable {
        key: String,
        default: Option<String>,
    },
}

/// A pattern as written.
#[derive(Clone, Debug)]
pub(super) enum Template {
    Fixed(Vec<Token>),
    Variable(Vec<Piece>),
}

impl Template {
    /// None: a `${` without `}` or key, or more than [`VARIABLES_MAX`] of them.
    pub(super) fn parse(text: &str, syntax: Syntax) -> Option<Template> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            let after = &rest[first.len_utf8()..];
            let inside = after.strip_prefix('{').filter(|_| first == '$' && syntax.variables);
            (pieces, rest) = match inside {
                Some(inside) => {
                    let (variable, after) = inside.split_once('}')?;
                    (push(pieces, parse_variable(variable)?), after)
                }
                None => (push(pieces, Piece::Token(token(first, syntax.wildcards))), after),
            };
        }
        Template::of(pieces)
    }

    fn of(pieces: Vec<Piece>) -> Option<Template> {
        let tokens: Vec<Token> = pieces.iter().filter_map(Piece::token).collect();
        match pieces.len() - tokens.len() {
            0 => Some(Template::Fixed(tokens)),
            1..=VARIABLES_MAX => Some(Template::Variable(pieces)),
            _ => None,
        }
    }

    /// None: a variable has no value, so that nothing is equal to this pattern or like it.
    pub(super) fn matches(&self, text: &str, case: Case, lookup: Lookup<'_>) -> Option<bool> {
        Some(glob(&self.resolve(lookup)?, text, case))
    }

    fn resolve(&self, lookup: Lookup<'_>) -> Option<Cow<'_, [Token]>> {
        let pieces = match self {
            Template::Fixed(tokens) => return Some(Cow::Borrowed(tokens)),
            Template::Variable(pieces) => pieces,
        };
        let mut tokens = Vec::with_capacity(pieces.len());
        for piece in pieces {
            match piece {
                Piece::Token(token) => tokens.push(*token),
                Piece::Variable { key, default } => {
                    let value = lookup(key).or_else(|| default.clone())?;
                    tokens.extend(value.chars().map(Token::Filled));
                }
            }
        }
        Some(Cow::Owned(tokens))
    }

    /// Whether it stands for one text.
    pub(super) fn is_fixed(&self) -> bool {
        match self {
            Template::Fixed(tokens) => !tokens.iter().any(|token| matches!(token, Token::One | Token::Many)),
            Template::Variable(_) => false,
        }
    }

    /// Whether a variable asks for a key that begins so.
    pub(super) fn asks_for(&self, prefix: &str) -> bool {
        match self {
            Template::Fixed(_) => false,
            Template::Variable(pieces) => {
                pieces.iter().any(|piece| matches!(piece, Piece::Variable { key, .. } if key.starts_with(prefix)))
            }
        }
    }

    /// With anything in the place of variables.
    fn widest(&self) -> Vec<Token> {
        match self {
            Template::Fixed(tokens) => tokens.clone(),
            Template::Variable(pieces) => pieces.iter().map(|piece| piece.token().unwrap_or(Token::Many)).collect(),
        }
    }

    fn separator_count(&self) -> usize {
        match self {
            Template::Fixed(tokens) => tokens.iter().filter(|token| is_separator(token)).count(),
            Template::Variable(pieces) => pieces.iter().filter_map(Piece::token).filter(is_separator).count(),
        }
    }
}

impl Piece {
    fn token(&self) -> Option<Token> {
        match self {
            Piece::Token(token) => Some(*token),
            Piece::Variable { .. } => None,
        }
    }
}

fn push(mut pieces: Vec<Piece>, piece: Piece) -> Vec<Piece> {
    pieces.push(piece);
    pieces
}

fn token(character: char, wildcards: bool) -> Token {
    match character {
        '*' if wildcards => Token::Many,
        '?' if wildcards => Token::One,
        _ => Token::Written(character),
    }
}

/// What stands between `${` and `}`.
fn parse_variable(inside: &str) -> Option<Piece> {
    if let "*" | "?" | "$" = inside {
        return inside.chars().next().map(|character| Piece::Token(Token::Filled(character)));
    }
    let (key, default) = match inside.split_once(',') {
        None => (inside, None),
        Some((key, default)) => (key, Some(default.trim().strip_prefix('\'')?.strip_suffix('\'')?.to_owned())),
    };
    let key = key.trim();
    let plain = !key.is_empty() && !key.contains(['$', '{', '\'', '*', '?']);
    plain.then(|| Piece::Variable { key: key.to_lowercase(), default })
}

/// An ARN with wildcards. Its six parts are compared one by one, so that a `*` never crosses a `:` before the fifth.
#[derive(Clone, Debug)]
pub(super) enum Arn {
    /// `*`
    All,
    Like(Template),
}

impl Arn {
    pub(super) const EXPECTED: &'static str = "`*` or an ARN such as `arn:aws:s3:::bucket/key*`";

    /// None: neither `*` nor six parts of which the first is `arn`, or a malformed variable.
    pub(super) fn parse(text: &str, variables: bool) -> Option<Arn> {
        if text == "*" {
            return Some(Arn::All);
        }
        let template = Template::parse(text, Syntax { variables, wildcards: true })?;
        let whole = text.starts_with("arn:") && template.separator_count() >= 5;
        whole.then_some(Arn::Like(template))
    }

    /// Whether it stands for one resource.
    pub(super) fn is_fixed(&self) -> bool {
        match self {
            Arn::All => false,
            Arn::Like(template) => template.is_fixed(),
        }
    }

    /// Whether a variable asks for a key that begins so.
    pub(super) fn asks_for(&self, prefix: &str) -> bool {
        match self {
            Arn::All => false,
            Arn::Like(template) => template.asks_for(prefix),
        }
    }

    /// Whether it matches `arn` for some values of its variables.
    pub(super) fn may_be(&self, arn: &str) -> bool {
        self.on_parts(arn, |pattern, part| glob(pattern, part, Case::Differs))
    }

    /// Whether, for some values of its variables, it matches something that begins with `start`, all of whose parts but the
    /// last are whole.
    pub(super) fn may_begin(&self, start: &str) -> bool {
        let last = start.rsplit(':').next().unwrap_or_default();
        self.on_parts(start, |pattern, part| match part == last {
            true => begins(pattern, part),
            false => glob(pattern, part, Case::Differs),
        })
    }

    fn on_parts(&self, arn: &str, fits: impl Fn(&[Token], &str) -> bool) -> bool {
        let Arn::Like(template) = self else { return true };
        let tokens = template.widest();
        let patterns: Vec<&[Token]> = tokens.splitn(6, is_separator).collect();
        let parts: Vec<&str> = arn.splitn(6, ':').collect();
        parts.len() == patterns.len() && patterns.iter().zip(parts).all(|(pattern, part)| fits(pattern, part))
    }

    /// None: a variable has no value.
    pub(super) fn matches(&self, arn: &str, lookup: Lookup<'_>) -> Option<bool> {
        let template = match self {
            Arn::All => return Some(true),
            Arn::Like(template) => template,
        };
        let tokens = template.resolve(lookup)?;
        let parts: Vec<&str> = arn.splitn(6, ':').collect();
        let patterns: Vec<&[Token]> = tokens.splitn(6, is_separator).collect();
        let same_count = parts.len() == patterns.len();
        Some(same_count && patterns.iter().zip(parts).all(|(pattern, part)| glob(pattern, part, Case::Differs)))
    }
}

fn is_separator(token: &Token) -> bool {
    *token == Token::Written(':')
}

/// Whether a pattern matches some text that begins with `start`.
fn begins(pattern: &[Token], start: &str) -> bool {
    let mut starts: Vec<&[Token]> = vec![pattern];
    for character in start.chars() {
        let mut next: Vec<&[Token]> = Vec::new();
        for mut rest in starts {
            while let [first, after @ ..] = rest {
                match first {
                    Token::Many => next.push(rest),
                    Token::One => next.push(after),
                    Token::Written(own) | Token::Filled(own) if *own == character => next.push(after),
                    Token::Written(_) | Token::Filled(_) => {}
                }
                if *first != Token::Many {
                    break;
                }
                rest = after;
            }
        }
        next.sort_unstable_by_key(|rest| rest.len());
        next.dedup_by_key(|rest| rest.len());
        starts = next;
    }
    !starts.is_empty()
}

/// Goes back to the last `*` only. Text that ends inside a pattern ends it for every later start too, so the cost is bound
/// by the square of the text's length, however long the pattern.
fn glob(pattern: &[Token], text: &str, case: Case) -> bool {
    let (mut at, mut rest) = (0, text.chars());
    let mut star = None;
    loop {
        let mut ahead = rest.clone();
        let fits = match (pattern.get(at), ahead.next()) {
            (Some(Token::Many), _) => {
                at += 1;
                star = Some((at, rest.clone()));
                continue;
            }
            (None, None) => return true,
            (None, Some(_)) => false,
            (Some(_), None) => return false,
            (Some(Token::One), Some(_)) => true,
            (Some(Token::Written(one) | Token::Filled(one)), Some(other)) => case.same(*one, other),
        };
        if fits {
            (at, rest) = (at + 1, ahead);
            continue;
        }
        let Some((after, from)) = &mut star else { return false };
        from.next();
        (at, rest) = (*after, from.clone());
    }
}

impl Case {
    fn same(self, one: char, other: char) -> bool {
        one == other || (self == Case::Ignored && one.to_lowercase().eq(other.to_lowercase()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lookup(key: &str) -> Option<String> {
        match key {
            "aws:username" => Some("a*b".to_owned()),
            "x" => Some("${y}:".to_owned()),
            _ => None,
        }
    }

    fn matches(pattern: &str, text: &str) -> Option<bool> {
        let template = Template::parse(pattern, Syntax { variables: true, wildcards: true });
        template.and_then(|template| template.matches(text, Case::Differs, &lookup))
    }

    #[test]
    fn wildcards() {
        for (pattern, text, expected) in [
            ("*", "", true),
            ("", "", true),
            ("", "a", false),
            ("a*b*c", "aXXbYc", true),
            ("a*b*c", "aXXbY", false),
            ("*ab", "aab", true),
            ("a?c", "aéc", true),
            ("a?", "a", false),
            ("?*?", "a", false),
            ("A", "a", false),
        ] {
            assert_eq!(matches(pattern, text), Some(expected), "{pattern} {text}");
        }
    }

    #[test]
    fn variables() {
        for (pattern, text, expected) in [
            ("${aws:username}/*", "a*b/c", Some(true)),
            ("${AWS:UserName}/*", "aXb/c", Some(false)),
            ("${x}", "${y}:", Some(true)),
            ("${*}${?}${$}", "*?$", Some(true)),
            ("${*}", "x", Some(false)),
            ("$*", "$x", Some(true)),
            ("${none, 'all*'}", "all*", Some(true)),
            ("${none, 'all*'}", "alls", Some(false)),
            ("${none}", "", None),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
        let too_many = "${a}".repeat(VARIABLES_MAX + 1);
        for malformed in ["${", "${}", "${a", "${a, b}", "${ }", "${${a}}", &too_many] {
            assert!(Template::parse(malformed, Syntax { variables: true, wildcards: true }).is_none(), "{malformed}");
        }
    }

    #[test]
    fn a_star_of_an_arn_stays_in_its_part() {
        let matches = |pattern: &str, arn: &str| Arn::parse(pattern, true).and_then(|it| it.matches(arn, &lookup));
        for (pattern, arn, expected) in [
            ("arn:aws:s3:::b/*", "arn:aws:s3:::b/c:d", Some(true)),
            ("arn:aws:q:*:1:f/*", "arn:aws:q:us:9:store:1:f/d", Some(false)),
            ("arn:*:*:*:*:*", "arn:aws:s3:::b", Some(true)),
            ("arn:*:*:*:*:*", "arn:aws", Some(false)),
            ("arn:aws:s3:${x}::b", "arn:aws:s3:${y}:::b", Some(false)),
            ("*", "anything", Some(true)),
            ("arn:aws:s3:::${none}", "arn:aws:s3:::", None),
        ] {
            assert_eq!(matches(pattern, arn), expected, "{pattern} {arn}");
        }
        for malformed in ["", "arn:aws:s3::", "b/*", "arn*", "**", "arn:aws:iam${a:b:c:d}"] {
            assert!(Arn::parse(malformed, true).is_none(), "{malformed}");
        }
    }

    #[test]
    fn many_stars_cost_no_more_than_one() {
        let pattern = "a*".repeat(5_000) + "b";
        assert_eq!(matches(&pattern, &"a".repeat(10_000)), Some(false));
    }
}
