//! When a file that the host renews by itself is written over.

use x509_parser::certificate::X509Certificate;
use x509_parser::pem::Pem;
use x509_parser::pem::parse_x509_pem;

use crate::model::ObservedFile;

/// Why bastide writes a seeded file anew although the host has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    /// It holds no certificate that could be read.
    Unreadable,
    /// Its certificate is over.
    Expired,
    /// Its certificate is older than a renewal that was asked for.
    Older,
    /// Its certificate is from no authority that the cluster accepts.
    Foreign,
}

/// Judges the first certificate of `file` at `now`, in seconds since 1970. `None`: leave it alone.
pub(super) fn due(file: &ObservedFile, authorities: &[String], since: Option<i64>, now: i64) -> Option<Due> {
    let Some(pem) = file.certificate.as_deref().and_then(read) else {
        return Some(Due::Unreadable);
    };
    let Ok(certificate) = pem.parse_x509() else {
        return Some(Due::Unreadable);
    };
    if certificate.validity().not_after.timestamp() <= now {
        return Some(Due::Expired);
    }
    if since.is_some_and(|since| certificate.validity().not_before.timestamp() < since) {
        return Some(Due::Older);
    }
    let accepted = authorities
        .iter()
        .filter_map(|text| read(text))
        .any(|authority| authority.parse_x509().is_ok_and(|authority| signed_by(&certificate, &authority)));
    (!accepted).then_some(Due::Foreign)
}

/// Whether the first certificate of `file` is over at `now`, in seconds since 1970. What is no certificate never ends.
pub(super) fn has_ended(file: &ObservedFile, now: i64) -> bool {
    let pem = file.certificate.as_deref().and_then(read);
    let end = pem.and_then(|pem| Some(pem.parse_x509().ok()?.validity().not_after.timestamp()));
    end.is_some_and(|end| end <= now)
}

/// The name alone proves nothing: two authorities of one cluster bear the same.
fn signed_by(certificate: &X509Certificate<'_>, authority: &X509Certificate<'_>) -> bool {
    certificate.issuer() == authority.subject() && certificate.verify_signature(Some(authority.public_key())).is_ok()
}

fn read(text: &str) -> Option<Pem> {
    parse_x509_pem(text.as_bytes()).ok().map(|(_, pem)| pem)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use rcgen::BasicConstraints;
    use rcgen::CertificateParams;
    use rcgen::IsCa;
    use rcgen::Issuer;
    use rcgen::KeyPair;

    use super::Due;
    use super::due;
    use crate::model::Access;
    use crate::model::Digest;
    use crate::model::ObservedFile;

    struct Authority {
        pem: String,
        issuer: Issuer<'static, KeyPair>,
    }

    fn authority() -> Authority {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, "kubernetes");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        Authority { pem, issuer: Issuer::new(params, key) }
    }

    fn leaf(authority: &Authority) -> ObservedFile {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.not_before = rcgen::date_time_ymd(2026, 1, 1);
        params.not_after = rcgen::date_time_ymd(2027, 1, 1);
        let pem = params.signed_by(&KeyPair::generate().unwrap(), &authority.issuer).unwrap().pem();
        ObservedFile { digest: Digest::of(b"x"), access: Access::root(0o600), certificate: Some(pem) }
    }

    const IN_2026: i64 = 1_780_000_000;
    const IN_2027: i64 = 1_800_000_000;

    #[test]
    fn a_live_certificate_of_an_accepted_authority_is_left_alone() {
        let (old, new) = (authority(), authority());
        assert_eq!(due(&leaf(&old), &[new.pem.clone(), old.pem.clone()], None, IN_2026), None);
    }

    #[test]
    fn an_expired_certificate_is_due() {
        let authority = authority();
        assert_eq!(due(&leaf(&authority), std::slice::from_ref(&authority.pem), None, IN_2027), Some(Due::Expired));
    }

    #[test]
    fn another_authority_of_the_same_name_is_foreign() {
        let (old, new) = (authority(), authority());
        assert_eq!(due(&leaf(&old), &[new.pem], None, IN_2026), Some(Due::Foreign));
    }

    #[test]
    fn a_certificate_from_before_the_renewal_is_due_and_one_from_after_it_is_not() {
        let authority = authority();
        let from = 1_767_225_600;
        let judged = |since| due(&leaf(&authority), std::slice::from_ref(&authority.pem), Some(since), IN_2026);
        assert_eq!(judged(from + 1), Some(Due::Older));
        assert_eq!(judged(from), None);
    }

    #[test]
    fn rubbish_is_due() {
        let file = ObservedFile { certificate: Some("no certificate".to_owned()), ..leaf(&authority()) };
        assert_eq!(due(&file, &[], None, IN_2026), Some(Due::Unreadable));
    }
}
