//! The cluster.yml of the virtual machines is one that bastide reads, and its nodes are the Vagrantfile's.
#![allow(clippy::unwrap_used)]

use std::path::PathBuf;

use bastide::config::ParseOptions;
use bastide::config::parse;
use bastide::release::supported;

#[test]
fn the_machines_and_the_nodes_are_the_same() {
    let options = ParseOptions {
        file_name: "vagrant/cluster.yml".to_owned(),
        kubernetes_version: None,
        supported: supported(),
        home: Some(PathBuf::from("/home/someone")),
    };
    let parsed = parse(include_str!("../vagrant/cluster.yml"), &options).unwrap();
    let mut nodes = parsed.cluster.nodes.iter().map(|node| (node.name.to_string(), node.address.clone()));
    let machines = include_str!("../vagrant/Vagrantfile");
    assert!(nodes.all(|(name, address)| machines.contains(&format!("\"{name}\" => \"{address}\""))), "{machines}");
    assert_eq!(parsed.cluster.nodes.len(), machines.matches("=> \"192.").count());
}
