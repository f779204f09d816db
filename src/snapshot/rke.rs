//! Snapshots that RKE or etcdctl made: neither sealed nor signed.

/// What a file that bastide did not make is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Foreign {
    /// RKE's zip, with the database and mostly RKE's state in it.
    RkeZip,
    /// A database as etcdctl saves it.
    Database,
}

/// Tells from a file's first bytes (at least 64) what it is; none for everything else, bastide's own among it.
pub fn recognise(first: &[u8]) -> Option<Foreign> {
    if first.starts_with(b"PK\x03\x04") {
        return Some(Foreign::RkeZip);
    }
    // bbolt: page 0 has a header of 16 bytes and then the meta page's magic 0xED0CDAED, in the machine's byte order.
    let magic = first.get(16..20)?;
    [[0xED, 0xDA, 0x0C, 0xED], [0xED, 0x0C, 0xDA, 0xED]].iter().any(|known| magic == known).then_some(Foreign::Database)
}
