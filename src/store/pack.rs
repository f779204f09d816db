//! Contents by digest in one stream: what a sealed file holds inside.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::Serialize;
use zeroize::Zeroizing;

use crate::model::Blobs;
use crate::model::Content;
use crate::model::Desired;
use crate::model::Digest;
use crate::model::RevisionId;

const MAGIC: &[u8] = b"bastide-pack-1\n";

/// What belongs to a revision. Sealed: digests of contents that could be guessed do not lie in clear.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Index {
    pub(crate) revision: RevisionId,
    /// The [`Desired`] as JSON.
    pub(crate) desired: Digest,
    /// The secrets' document, opaque here.
    pub(crate) secrets: Digest,
    /// The rendered contents.
    pub(crate) blobs: Vec<Digest>,
}

impl Index {
    /// Every content that the revision needs.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Digest> {
        [&self.desired, &self.secrets].into_iter().chain(&self.blobs)
    }

    /// Splits a revision into its index and its contents. None only where `desired` has no JSON form.
    pub(crate) fn of(
        revision: &RevisionId,
        desired: &Desired,
        blobs: &Blobs,
        secrets: &Content,
    ) -> Option<(Self, BTreeMap<Digest, Content>)> {
        let mut contents = blobs.0.clone();
        let desired = Content::new(serde_json::to_vec(desired).ok()?);
        let index = Self {
            revision: revision.clone(),
            desired: Digest::of(desired.expose()),
            secrets: Digest::of(secrets.expose()),
            blobs: blobs.0.keys().copied().collect(),
        };
        contents.insert(index.desired, desired);
        contents.insert(index.secrets, secrets.clone());
        Some((index, contents))
    }

    /// Puts a revision together again. None where a content is missing or not what it should be.
    pub(crate) fn assemble(&self, contents: &BTreeMap<Digest, Content>) -> Option<(Desired, Blobs, Content)> {
        let desired = serde_json::from_slice(contents.get(&self.desired)?.expose()).ok()?;
        let secrets = contents.get(&self.secrets)?.clone();
        let blobs = self.blobs.iter().map(|digest| Some((*digest, contents.get(digest)?.clone())));
        Some((desired, Blobs(blobs.collect::<Option<_>>()?), secrets))
    }
}

/// A document and contents, one after another, each with its length.
pub(crate) fn pack<'a>(
    document: &impl Serialize,
    contents: impl Iterator<Item = &'a Content>,
) -> Option<Zeroizing<Vec<u8>>> {
    let document = serde_json::to_vec(document).ok()?;
    let contents: Vec<&Content> = contents.collect();
    let size = document.len() + contents.iter().map(|content| content.len() + 8).sum::<usize>();
    let mut bytes = Zeroizing::new(Vec::with_capacity(MAGIC.len() + 8 + size));
    bytes.extend_from_slice(MAGIC);
    for part in std::iter::once(document.as_slice()).chain(contents.iter().map(|content| content.expose())) {
        bytes.extend_from_slice(&u64::try_from(part.len()).ok()?.to_be_bytes());
        bytes.extend_from_slice(part);
    }
    Some(bytes)
}

/// Undoes [`pack`]. None where the bytes are not such a stream.
pub(crate) fn unpack<D: for<'de> Deserialize<'de>>(bytes: &[u8]) -> Option<(D, BTreeMap<Digest, Content>)> {
    let mut rest = bytes.strip_prefix(MAGIC)?;
    let mut document = None;
    let mut contents = BTreeMap::new();
    while !rest.is_empty() {
        let (length, after) = rest.split_first_chunk::<8>()?;
        let (part, after) = after.split_at_checked(usize::try_from(u64::from_be_bytes(*length)).ok()?)?;
        rest = after;
        if document.is_none() {
            document = Some(serde_json::from_slice(part).ok()?);
        } else {
            contents.insert(Digest::of(part), Content::new(part));
        }
    }
    Some((document?, contents))
}
