//! A bucket's notification configuration, read and written.

use super::Writer;
use super::reader::{Element, malformed};
use crate::error::{ErrorCode, S3Error};
use crate::notification::{Destination, EventName, NATS_ARN, Notification, Rule};

/// The most rules of a bucket.
const RULE_MAX_COUNT: usize = 100;
/// Of a rule's name, bytes.
const ID_MAX_BYTES: usize = 255;
const FILTER_MAX_BYTES: usize = 1024;

/// The elements of a rule, and of its destination.
const DESTINATIONS: [(Destination, &str, &str); 3] = [
    (Destination::Topic, "TopicConfiguration", "Topic"),
    (Destination::Queue, "QueueConfiguration", "Queue"),
    (Destination::Function, "CloudFunctionConfiguration", "CloudFunction"),
];

/// Reads a NotificationConfiguration; without rules nobody is told of anything.
///
/// # Errors
/// `MalformedXML`; `InvalidArgument`: an event, a destination, a filter, rules that overlap; `NotImplemented`: EventBridge.
pub fn notification(body: &[u8]) -> Result<Notification, S3Error> {
    let root = Element::parse(body)?.called("NotificationConfiguration")?;
    let mut rules: Vec<Rule> = Vec::new();
    for child in &root.children {
        let found = DESTINATIONS.iter().find(|(_, name, _)| *name == child.name);
        let Some((kind, _, target)) = found else {
            let message = "EventBridge is not a destination here.";
            return Err(match child.name {
                "EventBridgeConfiguration" => S3Error::new(ErrorCode::NotImplemented, message),
                _ => malformed(),
            });
        };
        let rule = rule(child, *kind, target, rules.len() + 1)?;
        if rules.iter().any(|other| other.id == rule.id) {
            return Err(invalid("Same ID used for multiple configurations. IDs must be unique.", "Id", &rule.id));
        }
        if rules.iter().any(|other| other.overlaps(&rule)) {
            let message = "Configurations overlap. Configurations on the same bucket cannot share a common event type.";
            return Err(invalid(message, "Id", &rule.id));
        }
        rules.push(rule);
    }
    if rules.len() > RULE_MAX_COUNT {
        return Err(invalid("At most 100 configurations are possible for a bucket.", "Id", ""));
    }
    Ok(Notification { rules })
}

fn rule(element: &Element<'_>, kind: Destination, target: &'static str, number: usize) -> Result<Rule, S3Error> {
    if element.children.iter().any(|child| !["Id", "Event", "Filter", target].contains(&child.name)) {
        return Err(malformed());
    }
    let id = match element.child_text("Id")?.map(str::trim) {
        Some(id) if id.len() > ID_MAX_BYTES => return Err(invalid("The ID is too long.", "Id", id)),
        Some(id) if !id.is_empty() => id.to_owned(),
        _ => format!("rule-{number}"),
    };
    let arn = element.required(target)?.trim();
    if arn != NATS_ARN {
        return Err(invalid("Unable to validate the following destination configurations", target, arn));
    }
    let mut events = Vec::new();
    for event in element.all("Event") {
        let name = event.leaf()?.trim();
        let known = EventName::parse(name);
        events.push(known.ok_or_else(|| invalid("The event is not supported for notifications", "Event", name))?);
    }
    if events.is_empty() {
        return Err(malformed());
    }
    let (prefix, suffix) = element.child("Filter")?.map_or(Ok((None, None)), filter)?;
    Ok(Rule { id, kind, arn: arn.to_owned(), events, prefix, suffix })
}

fn filter(element: &Element<'_>) -> Result<(Option<String>, Option<String>), S3Error> {
    let (mut prefix, mut suffix) = (None, None);
    let Some(key) = element.child("S3Key")? else { return Ok((None, None)) };
    for filter in key.all("FilterRule") {
        let (name, value) = (filter.required("Name")?.trim(), filter.required("Value")?);
        let place = match name.to_ascii_lowercase().as_str() {
            "prefix" => &mut prefix,
            "suffix" => &mut suffix,
            _ => return Err(invalid("filter rule name must be either prefix or suffix", "FilterRule.Name", name)),
        };
        if value.len() > FILTER_MAX_BYTES {
            return Err(invalid("Size of filter rule value cannot exceed 1024 bytes in UTF-8", "FilterRule.Value", ""));
        }
        if place.replace(value.to_owned()).is_some() {
            let message = "Cannot specify more than one prefix or suffix rule in a filter.";
            return Err(invalid(message, "FilterRule.Name", name));
        }
    }
    Ok((prefix, suffix))
}

fn invalid(message: &'static str, name: &'static str, value: &str) -> S3Error {
    S3Error::invalid_argument(message, name, value)
}

/// GetBucketNotificationConfiguration.
pub fn write(notification: &Notification) -> String {
    Writer::document("NotificationConfiguration", |xml| {
        for rule in &notification.rules {
            let (_, element, target) = DESTINATIONS[rule.kind as usize];
            xml.element(element, |xml| {
                xml.text("Id", &rule.id);
                xml.text(target, &rule.arn);
                rule.events.iter().for_each(|event| xml.text("Event", event.name()));
                write_filter(xml, rule);
            });
        }
    })
}

fn write_filter(xml: &mut Writer, rule: &Rule) {
    let filters = [("Prefix", &rule.prefix), ("Suffix", &rule.suffix)];
    if filters.iter().all(|(_, value)| value.is_none()) {
        return;
    }
    xml.element("Filter", |xml| {
        xml.element("S3Key", |xml| {
            for (name, value) in filters {
                let Some(value) = value else { continue };
                xml.element("FilterRule", |xml| {
                    xml.text("Name", name);
                    xml.text("Value", value);
                });
            }
        });
    });
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn read(rules: &str) -> Result<Notification, S3Error> {
        notification(format!("<NotificationConfiguration>{rules}</NotificationConfiguration>").as_bytes())
    }

    fn queue(inside: &str) -> String {
        format!("<QueueConfiguration>{inside}</QueueConfiguration>")
    }

    fn to_nats(inside: &str) -> String {
        queue(&format!("<Queue>{NATS_ARN}</Queue>{inside}"))
    }

    const ALL: &str = "<Event>s3:ObjectCreated:*</Event>";

    #[test]
    fn what_is_written_reads_back() {
        let filter = "<Filter><S3Key><FilterRule><Name>suffix</Name><Value>.jpg</Value></FilterRule>\
                      <FilterRule><Name>Prefix</Name><Value>a &amp; b/</Value></FilterRule></S3Key></Filter>";
        let gone = "<Event>s3:ObjectRemoved:Delete</Event><Event>s3:ObjectRemoved:DeleteMarkerCreated</Event>";
        let topic = format!("<TopicConfiguration><Id>mine</Id><Topic>{NATS_ARN}</Topic>{gone}</TopicConfiguration>");
        let all = read(&(to_nats(&format!("{ALL}{filter}")) + &topic)).unwrap();
        assert_eq!(all.rules.len(), 2);
        let first = &all.rules[0];
        assert_eq!((first.id.as_str(), first.kind), ("rule-1", Destination::Queue));
        assert_eq!((first.prefix.as_deref(), first.suffix.as_deref()), (Some("a & b/"), Some(".jpg")));
        assert_eq!(all.rules[1].events, [EventName::RemovedDelete, EventName::RemovedMarker]);
        assert_eq!(notification(write(&all).as_bytes()).unwrap(), all);
        let none = read("").unwrap();
        assert_eq!(notification(write(&none).as_bytes()).unwrap(), none);
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let named = |id: &str, events: &str| to_nats(&format!("<Id>{id}</Id>{events}"));
        let filtered = |name: &str| {
            let rule = format!("<FilterRule><Name>{name}</Name><Value>a</Value></FilterRule>");
            to_nats(&format!("{ALL}<Filter><S3Key>{rule}{rule}</S3Key></Filter>"))
        };
        let gone = "<Event>s3:ObjectRemoved:*</Event>";
        for (rules, code) in [
            (queue(ALL), ErrorCode::MalformedXML),
            (to_nats(""), ErrorCode::MalformedXML),
            (to_nats(&format!("{ALL}<Other/>")), ErrorCode::MalformedXML),
            ("<Other/>".to_owned(), ErrorCode::MalformedXML),
            ("<EventBridgeConfiguration/>".to_owned(), ErrorCode::NotImplemented),
            (queue(&format!("<Queue>arn:aws:sqs:us-east-1:1:q</Queue>{ALL}")), ErrorCode::InvalidArgument),
            (to_nats("<Event>s3:ObjectRestore:Post</Event>"), ErrorCode::InvalidArgument),
            (named("a", ALL) + &named("a", gone), ErrorCode::InvalidArgument),
            (named("a", ALL) + &named("b", "<Event>s3:ObjectCreated:Put</Event>"), ErrorCode::InvalidArgument),
            (filtered("prefix"), ErrorCode::InvalidArgument),
            (filtered("infix"), ErrorCode::InvalidArgument),
        ] {
            assert_eq!(read(&rules).unwrap_err().code, code, "{rules}");
        }
    }
}
