//! Which server this is, from its greeting (AMQP 0-9-1, 4.2.3 general frame format and 1.4.2.1 connection.start).

use std::fmt;

/// The first one whose quorum queues dead-letter at least once and put messages off (`x-message-ttl`).
pub(super) const OLDEST: Version = Version { major: 3, minor: 10 };

const METHOD_FRAME: u8 = 1;
const CONNECTION_START: [u8; 4] = [0, 10, 0, 10];
const LONG_STRING: u8 = b'S';
const BOOLEAN: u8 = b't';
const TABLE: u8 = b'F';

/// A server's version, as far as it makes a difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Version {
    pub major: u16,
    pub minor: u16,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// Product and version that a server names in its first frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Server {
    pub product: String,
    /// As it says it.
    pub said: String,
    pub version: Version,
}

impl Server {
    /// Reads `connection.start`; none when this is no such frame, or its properties are of types that RabbitMQ does not
    /// use there.
    pub(super) fn of(greeting: &[u8]) -> Option<Self> {
        let mut bytes = Bytes(greeting);
        if bytes.u8()? != METHOD_FRAME {
            return None;
        }
        // Channel and length.
        bytes.take(6)?;
        if bytes.take(4)? != CONNECTION_START {
            return None;
        }
        // The protocol's version.
        bytes.take(2)?;
        let length = bytes.u32()?;
        let mut table = Bytes(bytes.take(length)?);
        let (mut product, mut said) = (None, None);
        while !table.0.is_empty() {
            let length = table.u8()?;
            let name = table.take(usize::from(length))?;
            let value = match table.u8()? {
                BOOLEAN => table.take(1)?,
                LONG_STRING | TABLE => {
                    let length = table.u32()?;
                    table.take(length)?
                }
                _ => return None,
            };
            match name {
                b"product" => product = Some(String::from_utf8_lossy(value).into_owned()),
                b"version" => said = Some(String::from_utf8_lossy(value).into_owned()),
                _ => {}
            }
        }
        let said = said?;
        let mut numbers = said.split(|c: char| !c.is_ascii_digit()).map(str::parse);
        let version = Version { major: numbers.next()?.ok()?, minor: numbers.next()?.ok()? };
        Some(Self { product: product.unwrap_or_default(), said, version })
    }
}

/// What is not read yet.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take(1).map(|byte| byte[0])
    }

    fn u32(&mut self) -> Option<usize> {
        let bytes: [u8; 4] = self.take(4)?.try_into().ok()?;
        usize::try_from(u32::from_be_bytes(bytes)).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn property(name: &str, kind: u8, value: &[u8]) -> Vec<u8> {
        let mut bytes = vec![name.len() as u8];
        bytes.extend(name.as_bytes());
        bytes.push(kind);
        if kind != BOOLEAN {
            bytes.extend((value.len() as u32).to_be_bytes());
        }
        bytes.extend(value);
        bytes
    }

    fn greeting(properties: &[Vec<u8>]) -> Vec<u8> {
        let table = properties.concat();
        let mut bytes = vec![METHOD_FRAME, 0, 0, 0, 0, 0, 0];
        bytes.extend(CONNECTION_START);
        bytes.extend([0, 9]);
        bytes.extend((table.len() as u32).to_be_bytes());
        bytes.extend(table);
        bytes
    }

    #[test]
    fn a_server_is_known_by_its_first_frame() {
        let table = property("publisher_confirms", BOOLEAN, &[1]);
        let whole = greeting(&[
            property("capabilities", TABLE, &table),
            property("product", LONG_STRING, b"RabbitMQ"),
            property("version", LONG_STRING, b"4.2.1-rc.1"),
        ]);
        let version = Version { major: 4, minor: 2 };
        let expected = Server { product: "RabbitMQ".into(), said: "4.2.1-rc.1".into(), version };
        assert_eq!(Server::of(&whole), Some(expected));
        assert!(version > OLDEST);
        assert!(Version { major: 3, minor: 9 } < OLDEST);
    }

    #[test]
    fn a_greeting_that_is_none_or_that_ends_early_names_no_server() {
        let whole = greeting(&[property("version", LONG_STRING, b"3.10.8")]);
        for length in 0..whole.len() {
            assert_eq!(Server::of(&whole[..length]), None, "{length} bytes");
        }
        assert!(Server::of(&whole).is_some());
        assert_eq!(Server::of(b"AMQP\x00\x00\x09\x01"), None);
        assert_eq!(Server::of(&greeting(&[property("version", b'I', b"1234")])), None);
        assert_eq!(Server::of(&greeting(&[property("version", LONG_STRING, b"unknown")])), None);
    }
}
