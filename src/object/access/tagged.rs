//! What objects are tagged with, for policies whose conditions ask for it (`s3:ExistingObjectTag/NAME`).

use std::borrow::Cow;

use crate::object::{Error, Store, Target};

/// The condition keys about tags that an object has, in lower case.
const KEYS: &str = "s3:existingobjecttag/";

/// Tags of the objects that a request names.
#[derive(Clone, Debug, Default)]
pub struct Tagged(Vec<(Target, Vec<(String, String)>)>);

impl Tagged {
    /// Of `objects`, if some policy asks for it. Of what is not there, or is deleted, there are none.
    ///
    /// # Errors
    /// `Unavailable`, `Catalog`.
    pub async fn of(store: &Store, rights: &super::Rights, objects: Vec<Target>) -> Result<Tagged, Error> {
        let mut tagged = Vec::new();
        for object in objects.into_iter().filter(|_| rights.ask_for(KEYS)) {
            match store.head(&object).await {
                Ok(found) => tagged.push((object, found.version.attrs.tags)),
                Err(Error::Refused(_) | Error::Deleted { .. } | Error::DeleteMarker { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Tagged(tagged))
    }

    /// The values of a condition key, which is in lower case; none: it is another key, or nothing is known of the object. A tag's
    /// name has its case, which that of a condition key has lost: any of those counts.
    pub fn values(&self, key: &str, bucket: &str, object: &str) -> Option<Vec<Cow<'_, str>>> {
        let name = key.strip_prefix(KEYS)?;
        let (_, tags) = self.0.iter().find(|(of, _)| of.bucket == bucket && of.key == object.as_bytes())?;
        let found = tags.iter().filter(|(tag, _)| tag.to_lowercase() == name);
        Some(found.map(|(_, value)| Cow::Borrowed(value.as_str())).collect())
    }
}
