//! `known_hosts` as sshd(8) describes it, and what it says about a key that a host shows. Pure.
//!
//! Not russh's own reader: that one ignores `@revoked`, `@cert-authority`, patterns and indented lines.

use std::fmt;
use std::sync::Arc;

use hmac::Hmac;
use hmac::KeyInit;
use hmac::Mac;
use russh::keys::Algorithm;
use russh::keys::Certificate;
use russh::keys::HashAlg;
use russh::keys::PublicKey;
use russh::keys::ssh_key::certificate::CertType;
use russh::keys::ssh_key::known_hosts::HostPatterns;
use russh::keys::ssh_key::known_hosts::Marker;
use russh::keys::ssh_key::public::KeyData;
use sha1::Sha1;

/// Where a line stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Origin {
    file: Arc<str>,
    line: usize,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

/// One readable line.
#[derive(Debug, Clone)]
struct Record {
    origin: Origin,
    marker: Option<Marker>,
    hosts: HostPatterns,
    key: KeyData,
}

/// A line that could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unreadable {
    /// Where.
    pub(super) origin: Origin,
    /// A revocation that cannot be read must not be passed over.
    pub(super) revokes: bool,
}

/// The lines of all files, and the key given in cluster.yml.
#[derive(Debug, Clone, Default)]
pub(super) struct KnownHosts {
    records: Vec<Record>,
    unreadable: Vec<Unreadable>,
    pinned: Option<KeyData>,
}

/// What a host proves to have.
#[derive(Debug, Clone, Copy)]
pub(super) enum Shown<'a> {
    /// A bare key.
    Key(&'a PublicKey),
    /// A key with an authority's word for it.
    Certificate(&'a Certificate),
}

/// What is to be thought of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Recorded, or vouched for.
    Trusted,
    /// Nothing is known about this host. It may be recorded on request where not even an authority is named for it.
    Unknown {
        /// No line of any kind speaks of the host.
        recordable: bool,
    },
    /// Something else is known, in words with file and line.
    Wrong(String),
}

/// The name under which a host stands in `known_hosts`.
pub(super) fn host_name(address: &str, port: u16) -> String {
    let address = address.to_ascii_lowercase();
    if port == 22 { address } else { format!("[{address}]:{port}") }
}

impl KnownHosts {
    /// Adds the lines of one file.
    pub(super) fn read(&mut self, file: &str, text: &str) {
        let file: Arc<str> = Arc::from(file);
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let origin = Origin { file: Arc::clone(&file), line: index + 1 };
            match record(origin.clone(), line) {
                Some(record) => self.records.push(record),
                None => self.unreadable.push(Unreadable { origin, revokes: line.starts_with("@revoked") }),
            }
        }
    }

    /// Trusts this key alone. False when it is no OpenSSH public key line.
    pub(super) fn pin(&mut self, line: &str) -> bool {
        self.pinned = PublicKey::from_openssh(line.trim()).ok().map(|key| key.key_data().clone());
        self.pinned.is_some()
    }

    /// Lines that were passed over.
    pub(super) fn unreadable(&self) -> &[Unreadable] {
        &self.unreadable
    }

    /// The types of the keys recorded for this host, so that it is asked for one of these first.
    pub(super) fn types(&self, name: &str) -> Vec<Algorithm> {
        match &self.pinned {
            Some(key) => vec![key.algorithm()],
            None => self.records(name, None).map(|record| record.key.algorithm()).collect(),
        }
    }

    /// Whether a certificate could be judged: only then is one asked for.
    pub(super) fn names_authority(&self, name: &str) -> bool {
        self.pinned.is_none() && self.records(name, Some(Marker::CertAuthority)).next().is_some()
    }

    /// Judges what `address:port` shows at `now` (seconds since 1970).
    pub(super) fn judge(&self, address: &str, port: u16, shown: Shown<'_>, now: u64) -> Verdict {
        let name = host_name(address, port);
        let key = match shown {
            Shown::Key(key) => key.key_data(),
            Shown::Certificate(certificate) => certificate.public_key(),
        };
        let authority = match shown {
            Shown::Key(_) => None,
            Shown::Certificate(certificate) => Some(certificate.signature_key()),
        };
        let revoked = |record: &&Record| record.key == *key || authority.is_some_and(|ca| record.key == *ca);
        if let Some(record) = self.records(&name, Some(Marker::Revoked)).find(revoked) {
            return Verdict::Wrong(format!("revoked by {}", record.origin));
        }
        if let Some(pinned) = &self.pinned {
            return if pinned == key {
                Verdict::Trusted
            } else {
                Verdict::Wrong(format!("cluster.yml gives {} as its host_key", fingerprint(pinned)))
            };
        }
        if let Shown::Certificate(certificate) = shown {
            let vouching = self
                .records(&name, Some(Marker::CertAuthority))
                .find(|record| record.key == *certificate.signature_key());
            if let Some(record) = vouching {
                return match flaw(certificate, address, now) {
                    None => Verdict::Trusted,
                    Some(flaw) => {
                        Verdict::Wrong(format!("its certificate by the authority of {} {flaw}", record.origin))
                    }
                };
            }
        }
        self.judge_plain(&name, key)
    }

    fn judge_plain(&self, name: &str, key: &KeyData) -> Verdict {
        let recorded: Vec<&Record> = self.records(name, None).collect();
        if recorded.iter().any(|record| record.key == *key) {
            return Verdict::Trusted;
        }
        // The line of the same type is the one that a person has to look at.
        let contradicts =
            recorded.iter().find(|record| record.key.algorithm() == key.algorithm()).or_else(|| recorded.first());
        match contradicts {
            Some(record) => Verdict::Wrong(format!("{} records {}", record.origin, fingerprint(&record.key))),
            None => Verdict::Unknown { recordable: self.records(name, Some(Marker::CertAuthority)).next().is_none() },
        }
    }

    fn records<'a>(&'a self, name: &'a str, marker: Option<Marker>) -> impl Iterator<Item = &'a Record> {
        self.records.iter().filter(move |record| record.marker == marker && speaks_of(&record.hosts, name))
    }
}

/// A key's type and SHA-256 fingerprint, for people.
fn fingerprint(key: &KeyData) -> String {
    format!("{} {}", key.algorithm(), key.fingerprint(HashAlg::Sha256))
}

fn record(origin: Origin, line: &str) -> Option<Record> {
    let mut fields = line.split_ascii_whitespace();
    let mut hosts = fields.next()?;
    let mut marker = None;
    if hosts.starts_with('@') {
        marker = Some(hosts.parse().ok()?);
        hosts = fields.next()?;
    }
    // The type stands twice, in front of and inside the base64; the parser compares them.
    let key = PublicKey::from_openssh(&format!("{} {}", fields.next()?, fields.next()?)).ok()?;
    Some(Record { origin, marker, hosts: hosts.parse().ok()?, key: key.key_data().clone() })
}

fn speaks_of(hosts: &HostPatterns, name: &str) -> bool {
    match hosts {
        HostPatterns::HashedName { salt, hash } => {
            let Ok(mut mac) = <Hmac<Sha1> as KeyInit>::new_from_slice(salt) else { return false };
            mac.update(name.as_bytes());
            mac.verify_slice(hash).is_ok()
        }
        HostPatterns::Patterns(patterns) => {
            let mut named = false;
            for pattern in patterns {
                let pattern = pattern.to_ascii_lowercase();
                match pattern.strip_prefix('!') {
                    // A negation that matches wins over everything else on the line.
                    Some(negated) if matches(negated.as_bytes(), name.as_bytes()) => return false,
                    Some(_) => {}
                    None => named |= matches(pattern.as_bytes(), name.as_bytes()),
                }
            }
            named
        }
    }
}

/// `*` is any run of characters, `?` any one; all else stands for itself.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    // Where to go on when the present try fails: after the last star, one more character swallowed.
    let mut retry: Option<(usize, usize)> = None;
    let (mut p, mut t) = (0, 0);
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                retry = Some((p + 1, t));
                p += 1;
            }
            Some(&c) if c == b'?' || c == text[t] => {
                p += 1;
                t += 1;
            }
            _ => match retry {
                Some((after_star, swallowed)) => {
                    retry = Some((after_star, swallowed + 1));
                    (p, t) = (after_star, swallowed + 1);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == b'*')
}

/// What is wrong with a host certificate whose authority is trusted for the host (PROTOCOL.certkeys, ssh-keygen(1)).
fn flaw(certificate: &Certificate, address: &str, now: u64) -> Option<&'static str> {
    let address = address.to_ascii_lowercase();
    let named = |principal: &String| matches(principal.to_ascii_lowercase().as_bytes(), address.as_bytes());
    let authority = certificate.signature_key().fingerprint(HashAlg::Sha256);
    if certificate.cert_type() != CertType::Host {
        Some("is not one for hosts")
    } else if now < certificate.valid_after() {
        Some("is not valid yet")
    } else if now >= certificate.valid_before() {
        Some("has expired")
    } else if matches!(certificate.signature().algorithm(), Algorithm::Rsa { hash: None }) {
        Some("is signed with SHA-1")
    } else if certificate.validate_at(now, [&authority]).is_err() {
        Some("has a wrong signature")
    } else if certificate.critical_options().iter().next().is_some() {
        Some("has a critical option, and none is defined for hosts")
    } else if !certificate.valid_principals().iter().any(named) {
        // An empty list names nobody: OpenSSH wants a principal for hosts too.
        Some("does not name this address")
    } else {
        None
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use russh::keys::Algorithm;
    use russh::keys::PublicKey;

    use super::KnownHosts;
    use super::Shown;
    use super::Verdict;
    use super::host_name;
    use super::matches;

    // Made with ssh-keygen, for these tests alone.
    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGA8Bb3pb2XTITce6W3SCYSllBsAQJKfVJnAGzXwY/Ql";
    const OTHER: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBz9Dw79eRONR0rOzPqaIOx57mMb0+VTIVtsCJZiOiAQ";
    const ECDSA: &str = "ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBHTecgAP+54VtkHgZqFjDTsj8j7LMH32UJsgGjfjQ6/ymxSC54ggc9y+L1f3CqZjo5xamfOGcdoMLLPYP62J67c=";
    /// `h1.example`, as `ssh-keygen -H` writes it.
    const HASHED: &str = "|1|BaHXEWAscl8Wr9LZQhJfY96J5zk=|xPnBneNzEdxe9I+NYnmlAen6eSE=";
    const OTHER_RECORDED: &str = "records ssh-ed25519 SHA256:dwhxG38jUTbIGW8A8Fj/ZMaHd4f6be/NEuaWgkBZqxk";

    fn known(lines: &str) -> KnownHosts {
        let lines = lines.replace("KEY", KEY).replace("OTHER", OTHER).replace("EC", ECDSA).replace("HASHED", HASHED);
        let mut known = KnownHosts::default();
        known.read("f", &lines);
        known
    }

    fn judge(lines: &str, address: &str, port: u16) -> Verdict {
        let key = PublicKey::from_openssh(KEY).unwrap();
        known(lines).judge(address, port, Shown::Key(&key), 0)
    }

    fn unknown() -> Verdict {
        Verdict::Unknown { recordable: true }
    }

    #[test]
    fn lines_name_hosts_in_many_ways() {
        for lines in [
            "h1.example KEY",
            "H1.Example KEY",
            "  h1.example\tKEY comment # more",
            "a,h1.example,b KEY",
            "*.example KEY",
            "h?.ex*e KEY",
            "*,!h2.example KEY",
            "HASHED KEY",
            "h1.example OTHER\nh1.example KEY",
            "h1.example EC\nh1.example KEY",
            "@revoked h2.example KEY\nh1.example KEY",
        ] {
            assert_eq!(judge(lines, "h1.example", 22), Verdict::Trusted, "{lines}");
        }
        for lines in [
            "",
            "# h1.example KEY",
            "h1 KEY",
            "[h1.example]:22 KEY",
            "[h1.example]:2222 KEY",
            "*.example,!h1.example KEY",
            "!h1.example,*.example KEY",
            "h1.example",
            "h1.example ssh-ed25519 garbage",
            "HASHED",
        ] {
            assert_eq!(judge(lines, "h1.example", 22), unknown(), "{lines}");
        }
    }

    #[test]
    fn another_port_is_another_host() {
        assert_eq!(host_name("H1", 22), "h1");
        assert_eq!(judge("[h1]:2222 KEY", "h1", 2222), Verdict::Trusted);
        assert_eq!(judge("[fd00::1]:2222 KEY", "FD00::1", 2222), Verdict::Trusted);
        assert_eq!(judge("[*]:2222 KEY", "h1", 2222), Verdict::Trusted);
        assert_eq!(judge("h1 KEY", "h1", 2222), unknown());
        assert_eq!(judge("HASHED KEY", "h1.example", 2222), unknown());
    }

    #[test]
    fn a_contradiction_names_its_line() {
        assert_eq!(judge("h1 EC\nh1 OTHER\n", "h1", 22), Verdict::Wrong(format!("f:2 {OTHER_RECORDED}")));
        let Verdict::Wrong(reason) = judge("\n#\nh1 EC\n", "h1", 22) else { panic!() };
        assert!(reason.starts_with("f:3 records ecdsa-sha2-nistp256 SHA256:4BmfxE4n"), "{reason}");
        let mut pinned = known("h1 KEY");
        assert!(pinned.pin(OTHER));
        let key = PublicKey::from_openssh(KEY).unwrap();
        assert!(matches!(pinned.judge("h1", 22, Shown::Key(&key), 0), Verdict::Wrong(_)));
    }

    #[test]
    fn a_revoked_key_is_refused_whatever_else_is_said() {
        let revoked = Verdict::Wrong("revoked by f:2".to_owned());
        assert_eq!(judge("h1 KEY\n@revoked * KEY", "h1", 22), revoked);
        assert_eq!(judge("h1 KEY\n@revoked\th1\tKEY", "h1", 22), revoked);
    }

    #[test]
    fn where_an_authority_speaks_for_a_host_a_bare_key_is_not_simply_new() {
        assert_eq!(judge("@cert-authority * OTHER", "h1", 22), Verdict::Unknown { recordable: false });
        // An authority's key is not a host's key.
        assert_eq!(judge("@cert-authority * KEY", "h1", 22), Verdict::Unknown { recordable: false });
    }

    #[test]
    fn unreadable_lines_are_told_by_number() {
        let known = known("h1 KEY\nrubbish\n@revoked h1 rubbish\n@unknown h1 KEY\n");
        let lines: Vec<(String, bool)> =
            known.unreadable().iter().map(|line| (line.origin.to_string(), line.revokes)).collect();
        assert_eq!(lines, [("f:2".to_owned(), false), ("f:3".to_owned(), true), ("f:4".to_owned(), false)]);
    }

    #[test]
    fn recorded_types_come_in_the_order_of_the_file() {
        let known = known("h1 EC\nh2 OTHER\n@revoked h1 OTHER\n* KEY\n@cert-authority h2 KEY\n");
        let types: Vec<String> = known.types("h1").iter().map(Algorithm::to_string).collect();
        assert_eq!(types, ["ecdsa-sha2-nistp256", "ssh-ed25519"]);
        assert_eq!((known.names_authority("h1"), known.names_authority("h2")), (false, true));
    }

    #[test]
    fn patterns_match_as_a_whole() {
        for (pattern, text, expected) in [
            ("", "", true),
            ("", "a", false),
            ("*", "", true),
            ("**a*", "bba", true),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-b-b-d", false),
            ("?", "", false),
            ("a?c", "abc", true),
            ("ab", "abc", false),
            ("*.example", ".example.net", false),
        ] {
            assert_eq!(matches(pattern.as_bytes(), text.as_bytes()), expected, "{pattern} {text}");
        }
    }
}
