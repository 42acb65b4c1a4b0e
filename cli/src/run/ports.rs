//! A port that nobody set gives way to a free one when it is taken; one that was set stops the start.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};

use flota_common::config::{Key, Listen};

use crate::failure::Failure;

/// Where to listen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Free a moment ago; port 0 where any will do.
    pub address: SocketAddr,
    /// The port that was wanted and is taken.
    pub taken: Option<u16>,
}

/// What becomes of a port that is taken and that nobody set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fallback {
    /// A free one is taken (`flota up`).
    Free,
    /// The start ends.
    Never,
}

/// Where the setting `name` lets a listener be.
pub fn place(name: &str, listen: &Listen, fallback: Fallback) -> Result<Place, Failure> {
    let wanted = listen.address;
    match TcpListener::bind(wanted) {
        Ok(_) => Ok(Place { address: wanted, taken: None }),
        Err(error) if error.kind() == ErrorKind::AddrInUse && !listen.set && fallback == Fallback::Free => {
            let free = TcpListener::bind(SocketAddr::new(wanted.ip(), 0)).and_then(|listener| listener.local_addr());
            let address = free.map_err(|error| refused(name, wanted, &error))?;
            Ok(Place { address, taken: Some(wanted.port()) })
        }
        Err(error) => Err(refused(name, wanted, &error)),
    }
}

fn refused(name: &str, wanted: SocketAddr, error: &std::io::Error) -> Failure {
    let variable = Key::find(name).map_or_else(|| name.to_owned(), Key::variable);
    let what = match error.kind() {
        ErrorKind::AddrInUse => format!(
            "another program listens on it already. Stop that one (`ss -ltnp 'sport = :{port}'` shows it), or set \
             {variable} to another port; without {variable} `flota up` takes a free one",
            port = wanted.port()
        ),
        ErrorKind::PermissionDenied => format!("ports below 1024 need root: set {variable} to a higher one"),
        ErrorKind::AddrNotAvailable => format!("this machine has no such address: set {variable} to one that it has"),
        _ => format!("{error}; set {variable} to another address"),
    };
    Failure::Usage(format!("can't listen on {wanted} ({variable}): {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_falls_back_unless_somebody_set_it() {
        let holder = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = holder.local_addr().unwrap();
        let found = place("web_listen", &Listen { address, set: false }, Fallback::Free).unwrap();
        assert_eq!(found.taken, Some(address.port()));
        assert!(found.address.port() != address.port() && found.address.port() != 0);
        let error = place("web_listen", &Listen { address, set: true }, Fallback::Free).unwrap_err();
        assert!(matches!(&error, Failure::Usage(text) if text.contains("FLOTA_WEB_LISTEN")), "{error:?}");
        assert!(place("web_listen", &Listen { address, set: false }, Fallback::Never).is_err());
    }

    #[test]
    fn a_free_port_stays_as_it_is() {
        let any = Listen { address: "127.0.0.1:0".parse().unwrap(), set: true };
        assert_eq!(place("grpc_listen", &any, Fallback::Free).unwrap(), Place { address: any.address, taken: None });
        let foreign = Listen { address: "203.0.113.1:1".parse().unwrap(), set: false };
        let error = place("grpc_listen", &foreign, Fallback::Free).unwrap_err();
        assert!(error.message().contains("no such address"), "{error:?}");
    }
}
