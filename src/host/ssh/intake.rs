//! What comes back: finds where the script's own output begins, counts sudo's prompts, keeps what is to be kept. Pure.

use super::shell::Mark;

/// As `Output` promises.
const STDOUT_KEPT: usize = 64 << 20;
/// As `Output` promises; the last bytes, because that is where a script says why it failed.
const STDERR_KEPT: usize = 64 << 10;
/// Greetings of a login shell's start files, at most this much of them.
const NOISE_KEPT: usize = 64 << 10;

/// Both output streams of one call.
pub(super) struct Intake {
    ready: Vec<u8>,
    prompt: Vec<u8>,
    stdout: Stream,
    stderr: Stream,
    prompts: usize,
}

#[derive(Default)]
struct Stream {
    begun: bool,
    bytes: Vec<u8>,
}

impl Intake {
    pub(super) fn new(mark: &Mark) -> Self {
        Self {
            ready: mark.ready_line().into_bytes(),
            prompt: mark.prompt().into_bytes(),
            stdout: Stream::default(),
            stderr: Stream::default(),
            prompts: 0,
        }
    }

    /// Whether the bootstrap runs as root: only then may anything but the password be sent.
    pub(super) fn begun(&self) -> bool {
        self.stdout.begun
    }

    /// How often sudo has asked.
    pub(super) fn prompts(&self) -> usize {
        self.prompts
    }

    pub(super) fn stdout(&mut self, bytes: &[u8]) {
        self.stdout.take(bytes, &self.ready);
        if self.stdout.begun {
            self.stdout.bytes.truncate(STDOUT_KEPT);
        }
    }

    pub(super) fn stderr(&mut self, bytes: &[u8]) {
        self.stderr.take(bytes, &self.ready);
        if !self.stderr.begun {
            while let Some(at) = find(&self.stderr.bytes, &self.prompt) {
                self.stderr.bytes.drain(at..at + self.prompt.len());
                self.prompts += 1;
            }
        }
        // Cut at twice the size, so that each byte is moved once at most.
        if self.stderr.bytes.len() > 2 * STDERR_KEPT {
            self.stderr.keep_last(STDERR_KEPT);
        }
    }

    /// What the script itself has written to stdout since this was last called.
    pub(super) fn drain_stdout(&mut self) -> Vec<u8> {
        if self.stdout.begun { std::mem::take(&mut self.stdout.bytes) } else { Vec::new() }
    }

    /// Everything the script wrote: stdout, stderr.
    pub(super) fn take_output(&mut self) -> (Vec<u8>, Vec<u8>) {
        self.stderr.keep_last(STDERR_KEPT);
        (std::mem::take(&mut self.stdout.bytes), std::mem::take(&mut self.stderr.bytes))
    }

    /// Why the script did not begin: what sudo or the login shell said, on one line.
    pub(super) fn complaint(&self) -> String {
        let said = |stream: &Stream| {
            let text = String::from_utf8_lossy(&stream.bytes).into_owned();
            text.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ")
        };
        let text = match said(&self.stderr) {
            words if words.is_empty() => said(&self.stdout),
            words => words,
        };
        let text: String = text.chars().filter(|c| !c.is_control()).take(500).collect();
        if text.is_empty() { "it said nothing".to_owned() } else { text }
    }
}

impl Stream {
    fn take(&mut self, bytes: &[u8], ready: &[u8]) {
        if self.begun && self.bytes.len() >= STDOUT_KEPT {
            return;
        }
        self.bytes.extend_from_slice(bytes);
        if self.begun {
            return;
        }
        if let Some(at) = find(&self.bytes, ready) {
            self.bytes.drain(..at + ready.len());
            self.begun = true;
        } else {
            self.keep_last(NOISE_KEPT);
        }
    }

    fn keep_last(&mut self, count: usize) {
        let excess = self.bytes.len().saturating_sub(count);
        self.bytes.drain(..excess);
    }
}

fn find(text: &[u8], word: &[u8]) -> Option<usize> {
    text.windows(word.len()).position(|window| window == word)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::Intake;
    use super::NOISE_KEPT;
    use super::STDERR_KEPT;
    use super::STDOUT_KEPT;
    use crate::host::ssh::shell::Mark;

    fn intake() -> (Intake, String, String) {
        let mark = Mark::new([7; 16]);
        (Intake::new(&mark), mark.ready_line(), mark.prompt())
    }

    #[test]
    fn what_start_files_print_is_not_output() {
        let (mut intake, ready, _) = intake();
        intake.stdout(b"Welcome!\n");
        assert!(!intake.begun());
        // The mark arrives in two pieces.
        intake.stdout(&ready.as_bytes()[..9]);
        intake.stdout(format!("{}one\ntwo", &ready[9..]).as_bytes());
        assert!(intake.begun());
        intake.stderr(format!("noise\n{ready}warning").as_bytes());
        assert_eq!(intake.take_output(), (b"one\ntwo".to_vec(), b"warning".to_vec()));
    }

    #[test]
    fn prompts_are_counted_and_taken_out_of_the_words() {
        let (mut intake, _, prompt) = intake();
        intake.stderr(b"Lecture.\n");
        intake.stderr(&prompt.as_bytes()[..5]);
        assert_eq!(intake.prompts(), 0);
        intake.stderr(&prompt.as_bytes()[5..]);
        assert_eq!(intake.prompts(), 1);
        intake.stderr(format!("Sorry, try again.\n{prompt}").as_bytes());
        assert_eq!((intake.prompts(), intake.complaint().as_str()), (2, "Lecture.; Sorry, try again."));
    }

    #[test]
    fn output_is_capped_by_discarding() {
        let (mut intake, ready, _) = intake();
        intake.stdout(&vec![b'n'; 3 * NOISE_KEPT]);
        intake.stdout(ready.as_bytes());
        intake.stderr(ready.as_bytes());
        let chunk = vec![b'x'; 1 << 20];
        for _ in 0..66 {
            intake.stdout(&chunk);
            intake.stderr(&chunk);
        }
        intake.stderr(b"the last word");
        let (stdout, stderr) = intake.take_output();
        assert_eq!((stdout.len(), stderr.len()), (STDOUT_KEPT, STDERR_KEPT));
        assert!(stderr.ends_with(b"the last word"));
    }
}
