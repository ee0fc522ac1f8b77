//! What objects are tagged with, for policies whose conditions ask for it (`s3:ExistingObjectTag/NAME`).

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

    /// The value of a condition key, which is in lower case; none: it is another key, or the object has no such tag. A tag's name
    /// has its case, which that of a condition key has lost.
    pub fn value(&self, key: &str, bucket: &str, object: &str) -> Option<&str> {
        let name = key.strip_prefix(KEYS)?;
        let (_, tags) = self.0.iter().find(|(of, _)| of.bucket == bucket && of.key == object.as_bytes())?;
        tags.iter().find(|(tag, _)| tag.to_lowercase() == name).map(|(_, value)| value.as_str())
    }
}
