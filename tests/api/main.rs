//! The API room against a real kube-apiserver and etcd.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

mod apply;
mod etcd;
mod health;
mod nodes;
mod observe;
mod proxy;
mod server;
mod trust;
mod wire;

use bastide::api::Api;
use bastide::api::ApiError;
use bastide::model::Blobs;
use bastide::model::DesiredObject;
use bastide::model::ObjectAction;
use bastide::model::ObjectId;
use bastide::model::ObjectSet;
use serde_json::Value;
use tokio::sync::Mutex;
use tokio::sync::MutexGuard;

/// The tests share one cluster.
static TURN: Mutex<()> = Mutex::const_new(());

async fn turn() -> MutexGuard<'static, ()> {
    TURN.lock().await
}

/// A target made of objects.
#[derive(Default)]
struct Target {
    objects: Vec<DesiredObject>,
    blobs: Blobs,
}

impl Target {
    fn add(&mut self, id: ObjectId, object: &Value, set: ObjectSet) {
        let digest = self.blobs.insert(server::json(object));
        let secret = id.kind == "Secret";
        self.objects.push(DesiredObject { id, digest, set, secret });
    }

    /// Objects of an addon.
    fn addon(name: &str, objects: &[Value]) -> Self {
        let mut target = Self::default();
        for object in objects {
            target.add(id_of(object), object, ObjectSet::Addon(name.to_owned()));
        }
        target
    }

    fn apply_action(object: &DesiredObject) -> ObjectAction {
        ObjectAction::Apply {
            id: object.id.clone(),
            digest: object.digest,
            set: object.set.clone(),
            takes_over: Vec::new(),
            fields: Vec::new(),
        }
    }

    /// Applies everything in order, up to the first error.
    async fn apply(&self, api: &Api) -> Result<(), ApiError> {
        for object in &self.objects {
            api.apply(&Self::apply_action(object), &self.blobs).await?;
        }
        Ok(())
    }
}

fn id_of(object: &Value) -> ObjectId {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    ObjectId {
        api_version: text(&object["apiVersion"]),
        kind: text(&object["kind"]),
        namespace: object["metadata"]["namespace"].as_str().map(str::to_owned),
        name: text(&object["metadata"]["name"]),
    }
}

fn config_map(name: &str, value: &str) -> Value {
    serde_json::json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": "default"},
        "data": {"key": value},
    })
}
