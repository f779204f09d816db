//! What is seen: equality, drift with its owner, what is owned.

use std::collections::BTreeMap;

use bastide::model::ArtifactFile;
use bastide::model::Digest;
use bastide::model::ImageArtifact;
use bastide::model::ObjectAction;
use bastide::model::ObjectId;
use bastide::model::ObjectSet;
use bastide::model::ObjectState;
use bastide::model::Release;
use bastide::render::objects::system;

use crate::Target;
use crate::config_map;
use crate::id_of;
use crate::server::Server;
use crate::turn;

fn release() -> Release {
    let artifact = |name: &str| {
        let image = ImageArtifact {
            reference: format!("registry.k8s.io/{name}:v1").parse().unwrap(),
            version: "1".to_owned(),
            manifest: Digest::of(b""),
            archive: ArtifactFile { sha256: Digest::of(b""), size: 0, path: String::new() },
        };
        (name.to_owned(), image)
    };
    Release {
        kubernetes: "v1.37.1".parse().unwrap(),
        architecture: "x86_64".to_owned(),
        packages: BTreeMap::new(),
        images: ["flannel", "coredns", "metrics-server"].map(artifact).into(),
    }
}

fn system_target(server: &Server) -> Target {
    let mut target = Target::default();
    for (id, object, set) in system(&server.cluster, &server.secrets, &release()).unwrap() {
        target.add(id, &object, set);
    }
    target
}

/// Every object of the cluster with its version, but for leases and events, which move by themselves.
fn versions(server: &Server) -> String {
    server.kubectl(&[
        "get",
        "all,ns,sa,cm,secret,clusterrole,clusterrolebinding,role,rolebinding,pdb,apiservice,crd,node",
        "-A",
        "-o",
        "jsonpath={range .items[*]}{.kind} {.metadata.namespace}/{.metadata.name} {.metadata.resourceVersion}{\"\\n\"}{end}",
    ])
}

#[tokio::test]
async fn after_an_apply_everything_is_equal_and_looking_changes_nothing() {
    let _turn = turn().await;
    let server = Server::get();
    let target = system_target(server);
    let api = server.api();
    api.observe(&target.objects, &target.blobs).await.unwrap();
    target.apply(&api).await.unwrap();

    let before = versions(server);
    let seen = server.api().observe(&target.objects, &target.blobs).await.unwrap();
    let unequal: Vec<_> = seen.objects.iter().filter(|(_, state)| **state != ObjectState::Equal).collect();
    assert!(unequal.is_empty(), "{unequal:#?}");
    assert_eq!(seen.objects.len(), target.objects.len());
    assert_eq!(versions(server), before);

    // What Kubernetes brings along is shared, not owned: pruning must not reach it.
    let shared = |id: &ObjectId| id.name == "cluster-admin" || id.kind == "ServiceAccount" && id.name == "default";
    let missing: Vec<_> = target.objects.iter().filter(|object| !seen.owned.contains(&object.id)).collect();
    assert!(missing.iter().all(|object| shared(&object.id)), "{missing:#?}");
    assert!(!seen.owned.iter().any(shared));

    target.apply(&server.api()).await.unwrap();
    assert_eq!(versions(server), before, "a second apply wrote something");
}

#[tokio::test]
async fn a_changed_field_is_seen_with_the_manager_who_changed_it_and_taken_back() {
    let _turn = turn().await;
    let server = Server::get();
    let target = system_target(server);
    let api = server.api();
    target.apply(&api).await.unwrap();
    server.kubectl(&["-n", "kube-system", "scale", "deployment", "coredns", "--replicas=5"]);
    server.kubectl(&[
        "-n",
        "kube-system",
        "set",
        "image",
        "deployment/coredns",
        "coredns=evil:1",
        "--field-manager=intruder",
    ]);

    let before = versions(server);
    let seen = api.observe(&target.objects, &target.blobs).await.unwrap();
    assert_eq!(versions(server), before, "looking at drift changed something");
    let moved: Vec<_> = seen.objects.into_iter().filter(|(_, state)| *state != ObjectState::Equal).collect();
    let [(id, state)] = moved.as_slice() else { panic!("{moved:#?}") };
    assert_eq!(id.to_string(), "Deployment kube-system/coredns");
    let image = "spec.template.spec.containers[name=coredns].image".to_owned();
    let replicas = "spec.replicas".to_owned();
    assert_eq!(
        *state,
        ObjectState::Differs {
            fields: vec![replicas.clone(), image.clone()],
            owners: vec![("intruder".to_owned(), image), ("kubectl".to_owned(), replicas)],
        }
    );

    target.apply(&api).await.unwrap();
    let seen = api.observe(&target.objects, &target.blobs).await.unwrap();
    assert_eq!(seen.objects[id], ObjectState::Equal);
}

#[tokio::test]
async fn what_others_add_to_fields_that_bastide_does_not_name_is_no_drift() {
    let _turn = turn().await;
    let server = Server::get();
    let target = Target::addon("quiet", &[config_map("quiet", "1")]);
    let api = server.api();
    target.apply(&api).await.unwrap();
    server.kubectl(&["-n", "default", "annotate", "configmap", "quiet", "note=theirs"]);
    let seen = api.observe(&target.objects, &target.blobs).await.unwrap();
    assert_eq!(seen.objects[&target.objects[0].id], ObjectState::Equal);
}

#[tokio::test]
async fn what_left_the_target_is_still_owned_and_goes() {
    let _turn = turn().await;
    let server = Server::get();
    let old = Target::addon("shrinking", &[config_map("stays", "1"), config_map("goes", "1")]);
    old.apply(&server.api()).await.unwrap();

    // A new run, whose target lacks one of them, and lists the other in another words of the same API.
    let new = Target::addon("shrinking", &[config_map("stays", "1")]);
    let api = server.api();
    let seen = api.observe(&new.objects, &new.blobs).await.unwrap();
    let goes = id_of(&config_map("goes", "1"));
    assert!(seen.owned.contains(&goes) && seen.owned.contains(&new.objects[0].id));
    api.apply(&ObjectAction::Delete { id: goes.clone(), with_data: false }, &new.blobs).await.unwrap();
    api.apply(&ObjectAction::Delete { id: goes.clone(), with_data: false }, &new.blobs).await.unwrap();
    let seen = api.observe(&new.objects, &new.blobs).await.unwrap();
    assert!(!seen.owned.contains(&goes));
    assert_eq!(seen.objects[&new.objects[0].id], ObjectState::Equal);
}

#[tokio::test]
async fn an_object_without_a_namespace_and_in_an_older_version_is_recognised() {
    let _turn = turn().await;
    let server = Server::get();
    let scaler = serde_json::json!({
        "apiVersion": "autoscaling/v1",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "older"},
        "spec": {"maxReplicas": 3, "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "x"}},
    });
    let target = Target::addon("older", &[scaler]);
    let api = server.api();
    target.apply(&api).await.unwrap();
    let seen = server.api().observe(&target.objects, &target.blobs).await.unwrap();
    let id = &target.objects[0].id;
    assert_eq!(seen.objects.get(id), Some(&ObjectState::Equal));
    let owned: Vec<_> = seen.owned.iter().filter(|owned| owned.name == "older").collect();
    assert_eq!(owned, [id]);
}

#[tokio::test]
async fn a_cluster_without_anything_of_bastides_is_seen_as_such() {
    let _turn = turn().await;
    let server = Server::get();
    let absent = Target::addon("absent", &[config_map("absent", "1")]);
    let seen = server.api().observe(&absent.objects, &absent.blobs).await.unwrap();
    assert!(seen.objects.is_empty());
    let stranger = serde_json::json!({"apiVersion": "example.com/v1", "kind": "Unheard", "metadata": {"name": "x"}});
    let mut unknown = Target::default();
    unknown.add(id_of(&stranger), &stranger, ObjectSet::Addon("absent".to_owned()));
    let seen = server.api().observe(&unknown.objects, &unknown.blobs).await.unwrap();
    assert!(seen.objects.is_empty(), "a kind that nobody knows yet has no objects");
}
