//! The sealed document, kubeconfigs and one-off certificates.

use super::support::DAY;
use super::support::NOW;
use super::support::born;
use super::support::cluster;
use crate::config::KeyAlgorithm;
use crate::model::Content;
use crate::model::HostName;
use crate::secrets::AuthorityName;
use crate::secrets::Credential;
use crate::secrets::Kubeconfig;
use crate::secrets::Operator;
use crate::secrets::SecretsError;
use crate::secrets::SeededEntropy;
use crate::secrets::Server;
use crate::secrets::Trust;
use crate::secrets::inspect::Seen;
use crate::secrets::kubeconfig;
use crate::secrets::operator_leaf;
use crate::secrets::seal_form;
use crate::secrets::servers;
use crate::secrets::unseal_form;

#[test]
fn the_document_gives_back_what_was_put_in() {
    let mut secrets = born(&cluster());
    secrets.authorities.get_mut(&AuthorityName::Etcd).unwrap().also_accepted.push("former".to_owned());
    secrets.etcd.away.insert(HostName::new("h3").unwrap());
    let document = seal_form(&secrets);
    assert_eq!(unseal_form(&document).unwrap(), secrets);
    assert_eq!(seal_form(&unseal_form(&document).unwrap()), document);
}

#[test]
fn a_damaged_or_newer_document_is_an_error_that_shows_no_key() {
    let document = seal_form(&born(&cluster()));
    let text = document.expose_text().unwrap().to_owned();
    let newer = Content::new(text.replacen("\"version\":1", "\"version\":2", 1));
    assert_eq!(unseal_form(&newer), Err(SecretsError::TooNew(2)));
    for damaged in [
        &text[..text.len() - 1],
        &text[1..],
        "",
        &text.replacen("\"front-proxy\"", "\"frontproxy\"", 1),
        &text.replacen("\"scheduler\"", "\"schedule\"", 1),
        &text.replacen("\"token\"", "\"tokem\"", 1),
    ] {
        let error = unseal_form(&Content::new(damaged)).unwrap_err();
        assert!(matches!(error, SecretsError::Unreadable(_)), "{error}");
        assert!(!error.to_string().contains("BEGIN"));
    }
}

#[test]
fn debug_output_holds_no_private_key() {
    let secrets = born(&cluster());
    assert!(!format!("{secrets:?}").contains("PRIVATE"));
}

#[test]
fn a_kubeconfig_names_every_server_and_embeds_the_pair() {
    let secrets = born(&cluster());
    let person = Operator::Person { name: "anna@example.com", days: 7 };
    let leaf = operator_leaf(&secrets, person, KeyAlgorithm::P256, NOW, &mut SeededEntropy::new(9)).unwrap();
    let authority = secrets.authorities[&AuthorityName::Kubernetes].trust_bundle();
    let servers = [
        Server { name: "demo".to_owned(), url: "https://192.0.2.11:6443".to_owned() },
        Server { name: "a: \"b\"\n".to_owned(), url: "https://[fd00::12]:6443".to_owned() },
    ];
    let file = kubeconfig(&Kubeconfig {
        servers: &servers,
        authority: Trust::Embedded(&authority),
        user: "anna",
        credential: Credential::Embedded(&leaf),
    });
    let read: serde_json::Value = serde_saphyr::from_str(file.expose_text().unwrap()).unwrap();
    assert_eq!(read["current-context"], "demo");
    assert_eq!(read["clusters"][1]["name"], servers[1].name.as_str());
    assert_eq!(read["clusters"][1]["cluster"]["server"], servers[1].url.as_str());
    assert_eq!(read["contexts"][1]["context"]["cluster"], servers[1].name.as_str());
    assert_eq!(read["contexts"][1]["context"]["user"], "anna");
    let decoded = |value: &serde_json::Value| {
        use base64::Engine as _;
        base64::engine::general_purpose::STANDARD.decode(value.as_str().unwrap()).unwrap()
    };
    assert_eq!(decoded(&read["clusters"][0]["cluster"]["certificate-authority-data"]), authority.as_bytes());
    assert_eq!(decoded(&read["users"][0]["user"]["client-certificate-data"]), leaf.certificate.as_bytes());
    assert_eq!(decoded(&read["users"][0]["user"]["client-key-data"]), leaf.key.expose());
}

#[test]
fn a_component_reads_its_pair_and_whom_it_believes_from_files() {
    let file = kubeconfig(&Kubeconfig {
        servers: &[Server { name: "local".to_owned(), url: "https://127.0.0.1:6443".to_owned() }],
        authority: Trust::File("/pki/ca.crt"),
        user: "kubelet",
        credential: Credential::Files { certificate: "/pki/current.pem", key: "/pki/current.pem" },
    });
    insta::assert_snapshot!(file.expose_text().unwrap(), @r#"
    apiVersion: v1
    kind: Config
    current-context: "local"
    clusters:
    - name: "local"
      cluster:
        server: "https://127.0.0.1:6443"
        certificate-authority: "/pki/ca.crt"
    contexts:
    - name: "local"
      context:
        cluster: "local"
        user: "kubelet"
    users:
    - name: "kubelet"
      user:
        client-certificate: "/pki/current.pem"
        client-key: "/pki/current.pem"
    "#);
}

#[test]
fn people_reach_the_endpoint_or_else_each_control_plane() {
    let mut cluster = cluster();
    let named = |name: &str, url: &str| Server { name: name.to_owned(), url: url.to_owned() };
    assert_eq!(servers(&cluster), [named("demo", "https://k8s.example.com:6443")]);
    cluster.options.endpoint = None;
    let mut second = cluster.nodes[0].clone();
    second.name = "cp2".parse().unwrap();
    second.address = "2001:db8::2".to_owned();
    cluster.nodes.push(second);
    assert_eq!(
        servers(&cluster),
        [named("demo", "https://192.0.2.11:6443"), named("demo-cp2", "https://[2001:db8::2]:6443")]
    );
}

#[test]
fn a_person_gets_the_admins_group_for_days_and_bastide_the_masters_for_an_hour() {
    let secrets = born(&cluster());
    let leaf = |whom| operator_leaf(&secrets, whom, KeyAlgorithm::P256, NOW, &mut SeededEntropy::new(9)).unwrap();
    let seen = |whom| {
        let seen = Seen::read(&leaf(whom).certificate).unwrap();
        (seen.common_name, seen.organizations.concat(), seen.client, seen.server, seen.not_after - NOW)
    };
    assert_eq!(
        seen(Operator::Person { name: "anna", days: 30 }),
        ("anna".to_owned(), "bastide:admins".to_owned(), true, false, 30 * DAY)
    );
    assert_eq!(seen(Operator::SuperAdmin), ("bastide:up".to_owned(), "system:masters".to_owned(), true, false, 3600));
}

#[test]
fn names_of_components_and_long_lives_are_refused_to_people() {
    let secrets = born(&cluster());
    let refusal = |name: &str, days| {
        let whom = Operator::Person { name, days };
        operator_leaf(&secrets, whom, KeyAlgorithm::P256, NOW, &mut SeededEntropy::new(9)).unwrap_err()
    };
    for name in ["", "system:kube-scheduler", "bastide:up", "a b", "a\nb", &"x".repeat(65)] {
        assert!(matches!(refusal(name, 1), SecretsError::OperatorName { .. }), "{name:?}");
    }
    for days in [0, 31] {
        assert_eq!(refusal("anna", days), SecretsError::OperatorLifetime { asked_days: days, most_days: 30 });
    }
}
