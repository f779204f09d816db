//! What an S3 server answers, in XML.

use serde::Deserialize;

/// A refusal. Amazon and others put it under 200 as well, where the answer took long.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Refusal {
    pub(super) code: String,
    pub(super) message: String,
    pub(super) region: Option<String>,
}

/// `ListObjectsV2`
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Listing {
    pub(super) contents: Vec<Entry>,
    pub(super) is_truncated: bool,
    pub(super) next_continuation_token: Option<String>,
}

/// One object of a [`Listing`].
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) size: u64,
    pub(super) last_modified: String,
}

/// `CreateMultipartUpload`
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Begun {
    pub(super) upload_id: String,
}

/// `ListMultipartUploads`
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Uploads {
    pub(super) upload: Vec<Unfinished>,
    pub(super) is_truncated: bool,
    pub(super) next_key_marker: Option<String>,
    pub(super) next_upload_id_marker: Option<String>,
}

/// One of [`Uploads`].
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Unfinished {
    pub(super) key: String,
    pub(super) upload_id: String,
    pub(super) initiated: String,
}

/// `ListParts`
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Parts {
    pub(super) part: Vec<Part>,
    pub(super) is_truncated: bool,
    pub(super) next_part_number_marker: Option<String>,
}

/// One of [`Parts`].
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Part {
    pub(super) last_modified: String,
}

/// Reads an answer of that kind.
pub(super) fn read<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Option<T> {
    quick_xml::de::from_str(std::str::from_utf8(body).ok()?).ok()
}

/// The refusal that stands in `body`, whatever the status was.
pub(super) fn refusal(body: &[u8]) -> Option<Refusal> {
    let text = std::str::from_utf8(body).ok()?;
    let root = text.split('<').find(|part| part.starts_with(|c: char| c.is_ascii_alphabetic()))?;
    root.starts_with("Error").then(|| read(body)).flatten()
}

/// `2026-11-22T14:03:00.000Z` in seconds since 1970.
pub(super) fn time(text: &str) -> Option<i64> {
    text.parse::<jiff::Timestamp>().ok().map(jiff::Timestamp::as_second)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::Listing;
    use super::Uploads;
    use super::read;
    use super::refusal;
    use super::time;

    #[test]
    fn a_refusal_is_found_under_any_status() {
        let body =
            b"<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>NoSuchBucket</Code><Message>gone</Message>\
                     <AWSAccessKeyId>AKIA</AWSAccessKeyId></Error>";
        let found = refusal(body).unwrap();
        assert_eq!((found.code.as_str(), found.message.as_str()), ("NoSuchBucket", "gone"));
        assert!(refusal(b"<CompleteMultipartUploadResult><Key>Error</Key></CompleteMultipartUploadResult>").is_none());
        assert!(refusal(b"").is_none());
        assert!(refusal(b"<html>").is_none());
    }

    #[test]
    fn lists_of_none_one_and_many_are_read() {
        let entry = "<Contents><Key>f/a</Key><LastModified>2026-11-22T14:03:00.000Z</LastModified><ETag>x</ETag><Size>5</Size></Contents>";
        for count in 0..3 {
            let text = format!(
                "<ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Name>b</Name><Prefix>f/</Prefix>{}\
                 <IsTruncated>false</IsTruncated><CommonPrefixes><Prefix>f/x/</Prefix></CommonPrefixes></ListBucketResult>",
                entry.repeat(count)
            );
            assert_eq!(read::<Listing>(text.as_bytes()).unwrap().contents.len(), count);
        }
        let uploads = b"<ListMultipartUploadsResult><Upload><Key>k</Key><UploadId>1</UploadId>\
                        <Initiator><ID>x</ID></Initiator><Initiated>2026-11-22T14:03:00Z</Initiated></Upload>\
                        <IsTruncated>true</IsTruncated></ListMultipartUploadsResult>";
        let uploads = read::<Uploads>(uploads).unwrap();
        assert_eq!(time(&uploads.upload[0].initiated), Some(1_795_356_180));
        assert!(uploads.is_truncated);
    }
}
