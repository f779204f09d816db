//! Certificates from templates.

use std::time::Duration;

use rcgen::BasicConstraints;
use rcgen::CertificateParams;
use rcgen::DnType;
use rcgen::ExtendedKeyUsagePurpose;
use rcgen::IsCa;
use rcgen::Issuer;
use rcgen::KeyIdMethod;
use rcgen::KeyPair;
use rcgen::KeyUsagePurpose;
use rcgen::SanType;
use rcgen::SerialNumber;
use rcgen::SubjectPublicKeyInfo;

use crate::config::KeyAlgorithm;
use crate::secrets::AuthorityName;
use crate::secrets::AuthoritySet;
use crate::secrets::Entropy;
use crate::secrets::Leaf;
use crate::secrets::SecretsError;
use crate::secrets::entropy::random_hex;
use crate::secrets::inspect;
use crate::secrets::key;
use crate::secrets::leaf::AUTHORITY_LIFETIME;
use crate::secrets::leaf::BACKDATED;
use crate::secrets::leaf::San;
use crate::secrets::leaf::Template;

/// An authority that is ready to sign, or one whose key is lost or elsewhere.
pub(crate) struct Authority {
    name: AuthorityName,
    /// None where the key is lost or elsewhere.
    issuer: Option<Issuer<'static, KeyPair>>,
    external: bool,
    not_after: i64,
}

impl Authority {
    /// Reads the issuing certificate and its key, where that is not lost. Expired ones are refused: nobody would accept what they
    /// sign.
    pub(crate) fn read(name: AuthorityName, set: &AuthoritySet, now: i64) -> Result<Self, SecretsError> {
        let unreadable = || SecretsError::AuthorityUnreadable(name);
        let seen = inspect::Seen::read(&set.certificate).ok_or_else(unreadable)?;
        if seen.not_after <= now {
            return Err(SecretsError::AuthorityExpired(name));
        }
        if set.key.is_empty() {
            return Ok(Self { name, issuer: None, external: set.external, not_after: seen.not_after });
        }
        let signing = key::read(&set.key).ok_or_else(unreadable)?;
        if seen.public_key != rcgen::PublicKeyData::subject_public_key_info(&signing) {
            return Err(unreadable());
        }
        let issuer = Issuer::from_ca_cert_pem(&set.certificate, signing).map_err(|_| unreadable())?;
        Ok(Self { name, issuer: Some(issuer), external: false, not_after: seen.not_after })
    }

    /// Whether nobody can have it sign anything more.
    pub(crate) fn is_lost(&self) -> bool {
        self.issuer.is_none() && !self.external
    }

    fn without_key(&self, what: &str) -> SecretsError {
        if self.external {
            SecretsError::AuthorityExternal { name: self.name, wanted: vec![what.to_owned()] }
        } else {
            SecretsError::AuthorityLost(self.name)
        }
    }

    /// When a leaf of `lifetime` that is issued now ends: never later than its authority.
    pub(crate) fn end(&self, lifetime: i64, now: i64) -> i64 {
        self.not_after.min(now + lifetime)
    }
}

/// Makes a new authority.
///
/// Its subject carries random digits, so that two authorities of one purpose never share a name: a chain is then looked
/// up by name as well as by key identifier.
pub(crate) fn authority(
    name: AuthorityName,
    algorithm: KeyAlgorithm,
    now: i64,
    entropy: &mut dyn Entropy,
) -> Result<AuthoritySet, SecretsError> {
    let common_name = format!("{name}-ca-{}", random_hex(entropy, 4)?);
    let signing = key::generate(algorithm, entropy)?;
    // One more may follow this one in a chain: the one that takes its place, signed by it. Only servers that pods and people
    // trust are reached that way.
    let below = u8::from(name == AuthorityName::Kubernetes);
    let parameters = authority_parameters(&common_name, now, now + AUTHORITY_LIFETIME, below, entropy)?;
    let certificate = parameters
        .self_signed(&signing)
        .map_err(|error| SecretsError::Issue { leaf: common_name, reason: error.to_string() })?;
    Ok(AuthoritySet {
        certificate: certificate.pem(),
        key: key::pem(&signing),
        also_accepted: Vec::new(),
        other: None,
        external: false,
    })
}

/// The certificate of `new` (same subject, same key) signed by `old`, whose set is `old_set`. None where that one's own
/// certificate says that no authority may follow it in a chain (nobody would accept it), where its key is lost or elsewhere, and where
/// the new one has a name that cannot be written again as it is.
pub(crate) fn cross_signed(
    new: &AuthoritySet,
    (old, old_set): (&Authority, &AuthoritySet),
    now: i64,
    entropy: &mut dyn Entropy,
) -> Result<Option<String>, SecretsError> {
    let unreadable = || SecretsError::Unreadable("an authority's certificate cannot be read");
    let Some(issuer) = &old.issuer else { return Ok(None) };
    if !inspect::may_precede_authorities(&old_set.certificate).ok_or_else(unreadable)? {
        return Ok(None);
    }
    let seen = inspect::Seen::read(&new.certificate).ok_or_else(unreadable)?;
    // The name byte by byte and the key's identifier, whoever chose them: chains are put together by both.
    let Some(subject) = inspect::Subject::read(&new.certificate) else { return Ok(None) };
    let Ok(own) = SubjectPublicKeyInfo::from_der(&seen.public_key) else { return Ok(None) };
    let end = seen.not_after.min(old.not_after);
    let mut parameters = authority_parameters(&seen.common_name, now, end, 0, entropy)?;
    parameters.distinguished_name = subject.name;
    if let Some(identifier) = subject.key_identifier {
        parameters.key_identifier_method = KeyIdMethod::PreSpecified(identifier);
    }
    parameters.use_authority_key_identifier_extension = true;
    let certificate = parameters
        .signed_by(&own, issuer)
        .map_err(|error| SecretsError::Issue { leaf: seen.common_name, reason: error.to_string() })?;
    let pem = certificate.pem();
    Ok(inspect::same_name(&pem, &new.certificate).then_some(pem))
}

/// What an authority's certificate says; `below` is how many more may follow it in a chain.
fn authority_parameters(
    common_name: &str,
    now: i64,
    not_after: i64,
    below: u8,
    entropy: &mut dyn Entropy,
) -> Result<CertificateParams, SecretsError> {
    let mut parameters = parameters(common_name, now, not_after, entropy)?;
    parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(below));
    parameters.key_usages =
        vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(parameters)
}

/// Makes a new key and signs `template` for it. `what` names the leaf in errors.
pub(crate) fn leaf(
    what: &str,
    template: &Template,
    authority: &Authority,
    algorithm: KeyAlgorithm,
    now: i64,
    entropy: &mut dyn Entropy,
) -> Result<Leaf, SecretsError> {
    let wrong = |reason: String| SecretsError::Issue { leaf: what.to_owned(), reason };
    let issuer = authority.issuer.as_ref().ok_or_else(|| authority.without_key(what))?;
    let own = key::generate(algorithm, entropy)?;
    let not_after = authority.end(template.lifetime, now);
    let mut parameters = parameters(&template.common_name, now, not_after, entropy)?;
    says(&mut parameters, template, algorithm).map_err(wrong)?;
    parameters.is_ca = IsCa::ExplicitNoCa;
    parameters.use_authority_key_identifier_extension = true;
    let certificate = parameters.signed_by(&own, issuer).map_err(|error| wrong(error.to_string()))?;
    Ok(Leaf { certificate: certificate.pem(), key: key::pem(&own), not_after })
}

/// Puts what `template` says into `parameters`, which have the common name already; a key of `algorithm` is to do that.
pub(crate) fn says(
    parameters: &mut CertificateParams,
    template: &Template,
    algorithm: KeyAlgorithm,
) -> Result<(), String> {
    if let Some(organization) = &template.organization {
        parameters.distinguished_name.push(DnType::OrganizationName, organization.as_str());
    }
    parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    if algorithm == KeyAlgorithm::Rsa2048 {
        // TLS 1.2's RSA key exchange encrypts to the key; ECDSA keys only sign.
        parameters.key_usages.push(KeyUsagePurpose::KeyEncipherment);
    }
    if template.usage.server() {
        parameters.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
    }
    if template.usage.client() {
        parameters.extended_key_usages.push(ExtendedKeyUsagePurpose::ClientAuth);
    }
    for san in &template.sans {
        parameters.subject_alt_names.push(match san {
            San::Ip(address) => SanType::IpAddress(*address),
            San::Dns(name) => {
                SanType::DnsName(name.as_str().try_into().map_err(|_| format!("{name:?} is not a name in ASCII"))?)
            }
        });
    }
    Ok(())
}

fn parameters(
    common_name: &str,
    now: i64,
    not_after: i64,
    entropy: &mut dyn Entropy,
) -> Result<CertificateParams, SecretsError> {
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name = rcgen::DistinguishedName::new();
    parameters.distinguished_name.push(DnType::CommonName, common_name);
    let at = |seconds: i64| {
        rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(u64::try_from(seconds).unwrap_or_default())
    };
    parameters.not_before = at(now - BACKDATED);
    parameters.not_after = at(not_after);
    parameters.serial_number = Some(serial(entropy)?);
    Ok(parameters)
}

/// 126 random bits in 16 octets; positive and without a leading zero whatever the draw (RFC 5280, 4.1.2.2).
fn serial(entropy: &mut dyn Entropy) -> Result<SerialNumber, SecretsError> {
    let mut bytes = [0; 16];
    entropy.fill(&mut bytes)?;
    bytes[0] = bytes[0] & 0x3f | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}
