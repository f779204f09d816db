//! `validate`: everything that can be told of a cluster's file without a host and without its state.

use std::collections::BTreeMap;

use crate::config::Cluster;
use crate::config::KeyAlgorithm;
use crate::model::Content;
use crate::ops::Invocation;
use crate::ops::Local;
use crate::ops::OpsError;
use crate::ops::Talk;
use crate::ops::prepare;
use crate::render;
use crate::secrets;
use crate::secrets::HostSigners;
use crate::secrets::SystemEntropy;

/// Reads the file, and renders what it asks for with keys that nobody keeps, where its bundle is at hand: only then everything that
/// `up` would refuse without looking at a host is known. The answer is one line for people.
pub fn validate(invocation: &Invocation, talk: &dyn Talk) -> Result<String, OpsError> {
    let local = Local::read(invocation)?;
    for warning in &local.warnings {
        talk.warn(&format!("{}:{}: {warning}", warning.file(), warning.line));
    }
    match local.bundle() {
        Ok(bundle) => {
            let cluster = quickly_keyed(&local.cluster);
            let (secrets, _) = secrets::complete(&cluster, None, prepare::now(), &mut SystemEntropy)?;
            let (signers, release) = (made_up(&cluster), bundle.release());
            let rendered =
                render::desired(&cluster, &secrets, release, &local.addons, &BTreeMap::new(), Some(&signers))?;
            rendered.notes.iter().for_each(|note| talk.warn(note));
        }
        Err(error) => talk.warn(&format!(
            "{error}: whether flags weaken the hardening, and what addons hold, is checked only where the bundle is at hand"
        )),
    }
    let cluster = &local.cluster;
    let nodes = cluster.nodes.len();
    Ok(format!(
        "{}: cluster {}, Kubernetes {}, {nodes} {} ({} control plane, {} etcd)\n",
        local.path.display(),
        cluster.name,
        cluster.kubernetes,
        if nodes == 1 { "node" } else { "nodes" },
        cluster.control_planes().count(),
        cluster.etcd_members().count(),
    ))
}

/// Keys of RSA take seconds each, and nobody keeps these.
fn quickly_keyed(cluster: &Cluster) -> Cluster {
    let mut cluster = cluster.clone();
    cluster.options.key_algorithm = KeyAlgorithm::P256;
    cluster
}

/// What hosts sign with comes out of an identity, of which there is none.
fn made_up(cluster: &Cluster) -> HostSigners {
    let nobody = || (String::new(), Content::new(String::new()));
    let hosts = cluster.etcd_members().map(|node| (node.name.clone(), nobody())).collect();
    HostSigners { identity: String::new(), hosts }
}
