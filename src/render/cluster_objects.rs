//! The cluster's objects as blobs: bastide's own, then the user's, in the order in which they are applied.

use crate::model::Content;
use crate::model::DesiredObject;
use crate::render::RenderError;
use crate::render::draft::Shop;
use crate::render::objects;
use crate::render::objects::AddonText;

/// All objects, or none and the reason among the shop's errors.
pub(super) fn objects(shop: &mut Shop<'_>, addons: &[AddonText]) -> Vec<DesiredObject> {
    match objects::all(shop.cluster, shop.secrets, shop.release, addons) {
        Ok(all) => all
            .into_iter()
            .map(|(id, value, set)| {
                let secret = id.api_version == "v1" && id.kind == "Secret";
                let digest = shop.blobs.insert(Content::new(value.to_string()));
                DesiredObject { id, digest, set, secret }
            })
            .collect(),
        Err(error) => {
            shop.judge.errors.push(RenderError::Object(error));
            Vec::new()
        }
    }
}
