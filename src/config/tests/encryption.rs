//! Encryption at rest: what API servers are given, and what they would refuse.

use std::time::Duration;

use super::read;
use super::said;
use super::with;
use crate::config::AtRestProvider;

#[test]
fn an_encryption_configuration_that_api_servers_would_refuse() {
    insta::assert_snapshot!(said(&with(
        "
services:
  kube-api:
    secrets_encryption_config:
      enabled: true
      custom_config:
        apiVersion: v1
        kind: EncryptionConfiguration
        recources: []
        resources:
          - resources: [Secrets, '*.*', pods, deployments.extensions]
            providers:
              - aescbc: {keys: [{name: 'a:b', secret: c2hvcnQ=}, {name: c}]}
                secretbox: {}
              - secretbox: {keys: [{name: s, secret: AAAAAAAAAAAAAAAAAAAAAA==}]}
              - rot13: {}
              - kms: {apiVersion: v1, name: a, endpoint: 'tcp://a', cachesize: 3}
              - kms: {apiVersion: v2, name: a, endpoint: 'unix:///run/other/a.sock', timeout: 5m}
          - resources: [configmaps]
            providers: [{aescbc: {keys: [{name: k, secret: AAAAAAAAAAAAAAAAAAAAAA==}]}}, {aescbc: {keys: [{name: k, secret: BAAAAAAAAAAAAAAAAAAAAA==}]}}]
          - resources: []
            providers: [{aescbc: {}}]
bastide:
  encryption: {provider: kms, kms: {name: 'a b', image: i, socket: a/b, flags: []}}
",
    )), @r#"
    11:21 error: services.kube-api.secrets_encryption_config.custom_config.apiVersion: "v1" is not read by any supported Kubernetes: write apiserver.config.k8s.io/v1
    13:9 error: services.kube-api.secrets_encryption_config.custom_config.recources: unknown key
        did you mean `resources`?
    15:25 error: services.kube-api.secrets_encryption_config.custom_config.resources[0].resources[0]: "Secrets" is not a resource such as secrets, deployments.apps, *.apps or *.*, in lower case
    15:41 error: services.kube-api.secrets_encryption_config.custom_config.resources[0].resources[2]: pods overlaps with another resource of this part
        write a part of its own for each, the narrower one first
    15:47 error: services.kube-api.secrets_encryption_config.custom_config.resources[0].resources[3]: "deployments.extensions": API servers keep nothing of the group extensions: name the group where it is at home
    17:17 error: services.kube-api.secrets_encryption_config.custom_config.resources[0].providers[0]: a provider is a map with one key, its name
        one entry of the list for each of secretbox, aescbc, aesgcm, kms, identity
    19:54 error: services.kube-api.secrets_encryption_config.custom_config.resources[0].providers[1].secretbox.keys[0].secret: not base64 of 32 bytes, which secretbox takes
    20:17 error: services.kube-api.secrets_encryption_config.custom_config.resources[0].providers[2].rot13: "rot13" is no provider
        secretbox, aescbc, aesgcm, kms or identity
    21:35 error: services.kube-api.secrets_encryption_config.custom_config.resources[0].providers[3].kms.apiVersion: "v1": Kubernetes has switched everything but v2 off
    21:58 error: services.kube-api.secrets_encryption_config.custom_config.resources[0].providers[3].kms.endpoint: "tcp://a" is not unix:// and the path of a socket
    21:69 error: services.kube-api.secrets_encryption_config.custom_config.resources[0].providers[3].kms.cachesize: kms v2 has no cachesize
        remove it
    22:17 error: services.kube-api.secrets_encryption_config.custom_config.resources[0].providers[4].kms: the plugin "a" is named twice, which API servers refuse
        name all its resources in one part, or run a second plugin of another name
    22:58 error: services.kube-api.secrets_encryption_config.custom_config.resources[0].providers[4].kms.endpoint: API servers do not see /run/other/a.sock: declare the plugin under bastide.encryption.kms, which listens in /run/kmsplugin/, or bind its folder with services.kube-api.extra_binds
    22:95 error: services.kube-api.secrets_encryption_config.custom_config.resources[0].providers[4].kms.timeout: a plugin is given between a moment and a minute
    24:108 error: services.kube-api.secrets_encryption_config.custom_config.resources[1].providers[1].aescbc.keys[0]: aescbc has another key of the name "k"
        rename one
    25:13 error: services.kube-api.secrets_encryption_config.custom_config.resources[2]: the part names no resources
        add `resources: [secrets]`
    26:26 error: services.kube-api.secrets_encryption_config.custom_config.resources[2].providers[0].aescbc: the provider has no keys
        add `keys:` with name and secret of each
    28:31 error: bastide.encryption.kms: command is missing
        add `command:`, the program with its arguments
    28:43 error: bastide.encryption.kms.name: a name is at most 63 letters, digits, `-`, `_`, `.`
    28:68 error: bastide.encryption.kms.socket: a name is at most 63 letters, digits, `-`, `_`, `.`
    28:73 error: bastide.encryption.kms.flags: unknown key
        known here: command, extra_binds, extra_env, image, name, socket, timeout
    "#);
}

#[test]
fn a_configuration_is_handed_on_as_it_was_meant() {
    let key = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    let text = format!(
        "
services:
  kube-api:
    extra_binds: ['/run/vault:/run/vault']
    secrets_encryption_config:
      enabled: true
      custom_config:
        apiVersion: apiserver.config.k8s.io/v1
        kind: EncryptionConfiguration
        resources:
          - resources: [secrets, 'deployments.apps']
            providers:
              - aescbc: {{keys: [{{name: 1, secret: {key}}}]}}
              - kms: {{apiVersion: v2, name: vault, endpoint: unix:///run/vault/a.sock, timeout: 2s}}
              - identity:
"
    );
    let cluster = read(&with(&text)).unwrap().cluster;
    let content = cluster.services.api.custom_encryption.unwrap();
    let given: serde_json::Value = serde_json::from_slice(content.expose()).unwrap();
    let expected = serde_json::json!({
        "apiVersion": "apiserver.config.k8s.io/v1",
        "kind": "EncryptionConfiguration",
        "resources": [{"resources": ["secrets", "deployments.apps"], "providers": [
            // RKE reads a number as the text that a name is.
            {"aescbc": {"keys": [{"name": "1", "secret": key}]}},
            {"kms": {"apiVersion": "v2", "name": "vault", "endpoint": "unix:///run/vault/a.sock", "timeout": "2000ms"}},
            {"identity": {}},
        ]}],
    });
    assert_eq!(given, expected);
}

#[test]
fn a_plugin_is_declared_once_and_has_defaults() {
    let text = "
bastide:
  encryption:
    provider: kms
    kms: {name: vault, image: kms, command: [/kms, --listen=/run/kmsplugin/socket.sock], extra_binds: ['/etc/vault:/etc/vault:ro']}
";
    let options = read(&with(text)).unwrap().cluster.options;
    assert_eq!(options.at_rest.provider, Some(AtRestProvider::Kms));
    let plugin = options.at_rest.kms.unwrap();
    assert_eq!(
        (plugin.endpoint().as_str(), plugin.timeout),
        ("unix:///run/kmsplugin/socket.sock", Duration::from_secs(3))
    );
    assert_eq!(plugin.common.extra_binds, ["/etc/vault:/etc/vault:ro"]);
    assert_eq!(said(&with("\nbastide: {encryption: {provider: aescbc}}\n")), "");
}
