//! Parameters, attributes, conditions, methods: well-formed, signed, and without meaning.

use crate::forger::{Forged, Forger, Generator};

pub(crate) const GENERATORS: &[Generator] = &[parameters, attributes, wrong_conditions, wrong_method, not_implemented];

fn parameters(forger: &mut Forger) -> Forged {
    let cases: [(&str, &str, &str); 19] = [
        ("GET", "", "list-type=2&max-keys=abc"),
        ("GET", "", "list-type=2&max-keys=-1"),
        ("GET", "", "max-keys=99999999999999999999"),
        ("GET", "", "encoding-type=rot13&list-type=2"),
        ("GET", "", "continuation-token=%21%21&list-type=2"),
        ("GET", "", "continuation-token=&list-type=2"),
        ("GET", "", "max-keys=x&versions"),
        ("GET", "", "max-uploads=-2&uploads"),
        ("GET", "", "version-id-marker=x&versions"),
        ("GET", "present", "versionId=nonsense"),
        ("GET", "present", "versionId="),
        ("DELETE", "present", "versionId=nonsense"),
        ("GET", "present", "partNumber=0"),
        ("GET", "present", "partNumber=10001"),
        ("GET", "present", "partNumber=x"),
        ("PUT", "present", "partNumber=0&uploadId=x"),
        ("PUT", "present", "partNumber=10001&uploadId=x"),
        ("PUT", "present", "partNumber=-1&uploadId=x"),
        ("PUT", "present", "partNumber=a&uploadId=x"),
    ];
    let (method, key, query) = *forger.rng.choose(&cases);
    let request = forger.s3.request(method, "attacked", key, query, "");
    let refusals = &[
        (400, "InvalidArgument"),
        (400, ""),
        (404, "NoSuchUpload"),
        (404, "NoSuchVersion"),
        (416, "InvalidPartNumber"),
    ];
    Forged { what: "a parameter out of range", request: forger.signed(request), refusals }
}

fn attributes(forger: &mut Forger) -> Forged {
    let headers = [
        ("x-amz-tagging", "a=b&a=c"),
        ("x-amz-storage-class", "NONSENSE"),
        ("x-amz-acl", "nonsense"),
        ("x-amz-server-side-encryption", "rot13"),
        // Not done, so it must not be said to be done.
        ("x-amz-server-side-encryption", "AES256"),
        ("x-amz-server-side-encryption", "aws:kms"),
        ("x-amz-object-lock-legal-hold", "ON"),
        ("x-amz-object-lock-mode", "NONSENSE"),
        ("x-amz-tagging", "=v"),
        ("x-amz-server-side-encryption-customer-algorithm", "AES255"),
    ];
    let (name, value) = *forger.rng.choose(&headers);
    let request = forger.honest_put().header(name, value);
    Forged {
        what: "an attribute that is none",
        request: forger.signed(request),
        refusals: &[(400, ""), (501, "NotImplemented")],
    }
}

fn wrong_conditions(forger: &mut Forger) -> Forged {
    let mut request = forger.s3.request("PUT", "attacked", "present", "", "new");
    let refusals: &[(u16, &str)] = match forger.rng.below(3) {
        0 => {
            request.set("If-None-Match", "*");
            &[(412, "PreconditionFailed")]
        }
        1 => {
            request.set("If-Match", "\"00000000000000000000000000000000\"");
            &[(412, "PreconditionFailed")]
        }
        _ => {
            request = forger.s3.request("PUT", "attacked", "absent", "", "new").header("If-Match", "\"0\"");
            &[(404, "NoSuchKey")]
        }
    };
    Forged { what: "a condition that does not hold", request: forger.signed(request), refusals }
}

fn wrong_method(forger: &mut Forger) -> Forged {
    let method = *forger.rng.choose(&["PATCH", "TRACE", "CONNECT", "LINK", "FROB", "PROPFIND", "POST"]);
    let key = if method == "POST" { "present" } else { *forger.rng.choose(&["", "present"]) };
    let request = forger.s3.request(method, "attacked", key, "", "");
    let refusals = &[(405, ""), (501, "NotImplemented"), (400, ""), (403, "AccessDenied"), (412, "")];
    Forged { what: "a method without meaning", request: forger.signed(request), refusals }
}

fn not_implemented(forger: &mut Forger) -> Forged {
    let cases = [
        ("PUT", "", "replication"),
        ("PUT", "", "website"),
        ("PUT", "", "accelerate"),
        ("PUT", "", "requestPayment"),
        ("PUT", "", "logging"),
        ("PUT", "", "inventory&id=1"),
        ("PUT", "", "analytics&id=1"),
        ("PUT", "", "metrics&id=1"),
        ("PUT", "", "intelligent-tiering&id=1"),
        ("POST", "present", "select&select-type=2"),
        ("POST", "present", "restore"),
        ("GET", "present", "torrent"),
    ];
    let (method, key, query) = *forger.rng.choose(&cases);
    let request = forger.s3.request(method, "attacked", key, query, "<x/>");
    let refusals = &[(501, "NotImplemented"), (400, "MalformedXML"), (405, "MethodNotAllowed")];
    Forged { what: "an operation that is not there", request: forger.signed(request), refusals }
}
