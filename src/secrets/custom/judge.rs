//! Whether certificates of an external authority are what they have to be. Everything that is wrong is said, not the first of it.

use rcgen::KeyPair;
use x509_parser::certificate::X509Certificate;
use x509_parser::pem::Pem;
use x509_parser::public_key::PublicKey;

use crate::model::Content;
use crate::model::utc;
use crate::secrets::AuthoritySet;
use crate::secrets::Leaf;
use crate::secrets::custom::Misfit;
use crate::secrets::custom::names;
use crate::secrets::inspect;
use crate::secrets::inspect::Seen;
use crate::secrets::key;
use crate::secrets::leaf::Template;

/// The weakest RSA key (NIST SP 800-57, part 1, table 2: 112 bits).
const RSA_BITS: usize = 2048;
/// Names of the curves that everything here signs with under TLS 1.2 and 1.3: P-256 and P-384.
const CURVES: [&str; 2] = ["1.2.840.10045.3.1.7", "1.3.132.0.34"];
/// MD5 and SHA-1 under RSA, SHA-1 under ECDSA: Go, which all of Kubernetes is written in, believes none of them.
const BROKEN: [&str; 3] = ["1.2.840.113549.1.1.4", "1.2.840.113549.1.1.5", "1.2.840.10045.4.1"];

/// A certificate's file under inspection.
pub(super) struct Sheet<'a> {
    /// The file's name.
    pub file: &'a str,
    /// Everything that is wrong.
    pub misfits: Vec<Misfit>,
}

impl<'a> Sheet<'a> {
    pub(super) fn of(file: &'a str) -> Self {
        Self { file, misfits: Vec::new() }
    }

    pub(super) fn wrong(&mut self, field: &'static str, problem: impl Into<String>) {
        self.misfits.push(Misfit::new(self.file, field, problem));
    }

    /// The one certificate in `text`.
    fn alone(&mut self, text: &str) -> Option<Pem> {
        let mut blocks = Vec::new();
        for block in Pem::iter_from_buffer(text.as_bytes()) {
            match block {
                Ok(block) if block.label == "CERTIFICATE" => blocks.push(block),
                Ok(_) => {}
                Err(_) => {
                    self.wrong("", "is no PEM");
                    return None;
                }
            }
        }
        match blocks.len() {
            1 => blocks.pop(),
            0 => {
                self.wrong("", "holds no certificate");
                None
            }
            count => {
                self.wrong("", format!("holds {count} certificates, and must hold this one alone"));
                None
            }
        }
    }

    /// What holds for authorities and leaves.
    fn common(&mut self, certificate: &X509Certificate<'_>, now: i64) {
        let validity = certificate.validity();
        let (from, to) = (validity.not_before.timestamp(), validity.not_after.timestamp());
        if from > now {
            self.wrong("validity", format!("begins only at {}", utc(from)));
        }
        if to <= now {
            self.wrong("validity", format!("has ended at {}", utc(to)));
        }
        if BROKEN.contains(&certificate.signature_algorithm.algorithm.to_id_string().as_str()) {
            self.wrong("signature", "is made with MD5 or SHA-1, which nothing in Kubernetes believes");
        }
        let public = certificate.public_key();
        let curve = public.algorithm.parameters.as_ref().and_then(|parameters| parameters.as_oid().ok());
        match public.parsed() {
            Ok(PublicKey::RSA(key)) if key.key_size() >= RSA_BITS => {}
            Ok(PublicKey::RSA(key)) => {
                self.wrong(
                    "key",
                    format!("is an RSA key of {} bits, and must have {RSA_BITS} or more", key.key_size()),
                );
            }
            Ok(PublicKey::EC(_)) if curve.is_some_and(|curve| CURVES.contains(&curve.to_id_string().as_str())) => {}
            _ => self.wrong("key", "is of another kind than RSA, ECDSA P-256 and ECDSA P-384"),
        }
    }
}

/// Judges an authority's certificate. PEM of it alone where it can be read.
pub(super) fn authority(sheet: &mut Sheet<'_>, text: &str, now: i64) -> Option<String> {
    let block = sheet.alone(text)?;
    let Ok(certificate) = block.parse_x509() else {
        sheet.wrong("", "cannot be read as a certificate");
        return None;
    };
    sheet.common(&certificate, now);
    if !certificate.basic_constraints().ok().flatten().is_some_and(|constraints| constraints.value.ca) {
        sheet.wrong("basicConstraints", "is no authority's (CA:TRUE)");
    }
    if certificate.key_usage().ok().flatten().is_some_and(|usage| !usage.value.key_cert_sign()) {
        sheet.wrong("keyUsage", "does not allow to sign certificates (keyCertSign)");
    }
    if certificate.issuer() != certificate.subject() || certificate.verify_signature(None).is_err() {
        // Seen with HAProxy and Python 3.11: OpenSSL accepts no chain that ends before a root. With the root itself in what is trusted,
        // every authority below it could make administrators.
        sheet.wrong(
            "issuer",
            "is no root: programs that use OpenSSL (the hosts' balancer, many pods) accept no chain that ends here. To trust the root \
             as well would let in everybody whom any authority below it certifies; have a root for this cluster alone",
        );
    }
    Some(pem(&block))
}

/// Judges a leaf's certificate; the pair where nothing is wrong with it. `keys` are those that it may belong to, the likeliest first.
pub(super) fn leaf(
    sheet: &mut Sheet<'_>,
    text: &str,
    template: &Template,
    set: &AuthoritySet,
    keys: &[&Content],
    now: i64,
) -> Option<Leaf> {
    let block = sheet.alone(text)?;
    let pem = pem(&block);
    let (Ok(certificate), Some(seen)) = (block.parse_x509(), Seen::read(&pem)) else {
        sheet.wrong("", "cannot be read as a certificate with a common name (CN)");
        return None;
    };
    sheet.common(&certificate, now);
    // A digest that nobody believes is not verified either, and has been told of.
    let believed = !sheet.misfits.iter().any(|misfit| misfit.field == "signature");
    if believed && !inspect::signed_by_any(&pem, std::iter::once(&set.certificate)) {
        let file = names::certificate(names::authority(template.authority));
        sheet.wrong("issuer", format!("is not signed by the authority in {file}"));
    }
    subject(sheet, &seen, template);
    for (wanted, has, name) in
        [(template.usage.client(), seen.client, "clientAuth"), (template.usage.server(), seen.server, "serverAuth")]
    {
        if wanted && !has {
            sheet.wrong("extendedKeyUsage", format!("lacks {name}"));
        }
    }
    if certificate.key_usage().ok().flatten().is_some_and(|usage| !usage.value.digital_signature()) {
        sheet.wrong("keyUsage", "does not allow to sign (digitalSignature), which every handshake of TLS needs");
    }
    if certificate.basic_constraints().ok().flatten().is_some_and(|constraints| constraints.value.ca) {
        sheet.wrong("basicConstraints", "is an authority's (CA:TRUE)");
    }
    let lacks: Vec<_> = template.sans.difference(&seen.sans).map(ToString::to_string).collect();
    if !lacks.is_empty() {
        sheet.wrong("subjectAltName", format!("lacks {}", lacks.join(", ")));
    }
    let mut pairs = keys.iter().filter_map(|pem| Some((key::read(pem)?, *pem)));
    let Some((_, key)) = pairs.find(|(pair, _)| public(pair) == seen.public_key) else {
        let reason = if keys.is_empty() { "is nowhere" } else { "is another one than that of its request" };
        sheet.wrong("key", format!("{reason}: neither the folder nor bastide has the one that belongs to it"));
        return None;
    };
    sheet.misfits.is_empty().then(|| Leaf { certificate: pem, key: (*key).clone(), not_after: seen.not_after })
}

fn subject(sheet: &mut Sheet<'_>, seen: &Seen, template: &Template) {
    if seen.common_name != template.common_name {
        sheet.wrong("CN", format!("is {:?}, and must be {:?}", seen.common_name, template.common_name));
    }
    // Kubernetes takes every one of them for a group.
    let wanted: Vec<_> = template.organization.iter().cloned().collect();
    if seen.organizations != wanted {
        let shown =
            |names: &[String]| if names.is_empty() { "none".to_owned() } else { format!("{:?}", names.join(", ")) };
        sheet.wrong("O", format!("is {}, and must be {}", shown(&seen.organizations), shown(&wanted)));
    }
}

/// The public half of a key (`SubjectPublicKeyInfo`, DER).
pub(super) fn public(pair: &KeyPair) -> Vec<u8> {
    rcgen::PublicKeyData::subject_public_key_info(pair)
}

/// The certificate again, without what stood around it.
fn pem(block: &Pem) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(&block.contents);
    let lines: Vec<_> = text.as_bytes().chunks(64).map(|line| String::from_utf8_lossy(line).into_owned()).collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}
