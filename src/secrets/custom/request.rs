//! Requests for certificates (PKCS#10).

use std::collections::BTreeSet;

use rcgen::CertificateParams;
use rcgen::DnType;
use rcgen::IsCa;
use rcgen::KeyPair;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::pem::parse_x509_pem;
use x509_parser::prelude::FromDer as _;

use crate::config::Cluster;
use crate::config::KeyAlgorithm;
use crate::model::Content;
use crate::secrets::AuthorityName;
use crate::secrets::Entropy;
use crate::secrets::Leaf;
use crate::secrets::Secrets;
use crate::secrets::SecretsError;
use crate::secrets::custom::CustomFiles;
use crate::secrets::custom::names;
use crate::secrets::inspect::Seen;
use crate::secrets::issue;
use crate::secrets::key;
use crate::secrets::leaf::Template;
use crate::secrets::leaf::rows;

/// A request and the key that it is for.
#[derive(Debug, Clone)]
pub struct Request {
    /// The certificate's file will be this with `.pem`.
    pub stem: String,
    /// The request's file.
    pub file: String,
    /// PEM.
    pub text: String,
    /// PEM; none where it lies in the folder beside the request, because somebody else made it.
    pub key: Option<Content>,
    /// Whether the folder holds the same one already.
    pub kept: bool,
}

/// Requests for everything that external authorities are to sign: `names`, or those that are external in `previous`.
///
/// A key of the folder that no certificate in use belongs to is used again, and a request that says what it should stays as it is: what
/// was sent to the authority yesterday is not made worthless today. Otherwise new keys are drawn.
pub fn requests(
    cluster: &Cluster,
    previous: Option<&Secrets>,
    names: &BTreeSet<AuthorityName>,
    folder: &CustomFiles,
    entropy: &mut dyn Entropy,
) -> Result<Vec<Request>, SecretsError> {
    let rows = rows(cluster, names);
    let wanted = || rows.iter().filter(|(_, template)| names.contains(&template.authority));
    if let Some(stem) = names::shared_by_two(wanted().map(|(id, _)| id)) {
        let reason = "two certificates would have this name; give a host another one (hostname_override)".to_owned();
        return Err(SecretsError::Issue { leaf: stem, reason });
    }
    let mut requests = Vec::new();
    for (id, template) in wanted() {
        let stem = names::leaf(id);
        let used = previous.and_then(|secrets| secrets.leaves.get(id));
        let free = |pem: &Content| key::read(pem).filter(|pair| used.is_none_or(|leaf| !is_of(pair, leaf)));
        let own = folder.files.get(&names::key(&stem)).and_then(|pem| Some((free(pem)?, None)));
        let kept = || folder.keys.get(&stem).and_then(|pem| Some((free(pem)?, Some(pem.clone()))));
        let (pair, pem) = if let Some(found) = own.or_else(kept) {
            found
        } else {
            let pair = key::generate(cluster.options.key_algorithm, entropy)?;
            let pem = key::pem(&pair);
            (pair, Some(pem))
        };
        let made = request(&stem, template, &pair, cluster.options.key_algorithm)?;
        let file = names::request(&stem);
        let there = folder.text(&file).filter(|text| said(text).is_some() && said(text) == said(&made));
        let (text, kept) = match there {
            Some(text) => (text.to_owned(), true),
            None => (made, false),
        };
        requests.push(Request { stem, file, text, key: pem, kept });
    }
    Ok(requests)
}

fn is_of(pair: &KeyPair, leaf: &Leaf) -> bool {
    let public = rcgen::PublicKeyData::subject_public_key_info(pair);
    Seen::read(&leaf.certificate).is_some_and(|seen| seen.public_key == public)
}

/// What a request asks for and with which key, without its signature.
fn said(pem: &str) -> Option<Vec<u8>> {
    let (_, block) = parse_x509_pem(pem.as_bytes()).ok()?;
    let (_, request) = X509CertificationRequest::from_der(&block.contents).ok()?;
    Some(request.certification_request_info.raw.to_vec())
}

fn request(stem: &str, template: &Template, pair: &KeyPair, algorithm: KeyAlgorithm) -> Result<String, SecretsError> {
    let wrong = |reason: String| SecretsError::Issue { leaf: stem.to_owned(), reason };
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name = rcgen::DistinguishedName::new();
    parameters.distinguished_name.push(DnType::CommonName, template.common_name.as_str());
    issue::says(&mut parameters, template, algorithm).map_err(wrong)?;
    parameters.is_ca = IsCa::ExplicitNoCa;
    let request = parameters.serialize_request(pair).map_err(|error| wrong(error.to_string()))?;
    request.pem().map_err(|error| wrong(error.to_string()))
}
