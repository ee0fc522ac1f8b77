//! Who is told of what happens in a bucket, and in which words: S3's notification configuration, and its event messages.
//!
//! A bucket's setting, as the catalog keeps it:
//!
//! ```text
//! 0  1  version, 1
//! 1  n  postcard: Notification
//! ```
//!
//! Sources: "Amazon S3 Event Notifications", "Event message structure", "Configuring event notifications using object key
//! name filtering", docs.aws.amazon.com.

use predastore::catalog::{Bucket, Event, Happening};
use predastore::ids::Seq;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::dates::iso_8601_ms;

const VERSION: u8 = 1;

/// The one destination there is: the NATS server of the appliance, under a subject of the bucket.
pub const NATS_ARN: &str = "arn:predastore:nats:::events";

/// All rules of a bucket.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Notification {
    /// As they were given.
    pub rules: Vec<Rule>,
}

/// One rule.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Rule {
    /// What the client calls it.
    pub id: String,
    /// What the client takes the destination to be; it makes no difference.
    pub kind: Destination,
    /// The destination.
    pub arn: String,
    /// Events that are told: at least one.
    pub events: Vec<EventName>,
    /// Only of keys that begin so.
    pub prefix: Option<String>,
    /// Only of keys that end so.
    pub suffix: Option<String>,
}

/// What a client takes a destination to be. Ordinals are on disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Destination {
    /// A topic.
    Topic,
    /// A queue.
    Queue,
    /// A function.
    Function,
}

/// What may be told of. Ordinals are on disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum EventName {
    /// An object came, however it did.
    Created,
    /// By a PUT, or a write of a file system.
    CreatedPut,
    /// By a form.
    CreatedPost,
    /// By a copy, or by getting another name.
    CreatedCopy,
    /// By an upload in parts.
    CreatedUpload,
    /// An object went, however it did.
    Removed,
    /// For good.
    RemovedDelete,
    /// Under a delete marker.
    RemovedMarker,
}

impl EventName {
    /// All of them.
    pub const ALL: [EventName; 8] = [
        EventName::Created,
        EventName::CreatedPut,
        EventName::CreatedPost,
        EventName::CreatedCopy,
        EventName::CreatedUpload,
        EventName::Removed,
        EventName::RemovedDelete,
        EventName::RemovedMarker,
    ];

    /// As S3 writes it.
    pub fn name(self) -> &'static str {
        match self {
            EventName::Created => "s3:ObjectCreated:*",
            EventName::CreatedPut => "s3:ObjectCreated:Put",
            EventName::CreatedPost => "s3:ObjectCreated:Post",
            EventName::CreatedCopy => "s3:ObjectCreated:Copy",
            EventName::CreatedUpload => "s3:ObjectCreated:CompleteMultipartUpload",
            EventName::Removed => "s3:ObjectRemoved:*",
            EventName::RemovedDelete => "s3:ObjectRemoved:Delete",
            EventName::RemovedMarker => "s3:ObjectRemoved:DeleteMarkerCreated",
        }
    }

    /// The inverse of [`EventName::name`].
    pub fn parse(text: &str) -> Option<EventName> {
        EventName::ALL.into_iter().find(|event| event.name() == text)
    }

    /// What it was, of one key; none of a whole directory.
    pub fn of(what: &Happening) -> Option<EventName> {
        match what {
            Happening::Put => Some(EventName::CreatedPut),
            Happening::Copied | Happening::CopiedPrefix => Some(EventName::CreatedCopy),
            Happening::Completed => Some(EventName::CreatedUpload),
            Happening::Deleted | Happening::DeletedPrefix => Some(EventName::RemovedDelete),
            Happening::Marked => Some(EventName::RemovedMarker),
            Happening::Left { .. } | Happening::Came { .. } => None,
        }
    }

    fn covers(self, event: EventName) -> bool {
        self == event || self.name().strip_suffix('*').is_some_and(|start| event.name().starts_with(start))
    }
}

impl Notification {
    /// One version byte, then postcard.
    pub fn encode(&self) -> Vec<u8> {
        // Serialising plain values into a growing vector has no way to fail.
        postcard::to_extend(self, vec![VERSION]).unwrap_or_default()
    }

    /// The inverse of [`Notification::encode`]. None: not these bytes, or of a later version.
    pub fn decode(bytes: &[u8]) -> Option<Notification> {
        let (version, rest) = bytes.split_first()?;
        postcard::from_bytes(rest).ok().filter(|_| *version == VERSION)
    }

    /// The rule by which an event is told; none: nobody wants to know.
    pub fn rule_for(&self, event: EventName, key: &[u8]) -> Option<&Rule> {
        self.rules.iter().find(|rule| {
            rule.events.iter().any(|wanted| wanted.covers(event))
                && rule.prefix.as_ref().is_none_or(|prefix| key.starts_with(prefix.as_bytes()))
                && rule.suffix.as_ref().is_none_or(|suffix| key.ends_with(suffix.as_bytes()))
        })
    }
}

impl Rule {
    /// Whether two rules may want the same event: S3 refuses that, for it would be told twice.
    pub fn overlaps(&self, other: &Rule) -> bool {
        fn meets(one: Option<&String>, other: Option<&String>, holds: fn(&str, &str) -> bool) -> bool {
            match (one, other) {
                (Some(one), Some(other)) => holds(one, other) || holds(other, one),
                (None, _) | (_, None) => true,
            }
        }
        let events = |one: &Rule, other: &Rule| {
            one.events.iter().any(|wide| other.events.iter().any(|event| wide.covers(*event)))
        };
        (events(self, other) || events(other, self))
            && meets(self.prefix.as_ref(), other.prefix.as_ref(), |one, start| one.starts_with(start))
            && meets(self.suffix.as_ref(), other.suffix.as_ref(), |one, end| one.ends_with(end))
    }
}

/// The message that tells of one key. `seq`: its place among all; `region`: of a bucket that names none. None: of a whole
/// directory, which is told key by key.
pub fn message(bucket: &Bucket, region: &str, rule: &Rule, seq: Seq, event: &Event) -> Option<Value> {
    let name = EventName::of(&event.what)?.name().trim_start_matches("s3:");
    let mut object = json!({ "key": form_encode(&event.key), "sequencer": format!("{:016X}", seq.0) });
    if let Some(etag) = event.etag {
        object["size"] = json!(event.size_bytes);
        object["eTag"] = json!(etag.to_string());
    }
    if let Some(version) = event.version {
        object["versionId"] = json!(version.to_string());
    }
    let region = if bucket.region.is_empty() { region } else { &bucket.region };
    let record = json!({
        "eventVersion": "2.1",
        "eventSource": "aws:s3",
        "awsRegion": region,
        "eventTime": iso_8601_ms(event.time.0.div_euclid(1_000_000)),
        "eventName": name,
        "userIdentity": { "principalId": bucket.owner },
        "requestParameters": { "sourceIPAddress": "" },
        "responseElements": {},
        "s3": {
            "s3SchemaVersion": "1.0",
            "configurationId": rule.id,
            "bucket": {
                "name": bucket.name,
                "ownerIdentity": { "principalId": bucket.owner },
                "arn": format!("arn:aws:s3:::{}", bucket.name),
            },
            "object": object,
        },
    });
    Some(json!({ "Records": [record] }))
}

/// A key as event messages have it: as a form's field, but for `/`.
fn form_encode(key: &[u8]) -> String {
    let mut text = String::with_capacity(key.len());
    for byte in key {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'*' | b'/' => text.push(char::from(*byte)),
            b' ' => text.push('+'),
            _ => text.push_str(&format!("%{byte:02X}")),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use predastore::catalog::{ETag, Versioning};
    use predastore::env::Timestamp;
    use predastore::ids::{BucketId, VersionId};

    fn rule(events: &[EventName], prefix: Option<&str>, suffix: Option<&str>) -> Rule {
        Rule {
            id: "one".to_owned(),
            kind: Destination::Queue,
            arn: NATS_ARN.to_owned(),
            events: events.to_vec(),
            prefix: prefix.map(str::to_owned),
            suffix: suffix.map(str::to_owned),
        }
    }

    #[test]
    fn a_kind_covers_itself_and_a_star_all_that_begin_so() {
        let covered = |by: EventName| EventName::ALL.into_iter().filter(move |event| by.covers(*event)).count();
        assert_eq!((covered(EventName::RemovedDelete), covered(EventName::RemovedMarker)), (1, 1));
        assert_eq!(
            covered(EventName::Created),
            EventName::ALL.into_iter().filter(|one| one.name().starts_with("s3:ObjectCreated:")).count()
        );
    }

    #[test]
    fn rules_say_what_is_told() {
        let photos = rule(&[EventName::Created], Some("photos/"), Some(".jpg"));
        let gone = rule(&[EventName::RemovedMarker], None, None);
        let all = Notification { rules: vec![photos, gone] };
        for (event, key, told) in [
            (EventName::CreatedPut, "photos/a.jpg", true),
            (EventName::CreatedUpload, "photos/.jpg", true),
            (EventName::CreatedPut, "photos/a.png", false),
            (EventName::CreatedPut, "other/a.jpg", false),
            (EventName::RemovedDelete, "photos/a.jpg", false),
            (EventName::RemovedMarker, "anything", true),
        ] {
            assert_eq!(all.rule_for(event, key.as_bytes()).is_some(), told, "{event:?} {key}");
        }
    }

    #[test]
    fn rules_that_would_tell_twice_overlap() {
        let put = |prefix, suffix| rule(&[EventName::CreatedPut], prefix, suffix);
        for (one, other, overlaps) in [
            (put(None, None), put(None, None), true),
            (put(Some("a/"), None), put(Some("b/"), None), false),
            (put(Some("a/"), None), put(Some("a/b"), None), true),
            (put(Some("a/"), None), put(None, Some(".jpg")), true),
            (put(None, Some(".jpg")), put(None, Some(".png")), false),
            (rule(&[EventName::Created], None, None), put(None, None), true),
            (rule(&[EventName::Removed], None, None), put(None, None), false),
        ] {
            assert_eq!((one.overlaps(&other), other.overlaps(&one)), (overlaps, overlaps), "{one:?} {other:?}");
        }
    }

    #[test]
    fn what_is_kept_reads_back() {
        let all = Notification { rules: vec![rule(&EventName::ALL, Some("é"), None), rule(&[], None, Some(""))] };
        assert_eq!(Notification::decode(&all.encode()), Some(all.clone()));
        for len in 0..all.encode().len() {
            assert_eq!(Notification::decode(&all.encode()[..len]), None, "{len}");
        }
        let golden = Notification { rules: vec![rule(&[EventName::Removed], None, Some("x"))] }.encode();
        let expected = [&[1, 1, 3][..], b"one", &[1, 28], NATS_ARN.as_bytes(), &[1, 5, 0, 1, 1], b"x"].concat();
        assert_eq!(golden, expected, "the format on disk has changed");
        for name in EventName::ALL {
            assert_eq!(EventName::parse(name.name()), Some(name));
        }
        assert_eq!(EventName::parse("s3:ObjectCreated"), None);
    }

    #[test]
    fn a_message_is_as_s3_writes_it() {
        let bucket = Bucket {
            id: BucketId(1),
            name: "photos".to_owned(),
            owner: "000000000000".to_owned(),
            region: String::new(),
            created: Timestamp(0),
            versioning: Versioning::Enabled,
            ever_versioned: true,
            lock: false,
        };
        let mut event = Event {
            what: Happening::Put,
            time: Timestamp(1_700_000_000_123_456_789),
            key: "a b/é+.jpg".as_bytes().to_vec(),
            version: Some(VersionId::Seq(Seq(255))),
            size_bytes: 5,
            etag: Some(ETag { md5: [0xAB; 16], part_count: 0 }),
        };
        let rule = rule(&[EventName::Created], None, None);
        let record = message(&bucket, "eu-edge-1", &rule, Seq(4096), &event).unwrap()["Records"][0].clone();
        assert_eq!(record["eventName"], "ObjectCreated:Put");
        assert_eq!(record["eventTime"], "2023-11-14T22:13:20.123Z");
        assert_eq!(record["awsRegion"], "eu-edge-1");
        assert_eq!(record["s3"]["configurationId"], "one");
        let object = json!({ "key": "a+b/%C3%A9%2B.jpg", "size": 5, "eTag": "ab".repeat(16),
            "versionId": "00000000000000ff", "sequencer": "0000000000001000" });
        assert_eq!(record["s3"]["object"], object);
        event.what = Happening::Left { directory: predastore::ids::Ino(1) };
        assert_eq!(message(&bucket, "", &rule, Seq(1), &event), None);
    }
}
