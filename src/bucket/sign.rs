//! Signs a request's headers.

use std::time::SystemTime;

use aws_credential_types::Credentials;
use aws_sigv4::http_request::PayloadChecksumKind;
use aws_sigv4::http_request::PercentEncodingMode;
use aws_sigv4::http_request::SignableBody;
use aws_sigv4::http_request::SignableRequest;
use aws_sigv4::http_request::SigningSettings;
use aws_sigv4::http_request::UriPathNormalizationMode;
use aws_sigv4::sign::v4;
use http_body_util::Full;
use hyper::body::Bytes;

use crate::model::BucketKeys;
use crate::model::Content;

/// Adds the signature over method, path, query, headers and `body`. An error says nothing of the keys.
pub(super) fn sign(
    request: &mut http::Request<Full<Bytes>>,
    body: &[u8],
    keys: &BucketKeys,
    region: &str,
    now: SystemTime,
) -> Result<(), &'static str> {
    const UNUSABLE: &str = "the request cannot be signed with these keys";
    let text = |key: &Content| {
        let printable = key.expose().iter().all(u8::is_ascii_graphic) && !key.is_empty();
        key.expose_text().filter(|_| printable).map(str::to_owned).ok_or("the keys hold what no key holds")
    };
    let token = keys.token.as_ref().map(text).transpose()?;
    let identity = Credentials::new(text(&keys.access)?, text(&keys.secret)?, token, None, "bastide").into();
    let mut settings = SigningSettings::default();
    // What S3 wants, unlike Amazon's other services: paths as they are, and the payload's digest as a header.
    settings.percent_encoding_mode = PercentEncodingMode::Single;
    settings.uri_path_normalization_mode = UriPathNormalizationMode::Disabled;
    settings.payload_checksum_kind = PayloadChecksumKind::XAmzSha256;
    let parameters = v4::SigningParams::builder()
        .identity(&identity)
        .region(region)
        .name("s3")
        .time(now)
        .settings(settings)
        .build()
        .map_err(|_| UNUSABLE)?
        .into();
    let headers: Vec<_> =
        request.headers().iter().filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?))).collect();
    let uri = request.uri().to_string();
    let signable = SignableRequest::new(request.method().as_str(), uri, headers.into_iter(), SignableBody::Bytes(body))
        .map_err(|_| UNUSABLE)?;
    let signed = aws_sigv4::http_request::sign(signable, &parameters).map_err(|_| UNUSABLE)?;
    signed.into_parts().0.apply_to_request_http1x(request);
    Ok(())
}
