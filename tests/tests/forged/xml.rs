//! XML bodies that are none, and uploads that nobody made.

use predastore_tests::sigv4::encode;

use crate::forger::{Forged, Forger, Generator};

pub(crate) const GENERATORS: &[Generator] = &[malformed_xml, malformed_settings, xml_without_end, complete_of_nothing];

fn malformed_xml(forger: &mut Forger) -> Forged {
    let noise = forger.noise(300);
    let documents = [
        noise.clone(),
        String::new(),
        "<".into(),
        "<Delete>".into(),
        format!("<Delete><Object><Key>a</Key></Object>{noise}"),
        "<Delete><Object></Object></Delete>".into(),
        "<Delete></Delete>".into(),
        "<Other><Object><Key>present</Key></Object></Other>".into(),
        format!("<!DOCTYPE d [<!ENTITY a \"{}\">]><Delete><Object><Key>&a;</Key></Object></Delete>", "x".repeat(1000)),
        "<!DOCTYPE d [<!ENTITY a SYSTEM \"file:///etc/passwd\">]><Delete><Object><Key>&a;</Key></Object></Delete>"
            .into(),
        "<Delete><Object><Key>&unknown;</Key></Object></Delete>".into(),
        "<a>".repeat(20_000),
        format!("<Delete>{}</Delete>", "<Object><Key>present</Key></Object>".repeat(1001)),
    ];
    let document = forger.rng.choose(&documents).clone();
    let request = forger.s3.request("POST", "attacked", "", "delete", document);
    let refusals = &[(400, "MalformedXML"), (400, "MissingRequestBodyError"), (400, "MaxMessageLengthExceeded")];
    Forged { what: "DeleteObjects that is none", request: forger.signed(request.with_md5()), refusals }
}

fn malformed_settings(forger: &mut Forger) -> Forged {
    let noise = forger.noise(100);
    let documents = [
        noise,
        "<a/>".into(),
        "<Tagging><TagSet><Tag></Tag></TagSet>".into(),
        "<VersioningConfiguration>".into(),
        "\u{0}".into(),
    ];
    let document = forger.rng.choose(&documents).clone();
    let (key, query) = *forger.rng.choose(&[("", "tagging"), ("present", "tagging"), ("", "versioning")]);
    let request = forger.s3.request("PUT", "attacked", key, query, document);
    let refusals = &[(400, "MalformedXML"), (400, "IllegalVersioningConfigurationException"), (400, "InvalidTag")];
    Forged { what: "a setting that is none", request: forger.signed(request.with_md5()), refusals }
}

fn xml_without_end(forger: &mut Forger) -> Forged {
    let len = (3 << 20) + forger.rng.below(1 << 20) as usize;
    let request = forger.s3.request("POST", "attacked", "", "delete", format!("<Delete>{}", " ".repeat(len)));
    let refusals =
        &[(400, "MalformedXML"), (400, "MaxMessageLengthExceeded"), (413, ""), (400, "EntityTooLarge"), (0, "")];
    Forged { what: "XML of megabytes", request: forger.signed(request.with_md5()), refusals }
}

fn complete_of_nothing(forger: &mut Forger) -> Forged {
    let noise = encode(&forger.noise(40), true);
    let part =
        "<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>\"a\"</ETag></Part></CompleteMultipartUpload>";
    let request = match forger.rng.below(4) {
        0 => forger.s3.request("POST", "attacked", "present", &format!("uploadId={noise}"), part),
        1 => forger.s3.request("PUT", "attacked", "present", &format!("partNumber=1&uploadId={noise}"), "part"),
        2 => forger.s3.request("DELETE", "attacked", "present", &format!("uploadId={noise}"), ""),
        _ => forger.s3.request("GET", "attacked", "present", &format!("uploadId={noise}"), ""),
    };
    Forged { what: "an upload that is none", request: forger.signed(request), refusals: &[(404, "NoSuchUpload")] }
}
