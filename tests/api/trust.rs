//! Whom a cluster's parts trust, which pods hold what, and tokens in Secrets.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bastide::api::ApiError;
use bastide::api::Bundled;
use bastide::secrets::AuthorityName;
use serde_json::Value;
use serde_json::json;

use crate::server::Server;
use crate::turn;

fn create(server: &Server, name: &str, object: &Value) {
    let file = std::env::temp_dir().join(format!("bastide-{name}-{}.json", std::process::id()));
    std::fs::write(&file, object.to_string()).unwrap();
    server.kubectl(&["create", "-f", file.to_str().unwrap()]);
    std::fs::remove_file(&file).unwrap();
}

#[tokio::test]
async fn what_extension_servers_are_told_is_read_and_written_unless_it_changed() {
    let _turn = turn().await;
    let server = Server::get();
    let api = server.api();
    let seen = api.published_trust().await.unwrap().unwrap();
    let of = |name: AuthorityName| server.secrets.authorities[&name].certificate.trim().to_owned();
    assert!(seen.clients.contains(&of(AuthorityName::Kubernetes)), "{}", seen.clients);
    assert!(seen.front_proxies.contains(&of(AuthorityName::FrontProxy)), "{}", seen.front_proxies);
    let mut more = seen.clone();
    more.clients.push_str(&of(AuthorityName::Etcd));
    api.publish_trust(&more).await.unwrap();
    let refused = api.publish_trust(&more).await.unwrap_err();
    assert!(matches!(refused, ApiError::Refused { code: 409, .. }), "{refused}");
    let now = api.published_trust().await.unwrap().unwrap();
    assert!(now.clients.contains(&of(AuthorityName::Etcd)));
    api.publish_trust(&bastide::api::PublishedTrust { version: now.version, ..seen }).await.unwrap();
}

#[tokio::test]
async fn bundles_and_what_namespaces_give_are_found() {
    let _turn = turn().await;
    let server = Server::get();
    let api = server.api();
    server.kubectl(&["create", "namespace", "giving"]);
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "kube-root-ca.crt", "namespace": "giving"},
        "data": {"ca.crt": "PEM"}});
    create(server, "map", &map);
    let given = api.given_trust().await.unwrap();
    let ours = given.iter().find(|given| given.namespace == "giving").unwrap();
    assert_eq!((ours.bundle.as_str(), ours.changed.len()), ("PEM", "2026-01-01T00:00:00Z".len()));

    let authority = &server.secrets.authorities[&AuthorityName::Kubernetes].certificate;
    let hook = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": "trusting"}, "webhooks": [{"name": "a.example.com", "sideEffects": "None",
        "admissionReviewVersions": ["v1"], "failurePolicy": "Ignore", "rules": [],
        "clientConfig": {"url": "https://127.0.0.1:1/", "caBundle": STANDARD.encode(authority)}}]});
    create(server, "hook", &hook);
    let object = "ValidatingWebhookConfiguration trusting".to_owned();
    assert!(api.bundled_trust().await.unwrap().contains(&Bundled { object, bundle: authority.clone() }));
    server.kubectl(&["delete", "validatingwebhookconfiguration", "trusting"]);
}

#[tokio::test]
async fn a_token_in_a_secret_is_known_by_its_key_and_taken_out() {
    let _turn = turn().await;
    let server = Server::get();
    let api = server.api();
    let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"ES256","kid":"the-old-key"}"#);
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/service-account-token",
        "metadata": {"name": "held", "namespace": "default", "annotations": {"kubernetes.io/service-account.name": "default"}},
        "data": {"token": STANDARD.encode(format!("{header}.e30.x")), "other": "eA=="}});
    create(server, "token", &secret);
    let all = api.token_secrets().await.unwrap();
    let held = all.iter().find(|secret| secret.name == "held").unwrap();
    assert_eq!((held.namespace.as_str(), held.key_id.as_deref()), ("default", Some("the-old-key")));
    api.drop_token(held).await.unwrap();
    let all = api.token_secrets().await.unwrap();
    assert_eq!(all.iter().find(|secret| secret.name == "held").unwrap().key_id, None);
    assert_eq!(server.kubectl(&["get", "secret", "held", "-o", "jsonpath={.data.other}"]), "eA==");
    server.kubectl(&["delete", "secret", "held"]);
    api.drop_token(held).await.unwrap();
}

#[tokio::test]
async fn a_workload_is_restarted_once_however_often_it_is_asked() {
    let _turn = turn().await;
    let server = Server::get();
    let api = server.api();
    server.kubectl(&["create", "namespace", "calling"]);
    let token = json!([{"name": "token", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}}]);
    let template = json!({"metadata": {"labels": {"app": "web"}}, "spec": {"automountServiceAccountToken": false,
        "volumes": token, "containers": [{"name": "a", "image": "a", "resources": {}}]}});
    let deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": "calling"},
        "spec": {"selector": {"matchLabels": {"app": "web"}}, "template": template}});
    create(server, "deployment", &deployment);
    let workload = bastide::model::ObjectId {
        api_version: "apps/v1".to_owned(),
        kind: "Deployment".to_owned(),
        namespace: Some("calling".to_owned()),
        name: "web".to_owned(),
    };
    let generation =
        || server.kubectl(&["-n", "calling", "get", "deployment", "web", "-o", "jsonpath={.metadata.generation}"]);
    let before = generation();
    api.restart(&workload, "2026-01-01T00:00:00Z").await.unwrap();
    let after = generation();
    api.restart(&workload, "2026-01-01T00:00:00Z").await.unwrap();
    assert!(before != after && after == generation(), "{before} {after}");
    server.kubectl(&["delete", "namespace", "calling", "--wait=false"]);
}
