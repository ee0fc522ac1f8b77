use super::*;

use ErrorCode::{
    BadRequest, InvalidArgument, InvalidPartOrder, InvalidRequest, InvalidTag, MalformedACLError, MalformedXML,
    NotImplemented,
};

fn code<T: std::fmt::Debug>(read: Result<T, S3Error>) -> ErrorCode {
    read.unwrap_err().code
}

fn parts(body: &str) -> Result<Vec<CompletedPart>, S3Error> {
    complete_multipart_upload(format!("<CompleteMultipartUpload>{body}</CompleteMultipartUpload>").as_bytes())
}

fn part(number: &str) -> String {
    format!("<Part><PartNumber>{number}</PartNumber><ETag>&quot;e{number}&quot;</ETag></Part>")
}

#[test]
fn a_complete_lists_parts_in_order() {
    let read = parts(&format!("\n {} {}", part("1"), part("10000"))).unwrap();
    let expected = |number: u32| CompletedPart { part_number: number, etag: format!("e{number}"), checksums: vec![] };
    assert_eq!(read, [expected(1), expected(10_000)]);

    let with_checksums = "<Part><ETag>e</ETag><ChecksumCRC32C>sOO8/Q==</ChecksumCRC32C><ChecksumSHA1>2jmj7l5rSw0yVb/vlWAYkK/YBwk=</ChecksumSHA1><PartNumber>3</PartNumber></Part>";
    let read = parts(with_checksums).unwrap();
    let algorithms: Vec<_> = read[0].checksums.iter().map(|checksum| checksum.algorithm).collect();
    assert_eq!(algorithms, [ChecksumAlgorithm::Crc32c, ChecksumAlgorithm::Sha1]);
}

#[test]
fn a_complete_that_is_wrong() {
    assert_eq!(code(parts("")), MalformedXML);
    assert_eq!(code(parts("<Part><PartNumber>1</PartNumber></Part>")), MalformedXML);
    assert_eq!(code(parts("<Part><ETag>e</ETag></Part>")), MalformedXML);
    assert_eq!(code(parts("<Other/>")), MalformedXML);
    assert_eq!(code(parts(&(part("2") + &part("1")))), InvalidPartOrder);
    assert_eq!(code(parts(&(part("1") + &part("1")))), InvalidPartOrder);
    for number in ["0", "10001", "-1"] {
        assert_eq!(code(parts(&part(number))), InvalidArgument, "{number}");
    }
    for number in ["x", "", "+1"] {
        assert_eq!(code(parts(&part(number))), MalformedXML, "{number}");
    }
    let checksum = "<Part><PartNumber>1</PartNumber><ETag>e</ETag><ChecksumCRC32>AA==</ChecksumCRC32></Part>";
    assert_eq!(code(parts(checksum)), InvalidRequest);
    assert_eq!(code(complete_multipart_upload(b"<Delete/>")), MalformedXML);
}

#[test]
fn ten_thousand_parts_fit_in_a_body() {
    let part = |number| {
        format!(
            "<Part><ChecksumSHA256>47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=</ChecksumSHA256><ETag>\"d41d8cd98f00b204e9800998ecf8427e\"</ETag><PartNumber>{number}</PartNumber></Part>"
        )
    };
    let all: String = (1..=10_000).map(part).collect();
    assert_eq!(parts(&all).unwrap().len(), 10_000);
}

fn objects(count: usize) -> String {
    (0..count).map(|index| format!("<Object><Key>k{index}</Key></Object>")).collect()
}

#[test]
fn a_delete() {
    let body = "<Delete xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Object><Key> a&amp;b&#13;</Key></Object><Object><Key>c</Key><VersionId>null</VersionId><ETag>\"e\"</ETag><Size>3</Size><LastModifiedTime>1970-01-01T00:00:01Z</LastModifiedTime></Object><Quiet>true</Quiet></Delete>";
    let read = delete(body.as_bytes()).unwrap();
    let plain =
        ObjectToDelete { key: " a&b\r".into(), version_id: None, etag: None, last_modified_ms: None, size_bytes: None };
    let conditional = ObjectToDelete {
        key: "c".into(),
        version_id: Some("null".into()),
        etag: Some("e".into()),
        last_modified_ms: Some(1000),
        size_bytes: Some(3),
    };
    assert_eq!(read, Delete { quiet: true, objects: vec![plain, conditional] });
}

#[test]
fn a_delete_has_1_to_1000_keys() {
    let read = |content: &str| delete(format!("<Delete>{content}</Delete>").as_bytes());
    assert_eq!(read(&objects(1000)).unwrap().objects.len(), 1000);
    for content in
        [&objects(1001), "", "<Object/>", "<Object><Key/></Object>", "<Object><Key>k</Key><Key>l</Key></Object>"]
    {
        assert_eq!(code(read(content)), MalformedXML);
    }
    assert_eq!(code(read("<Quiet>maybe</Quiet><Object><Key>k</Key></Object>")), MalformedXML);
}

#[test]
fn a_bucket_configuration_names_a_region_or_none() {
    let read = |content: &str| {
        create_bucket_configuration(
            format!("<CreateBucketConfiguration>{content}</CreateBucketConfiguration>").as_bytes(),
        )
    };
    assert_eq!(create_bucket_configuration(b"").unwrap(), None);
    assert_eq!(read("").unwrap(), None);
    assert_eq!(read("<LocationConstraint>eu-west-1</LocationConstraint>").unwrap().as_deref(), Some("eu-west-1"));
    for region in ["eu west", "a/b", "\u{e4}"] {
        let refused = read(&format!("<LocationConstraint>{region}</LocationConstraint>"));
        assert_eq!(refused.unwrap_err().code, ErrorCode::InvalidLocationConstraint, "{region}");
    }
    assert_eq!(code(read("<Bucket><Type>Directory</Type></Bucket>")), NotImplemented);
    assert_eq!(code(read("<Nonsense/>")), MalformedXML);
}

#[test]
fn versioning() {
    let read = |content: &str| {
        versioning_configuration(format!("<VersioningConfiguration>{content}</VersioningConfiguration>").as_bytes())
    };
    assert_eq!(read("<Status>Enabled</Status>").unwrap(), VersioningStatus::Enabled);
    assert_eq!(read("<MfaDelete>Disabled</MfaDelete><Status>Suspended</Status>").unwrap(), VersioningStatus::Suspended);
    assert_eq!(code(read("")), ErrorCode::IllegalVersioningConfigurationException);
    assert_eq!(code(read("<Status>Off</Status>")), MalformedXML);
    assert_eq!(code(read("<Status>Enabled</Status><MfaDelete>Enabled</MfaDelete>")), NotImplemented);
}

fn tags(pairs: &[(&str, &str)], tagged: Tagged) -> Result<Vec<Tag>, S3Error> {
    let tag = |(key, value): &(&str, &str)| format!("<Tag><Key>{key}</Key><Value>{value}</Value></Tag>");
    let set: String = pairs.iter().map(tag).collect();
    tagging(format!("<Tagging><TagSet>{set}</TagSet></Tagging>").as_bytes(), tagged)
}

#[test]
fn tags_within_their_limits() {
    let (key, value) = ("é".repeat(128), "v".repeat(256));
    assert_eq!(tags(&[(&key, &value), ("a b+c-d=e._:/@1", "")], Tagged::Object).unwrap().len(), 2);
    assert_eq!(tags(&[], Tagged::Bucket).unwrap(), []);
    let keys: Vec<String> = (0..51).map(|index| index.to_string()).collect();
    let pairs: Vec<_> = keys.iter().map(|key| (key.as_str(), "v")).collect();
    assert_eq!(tags(&pairs[..10], Tagged::Object).unwrap().len(), 10);
    assert_eq!(code(tags(&pairs[..11], Tagged::Object)), BadRequest);
    assert_eq!(tags(&pairs[..50], Tagged::Bucket).unwrap().len(), 50);
    assert_eq!(code(tags(&pairs, Tagged::Bucket)), BadRequest);
}

#[test]
fn tags_beyond_them() {
    let (key, value) = ("k".repeat(129), "v".repeat(257));
    for pairs in [
        &[("", "v")][..],
        &[(key.as_str(), "v")],
        &[("k", value.as_str())],
        &[("k", "1"), ("k", "2")],
        &[("aws:k", "v")],
        &[("AWS:k", "v")],
        &[("k!", "v")],
        &[("k", "a;b")],
        &[("k", "&#10;")],
    ] {
        assert_eq!(code(tags(pairs, Tagged::Bucket)), InvalidTag, "{pairs:?}");
    }
    assert_eq!(code(tagging(b"<Tagging/>", Tagged::Object)), MalformedXML);
    assert_eq!(
        code(tagging(b"<Tagging><TagSet><Tag><Key>k</Key></Tag></TagSet></Tagging>", Tagged::Object)),
        MalformedXML
    );
}

#[test]
fn tags_in_a_header() {
    let tag = |key: &str, value: &str| Tag { key: key.into(), value: value.into() };
    assert_eq!(tagging_header("a=1&b%20c=d%2Fe&f").unwrap(), [tag("a", "1"), tag("b c", "d/e"), tag("f", "")]);
    assert_eq!(code(tagging_header("a=1&a=2")), InvalidArgument);
    assert_eq!(code(tagging_header("a=%zz")), InvalidArgument);
}

fn policy(grants: &str) -> Result<AccessControlPolicy, S3Error> {
    access_control_policy(format!("<AccessControlPolicy><Owner><ID>me</ID><DisplayName>Me</DisplayName></Owner><AccessControlList>{grants}</AccessControlList></AccessControlPolicy>").as_bytes())
}

fn grant_to(grantee: &str, permission: &str) -> String {
    format!(
        "<Grant><Grantee xmlns:xsi=\"http://www.w3.org/2001/XMLSchema-instance\" xsi:type=\"CanonicalUser\">{grantee}</Grantee><Permission>{permission}</Permission></Grant>"
    )
}

#[test]
fn a_policy_is_owner_only_or_not() {
    let mine = grant_to("<ID>me</ID>", "FULL_CONTROL");
    assert!(policy(&mine).unwrap().is_owner_only("me"));
    assert!(!policy(&mine).unwrap().is_owner_only("you"));
    for other in [
        grant_to("<ID>you</ID>", "FULL_CONTROL"),
        grant_to("<ID>me</ID>", "READ"),
        grant_to("<URI>http://acs.amazonaws.com/groups/global/AllUsers</URI>", "READ"),
        grant_to("<EmailAddress>a@b.c</EmailAddress>", "FULL_CONTROL"),
    ] {
        assert!(!policy(&(mine.clone() + &other)).unwrap().is_owner_only("me"));
    }
    assert!(!policy("").unwrap().is_owner_only("me"));
}

#[test]
fn malformed_policies() {
    for grants in ["<Other/>", "<Grant/>", &grant_to("", "READ"), &grant_to("<ID>me</ID>", "DANCE")] {
        assert_eq!(code(policy(grants)), MalformedACLError, "{grants}");
    }
    assert_eq!(code(access_control_policy(b"<AccessControlPolicy/>")), MalformedACLError);
}
