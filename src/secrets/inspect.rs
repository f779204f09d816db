//! What a certificate says, read back.

use std::collections::BTreeSet;
use std::net::IpAddr;

use rcgen::DistinguishedName;
use rcgen::DnType;
use rcgen::DnValue;
use x509_parser::der_parser::asn1_rs::Tag;
use x509_parser::extensions::GeneralName;
use x509_parser::extensions::ParsedExtension;
use x509_parser::pem::parse_x509_pem;

use crate::secrets::leaf::San;
use crate::secrets::leaf::Template;

/// The parts of a certificate that decide whether it is still good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) common_name: String,
    pub(crate) organizations: Vec<String>,
    pub(crate) sans: BTreeSet<San>,
    pub(crate) client: bool,
    pub(crate) server: bool,
    pub(crate) not_after: i64,
    /// `SubjectPublicKeyInfo` (DER).
    pub(crate) public_key: Vec<u8>,
}

impl Seen {
    /// Reads the first certificate of `pem`.
    pub(crate) fn read(pem: &str) -> Option<Self> {
        let (_, block) = parse_x509_pem(pem.as_bytes()).ok()?;
        let certificate = block.parse_x509().ok()?;
        let text = |value: &x509_parser::x509::AttributeTypeAndValue<'_>| value.as_str().ok().map(str::to_owned);
        let mut sans = BTreeSet::new();
        if let Some(extension) = certificate.subject_alternative_name().ok()? {
            for name in &extension.value.general_names {
                sans.insert(match name {
                    GeneralName::DNSName(name) => San::Dns(name.to_ascii_lowercase()),
                    GeneralName::IPAddress(bytes) => San::Ip(address(bytes)?),
                    // Of a kind that nothing here looks at.
                    _ => continue,
                });
            }
        }
        let usage = certificate.extended_key_usage().ok()?;
        Some(Self {
            common_name: certificate.subject().iter_common_name().next().and_then(text)?,
            organizations: certificate.subject().iter_organization().filter_map(text).collect(),
            sans,
            client: usage.as_ref().is_some_and(|usage| usage.value.client_auth),
            server: usage.as_ref().is_some_and(|usage| usage.value.server_auth),
            not_after: certificate.validity().not_after.timestamp(),
            public_key: certificate.public_key().raw.to_vec(),
        })
    }

    /// Whether subject and usages are what `template` asks for. SANs are compared apart, because their difference is
    /// worth telling.
    pub(crate) fn same_subject(&self, template: &Template) -> bool {
        self.common_name == template.common_name
            && self.organizations.iter().map(String::as_str).eq(template.organization.as_deref())
            && self.client == template.usage.client()
            && self.server == template.usage.server()
    }
}

impl Seen {
    /// The same of a certificate that may serve for more.
    pub(crate) fn covers_subject(&self, template: &Template) -> bool {
        let usage = template.usage;
        let exact = Self { client: usage.client(), server: usage.server(), ..self.clone() };
        exact.same_subject(template) && (self.client || !usage.client()) && (self.server || !usage.server())
    }
}

/// Who a certificate is for, so that another one can say the same.
pub(crate) struct Subject {
    pub(crate) name: DistinguishedName,
    pub(crate) key_identifier: Option<Vec<u8>>,
}

impl Subject {
    /// Reads the first certificate of `pem`. None where its name has parts or letters that cannot be written again.
    pub(crate) fn read(pem: &str) -> Option<Self> {
        let (_, block) = parse_x509_pem(pem.as_bytes()).ok()?;
        let certificate = block.parse_x509().ok()?;
        let mut name = DistinguishedName::new();
        for part in certificate.subject().iter() {
            let mut attributes = part.iter();
            let (Some(attribute), None) = (attributes.next(), attributes.next()) else { return None };
            let oid: Vec<u64> = attribute.attr_type().iter()?.collect();
            let text = attribute.as_str().ok()?;
            let value = match attribute.attr_value().tag() {
                Tag::PrintableString => DnValue::PrintableString(text.try_into().ok()?),
                Tag::Ia5String => DnValue::Ia5String(text.try_into().ok()?),
                _ => DnValue::Utf8String(text.to_owned()),
            };
            name.push(DnType::from_oid(&oid), value);
        }
        let identifier = certificate.extensions().iter().find_map(|extension| match extension.parsed_extension() {
            ParsedExtension::SubjectKeyIdentifier(identifier) => Some(identifier.0.to_vec()),
            _ => None,
        });
        Some(Self { name, key_identifier: identifier })
    }
}

/// Whether both certificates (PEM) have one subject, byte by byte.
pub(crate) fn same_name(one: &str, other: &str) -> bool {
    let name = |pem: &str| {
        let (_, block) = parse_x509_pem(pem.as_bytes()).ok()?;
        Some(block.parse_x509().ok()?.subject().as_raw().to_vec())
    };
    name(one).is_some_and(|raw| name(other) == Some(raw))
}

/// Whether one of the certificates in `accepted` (PEM) signed the one in `pem`.
pub(crate) fn signed_by_any<'a>(pem: &str, mut accepted: impl Iterator<Item = &'a String>) -> bool {
    let Ok((_, block)) = parse_x509_pem(pem.as_bytes()) else { return false };
    let Ok(certificate) = block.parse_x509() else { return false };
    accepted.any(|authority| {
        let Ok((_, block)) = parse_x509_pem(authority.as_bytes()) else { return false };
        let Ok(authority) = block.parse_x509() else { return false };
        certificate.issuer() == authority.subject()
            && certificate.verify_signature(Some(authority.public_key())).is_ok()
    })
}

/// Whether a further authority may follow this one (PEM) in a chain. None where it cannot be read or is no authority.
pub(crate) fn may_precede_authorities(pem: &str) -> Option<bool> {
    let (_, block) = parse_x509_pem(pem.as_bytes()).ok()?;
    let certificate = block.parse_x509().ok()?;
    let constraints = certificate.basic_constraints().ok()??;
    constraints.value.ca.then_some(constraints.value.path_len_constraint != Some(0))
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
        _ => None,
    }
}
