//! An answer of the admin listener, and how it becomes bytes.

use std::borrow::Cow;
use std::rc::Rc;

use crate::http::{Reply as Head, Version, write_reply};
use crate::time::DATE_BYTES;

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reply {
    pub status: u16,
    pub content_type: &'static str,
    /// Beside those that every answer has.
    pub field: Option<(&'static str, Cow<'static, str>)>,
    pub body: Body,
}

/// Its content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Body {
    /// Ours from the start.
    Fixed(&'static [u8]),
    /// Made for this answer.
    Own(Vec<u8>),
    /// Made for all who ask in the same second.
    Shared(Rc<[u8]>),
}

impl Body {
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Fixed(bytes) => bytes,
            Self::Own(bytes) => bytes,
            Self::Shared(bytes) => bytes,
        }
    }
}

impl Reply {
    pub fn text(status: u16, body: impl Into<Cow<'static, str>>) -> Self {
        let body = match body.into() {
            Cow::Borrowed(text) => Body::Fixed(text.as_bytes()),
            Cow::Owned(text) => Body::Own(text.into_bytes()),
        };
        Self { status, content_type: TEXT, field: None, body }
    }

    pub fn json(value: &impl serde::Serialize) -> Self {
        // Numbers, texts and maps with texts as keys: they all have a JSON form.
        let body = serde_json::to_vec(value).unwrap_or_default();
        Self { status: 200, content_type: "application/json", field: None, body: Body::Own(body) }
    }

    pub fn with(mut self, name: &'static str, value: impl Into<Cow<'static, str>>) -> Self {
        self.field = Some((name, value.into()));
        self
    }

    /// The head of this answer.
    pub fn head(&self, close: bool, version: Version, date: &[u8; DATE_BYTES]) -> Vec<u8> {
        let mut fields = FIELDS.to_vec();
        fields.extend(self.field.iter().map(|(name, value)| (*name, value.as_ref())));
        let head = Head {
            status: self.status,
            content_type: self.content_type,
            content_length: Some(self.body.bytes().len()),
            fields: &fields,
            close,
            keep_alive_10: !close && version == Version::Http10,
            date,
        };
        let mut out = Vec::with_capacity(HEAD_BYTES);
        write_reply(&mut out, &head);
        out
    }
}

/// The head of a stream of events, which ends with its connection.
pub(super) fn stream_head(date: &[u8; DATE_BYTES]) -> Vec<u8> {
    let head = Head {
        status: 200,
        content_type: "text/event-stream",
        content_length: None,
        fields: &FIELDS,
        close: true,
        keep_alive_10: false,
        date,
    };
    let mut out = Vec::with_capacity(HEAD_BYTES);
    write_reply(&mut out, &head);
    out
}

/// What is shown changes every second and is nobody else's business.
const FIELDS: [(&str, &str); 4] = [
    ("Cache-Control", "no-store"),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
];
const TEXT: &str = "text/plain; charset=utf-8";
/// Room for any head.
const HEAD_BYTES: usize = 1024;
