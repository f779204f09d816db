//! What an apply refuses, and in which words.

use bastide::api::ApiError;
use bastide::model::HostName;
use bastide::model::ObjectAction;
use bastide::model::ObjectState;
use serde_json::json;

use crate::Target;
use crate::config_map;
use crate::id_of;
use crate::server::Server;
use crate::turn;

#[tokio::test]
async fn an_addon_takes_nothing_from_another_manager() {
    let _turn = turn().await;
    let server = Server::get();
    server.kubectl(&["-n", "default", "create", "configmap", "contested", "--from-literal=key=theirs"]);
    let target = Target::addon("contester", &[config_map("contested", "mine")]);
    let api = server.api();

    let seen = api.observe(&target.objects, &target.blobs).await.unwrap();
    let id = &target.objects[0].id;
    let owners = vec![("kubectl-create".to_owned(), "data.key".to_owned())];
    assert_eq!(seen.objects[id], ObjectState::Differs { fields: vec!["data.key".to_owned()], owners });

    let refused = target.apply(&api).await.unwrap_err();
    assert_eq!(
        refused,
        ApiError::Conflict { id: id.clone(), fields: vec![("data.key".to_owned(), "kubectl-create".to_owned())] }
    );
    assert_eq!(refused.to_string(), "ConfigMap default/contested: data.key belongs to kubectl-create");
    assert_eq!(
        server.kubectl(&["-n", "default", "get", "configmap", "contested", "-o", "jsonpath={.data.key}"]),
        "theirs"
    );
}

#[tokio::test]
async fn an_unknown_field_is_refused_by_name() {
    let _turn = turn().await;
    let mut object = config_map("misspelt", "1");
    object["daata"] = json!({"a": "b"});
    let refused = Target::addon("misspelt", &[object]).apply(&Server::get().api()).await.unwrap_err();
    let ApiError::Refused { code, message, .. } = &refused else { panic!("{refused:?}") };
    assert_eq!(*code, 500);
    assert!(message.contains("daata"), "{message}");
}

#[tokio::test]
async fn an_immutable_field_shows_as_a_difference_and_the_servers_words_are_passed_on() {
    let _turn = turn().await;
    let server = Server::get();
    let service = |address: &str| {
        json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "fixed", "namespace": "default"},
            "spec": {"clusterIP": address, "ports": [{"port": 80, "protocol": "TCP"}]},
        })
    };
    let api = server.api();
    Target::addon("fixed", &[service("10.43.7.7")]).apply(&api).await.unwrap();
    let moved = Target::addon("fixed", &[service("10.43.7.8")]);
    let seen = api.observe(&moved.objects, &moved.blobs).await.unwrap();
    let ObjectState::Differs { fields, .. } = &seen.objects[&moved.objects[0].id] else { panic!("{seen:?}") };
    assert_eq!(fields, &["spec.clusterIP"]);
    let refused = moved.apply(&api).await.unwrap_err().to_string();
    assert!(refused.starts_with("applying Service default/fixed: the API server refuses (422 Invalid)"), "{refused}");
    assert!(refused.contains("may not change once set"), "{refused}");
}

#[tokio::test]
async fn a_policys_own_words_reach_the_reader() {
    let _turn = turn().await;
    let server = Server::get();
    server.kubectl(&["create", "namespace", "strict"]);
    server.kubectl(&["label", "namespace", "strict", "pod-security.kubernetes.io/enforce=restricted"]);
    let account =
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": "strict"}});
    let pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "loose", "namespace": "strict"},
        "spec": {"hostNetwork": true, "containers": [{"name": "a", "image": "b"}]},
    });
    let refused = Target::addon("loose", &[account, pod]).apply(&server.api()).await.unwrap_err().to_string();
    assert!(refused.contains("403 Forbidden") && refused.contains("violates PodSecurity"), "{refused}");
}

#[tokio::test]
async fn a_definition_and_its_first_object_come_in_one_addon() {
    let _turn = turn().await;
    let server = Server::get();
    let definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "cranes.example.com"},
        "spec": {
            "group": "example.com",
            "scope": "Namespaced",
            "names": {"plural": "cranes", "singular": "crane", "kind": "Crane"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {
                "type": "object",
                "properties": {"spec": {"type": "object", "properties": {"height": {"type": "integer"}}}},
            }}}],
        },
    });
    let crane = json!({
        "apiVersion": "example.com/v1",
        "kind": "Crane",
        "metadata": {"name": "tall", "namespace": "default"},
        "spec": {"height": 80},
    });
    let target = Target::addon("cranes", &[definition, crane]);
    let api = server.api();
    let seen = api.observe(&target.objects, &target.blobs).await.unwrap();
    assert!(seen.objects.is_empty());
    target.apply(&api).await.unwrap();
    let seen = api.observe(&target.objects, &target.blobs).await.unwrap();
    assert!(target.objects.iter().all(|object| seen.objects[&object.id] == ObjectState::Equal), "{seen:#?}");
    assert!(target.objects.iter().all(|object| seen.owned.contains(&object.id)));

    let delete = |with_data| ObjectAction::Delete { id: target.objects[0].id.clone(), with_data };
    let refused = api.apply(&delete(false), &target.blobs).await.unwrap_err();
    assert_eq!(refused, ApiError::Protected { id: target.objects[0].id.clone() });
    api.apply(&delete(true), &target.blobs).await.unwrap();
    let unknown = target.apply(&server.api()).await;
    assert!(unknown.is_ok(), "{unknown:?}");
}

#[tokio::test]
async fn a_kind_that_nobody_knows_is_an_error_that_names_it() {
    let _turn = turn().await;
    let stranger = json!({"apiVersion": "example.com/v9", "kind": "Unheard", "metadata": {"name": "x"}});
    let refused =
        Target::addon("stranger", std::slice::from_ref(&stranger)).apply(&Server::get().api()).await.unwrap_err();
    assert_eq!(refused, ApiError::UnknownKind { id: id_of(&stranger) });
}

#[tokio::test]
async fn an_object_of_nearly_a_megabyte_is_applied_and_compared() {
    let _turn = turn().await;
    let server = Server::get();
    let target = Target::addon("large", &[config_map("large", &"x".repeat(1_000_000))]);
    let api = server.api();
    target.apply(&api).await.unwrap();
    let seen = api.observe(&target.objects, &target.blobs).await.unwrap();
    assert_eq!(seen.objects[&target.objects[0].id], ObjectState::Equal);
    let larger = Target::addon("large", &[config_map("larger", &"x".repeat(1_100_000))]);
    let refused = larger.apply(&api).await.unwrap_err().to_string();
    assert!(refused.contains("may not be more than 1048576 bytes"), "{refused}");
}

#[tokio::test]
async fn an_object_that_lost_the_label_is_not_deleted() {
    let _turn = turn().await;
    let server = Server::get();
    server.kubectl(&["-n", "default", "create", "configmap", "theirs"]);
    let id = id_of(&config_map("theirs", ""));
    let refused =
        server.api().apply(&ObjectAction::Delete { id: id.clone(), with_data: false }, &Target::default().blobs).await;
    assert_eq!(refused.unwrap_err(), ApiError::NotOurs { id });
    server.kubectl(&["-n", "default", "delete", "configmap", "theirs"]);
}

#[tokio::test]
async fn a_node_is_deleted_only_as_one_whose_host_is_gone() {
    let _turn = turn().await;
    let server = Server::get();
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "gone"}});
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), node.to_string()).unwrap();
    server.kubectl(&["create", "-f", &file.path().display().to_string()]);
    let (api, blobs) = (server.api(), Target::default().blobs);
    let id = id_of(&node);
    let refused = api.apply(&ObjectAction::Delete { id: id.clone(), with_data: false }, &blobs).await;
    assert_eq!(refused.unwrap_err(), ApiError::NotOurs { id });
    let forget = ObjectAction::Forget { node: HostName::new("gone").unwrap() };
    api.apply(&forget, &blobs).await.unwrap();
    assert_eq!(server.kubectl(&["get", "nodes", "-o", "name"]), "");
    api.apply(&forget, &blobs).await.unwrap();
}

#[tokio::test]
async fn a_secrets_value_never_reaches_an_error() {
    let _turn = turn().await;
    let secret = json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "loud", "namespace": "default"},
        "data": {"key": {"hunter2": 12_345}},
    });
    let refused = Target::addon("loud", &[secret]).apply(&Server::get().api()).await.unwrap_err();
    let words = format!("{refused} {refused:?}");
    assert!(!words.contains("12345") && !words.contains("hunter2"), "{words}");
}

#[tokio::test]
async fn a_definition_whose_names_are_taken_fails_at_once() {
    let _turn = turn().await;
    let definition = |plural: &str| {
        json!({
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": {"name": format!("{plural}.taken.example.com")},
            "spec": {
                "group": "taken.example.com",
                "scope": "Cluster",
                "names": {"plural": plural, "kind": "Taken"},
                "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object"}}}],
            },
        })
    };
    let started = std::time::Instant::now();
    let target = Target::addon("taken", &[definition("firsts"), definition("seconds")]);
    let refused = target.apply(&Server::get().api()).await.unwrap_err();
    let ApiError::Waited { what, last, .. } = &refused else { panic!("{refused:?}") };
    assert_eq!(what, "CustomResourceDefinition seconds.taken.example.com was not established");
    assert!(last.contains("already in use"), "{last}");
    assert!(started.elapsed() < std::time::Duration::from_secs(40), "{:?}", started.elapsed());
}
