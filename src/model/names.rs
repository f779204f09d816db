//! Parsed names. A value of one of these types is safe to place in a manifest line, a path or an argument vector.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::Deserialize;
use serde::Serialize;

/// A name that does not follow its own rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{value:?} is not {expected}")]
pub struct NameError {
    /// What was given.
    pub value: String,
    /// What would have been right, in words.
    pub expected: &'static str,
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $expected:literal, $valid:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $type(String);

        impl $type {
            /// Parses `value`, or says what it should look like.
            pub fn new(value: impl Into<String>) -> Result<Self, NameError> {
                let value = value.into();
                let valid: fn(&str) -> bool = $valid;
                if valid(&value) { Ok(Self(value)) } else { Err(NameError { value, expected: $expected }) }
            }
            /// The text itself.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl TryFrom<String> for $type {
            type Error = NameError;
            fn try_from(value: String) -> Result<Self, NameError> {
                Self::new(value)
            }
        }
        impl FromStr for $type {
            type Err = NameError;
            fn from_str(value: &str) -> Result<Self, NameError> {
                Self::new(value)
            }
        }
        impl From<$type> for String {
            fn from(name: $type) -> Self {
                name.0
            }
        }
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name!(
    /// A node's name in Kubernetes: an RFC 1123 subdomain, lower case, at most 253 characters.
    HostName,
    "a lower-case RFC 1123 name (letters, digits, '-' and '.', at most 253 characters)",
    |value| {
        !value.is_empty()
            && value.len() <= 253
            && value.split('.').all(|label| {
                !label.is_empty()
                    && label.len() <= 63
                    && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
                    && !label.starts_with('-')
                    && !label.ends_with('-')
            })
    }
);

name!(
    /// An absolute, normalized path on a host, of characters that need no quoting anywhere.
    RemotePath,
    "an absolute path without '.', '..', '//' or characters that would need quoting",
    |value| {
        value.len() > 1
            && value.len() <= 4096
            && value.starts_with('/')
            && !value.ends_with('/')
            && value[1..].split('/').all(|part| !part.is_empty() && part != "." && part != "..")
            && value.bytes().all(|b| b.is_ascii_alphanumeric() || b"/._-+@:=".contains(&b))
    }
);

name!(
    /// A snapshot of etcd by its name, without an ending. RKE's own names carry `:` and `+`.
    SnapshotName,
    "a name of letters, digits and '._:+-' that begins with a letter or digit, at most 128 characters",
    |value| {
        value.len() <= 128
            && value.starts_with(|c: char| c.is_ascii_alphanumeric())
            && value.bytes().all(|b| b.is_ascii_alphanumeric() || b"._:+-".contains(&b))
    }
);

impl RemotePath {
    /// The folder that holds this path; `/` is returned as `/`.
    pub fn parent(&self) -> &str {
        match self.0.rfind('/') {
            Some(0) | None => "/",
            Some(at) => &self.0[..at],
        }
    }
}

name!(
    /// A systemd unit with its ending, such as `kubelet.service`.
    UnitName,
    "a systemd unit name such as kubelet.service",
    |value| {
        value.len() <= 255
            && value.rsplit_once('.').is_some_and(|(stem, kind)| {
                !stem.is_empty() && ["service", "timer", "socket", "path", "slice", "target"].contains(&kind)
            })
            && value.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-@".contains(&b))
    }
);

name!(
    /// An image reference with a tag, such as `registry.k8s.io/pause:3.10.2`.
    ImageRef,
    "an image reference of the form registry/name:tag",
    |value| {
        value.len() <= 255
            && value.rsplit_once(':').is_some_and(|(name, tag)| {
                name.contains('/') && !tag.is_empty() && !tag.contains('/')
            })
            && value.bytes().all(|b| b.is_ascii_alphanumeric() || b"/._-:@+".contains(&b))
    }
);

/// What a host is for, in RKE's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Runs API server, controller manager and scheduler.
    ControlPlane,
    /// Runs a member of the etcd cluster.
    Etcd,
    /// Takes ordinary workloads.
    Worker,
}

impl Role {
    /// The word that RKE's `role:` list uses.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ControlPlane => "controlplane",
            Self::Etcd => "etcd",
            Self::Worker => "worker",
        }
    }
}

/// The roles of one host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Roles(pub BTreeSet<Role>);

impl Roles {
    /// Whether `role` is among them.
    pub fn has(&self, role: Role) -> bool {
        self.0.contains(&role)
    }
    /// Whether this host runs an API server.
    pub fn control_plane(&self) -> bool {
        self.has(Role::ControlPlane)
    }
    /// Whether this host runs an etcd member.
    pub fn etcd(&self) -> bool {
        self.has(Role::Etcd)
    }
    /// Whether this host takes ordinary workloads.
    pub fn worker(&self) -> bool {
        self.has(Role::Worker)
    }
}

impl FromIterator<Role> for Roles {
    fn from_iter<I: IntoIterator<Item = Role>>(roles: I) -> Self {
        Self(roles.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::HostName;
    use super::RemotePath;

    #[test]
    fn paths_that_would_need_quoting_are_refused() {
        for bad in ["relative", "/a b", "/a//b", "/a/../b", "/a/./b", "/", "/a/", "/a'b", "/a\nb", "/a$b"] {
            assert!(RemotePath::new(bad).is_err(), "{bad:?} was accepted");
        }
        assert!(RemotePath::new("/etc/kubernetes/manifests/etcd.yaml").is_ok());
    }

    #[test]
    fn host_names_are_lower_case_subdomains() {
        for bad in ["", "A", "a_b", "-a", "a-", "a..b"] {
            assert!(HostName::new(bad).is_err(), "{bad:?} was accepted");
        }
        for good in ["h1", "192.0.2.11", "a.b-c.d"] {
            assert!(HostName::new(good).is_ok(), "{good:?} was refused");
        }
    }
}
