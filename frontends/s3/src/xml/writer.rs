//! Writes XML.

use std::fmt::Write;

use crate::dates::iso_8601_ms;
use crate::query::uri_encode_path;

/// A document being written. Element names are ours, so only text is escaped.
pub struct Writer {
    text: String,
    url_encoded: bool,
}

impl Writer {
    /// A document whose root `name` has S3's namespace and what `content` writes.
    pub fn document(name: &str, content: impl FnOnce(&mut Writer)) -> String {
        Writer::rooted(name, &format!(" xmlns=\"{}\"", super::NAMESPACE), content)
    }

    /// A document whose root has no namespace, as S3's errors.
    pub fn plain_document(name: &str, content: impl FnOnce(&mut Writer)) -> String {
        Writer::rooted(name, "", content)
    }

    fn rooted(name: &str, attributes: &str, content: impl FnOnce(&mut Writer)) -> String {
        let text = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
        let mut writer = Writer { text, url_encoded: false };
        writer.element_with(name, attributes, content);
        writer.text
    }

    /// From here on, [`Writer::key`] percent-encodes: `encoding-type=url`.
    pub fn set_url_encoded(&mut self, url_encoded: bool) {
        self.url_encoded = url_encoded;
    }

    /// `<name>…</name>` around what `content` writes.
    pub fn element(&mut self, name: &str, content: impl FnOnce(&mut Writer)) {
        self.element_with(name, "", content);
    }

    pub(super) fn element_with(&mut self, name: &str, attributes: &str, content: impl FnOnce(&mut Writer)) {
        self.text.extend(["<", name, attributes, ">"]);
        content(self);
        self.text.extend(["</", name, ">"]);
    }

    /// `<name>text</name>`.
    pub fn text(&mut self, name: &str, text: &str) {
        self.element(name, |writer| writer.push_text(text));
    }

    /// `<name>text</name>`, or nothing.
    pub fn optional(&mut self, name: &str, text: Option<&str>) {
        if let Some(text) = text {
            self.text(name, text);
        }
    }

    /// `<name>value</name>` for a number or a boolean.
    pub fn value(&mut self, name: &str, value: impl std::fmt::Display) {
        self.element(name, |writer| {
            // Writing to a String cannot fail.
            let _ = write!(writer.text, "{value}");
        });
    }

    /// `<name>time</name>`, in milliseconds since 1970.
    pub fn time(&mut self, name: &str, unix_ms: i64) {
        self.element(name, |writer| writer.text.push_str(&iso_8601_ms(unix_ms)));
    }

    /// `<ETag>"etag"</ETag>`, the quotes being part of it. `etag`: without quotes; hexadecimal digits and `-`.
    pub fn etag(&mut self, etag: &str) {
        self.element("ETag", |writer| writer.text.extend(["&quot;", etag, "&quot;"]));
    }

    /// A key, prefix, delimiter or marker: percent-encoded where the request asked for it.
    pub fn key(&mut self, name: &str, key: &str) {
        if self.url_encoded { self.text(name, &uri_encode_path(key)) } else { self.text(name, key) }
    }

    /// Text inside the element being written.
    ///
    /// Control characters become references, as S3 writes them, though XML 1.0 knows most of them in no form: a client that
    /// has such keys asks for `encoding-type=url`.
    pub fn push_text(&mut self, text: &str) {
        let is_plain = |byte: u8| matches!(byte, b' '..=b'~') && !matches!(byte, b'&' | b'<' | b'>' | b'"');
        // Most of a listing is plain, and taken at once.
        let plain_len = text.bytes().position(|byte| !is_plain(byte)).unwrap_or(text.len());
        let (plain, rest) = text.split_at(plain_len);
        self.text.push_str(plain);
        for character in rest.chars() {
            match character {
                '&' => self.text.push_str("&amp;"),
                '<' => self.text.push_str("&lt;"),
                '>' => self.text.push_str("&gt;"),
                '"' => self.text.push_str("&quot;"),
                '\0'..='\x1f' | '\x7f'..='\u{9f}' | '\u{2028}' | '\u{fffe}' | '\u{ffff}' => {
                    let _ = write!(self.text, "&#x{:x};", u32::from(character));
                }
                _ => self.text.push(character),
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::reader::Element;
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn text_is_escaped() {
        let written = Writer::plain_document("a", |xml| xml.text("b", "<&>\"'\r\n\x01é"));
        let expected = "<a><b>&lt;&amp;&gt;&quot;'&#xd;&#xa;&#x1;é</b></a>";
        assert_eq!(written, format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n{expected}"));
    }

    #[test]
    fn keys_are_percent_encoded_when_asked() {
        let write = |url_encoded| {
            Writer::plain_document("a", |xml| {
                xml.set_url_encoded(url_encoded);
                xml.key("Key", "a b/(+)\x01");
                xml.text("Other", "a b");
            })
        };
        assert!(write(true).ends_with("<a><Key>a%20b/%28%2B%29%01</Key><Other>a b</Other></a>"));
        assert!(write(false).ends_with("<a><Key>a b/(+)&#x1;</Key><Other>a b</Other></a>"));
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(text in any::<String>()) {
            let written = Writer::document("a", |xml| xml.text("b", &text));
            let root = Element::parse(written.as_bytes()).unwrap();
            prop_assert_eq!(root.child_text("b").unwrap(), Some(text.as_str()));
        }
    }
}
