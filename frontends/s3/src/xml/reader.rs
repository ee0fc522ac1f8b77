//! A small tree of an XML body, borrowed from it where it can be.

use quick_xml::Reader;
use quick_xml::events::{BytesRef, BytesStart, Event};

use super::BODY_MAX_BYTES;
use crate::error::{ErrorCode, S3Error};

const DEPTH_MAX: usize = 8;
const ELEMENT_MAX_COUNT: usize = 120_000;

/// One element. Text is what stands directly inside, exactly; attributes and name prefixes are dropped.
#[derive(Debug, Default)]
pub(super) struct Element<'a> {
    pub(super) name: &'a str,
    pub(super) text: String,
    pub(super) children: Vec<Element<'a>>,
}

impl<'a> Element<'a> {
    /// Reads a whole body.
    ///
    /// # Errors
    /// `MalformedXML`, whatever is wrong; `MissingRequestBodyError` for a body of white space.
    pub(super) fn parse(body: &'a [u8]) -> Result<Element<'a>, S3Error> {
        if body.len() > BODY_MAX_BYTES {
            return Err(malformed());
        }
        let text = std::str::from_utf8(body).map_err(|_| malformed())?;
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        if text.trim().is_empty() {
            return Err(ErrorCode::MissingRequestBodyError.into());
        }
        parse_text(text)
    }

    /// This element, if it has that name.
    pub(super) fn called(self, name: &str) -> Result<Element<'a>, S3Error> {
        if self.name == name { Ok(self) } else { Err(malformed()) }
    }

    /// All children are named in `names`.
    pub(super) fn only(self, names: &[&str]) -> Result<Element<'a>, S3Error> {
        if self.children.iter().all(|child| names.contains(&child.name)) { Ok(self) } else { Err(malformed()) }
    }

    /// The children of that name.
    pub(super) fn all(&self, name: &str) -> impl Iterator<Item = &Element<'a>> {
        self.children.iter().filter(move |child| child.name == name)
    }

    /// The one child of that name, if any; two are an error.
    pub(super) fn child(&self, name: &str) -> Result<Option<&Element<'a>>, S3Error> {
        let mut found = self.all(name);
        let first = found.next();
        if found.next().is_some() { Err(malformed()) } else { Ok(first) }
    }

    /// The text of the one child of that name, if any.
    pub(super) fn child_text(&self, name: &str) -> Result<Option<&str>, S3Error> {
        self.child(name)?.map(Element::leaf).transpose()
    }

    /// The text of the one child of that name.
    pub(super) fn required(&self, name: &str) -> Result<&str, S3Error> {
        self.child_text(name)?.ok_or_else(malformed)
    }

    /// The text of an element that has no children.
    pub(super) fn leaf(&self) -> Result<&str, S3Error> {
        if self.children.is_empty() { Ok(&self.text) } else { Err(malformed()) }
    }
}

pub(super) fn malformed() -> S3Error {
    ErrorCode::MalformedXML.into()
}

fn parse_text(text: &str) -> Result<Element<'_>, S3Error> {
    let mut reader = Reader::from_str(text);
    // The last is the one being read; the first holds the root.
    let mut open = vec![Element::default()];
    let mut left_count = ELEMENT_MAX_COUNT;
    loop {
        match reader.read_event().map_err(|_| malformed())? {
            Event::Start(start) => {
                left_count = left_count.checked_sub(1).ok_or_else(malformed)?;
                open.push(element(&start, text)?);
                if open.len() > DEPTH_MAX {
                    return Err(malformed());
                }
            }
            Event::Empty(start) => {
                left_count = left_count.checked_sub(1).ok_or_else(malformed)?;
                let child = element(&start, text)?;
                innermost(&mut open)?.children.push(child);
            }
            Event::End(_) => {
                let closed = open.pop().ok_or_else(malformed)?;
                innermost(&mut open)?.children.push(closed);
            }
            // By XML 1.0: 1.1 would make a line feed of U+0085 and U+2028, and so another key of a key that has them.
            Event::Text(text) => push_text(&mut open, &text.xml10_content().map_err(|_| malformed())?)?,
            Event::CData(text) => push_text(&mut open, &text.xml10_content().map_err(|_| malformed())?)?,
            Event::GeneralRef(reference) => push_text(&mut open, resolve(&reference)?.encode_utf8(&mut [0; 4]))?,
            Event::Decl(_) | Event::Comment(_) => {}
            Event::DocType(_) | Event::PI(_) => return Err(malformed()),
            Event::Eof => return only_root(open),
        }
    }
}

fn innermost<'o, 'a>(open: &'o mut [Element<'a>]) -> Result<&'o mut Element<'a>, S3Error> {
    open.last_mut().ok_or_else(malformed)
}

/// Outside of the root, only white space may stand.
fn push_text(open: &mut [Element<'_>], text: &str) -> Result<(), S3Error> {
    if open.len() == 1 && !text.trim().is_empty() {
        return Err(malformed());
    }
    innermost(open)?.text.push_str(text);
    Ok(())
}

fn only_root(mut open: Vec<Element<'_>>) -> Result<Element<'_>, S3Error> {
    let holder = open.pop().filter(|_| open.is_empty()).ok_or_else(malformed)?;
    let [root] = <[Element<'_>; 1]>::try_from(holder.children).map_err(|_| malformed())?;
    Ok(root)
}

/// The local name, borrowed from the body: the event only lends it for its own life.
fn element<'a>(start: &BytesStart<'_>, body: &'a str) -> Result<Element<'a>, S3Error> {
    let name = start.local_name();
    let name = name.as_ref();
    let offset = (name.as_ptr() as usize).checked_sub(body.as_ptr() as usize).ok_or_else(malformed)?;
    let name = body.get(offset..offset + name.len()).filter(|name| !name.is_empty()).ok_or_else(malformed)?;
    Ok(Element { name, ..Default::default() })
}

/// Character references may name control characters that XML 1.0 forbids: S3's keys may hold them, and there is no other
/// way to delete such a key.
fn resolve(reference: &BytesRef<'_>) -> Result<char, S3Error> {
    let name = reference.decode().map_err(|_| malformed())?;
    let code = match name.as_ref() {
        "amp" => return Ok('&'),
        "lt" => return Ok('<'),
        "gt" => return Ok('>'),
        "quot" => return Ok('"'),
        "apos" => return Ok('\''),
        name => name.strip_prefix('#').ok_or_else(malformed)?,
    };
    let number = match code.strip_prefix('x') {
        Some(hex) if hex.bytes().all(|byte| byte.is_ascii_hexdigit()) => u32::from_str_radix(hex, 16).ok(),
        None if code.bytes().all(|byte| byte.is_ascii_digit()) => code.parse().ok(),
        _ => None,
    };
    number.and_then(char::from_u32).ok_or_else(malformed)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn text_of(body: &str) -> Result<String, ErrorCode> {
        Element::parse(body.as_bytes()).map(|root| root.text).map_err(|error| error.code)
    }

    #[test]
    fn text_is_exact() {
        assert_eq!(text_of("<a> x </a>"), Ok(" x ".into()));
        assert_eq!(text_of("<a>&lt;&amp;&gt;&quot;&apos;&#65;&#x42;&#x1F980;</a>"), Ok("<&>\"'AB🦀".into()));
        assert_eq!(text_of("<a>x&#13;&#10;&#x0;</a>"), Ok("x\r\n\0".into()));
        assert_eq!(text_of("<a>x\r\ny\u{85}z\u{2028}</a>"), Ok("x\ny\u{85}z\u{2028}".into()));
        assert_eq!(text_of("<a><![CDATA[\u{85}\u{2028}]]></a>"), Ok("\u{85}\u{2028}".into()));
        assert_eq!(text_of("<a><![CDATA[<&]]>b<!-- c -->d</a>"), Ok("<&bd".into()));
        assert_eq!(text_of("\u{feff}<?xml version=\"1.0\"?>\n<s3:a xmlns:s3=\"x\"/>\n"), Ok(String::new()));
    }

    #[test]
    fn bodies_that_are_not_one_small_plain_document() {
        let deep = "<a>".repeat(9) + &"</a>".repeat(9);
        let many = format!("<a>{}</a>", "<b/>".repeat(ELEMENT_MAX_COUNT));
        let large = format!("<a>{}</a>", "x".repeat(BODY_MAX_BYTES));
        for body in [
            "x",
            "<a>",
            "</a>",
            "<a></b>",
            "<a/><b/>",
            "<a/>x",
            "x<a/>",
            "<a>&b;</a>",
            "<a>&#x110000;</a>",
            "<a>&#-1;</a>",
            "<a>&#+65;</a>",
            "<a>&#;</a>",
            "<!DOCTYPE a [<!ENTITY b \"c\">]><a>&b;</a>",
            "<?php x?><a/>",
            "<></>",
            &deep,
            &many,
            &large,
        ] {
            assert_eq!(text_of(body), Err(ErrorCode::MalformedXML), "{}", &body[..body.len().min(60)]);
        }
        assert_eq!(Element::parse(b"<a>\xff</a>").unwrap_err().code, ErrorCode::MalformedXML);
        assert_eq!(text_of(" \n"), Err(ErrorCode::MissingRequestBodyError));
    }
}
