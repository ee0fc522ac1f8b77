//! The operations, and the subjects they are asked by.

use std::str::FromStr;

macro_rules! operations {
    ($($operation:ident $subject:literal $action:literal),* $(,)?) => {
        /// What may be asked.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[allow(missing_docs)]
        pub enum Operation { $($operation),* }

        impl Operation {
            /// Every operation.
            pub const ALL: &[Operation] = &[$(Operation::$operation),*];

            /// `GetObject` and so on.
            pub fn name(self) -> &'static str {
                match self { $(Operation::$operation => stringify!($operation)),* }
            }

            /// The IAM action that allows it, on the bucket and key that it names.
            pub fn action(self) -> &'static str {
                match self { $(Operation::$operation => $action),* }
            }

            fn spelled(self) -> &'static str {
                match self { $(Operation::$operation => $subject),* }
            }
        }
    };
}

// Subjects as Hive spells them; of those below `s3.` the same in lower case too.
operations! {
    CreateBucket "s3.CreateBucket" "s3:CreateBucket",
    DeleteBucket "s3.DeleteBucket" "s3:DeleteBucket",
    ListBuckets "s3.ListBuckets" "s3:ListAllMyBuckets",
    HeadBucket "s3.HeadBucket" "s3:ListBucket",
    PutObject "s3.PutObject" "s3:PutObject",
    GetObject "s3.GetObject" "s3:GetObject",
    HeadObject "s3.HeadObject" "s3:GetObject",
    DeleteObject "s3.DeleteObject" "s3:DeleteObject",
    ListObjects "s3.ListObjects" "s3:ListBucket",
    CopyObject "s3.CopyObject" "s3:PutObject",
    StorageConfig "spinifex.storage.config" "s3:ListAllMyBuckets",
}

/// Those who serve the same subjects share the work: each request goes to one of them.
pub const QUEUE_GROUP: &str = "predastore-workers";

impl Operation {
    /// The subjects it is asked by. `prefix`: stands before each, with a dot; empty: nothing does.
    pub fn subjects(self, prefix: &str) -> Vec<String> {
        let mut subjects = vec![self.spelled().to_owned(), self.spelled().to_ascii_lowercase()];
        subjects.dedup();
        subjects.into_iter().map(|subject| with_prefix(prefix, &subject)).collect()
    }

    /// Whether each request goes to one gateway of all; else every one answers, and whoever asks takes the first.
    pub fn is_shared(self) -> bool {
        self != Operation::StorageConfig
    }

    /// The action on a version that was named.
    pub fn action_on_version(self) -> &'static str {
        match self {
            Operation::GetObject | Operation::HeadObject => "s3:GetObjectVersion",
            Operation::DeleteObject => "s3:DeleteObjectVersion",
            other => other.action(),
        }
    }
}

fn with_prefix(prefix: &str, subject: &str) -> String {
    if prefix.is_empty() { subject.to_owned() } else { format!("{prefix}.{subject}") }
}

/// No operation has this name.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("there is no operation `{0}`")]
pub struct Unknown(pub String);

impl FromStr for Operation {
    type Err = Unknown;

    /// By its name, in any case.
    fn from_str(text: &str) -> Result<Self, Unknown> {
        let named = |operation: &&Operation| operation.name().eq_ignore_ascii_case(text);
        Operation::ALL.iter().find(named).copied().ok_or_else(|| Unknown(text.to_owned()))
    }
}

/// Whether a subject's tokens are words: no wildcard, no empty one, nothing that the protocol would take apart.
pub fn is_plain(subject: &str) -> bool {
    let is_word = |token: &str| {
        !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'*' && byte != b'>')
    };
    subject.split('.').all(is_word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operation_has_both_spellings_and_the_prefix() {
        assert_eq!(Operation::GetObject.subjects(""), ["s3.GetObject", "s3.getobject"]);
        assert_eq!(Operation::ListBuckets.subjects("edge.one"), ["edge.one.s3.ListBuckets", "edge.one.s3.listbuckets"]);
        assert_eq!(Operation::StorageConfig.subjects(""), ["spinifex.storage.config"]);
    }

    #[test]
    fn names_are_read_in_any_case() {
        for operation in Operation::ALL {
            assert_eq!(operation.name().to_ascii_lowercase().parse(), Ok(*operation));
        }
        assert_eq!("getobjects".parse::<Operation>(), Err(Unknown("getobjects".to_owned())));
    }

    #[test]
    fn a_prefix_is_made_of_words() {
        for (subject, plain) in [
            ("edge", true),
            ("edge.one-2", true),
            ("", false),
            ("a..b", false),
            ("a.*", false),
            (">", false),
            ("a b", false),
        ] {
            assert_eq!(is_plain(subject), plain, "{subject}");
        }
    }
}
