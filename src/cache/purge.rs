//! What an operator wants forgotten.

/// An order to forget stored responses, all variants of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Purge {
    /// Those under this key ([`super::key::of_url`]).
    Exact(Vec<u8>),
    /// Those whose key begins so.
    Prefix(Vec<u8>),
    /// All.
    All,
}
