//! What the objects say, and what addons may look like.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use serde_json::Value;

use super::AddonText;
use super::ObjectsError;
use super::OwnedObject;
use super::addons;
use super::all;
use super::flannel_conflist;
use super::system;
use crate::config::Cluster;
use crate::config::ParseOptions;
use crate::config::parse;
use crate::model::ArtifactFile;
use crate::model::Content;
use crate::model::Digest;
use crate::model::ImageArtifact;
use crate::model::KubeVersion;
use crate::model::ObjectSet;
use crate::model::Release;
use crate::secrets::Secrets;
use crate::secrets::SeededEntropy;
use crate::secrets::complete;

const VERSION: KubeVersion = KubeVersion { minor: 37, patch: 1 };

fn cluster(more: &str) -> Cluster {
    let text = format!(
        "kubernetes_version: v1.37.1\nnetwork: {{plugin: flannel}}\ningress: {{provider: none}}\nnodes:\n\
         - {{address: 192.0.2.11, user: root, role: [controlplane, etcd, worker]}}\n\
         - {{address: 192.0.2.12, user: root, role: [worker]}}\n{more}"
    );
    let options = ParseOptions {
        file_name: "cluster.yml".to_owned(),
        kubernetes_version: None,
        supported: vec![VERSION],
        home: None,
    };
    parse(&text, &options).unwrap_or_else(|errors| panic!("{errors:?}")).cluster
}

fn secrets(cluster: &Cluster) -> Secrets {
    complete(cluster, None, 1_767_225_600, &mut SeededEntropy::new(1)).unwrap().0
}

fn release() -> Release {
    let artifact = |name: &str| {
        let file = ArtifactFile { sha256: Digest::of(b""), size: 0, path: String::new() };
        let image = ImageArtifact {
            reference: format!("registry.k8s.io/{name}:v1").parse().unwrap(),
            version: "1".to_owned(),
            manifest: Digest::of(b""),
            archive: file,
        };
        (name.to_owned(), image)
    };
    Release {
        kubernetes: VERSION,
        architecture: "x86_64".to_owned(),
        packages: BTreeMap::new(),
        images: ["flannel", "coredns", "metrics-server"].map(artifact).into(),
    }
}

fn objects(cluster: &Cluster) -> Vec<OwnedObject> {
    system(cluster, &secrets(cluster), &release()).unwrap()
}

fn find<'a>(objects: &'a [OwnedObject], kind: &str, name: &str) -> &'a Value {
    let found = objects.iter().find(|(id, ..)| id.kind == kind && id.name == name);
    &found.unwrap_or_else(|| panic!("no {kind} {name}")).1
}

fn names(objects: &[OwnedObject]) -> Vec<String> {
    objects.iter().map(|(id, ..)| id.to_string()).collect()
}

#[test]
fn the_objects_of_a_cluster_in_the_order_of_their_application() {
    insta::assert_snapshot!(names(&objects(&cluster(""))).join("\n"), @r#"
    Namespace kube-flannel
    ServiceAccount default/default
    ServiceAccount kube-system/default
    ServiceAccount kube-public/default
    ServiceAccount kube-node-lease/default
    ServiceAccount kube-flannel/default
    ClusterRoleBinding cluster-admin
    ClusterRoleBinding bastide:apiserver-kubelet-client
    ClusterRoleBinding bastide:kubelet-client-renewal
    ClusterRole bastide:healthcheck
    ClusterRoleBinding bastide:healthcheck
    ServiceAccount kube-flannel/flannel
    ClusterRole bastide:flannel
    ClusterRoleBinding bastide:flannel
    ConfigMap kube-flannel/kube-flannel-cfg
    DaemonSet kube-flannel/kube-flannel-ds
    ServiceAccount kube-system/coredns
    ClusterRole bastide:coredns
    ClusterRoleBinding bastide:coredns
    ConfigMap kube-system/coredns
    Service kube-system/kube-dns
    PodDisruptionBudget kube-system/coredns
    Deployment kube-system/coredns
    ServiceAccount kube-system/metrics-server
    ClusterRole bastide:metrics-server
    ClusterRole bastide:metrics-reader
    ClusterRoleBinding bastide:metrics-server
    ClusterRoleBinding bastide:metrics-server-delegator
    RoleBinding kube-system/bastide:metrics-server-auth-reader
    Secret kube-system/metrics-server-tls
    Service kube-system/metrics-server
    PodDisruptionBudget kube-system/metrics-server
    Deployment kube-system/metrics-server
    APIService v1beta1.metrics.k8s.io
    "#);
}

#[test]
fn what_is_switched_off_leaves_no_object() {
    let text = "dns: {provider: none}\nmonitoring: {provider: none}\n";
    let mut quiet = cluster(text);
    quiet.network.plugin = crate::config::NetworkPlugin::None;
    let names = names(&objects(&quiet));
    for absent in ["flannel", "coredns", "kube-dns", "metrics"] {
        assert!(!names.iter().any(|name| name.contains(absent)), "{absent} in {names:#?}");
    }
}

#[test]
fn every_container_is_confined_and_bounded() {
    let all = objects(&cluster(""));
    let pods = all.iter().filter_map(|(id, object, _)| {
        let pod = &object["spec"]["template"]["spec"];
        pod.is_object().then_some((id, pod))
    });
    let mut seen = BTreeSet::new();
    for (id, pod) in pods {
        seen.insert(id.name.as_str());
        assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault", "{id}");
        assert_eq!(pod["automountServiceAccountToken"], false, "{id}");
        for container in pod["containers"].as_array().unwrap() {
            let confined = &container["securityContext"];
            assert_eq!(confined["allowPrivilegeEscalation"], false, "{id}");
            assert_eq!(confined["readOnlyRootFilesystem"], true, "{id}");
            assert_eq!(confined["capabilities"]["drop"], serde_json::json!(["ALL"]), "{id}");
            assert!(container["resources"]["requests"]["cpu"].is_string(), "{id}");
            assert!(container["resources"]["limits"]["memory"].is_string(), "{id}");
            assert_eq!(container["imagePullPolicy"], "IfNotPresent", "{id}");
        }
    }
    assert_eq!(seen, BTreeSet::from(["coredns", "kube-flannel-ds", "metrics-server"]));
}

#[test]
fn nobody_but_the_built_in_binding_grants_cluster_admin() {
    for (id, object, _) in objects(&cluster("")) {
        if object["roleRef"]["name"] == "cluster-admin" {
            assert_eq!(id.name, "cluster-admin");
            let subjects: Vec<_> =
                object["subjects"].as_array().unwrap().iter().map(|one| one["name"].clone()).collect();
            assert_eq!(subjects, ["system:masters", "bastide:admins"]);
        }
    }
}

#[test]
fn dns_says_what_the_file_says() {
    let text = "dns:\n  provider: coredns\n  upstreamnameservers: [192.0.2.53, 192.0.2.54]\n  \
                reversecidrs: [172.16.0.0/16]\n  stubdomains: {corp.example: [192.0.2.55]}\n  \
                node_selector: {disk: ssd}\n";
    let all = objects(&cluster(text));
    insta::assert_snapshot!(find(&all, "ConfigMap", "coredns")["data"]["Corefile"].as_str().unwrap(), @r#"
    .:53 {
        errors
        health {
            lameduck 5s
        }
        ready
        kubernetes cluster.local 172.16.0.0/16 {
            pods insecure
            fallthrough in-addr.arpa ip6.arpa
            ttl 30
        }
        prometheus :9153
        forward . 192.0.2.53 192.0.2.54 {
            max_concurrent 1000
        }
        cache 30
        loop
        reload
        loadbalance
    }
    corp.example:53 {
        errors
        cache 30
        loop
        forward . 192.0.2.55
    }
    "#);
    assert_eq!(find(&all, "Service", "kube-dns")["spec"]["clusterIP"], "10.43.0.10");
    let pods = &find(&all, "Deployment", "coredns")["spec"];
    assert_eq!(pods["replicas"], 2);
    assert_eq!(pods["template"]["spec"]["nodeSelector"]["disk"], "ssd");
}

#[test]
fn a_dns_value_that_would_become_structure_is_refused() {
    let mut cluster = cluster("");
    cluster.dns.upstream = vec!["192.0.2.53 }\n.:53 {".to_owned()];
    let refused = system(&cluster, &secrets(&cluster), &release()).unwrap_err();
    assert_eq!(
        refused,
        ObjectsError::Unquotable { at: "dns.upstreamnameservers", value: "192.0.2.53 }\n.:53 {".to_owned() }
    );
}

#[test]
fn one_host_gets_one_dns_replica() {
    let mut single = cluster("");
    single.nodes.truncate(1);
    assert_eq!(find(&objects(&single), "Deployment", "coredns")["spec"]["replicas"], 1);
}

#[test]
fn flannel_takes_its_backend_from_the_file() {
    let mut host_gw = cluster("");
    host_gw.network.plugin = crate::config::NetworkPlugin::Flannel {
        interface: Some("eth1".to_owned()),
        backend: "host-gw".to_owned(),
        vni: 1,
        port: 8472,
    };
    let all = objects(&host_gw);
    let network = find(&all, "ConfigMap", "kube-flannel-cfg")["data"]["net-conf.json"].as_str().unwrap();
    let network: Value = serde_json::from_str(network).unwrap();
    assert_eq!(network, serde_json::json!({"Network": "10.42.0.0/16", "Backend": {"Type": "host-gw"}}));
    let pod = &find(&all, "DaemonSet", "kube-flannel-ds")["spec"]["template"]["spec"];
    assert_eq!(pod["containers"][0]["args"][2], "--iface=eth1");
    let list: Value = serde_json::from_str(&flannel_conflist(&host_gw)).unwrap();
    assert_eq!(list["plugins"][0]["type"], "flannel");
}

#[test]
fn an_image_that_the_release_lacks_is_named() {
    let cluster = cluster("");
    let mut release = release();
    release.images.remove("coredns");
    assert_eq!(system(&cluster, &secrets(&cluster), &release).unwrap_err(), ObjectsError::MissingImage("coredns"));
}

fn addon(name: &str, text: &str) -> AddonText {
    AddonText { name: name.to_owned(), text: Content::new(text) }
}

#[test]
fn documents_and_lists_become_objects_with_definitions_first() {
    let text = "# a comment alone\n---\napiVersion: v1\nkind: List\nitems:\n\
                - {apiVersion: v1, kind: ConfigMap, metadata: {name: a, namespace: ns, uid: x, resourceVersion: '7'}}\n\
                ---\n---\napiVersion: v1\nkind: SecretList\nitems: [{metadata: {name: s}, data: {}}]\n---\n\
                {apiVersion: v1, kind: Namespace, metadata: {name: ns}, status: {phase: Active}}\n";
    let made = addons(&[addon("mine", text)]).unwrap();
    assert_eq!(names(&made), ["Namespace ns", "ConfigMap ns/a", "Secret s"]);
    assert!(made.iter().all(|(.., set)| *set == ObjectSet::Addon("mine".to_owned())));
    assert_eq!(made[1].1["metadata"], serde_json::json!({"name": "a", "namespace": "ns"}));
    assert_eq!(made[2].1["kind"], "Secret");
    assert!(made[0].1["status"].is_null());
}

#[test]
fn scalars_are_read_as_kubectl_reads_them() {
    let text = "apiVersion: v1\nkind: X\nmetadata: {name: a}\nspec: {defaultMode: 0644, flag: yes, text: 'yes'}\n";
    let made = addons(&[addon("a", text)]).unwrap();
    assert_eq!(made[0].1["spec"]["defaultMode"], 420);
    assert_eq!(made[0].1["spec"]["flag"], true);
    assert_eq!(made[0].1["spec"]["text"], "yes");
}

#[test]
fn every_problem_is_told_with_its_document_and_line_and_without_the_text() {
    let text = "apiVersion: v1\nkind: ConfigMap\nmetadata: {generateName: a-}\n---\nfoo: [hunter2\n---\n\
                apiVersion: v1\nkind: A\nmetadata: {name: x}\nmetadata: {name: y}\n---\n- 1\n---\n\
                {apiVersion: v1, kind: B, metadata: {name: b}}\n";
    let more = "{apiVersion: v1, kind: B, metadata: {name: b, namespace: default}}\n";
    let problems = addons(&[addon("one", text), addon("two", more)]).unwrap_err();
    let told: Vec<String> = problems.iter().map(ToString::to_string).collect();
    insta::assert_snapshot!(told.join("\n"), @r#"
    addon one, document 1, line 1: ConfigMap: metadata.generateName would make a new object with every run
    addon one, document 2, line 5: unclosed bracket '['
    addon one, document 3, line 10: duplicate mapping key `metadata` is not allowed here
    addon one, document 4, line 12: is not an object with apiVersion, kind and metadata
    addon two, document 1, line 1: B default/b stands in addon one already
    "#);
    assert!(!told.join("").contains("hunter2"));
}

#[test]
fn an_addon_may_not_bring_an_object_of_bastides_own() {
    let cluster = cluster("");
    let text = "{apiVersion: apps/v1, kind: Deployment, metadata: {name: coredns, namespace: kube-system}}";
    let refused = all(&cluster, &secrets(&cluster), &release(), &[addon("mine", text)]).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "addon mine: Deployment kube-system/coredns is an object of bastide's own; give yours another name"
    );
}
