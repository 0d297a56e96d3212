//! A client's connection, and what becomes of it after each request.

use std::net::IpAddr;

use super::per_ip::Counted;
use super::shard::Admitted;
use crate::http::PeerTrust;
use crate::io::Io;

/// Who is at the other end of a client's connection; found out once, when it is accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Peer {
    pub address: IpAddr,
    pub trust: PeerTrust,
}

/// A client and its connection.
pub(super) struct Client<I: Io> {
    /// Against its address; before the stream, so that who sees its end finds the place free.
    pub _counted: Option<Counted>,
    pub stream: I::Stream,
    pub peer: Peer,
    /// Counts the connection for as long as it lives.
    pub _admitted: Admitted<I>,
}

/// What becomes of the client's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// The next request may come, or is already here.
    Request,
    /// It ends in good order: the request was read to its end.
    Close,
    /// The same, but the client may still be sending: what comes is read for a little while.
    Linger,
    /// It ends now; nothing more can be said on it.
    Drop,
    /// It ends with a reset: an orderly end would look like the end of the response.
    Cut,
}
