//! A loopback port that stays ours while nobody listens on it.
//!
//! A backend that dies and comes back must find its port again. A second socket, bound and never listening, keeps it:
//! connects are refused meanwhile, and the kernel gives the port to nobody else, not even as the source port of a
//! connect to itself.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

/// A port of 127.0.0.1, chosen by the kernel.
pub(super) struct Port {
    address: SocketAddr,
    _keeper: Socket,
}

impl Port {
    pub fn reserve() -> io::Result<Self> {
        let keeper = bound(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
        let address = keeper.local_addr()?.as_socket();
        let address = address.ok_or_else(|| io::Error::other("bound to no internet address"))?;
        Ok(Self { address, _keeper: keeper })
    }

    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Listens until the listener is closed; may be called again then.
    pub fn listen(&self) -> io::Result<TcpListener> {
        let socket = bound(self.address)?;
        socket.listen(BACKLOG)?;
        Ok(socket.into())
    }
}

fn bound(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // With it the kernel lets a listener join a socket that is only bound.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

const BACKLOG: i32 = 128;

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpStream;

    #[test]
    fn it_refuses_between_two_listeners_and_stays_ours() {
        let port = Port::reserve().unwrap();
        for _ in 0..3 {
            let refused = TcpStream::connect(port.address()).unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
            let listener = port.listen().unwrap();
            let _client = TcpStream::connect(port.address()).unwrap();
            drop(listener.accept().unwrap());
        }
    }
}
