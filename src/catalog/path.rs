//! A key as a path: the components that the tree of directory entries names.
//!
//! Invariants
//! - The components of a key, one after another, are the key. All but the last end in `/`; the last has no `/`
//!   and may be empty (`x/` is the empty name under `x/`), except at [`DEPTH_MAX`], where it holds the rest.
//! - So a depth-first walk in byte order of names meets keys in byte order.

/// Below this depth one name holds the rest of the key.
pub const DEPTH_MAX: usize = 128;

/// Splits `key` into the names of its directories (each with its `/`) and its last name.
pub fn split(key: &[u8]) -> (Vec<&[u8]>, &[u8]) {
    let mut directories = Vec::new();
    let mut rest = key;
    while directories.len() < DEPTH_MAX
        && let Some(slash) = rest.iter().position(|byte| *byte == b'/')
    {
        let (name, after) = rest.split_at(slash + 1);
        directories.push(name);
        rest = after;
    }
    (directories, rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_split_as_the_namespace_says() {
        type Case = (&'static [u8], &'static [&'static [u8]], &'static [u8]);
        let cases: [Case; 6] = [
            (b"a", &[], b"a"),
            (b"a/", &[b"a/"], b""),
            (b"a//b", &[b"a/", b"/"], b"b"),
            (b"/a", &[b"/"], b"a"),
            (b"x/y/z", &[b"x/", b"y/"], b"z"),
            (b"//", &[b"/", b"/"], b""),
        ];
        for (key, directories, name) in cases {
            assert_eq!(split(key), (directories.to_vec(), name), "{key:?}");
        }
    }

    #[test]
    fn a_thousand_slashes_cost_no_thousand_components() {
        let key = [b'/'; 1024];
        let (directories, name) = split(&key);
        assert_eq!(directories.len(), DEPTH_MAX);
        assert_eq!(name.len(), 1024 - DEPTH_MAX);
    }
}
