//! A CORSConfiguration, in and out.

use super::Writer;
use super::reader::{Element, malformed};
use crate::cors::{METHODS, RULE_MAX_COUNT, Rule};
use crate::error::{ErrorCode, S3Error};

/// The longest name of a rule.
const ID_MAX_CHARS: usize = 255;

/// Reads a CORSConfiguration: 1 to 100 rules.
///
/// # Errors
/// `MalformedXML`; `InvalidRequest`: a method that no rule may allow, or a second `*`.
pub fn cors_configuration(body: &[u8]) -> Result<Vec<Rule>, S3Error> {
    let root = Element::parse(body)?.called("CORSConfiguration")?.only(&["CORSRule"])?;
    let rules = root.all("CORSRule").map(rule).collect::<Result<Vec<_>, _>>()?;
    if (1..=RULE_MAX_COUNT).contains(&rules.len()) { Ok(rules) } else { Err(malformed()) }
}

fn rule(element: &Element<'_>) -> Result<Rule, S3Error> {
    const KNOWN: [&str; 6] = ["ID", "AllowedOrigin", "AllowedMethod", "AllowedHeader", "ExposeHeader", "MaxAgeSeconds"];
    if !element.children.iter().all(|child| KNOWN.contains(&child.name)) {
        return Err(malformed());
    }
    let texts = |name: &str| {
        element.all(name).map(|child| Ok(child.leaf()?.trim().to_owned())).collect::<Result<Vec<_>, S3Error>>()
    };
    let max_age = element.child_text("MaxAgeSeconds")?.map(|text| text.trim().parse().map_err(|_| malformed()));
    let rule = Rule {
        id: element.child_text("ID")?.map(|text| text.trim().to_owned()),
        origins: texts("AllowedOrigin")?,
        methods: texts("AllowedMethod")?,
        headers: texts("AllowedHeader")?,
        exposed: texts("ExposeHeader")?,
        max_age_s: max_age.transpose()?,
    };
    check(rule)
}

fn check(rule: Rule) -> Result<Rule, S3Error> {
    let invalid = |message: String| Err(S3Error::new(ErrorCode::InvalidRequest, message));
    if rule.origins.is_empty() || rule.methods.is_empty() {
        return Err(malformed());
    }
    if rule.id.as_ref().is_some_and(|id| id.chars().count() > ID_MAX_CHARS) {
        return invalid(format!("ID of a CORS rule must not be longer than {ID_MAX_CHARS} characters"));
    }
    if let Some(method) = rule.methods.iter().find(|method| !METHODS.contains(&method.as_str())) {
        return invalid(format!("Found unsupported HTTP method in CORS config. Unsupported method is {method}"));
    }
    for (element, patterns) in [("AllowedOrigin", &rule.origins), ("AllowedHeader", &rule.headers)] {
        if let Some(pattern) = patterns.iter().find(|pattern| pattern.matches('*').count() > 1) {
            return invalid(format!("{element} \"{pattern}\" can not have more than one wildcard."));
        }
    }
    if let Some(header) = rule.exposed.iter().find(|header| header.contains('*')) {
        return invalid(format!(
            "ExposeHeader \"{header}\" contains wildcard. We currently do not support wildcard for ExposeHeader."
        ));
    }
    Ok(rule)
}

/// GetBucketCors.
pub fn write_cors(rules: &[Rule]) -> String {
    let write = |xml: &mut Writer, rule: &Rule| {
        xml.element("CORSRule", |xml| {
            xml.optional("ID", rule.id.as_deref());
            rule.origins.iter().for_each(|text| xml.text("AllowedOrigin", text));
            rule.methods.iter().for_each(|text| xml.text("AllowedMethod", text));
            rule.headers.iter().for_each(|text| xml.text("AllowedHeader", text));
            rule.exposed.iter().for_each(|text| xml.text("ExposeHeader", text));
            if let Some(seconds) = rule.max_age_s {
                xml.value("MaxAgeSeconds", seconds);
            }
        });
    };
    Writer::document("CORSConfiguration", |xml| rules.iter().for_each(|rule| write(xml, rule)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_written_reads_back() {
        let full = Rule {
            id: Some("one & only".into()),
            origins: vec!["https://*.example".into(), "*".into()],
            methods: METHODS.map(String::from).to_vec(),
            headers: vec!["*".into()],
            exposed: vec!["ETag".into()],
            max_age_s: Some(3000),
        };
        let bare = Rule { origins: vec!["*".into()], methods: vec!["GET".into()], ..Rule::default() };
        let rules = vec![full, bare];
        assert_eq!(cors_configuration(write_cors(&rules).as_bytes()).unwrap(), rules);
    }

    #[test]
    fn what_is_no_rule_is_refused() {
        let with = |inside: &str| format!("<CORSConfiguration><CORSRule>{inside}</CORSRule></CORSConfiguration>");
        let (origin, method) = ("<AllowedOrigin>*</AllowedOrigin>", "<AllowedMethod>GET</AllowedMethod>");
        for (inside, code) in [
            (origin.to_owned(), ErrorCode::MalformedXML),
            (method.to_owned(), ErrorCode::MalformedXML),
            (format!("{origin}{method}<Other/>"), ErrorCode::MalformedXML),
            (format!("{origin}{method}<MaxAgeSeconds>-1</MaxAgeSeconds>"), ErrorCode::MalformedXML),
            (format!("{origin}<AllowedMethod>PATCH</AllowedMethod>"), ErrorCode::InvalidRequest),
            (format!("<AllowedOrigin>*a*</AllowedOrigin>{method}"), ErrorCode::InvalidRequest),
            (format!("{origin}{method}<AllowedHeader>*a*</AllowedHeader>"), ErrorCode::InvalidRequest),
            (format!("{origin}{method}<ExposeHeader>x-*</ExposeHeader>"), ErrorCode::InvalidRequest),
            (format!("<ID>{}</ID>{origin}{method}", "i".repeat(256)), ErrorCode::InvalidRequest),
        ] {
            assert_eq!(cors_configuration(with(&inside).as_bytes()).unwrap_err().code, code, "{inside}");
        }
        assert!(cors_configuration(b"<CORSConfiguration/>").is_err());
        let many = with(&format!("{origin}{method}"));
        let one = many.trim_start_matches("<CORSConfiguration>").trim_end_matches("</CORSConfiguration>");
        let many = |count: usize| format!("<CORSConfiguration>{}</CORSConfiguration>", one.repeat(count));
        assert!(cors_configuration(many(100).as_bytes()).is_ok() && cors_configuration(many(101).as_bytes()).is_err());
    }
}
