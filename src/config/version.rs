//! `kubernetes_version`: which release a text names.

use crate::model::KubeVersion;

/// The release that `text` names among `supported`: `v1.37.1`, RKE's `v1.37.1-rancher1-1`, or `v1.37` for the newest
/// patch of it. Nothing is substituted silently.
pub(super) fn resolve(text: &str, supported: &[KubeVersion]) -> Result<KubeVersion, String> {
    if let Ok(version) = text.parse::<KubeVersion>() {
        return if supported.contains(&version) { Ok(version) } else { Err(format!("{text} is not supported")) };
    }
    let minor = text.strip_prefix('v').unwrap_or(text).strip_prefix("1.").and_then(|minor| minor.parse::<u16>().ok());
    match minor {
        Some(minor) => {
            let newest = supported.iter().filter(|version| version.minor == minor).max();
            newest.copied().ok_or_else(|| format!("no release of {text} is supported"))
        }
        None => Err(format!("{text:?} is not a Kubernetes version such as v1.37.1 or v1.37")),
    }
}

/// For a hint: the supported releases, newest first.
pub(super) fn list(supported: &[KubeVersion]) -> String {
    let mut sorted = supported.to_vec();
    sorted.sort_unstable();
    sorted.dedup();
    if sorted.is_empty() {
        return "no release is available: name a bundle under bastide.artifacts.bundle".to_owned();
    }
    let names: Vec<String> = sorted.iter().rev().map(ToString::to_string).collect();
    format!("supported: {}", names.join(", "))
}

#[cfg(test)]
mod tests {
    use super::list;
    use super::resolve;
    use crate::model::KubeVersion;

    const SUPPORTED: [KubeVersion; 3] =
        [KubeVersion { minor: 36, patch: 4 }, KubeVersion { minor: 37, patch: 0 }, KubeVersion { minor: 37, patch: 1 }];

    #[test]
    fn a_minor_means_its_newest_patch() {
        for (text, minor, patch) in
            [("v1.37", 37, 1), ("1.36", 36, 4), ("v1.37.0", 37, 0), ("v1.37.1-rancher1-1", 37, 1)]
        {
            assert_eq!(resolve(text, &SUPPORTED), Ok(KubeVersion { minor, patch }), "{text}");
        }
    }

    #[test]
    fn nothing_else_is_substituted() {
        for bad in ["v1.37.2", "v1.30.4-rancher1-1", "v1.30", "latest", "v2.37", ""] {
            assert!(resolve(bad, &SUPPORTED).is_err(), "{bad:?} was accepted");
        }
        assert_eq!(list(&SUPPORTED), "supported: v1.37.1, v1.37.0, v1.36.4");
    }
}
