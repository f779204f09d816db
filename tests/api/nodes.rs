//! Labels and taints of nodes.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use bastide::model::Blobs;
use bastide::model::HostName;
use bastide::model::ObjectAction;
use bastide::model::Taint;

use crate::server::Server;
use crate::turn;

fn taint(key: &str, effect: &str) -> Taint {
    Taint { key: key.to_owned(), value: String::new(), effect: effect.to_owned() }
}

fn action(node: &HostName, labels: &[(&str, &str)], taints: &[Taint]) -> ObjectAction {
    let labels: BTreeMap<_, _> = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    ObjectAction::Node { node: node.clone(), labels, taints: taints.to_vec() }
}

#[tokio::test]
async fn labels_and_taints_of_bastides_come_and_go_and_others_stay() {
    let _turn = turn().await;
    let server = Server::get();
    let name = HostName::new("node-a").unwrap();
    let api = server.api();
    let blobs = Blobs::default();
    let first = action(&name, &[("zone", "a")], &[taint("ours", "NoSchedule")]);
    let waiting = api.apply(&first, &blobs);
    let registering = async {
        // The kubelet registers while the action is being waited for.
        tokio::time::sleep(std::time::Duration::from_millis(700)).await;
        let node = "{\"apiVersion\":\"v1\",\"kind\":\"Node\",\"metadata\":{\"name\":\"node-a\",\"labels\":{\"theirs\":\"1\"}},\
                    \"spec\":{\"taints\":[{\"key\":\"theirs\",\"effect\":\"NoSchedule\"}]}}";
        let file = std::env::temp_dir().join(format!("bastide-node-{}.json", std::process::id()));
        std::fs::write(&file, node).unwrap();
        server.kubectl(&["create", "-f", file.to_str().unwrap()]);
        std::fs::remove_file(&file).unwrap();
    };
    let (applied, ()) = tokio::join!(waiting, registering);
    applied.unwrap();

    let seen = api.node(&name).await.unwrap().unwrap();
    assert_eq!(seen.labels["zone"], "a");
    assert_eq!(seen.labels["theirs"], "1");
    assert_eq!(seen.owned_labels, BTreeSet::from(["zone".to_owned()]));
    // The lifecycle's own taint of an unready node may be among them.
    assert!(seen.taints.is_superset(&BTreeSet::from([taint("ours", "NoSchedule"), taint("theirs", "NoSchedule")])));
    assert_eq!(seen.owned_taints, BTreeSet::from([("ours".to_owned(), "NoSchedule".to_owned())]));

    let version = || server.kubectl(&["get", "node", "node-a", "-o", "jsonpath={.metadata.resourceVersion}"]);
    let before = version();
    api.apply(&first, &blobs).await.unwrap();
    assert_eq!(version(), before, "the same action again wrote something");

    api.apply(&action(&name, &[], &[taint("other", "NoExecute")]), &blobs).await.unwrap();
    let seen = api.node(&name).await.unwrap().unwrap();
    assert!(!seen.labels.contains_key("zone"));
    assert!(seen.taints.contains(&taint("other", "NoExecute")) && seen.taints.contains(&taint("theirs", "NoSchedule")));
    assert!(!seen.taints.contains(&taint("ours", "NoSchedule")));
    assert_eq!(
        api.node_ready(&name, "boot").await.unwrap(),
        Some("the node has not reported its present boot".to_owned())
    );
    server.kubectl(&["delete", "node", "node-a"]);
    assert_eq!(api.node(&name).await.unwrap(), None);
}
