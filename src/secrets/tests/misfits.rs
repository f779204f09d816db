//! What somebody else's authority signed is refused where it is not as it has to be, and everything wrong is said at once.

use super::external::Authority;
use super::external::Folder;
use super::external::asked;
use super::external::now;
use super::external::two_hosts;
use super::support::DAY;
use crate::config::Cluster;
use crate::model::Content;
use crate::secrets::CustomFiles;
use crate::secrets::SeededEntropy;
use crate::secrets::bring;

#[test]
fn each_wrong_file_is_refused_and_named() {
    let (cluster, authority, other) = (two_hosts(), Authority::new("external"), Authority::new("external"));
    let mut folder = asked(&cluster, None, CustomFiles::default(), 1).signed(&authority);
    let ask = |folder: &Folder, stem: &str| folder.requests[stem].clone();
    let client = "keyUsage=digitalSignature\nextendedKeyUsage=clientAuth\n";
    let proxy = ask(&folder, "kube-proxy-w1");
    let server = ask(&folder, "kube-kubelet-w1");
    let mut check = |file: &str, content: Option<Content>, wanted: &[&str]| {
        let good = match content {
            Some(content) => folder.put(file, content),
            None => folder.files.files.remove(file).unwrap(),
        };
        assert_eq!(folder.misfits(&cluster), wanted, "{file}");
        folder.put(file, good);
        folder.brought(&cluster).unwrap();
    };
    check("kube-proxy-w1.pem", None, &["kube-proxy-w1.pem: is missing; kube-proxy-w1-csr.pem is the request"]);
    check("kube-proxy-w1.pem", Some(Content::new("-----BEGIN")), &["kube-proxy-w1.pem: holds no certificate"]);
    check(
        "kube-proxy-w1.pem",
        Some(other.sign(&proxy, &[])),
        &["kube-proxy-w1.pem: issuer: is not signed by the authority in kube-ca.pem"],
    );
    check(
        "kube-proxy-w1.pem",
        Some(authority.sign_as(&proxy, "keyUsage=digitalSignature\nextendedKeyUsage=serverAuth\n", &[])),
        &["kube-proxy-w1.pem: extendedKeyUsage: lacks clientAuth"],
    );
    check(
        "kube-proxy-w1.pem",
        Some(authority.sign_as(&proxy, "", &[])),
        &["kube-proxy-w1.pem: extendedKeyUsage: lacks clientAuth"],
    );
    check(
        "kube-proxy-w1.pem",
        Some(authority.sign_as(
            &proxy,
            "keyUsage=keyEncipherment\nextendedKeyUsage=clientAuth\nbasicConstraints=CA:TRUE\n",
            &[],
        )),
        &[
            "kube-proxy-w1.pem: basicConstraints: is an authority's (CA:TRUE)",
            "kube-proxy-w1.pem: keyUsage: does not allow to sign (digitalSignature), which every handshake of TLS needs",
        ],
    );
    check(
        "kube-proxy-w1.pem",
        Some(authority.sign_as(&proxy, client, &["-subj", "/CN=system:kube-proxy/O=system:masters"])),
        &["kube-proxy-w1.pem: O: is \"system:masters\", and must be none"],
    );
    check(
        "kube-node-w1.pem",
        Some(authority.sign_as(
            &ask(&folder_of(&cluster), "kube-node-w1"),
            client,
            &["-subj", "/CN=system:node/O=system:nodes"],
        )),
        &[
            "kube-node-w1.pem: CN: is \"system:node\", and must be \"system:node:w1\"",
            "kube-node-w1.pem: key: is another one than that of its request: neither the folder nor bastide has the one that belongs to it",
        ],
    );
    check(
        "kube-kubelet-w1.pem",
        Some(authority.sign_as(
            &server,
            "keyUsage=digitalSignature\nextendedKeyUsage=serverAuth\nsubjectAltName=DNS:w1\n",
            &[],
        )),
        &["kube-kubelet-w1.pem: subjectAltName: lacks 192.0.2.21"],
    );
    check(
        "kube-proxy-w1.pem",
        Some(authority.sign(&proxy, &["-sha1"])),
        &["kube-proxy-w1.pem: signature: is made with MD5 or SHA-1, which nothing in Kubernetes believes"],
    );
    let two = [authority.sign(&proxy, &[]), authority.certificate()]
        .map(|pem| String::from_utf8(pem.expose().to_vec()).unwrap())
        .concat();
    check(
        "kube-proxy-w1.pem",
        Some(Content::new(two)),
        &["kube-proxy-w1.pem: holds 2 certificates, and must hold this one alone"],
    );
    // The folder's own key file, which is another one.
    let stranger = folder_of(&cluster).files.keys["kube-proxy-w1"].clone();
    folder.files.keys.remove("kube-proxy-w1");
    folder.put("kube-proxy-w1-key.pem", stranger);
    assert_eq!(
        folder.misfits(&cluster),
        [
            "kube-proxy-w1.pem: key: is another one than that of its request: neither the folder nor bastide has the one that belongs to it"
        ]
    );
}

#[test]
fn what_has_ended_and_authorities_that_are_none_are_refused() {
    let (cluster, authority) = (two_hosts(), Authority::new("external"));
    let mut folder = asked(&cluster, None, CustomFiles::default(), 1).signed(&authority);
    let later =
        bring(&cluster, None, &folder.files, now() + 301 * DAY, &mut SeededEntropy::new(8)).unwrap_err().to_string();
    assert_eq!(later.lines().count(), folder.requests.len(), "{later}");
    assert!(later.lines().all(|line| line.contains("validity: has ended at ")), "{later}");
    let early = bring(&cluster, None, &folder.files, now() - DAY, &mut SeededEntropy::new(8)).unwrap_err().to_string();
    assert!(early.contains("kube-ca.pem: validity: begins only at "), "{early}");

    // One below a root.
    let root = Authority::new("root");
    let extensions = "basicConstraints=critical,CA:TRUE\nkeyUsage=keyCertSign,digitalSignature\n";
    let below = root.sign_as(&folder.requests["kube-proxy-w1"], extensions, &[]);
    let own = folder.put("kube-ca.pem", below);
    assert!(folder.misfits(&cluster).iter().any(|line| line.starts_with("kube-ca.pem: issuer: is no root")));
    // No authority at all.
    folder.put("kube-ca.pem", folder.files.files["kube-proxy-w1.pem"].clone());
    assert!(folder.misfits(&cluster).iter().any(|line| line.starts_with("kube-ca.pem: basicConstraints: ")));
    folder.files.files.remove("kube-ca.pem");
    assert_eq!(folder.misfits(&cluster), ["kube-ca.pem: is missing: the certificate of the authority that signs"]);
    // One for two.
    folder.put("kube-ca.pem", own.clone());
    folder.put("kube-apiserver-requestheader-ca.pem", own);
    let twice = "kube-apiserver-requestheader-ca.pem: is the authority of kube-ca.pem too; each needs one of its own";
    assert!(folder.misfits(&cluster).contains(&twice.to_owned()));
    // Weak keys.
    authority.openssl(
        &["req", "-newkey", "rsa:1024", "-nodes"],
        &["-keyout", "weak.key", "-out", "weak", "-subj", "/CN=system:kube-proxy"],
    );
    folder.files.files.remove("kube-apiserver-requestheader-ca.pem");
    let request = std::fs::read_to_string(authority.path().join("weak")).unwrap();
    folder.put("kube-proxy-w1.pem", authority.sign_as(&request, "extendedKeyUsage=clientAuth\n", &[]));
    folder.put("kube-proxy-w1-key.pem", Content::new(std::fs::read(authority.path().join("weak.key")).unwrap()));
    assert_eq!(
        folder.misfits(&cluster),
        [
            "kube-proxy-w1.pem: key: is an RSA key of 1024 bits, and must have 2048 or more",
            // Not even read, so that it is as good as none.
            "kube-proxy-w1.pem: key: is another one than that of its request: neither the folder nor bastide has the one that belongs to it",
        ]
    );
}

/// Requests with other keys.
fn folder_of(cluster: &Cluster) -> Folder {
    asked(cluster, None, CustomFiles::default(), 77)
}
