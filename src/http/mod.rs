//! HTTP/1.x bytes to meaning and back (RFC 9110, RFC 9112). Pure.

/// Bounds on a message head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadLimits {
    /// Longest request or status line in bytes, without its CRLF (414).
    pub line_bytes_max: usize,
    /// Longest head in bytes, first line and final empty line included (431).
    pub head_bytes_max: usize,
    /// Most field lines (431).
    pub fields_max: usize,
}

impl Default for HeadLimits {
    fn default() -> Self {
        Self { line_bytes_max: 8 * 1024, head_bytes_max: 32 * 1024, fields_max: 100 }
    }
}
