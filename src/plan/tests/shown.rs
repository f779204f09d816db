//! What people and programs see.

use crate::model::Allowance;
use crate::model::Component;
use crate::model::ObjectState;
use crate::plan::Context;
use crate::plan::Detail;
use crate::plan::json;
use crate::plan::plan;
use crate::plan::testing::Builder;
use crate::plan::testing::after;
use crate::plan::testing::fresh;
use crate::plan::testing::name;
use crate::plan::testing::object;
use crate::plan::text;

#[test]
fn a_new_cluster_is_shown_folded() {
    let mut sample = Builder::five().build();
    sample.desired.allowances =
        vec![Allowance { setting: "kube-api.anonymous-auth".to_owned(), reason: "old prober".to_owned() }];
    let mut observed = sample.bare();
    observed.hosts.get_mut(&name("w1")).unwrap().swap = true;
    observed.hosts.get_mut(&name("w1")).unwrap().lacks.default_route = true;
    observed.hosts.get_mut(&name("w2")).unwrap().lacks.name_server = true;
    let plan = plan(&sample.desired, &observed, &fresh()).unwrap();
    insta::assert_snapshot!(text(&plan, Detail::Folded), @r"
    relaxed: kube-api.anonymous-auth (old prober)
    note: w1: swap is on
    note: w1: there is no default route: connections to service addresses end before kube-proxy sees them, and a pod network does not come up; a default route that leads nowhere is enough
    note: w2: there is no name server: pods there resolve the cluster's own names alone, and others once dns.upstreamnameservers names a server

    1. all hosts at once (side by side)
       h1, h2, h3: 1 user, 3 folders, 15 files, 1 image, 8 starts
       w1, w2: 3 folders, 10 files, 1 image, 5 starts
    2. cluster objects and nodes
       + DaemonSet kube-system/flannel
       + Deployment kube-system/coredns
       + ConfigMap kube-system/extra of addon addons
       ~ Node h1, h2, h3, w1, w2 (1 label, 0 taints)
    5 hosts: 3 users, 15 folders, 65 files, 5 images, 34 starts; 8 objects to apply.
    ");
}

#[test]
fn a_change_is_shown_line_by_line_with_what_it_interrupts() {
    let old = Builder::five().file("h1", "/etc/old").build();
    let new = Builder::five()
        .change_everywhere(Component::Etcd)
        .change("w1", Component::Kubelet)
        .change("w2", Component::Kubelet)
        .build();
    let mut observed = old.reached();
    let objects = observed.objects.as_mut().unwrap();
    objects.objects.insert(
        object("apps/v1", "Deployment", "coredns"),
        ObjectState::Differs {
            fields: vec!["spec.replicas".to_owned()],
            owners: vec![("kubectl".to_owned(), "spec.replicas".to_owned())],
        },
    );
    objects.owned.insert(object("v1", "ConfigMap", "left-over"));
    let plan = plan(&new.desired, &observed, &after(&old.desired)).unwrap();
    insta::assert_snapshot!(text(&plan, Detail::Folded), @r"
    1. etcd, one member at a time (one after the other)
       h1, h2, h3:
           let another etcd member lead, where this one does
         ~ file /etc/etcd/pki/server.key (changed)
         ~ file /etc/kubernetes/manifests/etcd.yaml (changed)
         ! restart pod etcd
    2. containerd and kubelet of workers (one after the other)
       w1, w2:
         ~ file /etc/systemd/system/kubelet.service (changed)
         ~ file /opt/bastide/bin/kubelet (changed)
         ~ file /var/lib/kubelet/config.yaml (changed)
         ~ file /var/lib/kubelet/pki/kubelet-client-current.pem (changed)
           reload systemd
         ! restart kubelet.service
    3. cluster objects
       ~ Deployment kube-system/coredns (spec.replicas), takes over spec.replicas (kubectl)
       - ConfigMap kube-system/left-over
    4. what is no longer wanted
       h1:
         - file /etc/old
    5 hosts: 14 files, 1 removal, 5 interruptions; 1 object to apply; 1 object to delete.
    ");
}

#[test]
fn data_go_only_by_name_and_are_named_as_what_nothing_brings_back() {
    let sample = Builder::five().build();
    let mut observed = sample.reached();
    let mut left = object("v1", "Namespace", "shop");
    left.namespace = None;
    let claim = object("v1", "PersistentVolumeClaim", "orders");
    let objects = observed.objects.as_mut().unwrap();
    objects.owned.extend([left, claim, object("v1", "ConfigMap", "left-over")]);
    let shown = |prune: &[&str]| {
        let prune_data = prune.iter().map(|name| (*name).to_owned()).collect();
        let plan = plan(&sample.desired, &observed, &Context { prune_data, ..after(&sample.desired) }).unwrap();
        (text(&plan, Detail::Folded), plan.barriers.len())
    };
    insta::assert_snapshot!(shown(&["Namespace/shop"]).0, @r"
    CANNOT BE UNDONE: Namespace shop and everything in it is deleted (data-pruned)
    note: PersistentVolumeClaim kube-system/orders is no longer wanted and stays, because others may keep data in it; `--prune-data PersistentVolumeClaim/kube-system/orders` deletes it with them

    1. cluster objects
       - ConfigMap kube-system/left-over
       - Namespace shop, with everything that is in it
    2 objects to delete.
    ");
    let (text, barriers) = shown(&[]);
    assert!(text.contains("`--prune-data PersistentVolumeClaim/kube-system/orders`") && barriers == 0, "{text}");
}

#[test]
fn nothing_to_do_says_so() {
    let sample = Builder::five().build();
    let plan = plan(&sample.desired, &sample.reached(), &after(&sample.desired)).unwrap();
    assert_eq!(text(&plan, Detail::Folded), "Nothing to do: every host and object that answers is as it should be.\n");
    assert_eq!(json(&plan)["empty"], true);
}

#[test]
fn no_digest_of_a_secret_is_shown() {
    let (old, new) = (Builder::five().build(), Builder::five().change_everywhere(Component::Etcd).build());
    let plan = plan(&new.desired, &old.reached(), &after(&old.desired)).unwrap();
    let shown = json(&plan).to_string() + &text(&plan, Detail::Everything);
    for sample in [&old, &new] {
        for (path, file) in &sample.desired.hosts[&name("h1")].files {
            assert!(!file.secret || !shown.contains(&file.digest.to_string()), "{path}");
        }
    }
    assert!(shown.contains("/etc/etcd/pki/server.key"));
    assert_eq!(json(&plan)["schema"], 1);
}
