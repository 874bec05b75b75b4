//! What keys are called in Redis, and to which slot of a cluster they belong.

use crc::{CRC_16_XMODEM, Crc};

const SLOTS: u16 = 1 << 14;

/// What the names of a namespace's keys begin with. The length keeps namespaces
/// apart that begin alike.
pub(super) fn prefix(namespace: &str) -> Vec<u8> {
    format!("{}:{namespace}:", namespace.len()).into_bytes()
}

/// The slot of a name: of what stands in its first braces, if anything does.
pub(super) fn slot(name: &[u8]) -> u16 {
    const CRC: Crc<u16> = Crc::<u16>::new(&CRC_16_XMODEM);
    CRC.checksum(hash_tag(name).unwrap_or(name)) % SLOTS
}

fn hash_tag(name: &[u8]) -> Option<&[u8]> {
    let open = name.iter().position(|byte| *byte == b'{')?;
    let rest = &name[open + 1..];
    let close = rest.iter().position(|byte| *byte == b'}')?;
    (close > 0).then(|| &rest[..close])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn namespaces_are_told_apart_from_their_keys() {
        let name = |namespace, key: &str| [prefix(namespace), key.into()].concat();
        assert_eq!(name("orders", "order-17"), b"6:orders:order-17");
        assert_ne!(name("a", ":b"), name("a:", "b"));
        assert_ne!(name("", "1:a:b"), name("a", "b"));
    }

    #[test]
    fn slots_are_those_of_the_cluster_specification() {
        assert_eq!(slot(b"123456789"), 0x31c3);
        assert_eq!(slot(b"{user1000}.following"), slot(b"user1000"));
        assert_eq!(slot(b"foo{{bar}}zap"), slot(b"{bar"));
        assert_eq!(hash_tag(b"foo{}{bar}"), None);
        assert_eq!(hash_tag(b"foo{bar"), None);
    }
}
