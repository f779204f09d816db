//! Texts of the file that are more than texts: durations, networks, names.

use std::net::IpAddr;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use crate::config::cluster::Endpoint;

/// Go's duration syntax, as RKE's `creation: 6h`: numbers with units `h m s ms`, added up. Never zero.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not a duration such as 90s, 10m or 1h30m");
    let mut rest = text;
    let mut seconds = 0.0_f64;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(wrong)?;
        let number: f64 = rest[..digits].parse().map_err(|_| wrong())?;
        rest = &rest[digits..];
        let end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let unit = match &rest[..end] {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 0.001,
            _ => return Err(wrong()),
        };
        rest = &rest[end..];
        seconds += number * unit;
    }
    // A year is longer than any wait that is meant.
    if seconds > 0.0 && seconds < 31_536_000.0 {
        Duration::try_from_secs_f64(seconds).map_err(|_| wrong())
    } else {
        Err(wrong())
    }
}

/// One IPv4 network. IPv6 and dual stack are refused in words.
pub(super) fn network(text: &str) -> Result<IpNet, String> {
    if text.contains(',') {
        return Err(format!("{text:?} is dual stack, which bastide does not support yet: give one IPv4 network"));
    }
    let net: IpNet = text.trim().parse().map_err(|_| format!("{text:?} is not a network such as 10.42.0.0/16"))?;
    match net {
        IpNet::V4(_) => Ok(net),
        IpNet::V6(_) => Err(format!("{text:?} is IPv6, which bastide does not support yet: give an IPv4 network")),
    }
}

/// `30000-32767`, as kube-apiserver reads it.
pub(super) fn port_range(text: &str) -> Result<(u16, u16), String> {
    let parts = text.split_once('-').map(|(low, high)| (low.trim().parse::<u16>(), high.trim().parse::<u16>()));
    match parts {
        Some((Ok(low), Ok(high))) if low > 0 && low <= high => Ok((low, high)),
        _ => Err(format!("{text:?} is not a range of ports such as 30000-32767")),
    }
}

/// A DNS name in any case, by RFC 1123: what `HostName` is after lower-casing.
pub(super) fn is_dns_name(text: &str) -> bool {
    crate::model::HostName::new(text.to_ascii_lowercase()).is_ok()
}

/// An address or name that SSH can go to.
pub(super) fn address(text: &str) -> Result<String, String> {
    let only_numbers = text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    if text.parse::<IpAddr>().is_ok() || (is_dns_name(text) && !only_numbers) {
        Ok(text.to_owned())
    } else {
        Err(format!("{text:?} is neither an IP address nor a DNS name"))
    }
}

/// A subject alternative name: an address, a DNS name, or one with a leading `*.`.
pub(super) fn alternative_name(text: &str) -> Result<String, String> {
    address(text.strip_prefix("*.").unwrap_or(text)).map(|_| text.to_owned())
}

/// `name`, `name:port`, `address`, `address:port`, `[v6]:port`.
pub(super) fn endpoint(text: &str) -> Result<Endpoint, String> {
    let wrong = || format!("{text:?} is not a name or address with an optional port, such as api.example.com:6443");
    if text.contains("://") || text.contains('/') {
        return Err(format!("{}: write it without scheme and path", wrong()));
    }
    let (host, port) = host_and_port(text).ok_or_else(wrong)?;
    Ok(Endpoint { host, port: port.unwrap_or(6443) })
}

/// `name`, `name:port`, `address`, `address:port`, `[v6]:port`.
pub(super) fn host_and_port(text: &str) -> Option<(String, Option<u16>)> {
    let (host, port) = if text.parse::<IpAddr>().is_ok() {
        (text, None)
    } else if let Some(rest) = text.strip_prefix('[') {
        let (host, port) = rest.split_once(']')?;
        (host, port.strip_prefix(':'))
    } else {
        text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port)))
    };
    let port = match port {
        None => None,
        Some(port) => Some(port.parse::<u16>().ok().filter(|port| *port > 0)?),
    };
    Some((address(host).ok()?, port))
}

/// A path on the operator's machine: `~/` stands for `home`.
pub(super) fn local_path(text: &str, home: Option<&Path>) -> Result<PathBuf, String> {
    if text == "~" || text.starts_with("~/") {
        let home = home.ok_or_else(|| format!("{text:?}: there is no home directory to resolve `~` with"))?;
        return Ok(home.join(text.trim_start_matches('~').trim_start_matches('/')));
    }
    if text.starts_with('~') {
        return Err(format!("{text:?}: `~user` is not resolved, write the whole path"));
    }
    Ok(PathBuf::from(text))
}

/// A label key: an optional DNS prefix and a name (Kubernetes, "Labels and Selectors").
pub(super) fn is_qualified_name(key: &str) -> bool {
    let (prefix, name) = key.rsplit_once('/').map_or((None, key), |(prefix, name)| (Some(prefix), name));
    prefix.is_none_or(|prefix| crate::model::HostName::new(prefix).is_ok()) && is_label_text(name) && !name.is_empty()
}

/// A label value or the name part of a key: at most 63 letters, digits, `-_.`, beginning and ending with the first two.
pub(super) fn is_label_text(text: &str) -> bool {
    text.len() <= 63
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
        && text.bytes().next().is_none_or(|b| b.is_ascii_alphanumeric())
        && text.bytes().last().is_none_or(|b| b.is_ascii_alphanumeric())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::path::Path;
    use std::path::PathBuf;
    use std::time::Duration;

    use super::duration;
    use super::endpoint;
    use super::is_label_text;
    use super::is_qualified_name;
    use super::local_path;
    use super::network;
    use crate::config::cluster::Endpoint;

    #[test]
    fn durations_are_go_s() {
        for (text, seconds) in [("90s", 90.0), ("1h30m", 5400.0), ("1.5h", 5400.0), ("500ms", 0.5)] {
            assert_eq!(duration(text), Ok(Duration::from_secs_f64(seconds)), "{text}");
        }
        for bad in ["", "5", "h", "-5s", "5 s", "1d", "0s", "1..5s", "9999999999h"] {
            assert!(duration(bad).is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn endpoints_have_a_name_and_a_port() {
        let reads = |text: &str, host: &str, port| {
            assert_eq!(endpoint(text), Ok(Endpoint { host: host.to_owned(), port }), "{text}");
        };
        reads("api.example.com", "api.example.com", 6443);
        reads("api.example.com:443", "api.example.com", 443);
        reads("192.0.2.9", "192.0.2.9", 6443);
        reads("[2001:db8::1]:443", "2001:db8::1", 443);
        for bad in ["", ":6443", "https://a:1", "a:0", "a:70000", "a b", "a:1:2"] {
            assert!(endpoint(bad).is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn the_home_directory_is_the_caller_s() {
        let home = Some(Path::new("/home/ann"));
        assert_eq!(local_path("~/.ssh/id", home).unwrap(), PathBuf::from("/home/ann/.ssh/id"));
        assert_eq!(local_path("keys/id", home).unwrap(), PathBuf::from("keys/id"));
        assert!(local_path("~/x", None).is_err());
        assert!(local_path("~bob/x", home).is_err());
    }

    #[test]
    fn labels_follow_kubernetes() {
        assert!(is_qualified_name("node-role.kubernetes.io/master") && is_qualified_name("a_b.c-d"));
        assert!(
            !is_qualified_name("") && !is_qualified_name("a/b/c") && !is_qualified_name("A.b/") && is_label_text("")
        );
        assert!(!is_label_text("-a") && !is_label_text("a b") && !is_label_text(&"a".repeat(64)));
    }

    #[test]
    fn dual_stack_is_refused_in_words() {
        assert!(network("10.42.0.0/16,fd00::/56").unwrap_err().contains("dual stack"));
        assert!(network("fd00::/56").unwrap_err().contains("IPv6"));
    }
}
