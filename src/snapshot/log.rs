//! The end of a member's write-ahead log: what it holds beyond what the member knew to be committed.
//!
//! A member that survived alone has on its disk everything that it ever acknowledged to the leader, but it learned what was
//! committed of that only with the next message, and writes even that down without haste. `--force-new-cluster` throws away
//! whatever lies beyond, among it writes whose clients had their answer. Where the other members are gone for good, the
//! survivor's log is all there is, and all of it counts: one record at its end says so.
//!
//! Layout: etcd's `server/storage/wal` (`encoder.go`, `decoder.go`, `walpb/record.proto`) and raft's `raftpb/raft.proto`.

use crate::model::protobuf::Field;
use crate::model::protobuf::Fields;
use crate::model::protobuf::Message;
use crate::snapshot::SnapshotError;

/// etcd's types of records.
const ENTRY: u64 = 2;
const STATE: u64 = 3;
const CHECKSUM: u64 = 4;
const SNAPSHOT: u64 = 5;
/// A frame's length, with the padding in its highest byte.
const FRAME: usize = 8;
/// What a disk writes at once: a torn write leaves zeros in whole sectors.
const SECTOR: usize = 512;

/// How a log ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogEnd {
    /// Where its last file's records end: behind it are zeros, or what a torn write left.
    pub offset: u64,
    /// Index of its last entry; none where the files that were read hold none.
    pub last: Option<u64>,
    /// Up to which entry the member knew that all is committed.
    pub committed: u64,
    term: u64,
    vote: u64,
    checksum: u32,
}

impl LogEnd {
    /// The record to append, which says that everything is committed; none where nothing lies beyond.
    pub fn commit_all(&self) -> Option<Vec<u8>> {
        let last = self.last.filter(|last| *last > self.committed)?;
        let state = Message::default().number(1, self.term).number(2, self.vote).number(3, last).finish();
        let checksum = u64::from(crc32c(self.checksum, &state));
        let record = Message::default().number(1, STATE).number(2, checksum).bytes(3, &state).finish();
        let padding = (8 - record.len() % 8) % 8;
        let mut length = record.len() as u64;
        if padding > 0 {
            length |= (0x80 | padding as u64) << 56;
        }
        let mut framed = length.to_le_bytes().to_vec();
        framed.extend_from_slice(&record);
        framed.resize(framed.len() + padding, 0);
        Some(framed)
    }
}

/// Reads neighbouring files of a log, oldest first, of which the last one is the log's last. Anything else than a torn write at
/// the very end is refused: etcd refuses it as well.
pub fn read_log<'a>(files: impl IntoIterator<Item = &'a [u8]>) -> Result<LogEnd, SnapshotError> {
    let mut end = LogEnd { offset: 0, last: None, committed: 0, term: 0, vote: 0, checksum: 0 };
    let mut torn = false;
    for file in files {
        if torn {
            return Err(broken("a file that is not its last one is torn"));
        }
        torn = read_file(file, &mut end)?;
    }
    Ok(end)
}

/// Whether the file ends in a torn write.
fn read_file(file: &[u8], end: &mut LogEnd) -> Result<bool, SnapshotError> {
    let mut at = 0;
    loop {
        end.offset = at as u64;
        let Some((head, rest)) = file.get(at..).and_then(<[u8]>::split_first_chunk::<FRAME>) else { return Ok(false) };
        let length = u64::from_le_bytes(*head);
        if length == 0 {
            return Ok(false);
        }
        let padding = if length >> 63 == 1 { (length >> 56) & 7 } else { 0 };
        let size = usize::try_from(length & !(0xff << 56)).unwrap_or(usize::MAX);
        let whole = size.saturating_add(usize::try_from(padding).unwrap_or_default());
        // A length that leads beyond the file: etcd takes that for a torn write too.
        let Some(data) = rest.get(..whole) else { return Ok(true) };
        match take_record(&data[..size], end) {
            Some(()) => at += FRAME + whole,
            None if is_torn(data, at + FRAME) => return Ok(true),
            None => return Err(broken("a record in its middle has changed")),
        }
    }
}

/// None where the record is not the one that was written.
fn take_record(record: &[u8], end: &mut LogEnd) -> Option<()> {
    let Known { numbers: [kind, checksum, ..], bytes: data } = known(record)?;
    let checksum = u32::try_from(checksum?).ok()?;
    let kind = kind?;
    if kind == CHECKSUM {
        // The first file that is read may follow others.
        if end.checksum != 0 && end.checksum != checksum {
            return None;
        }
        end.checksum = checksum;
        return Some(());
    }
    let data = data.unwrap_or_default();
    let found = crc32c(end.checksum, data);
    if found != checksum {
        return None;
    }
    end.checksum = found;
    match kind {
        // An entry with a lower index takes the place of all from there on.
        ENTRY => end.last = Some(known(data)?.numbers[2].unwrap_or_default()),
        STATE => {
            let [term, vote, committed, _] = known(data)?.numbers;
            end.term = term.unwrap_or_default();
            end.vote = vote.unwrap_or_default();
            end.committed = committed.unwrap_or_default();
        }
        SNAPSHOT => {
            let index = known(data)?.numbers[0].unwrap_or_default();
            end.last = Some(end.last.map_or(index, |last| last.max(index)));
        }
        _ => {}
    }
    Some(())
}

/// Whether a sector of it was never written.
fn is_torn(data: &[u8], at: usize) -> bool {
    let first = (SECTOR - at % SECTOR).min(data.len());
    let (head, rest) = data.split_at(first);
    std::iter::once(head).chain(rest.chunks(SECTOR)).any(|sector| sector.iter().all(|byte| *byte == 0))
}

/// Of a protobuf message: its numbers 1 to 4, and the last of its byte strings.
struct Known<'a> {
    numbers: [Option<u64>; 4],
    bytes: Option<&'a [u8]>,
}

fn known(message: &[u8]) -> Option<Known<'_>> {
    let mut found = Known { numbers: [None; 4], bytes: None };
    for field in Fields::of(message) {
        match field? {
            (number, Field::Number(value)) => {
                let at = usize::try_from(number).ok()?.checked_sub(1)?;
                if let Some(number) = found.numbers.get_mut(at) {
                    *number = Some(value);
                }
            }
            (_, Field::Bytes(bytes)) => found.bytes = Some(bytes),
            (_, Field::Fixed) => return None,
        }
    }
    Some(found)
}

/// CRC-32C (RFC 3720, appendix B.4), going on from `before`.
fn crc32c(before: u32, bytes: &[u8]) -> u32 {
    const REVERSED: u32 = 0x82f6_3b78;
    const TABLE: [u32; 256] = {
        let mut table = [0; 256];
        let mut at = 0;
        while at < 256 {
            #[allow(clippy::cast_possible_truncation, reason = "below 256")]
            let mut value = at as u32;
            let mut bit = 0;
            while bit < 8 {
                value = if value & 1 == 1 { value >> 1 ^ REVERSED } else { value >> 1 };
                bit += 1;
            }
            table[at] = value;
            at += 1;
        }
        table
    };
    !bytes.iter().fold(!before, |crc, byte| {
        let [low, ..] = (crc ^ u32::from(*byte)).to_le_bytes();
        TABLE[usize::from(low)] ^ crc >> 8
    })
}

fn broken(what: &'static str) -> SnapshotError {
    SnapshotError::Log(what)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::CHECKSUM;
    use super::ENTRY;
    use super::Message;
    use super::STATE;
    use super::crc32c;
    use super::read_log;

    /// Writes records as etcd does.
    #[derive(Default)]
    struct Log {
        bytes: Vec<u8>,
        checksum: u32,
    }

    impl Log {
        fn record(&mut self, kind: u64, data: &[u8]) {
            self.checksum = crc32c(self.checksum, data);
            let record = Message::default().number(1, kind).number(2, u64::from(self.checksum)).bytes(3, data).finish();
            let padding = (8 - record.len() % 8) % 8;
            let mark = if padding > 0 { (0x80 | padding as u64) << 56 } else { 0 };
            self.bytes.extend((record.len() as u64 | mark).to_le_bytes());
            self.bytes.extend(&record);
            self.bytes.resize(self.bytes.len() + padding, 0);
        }
        fn begins(&mut self) {
            let record = Message::default().number(1, CHECKSUM).number(2, u64::from(self.checksum)).finish();
            let padding = (8 - record.len() % 8) % 8;
            let mark = if padding > 0 { (0x80 | padding as u64) << 56 } else { 0 };
            self.bytes.extend((record.len() as u64 | mark).to_le_bytes());
            self.bytes.extend(&record);
            self.bytes.resize(self.bytes.len() + padding, 0);
            self.record(1, b"metadata");
        }
        fn entry(&mut self, term: u64, index: u64, data: &[u8]) {
            let entry = Message::default().number(1, 0).number(2, term).number(3, index).bytes(4, data).finish();
            self.record(ENTRY, &entry);
        }
        fn state(&mut self, term: u64, vote: u64, committed: u64) {
            self.record(STATE, &Message::default().number(1, term).number(2, vote).number(3, committed).finish());
        }
    }

    fn sample() -> Log {
        let mut log = Log::default();
        log.begins();
        log.entry(2, 7, b"one");
        log.state(2, u64::MAX - 3, 7);
        log.entry(3, 8, &[9; 300]);
        log.entry(3, 9, b"acknowledged");
        log
    }

    #[test]
    fn the_checksum_is_the_one_of_the_rfc() {
        // RFC 3720, B.4.
        assert_eq!(crc32c(0, &[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(0, &[0xff; 32]), 0x62a8_ab43);
        assert_eq!(crc32c(crc32c(0, b"1234"), b"56789"), crc32c(0, b"123456789"));
        assert_eq!(crc32c(0, b"123456789"), 0xe306_9283);
    }

    #[test]
    fn everything_in_the_log_counts_as_committed_afterwards() {
        let log = sample();
        let mut file = log.bytes.clone();
        file.resize(64 << 10, 0);
        let end = read_log([file.as_slice()]).unwrap();
        assert_eq!((end.offset, end.last, end.committed), (log.bytes.len() as u64, Some(9), 7));
        let record = end.commit_all().unwrap();
        assert_eq!(record.len() % 8, 0);
        // As etcd itself would have written it.
        let mut expected = sample();
        expected.state(2, u64::MAX - 3, 9);
        file.truncate(log.bytes.len());
        file.extend(record);
        assert_eq!(file, expected.bytes);
        let end = read_log([file.as_slice()]).unwrap();
        assert_eq!((end.last, end.committed, end.commit_all()), (Some(9), 9, None));
    }

    #[test]
    fn a_file_that_has_just_begun_is_read_after_the_one_before() {
        let first = sample();
        let mut second = Log { bytes: Vec::new(), checksum: first.checksum };
        second.begins();
        second.state(3, 1, 8);
        assert_eq!(read_log([second.bytes.as_slice()]).unwrap().last, None);
        let end = read_log([first.bytes.as_slice(), second.bytes.as_slice()]).unwrap();
        assert_eq!((end.last, end.committed, end.offset), (Some(9), 8, second.bytes.len() as u64));
        let mut other = Log { bytes: Vec::new(), checksum: 17 };
        other.begins();
        assert!(read_log([first.bytes.as_slice(), other.bytes.as_slice()]).is_err(), "a file of another log");
    }

    #[test]
    fn an_entry_that_takes_the_place_of_others_ends_the_log() {
        let mut log = sample();
        log.entry(4, 8, b"a new leader's");
        assert_eq!(read_log([log.bytes.as_slice()]).unwrap().last, Some(8));
    }

    #[test]
    fn a_torn_end_is_cut_off_and_a_changed_middle_refused() {
        let whole = sample();
        let before = whole.bytes.len();
        let mut log = sample();
        log.entry(3, 10, &[7; 2000]);
        for at in [before, log.bytes.len() - 1200] {
            let mut torn = log.bytes.clone();
            torn[at.next_multiple_of(512)..].fill(0);
            torn.resize(64 << 10, 0);
            let end = read_log([torn.as_slice()]).unwrap();
            assert_eq!((end.offset, end.last), (before as u64, Some(9)), "torn from {at}");
        }
        let end = read_log([&log.bytes[..log.bytes.len() - 5]]).unwrap();
        assert_eq!(end.last, Some(9), "cut off");
        for at in [30, before / 2, before - 20] {
            let mut flipped = log.bytes.clone();
            flipped[at] ^= 4;
            assert!(!read_log([flipped.as_slice()]).is_ok_and(|end| end.last != Some(10)), "a bit flipped at {at}");
        }
        assert!(read_log([&b"no log at all, but a text"[..]]).is_ok_and(|end| end.last.is_none()));
    }
}
