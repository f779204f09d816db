//! Reading what the operator names: cluster.yml, its includes, a password file.

use std::fs::File;
use std::io;
use std::io::Read;
use std::path::Path;

/// No such file is anywhere near as long; a device or a mistaken path is refused instead of read for ever.
const LONGEST: u64 = 64 << 20;

/// The bytes of `path`.
pub fn read_bytes(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(LONGEST + 1).read_to_end(&mut bytes)?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > LONGEST {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("longer than {} MiB", LONGEST >> 20)));
    }
    Ok(bytes)
}

/// The text of `path`.
pub fn read_text(path: &Path) -> io::Result<String> {
    String::from_utf8(read_bytes(path)?).map_err(|error| {
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!("not UTF-8 from byte {} on", error.utf8_error().valid_up_to()),
        )
    })
}
