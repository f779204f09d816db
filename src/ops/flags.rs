//! What the API servers of a stored target are told by their flags.

use crate::model::Blobs;
use crate::model::Desired;

/// For each API server, every value of this flag in the order of its manifest.
pub(super) fn of_api_servers(desired: &Desired, blobs: &Blobs, flag: &str) -> Vec<Vec<String>> {
    let files = desired.hosts.values().flat_map(|host| &host.files);
    let manifests = files.filter(|(path, _)| path.as_str().ends_with("/manifests/kube-apiserver.yaml"));
    let texts = manifests.map(|(_, file)| blobs.get(&file.digest).and_then(crate::model::Content::expose_text));
    texts.map(|text| values(text.unwrap_or_default(), flag)).collect()
}

fn values(manifest: &str, flag: &str) -> Vec<String> {
    let ends = |char: char| char.is_whitespace() || ['"', '\''].contains(&char);
    let given = format!("--{flag}=");
    let after = manifest.split(given.as_str()).skip(1);
    after.filter_map(|rest| rest.split(ends).next()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::values;

    #[test]
    fn every_value_of_a_flag_is_read_however_it_is_quoted() {
        let manifest =
            "    - --issuer=https://a\n    - \"--issuer=https://b\"\n    - --issuer-more=c\n    - '--other=d'\n";
        assert_eq!(values(manifest, "issuer"), ["https://a", "https://b"]);
        assert_eq!(values(manifest, "other"), ["d"]);
        assert!(values(manifest, "none").is_empty());
    }
}
