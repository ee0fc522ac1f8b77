//! What every process of a cluster derives from the cluster's secret: root credentials, and the authority that signs
//! the certificates of its HTTPS endpoints. So each gateway knows the same root, and who trusts one trusts all.
//!
//! Invariants: the same secret gives the same key and the same credentials for ever, by golden tests. Whoever has the
//! secret is root, and can be any endpoint; nobody learns the secret from what is derived. Peers do not know each
//! other by this authority: theirs is another, in `predastore::transport::identity`.

use std::array;

use anyhow::{Context, Result, anyhow};
use aws_lc_rs::agreement::{ECDH_P256, PrivateKey};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair};
use predastore::object::access::key_of;
use predastore::transport::identity::Secret as ClusterSecret;
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::pki_types::PrivatePkcs8KeyDer;

use crate::config::{Account, ROOT_ACCOUNT_ID, Secret};

/// One number in four thousand million is no key of the curve.
const KEY_TRIES: u32 = 8;

/// The root account of the cluster with `secret`.
pub(crate) fn root(secret: &ClusterSecret) -> Account {
    let access_key = secret.derive("root access key 1");
    let secret_key = [secret.derive("root secret key 1"), secret.derive("root secret key 1, more")].concat();
    let (access_key, secret) = key_of(&array::from_fn(|at| access_key[at]), &array::from_fn(|at| secret_key[at]));
    Account { access_key, secret: Secret::new(secret.reveal()), account_id: ROOT_ACCOUNT_ID.to_owned(), policy: None }
}

/// The key of the cluster's authority.
///
/// # Errors
/// None that should ever be seen.
pub(crate) fn authority_key(secret: &ClusterSecret) -> Result<KeyPair> {
    let key = |try_number| {
        let scalar = secret.derive(&format!("https authority p256 {try_number}"));
        let public = PrivateKey::from_private_key(&ECDH_P256, &scalar).ok()?.compute_public_key().ok()?;
        EcdsaKeyPair::from_private_key_and_public_key(&ECDSA_P256_SHA256_ASN1_SIGNING, &scalar, public.as_ref()).ok()
    };
    let key = (1..=KEY_TRIES).find_map(key).context("the cluster's secret gives no key for its authority")?;
    let pkcs8 = key.to_pkcs8v1().map_err(|_| anyhow!("the key of the cluster's authority cannot be encoded"))?;
    Ok(KeyPair::from_pkcs8_der_and_sign_algo(&PrivatePkcs8KeyDer::from(pkcs8.as_ref()), &PKCS_ECDSA_P256_SHA256)?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn root_and_authority_are_what_they_were() {
        let secret = ClusterSecret::new(b"0123456789abcdef0123456789abcdef").unwrap();
        let root = root(&secret);
        let key = authority_key(&secret).unwrap();
        let point: String = key.public_key_raw()[..9].iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(root.access_key, "AKIAY6PXRWWCSKVIK7WL");
        assert_eq!(root.secret.reveal(), "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");
        assert_eq!(point, "04149d99a76be55fef");
    }
}
