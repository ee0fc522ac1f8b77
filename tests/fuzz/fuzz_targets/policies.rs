//! Policy documents, and what they say of a request whose every word is a stranger's: the input is a document, an action, a
//! key, a name and a value, with a zero byte between them.
#![no_main]

use std::collections::BTreeMap;

use libfuzzer_sys::fuzz_target;
use predastore::policy::{Decision, Kind, MAX_BYTES, Policies, Policy, Principal, Request};

fuzz_target!(|input: &str| {
    let mut words = input.split('\0');
    let [document, action, key, name, value] = [(); 5].map(|()| words.next().unwrap_or_default());
    let values = ["aws:sourceip", "s3:prefix", "aws:currenttime", "s3:max-keys", "aws:securetransport"];
    let context: BTreeMap<_, _> = values.map(|key| (key.to_owned(), vec![value.to_owned(), name.to_owned()])).into();
    for kind in [Kind::Identity, Kind::Resource] {
        let Ok(policy) = Policy::parse(document.as_bytes(), kind) else { continue };
        assert!(document.len() <= MAX_BYTES);
        for principal in [Principal::Anonymous, Principal::Account(name), Principal::User { account: "1", name }] {
            let request = Request { action, bucket: "bucket", key, principal, context: &context };
            let alone = Policies::from_iter([policy.clone()]).decide(&request);
            let denied = Policies::from_iter([policy.clone(), denial(kind)]).decide(&request);
            let turned = Policies::from_iter([denial(kind), policy.clone()]).decide(&request);
            assert_eq!((denied, turned), (Decision::Denied, Decision::Denied), "{alone:?} alone");
        }
    }
});

/// Of everything, to everybody.
fn denial(kind: Kind) -> Policy {
    let whom = if matches!(kind, Kind::Resource) { r#""Principal": "*", "# } else { "" };
    let document = format!(r#"{{"Statement": {{"Effect": "Deny", {whom}"Action": "*", "Resource": "*"}}}}"#);
    Policy::parse(document.as_bytes(), kind).expect("it is a policy")
}
