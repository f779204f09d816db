//! Kubeconfig files, readable by root alone (CIS 1.1.13 to 1.1.18, 4.1.3 to 4.1.6), and what those of components name: files of
//! their own, so that another certificate needs no other kubeconfig and no restart.
//!
//! What client-go does with such files (`transport/cert_rotation.go` and `ca_rotation.go`, the same in 1.34 to 1.37 where not said):
//! - Client certificates are read at every handshake and every five minutes; where they differ, all connections are closed.
//! - Authorities are read at the next request once five minutes are over, since 1.36 alone (`ClientsAllowCARotation`, which can be
//!   turned off), and nothing is closed. Before 1.36, and in the kubelet, whose transport is its own, they are read once.
//!
//! So a renewed certificate restarts nobody: the one before is still good when it is renewed. Whom a component believes, and from
//! which authority its certificate is, are inputs of its restart all the same: no leg of an exchange of authorities may begin before
//! everybody has taken up the one before, five minutes is longer than a leg, and whether a running process has taken up a file
//! shows nowhere outside of it in all minors. A restart with these inputs proves it.

use crate::model::Access;
use crate::model::Component;
use crate::model::Content;
use crate::render::controller_manager::SIGNER;
use crate::render::draft::Draft;
use crate::secrets::AuthorityName;
use crate::secrets::Credential;
use crate::secrets::Kubeconfig;
use crate::secrets::Leaf;
use crate::secrets::LeafName;
use crate::secrets::Server;
use crate::secrets::Trust;
use crate::secrets::kubeconfig;

/// Where every component of a host finds an API server: its own, or the host's balancer.
const LOCAL_API: &str = "https://127.0.0.1:6443";

/// A component that is a client of the API server with a certificate from the table.
pub(super) struct Client {
    /// Whose files these are.
    pub component: Component,
    /// Its kubeconfig.
    pub config: &'static str,
    /// The folder of its certificate and of whom it believes: mounted as a whole, so that exchanged files are seen, and apart from
    /// the others', so that nobody is shown the authority's key for that.
    pub folder: &'static str,
    /// Name of the user entry.
    pub user: &'static str,
    /// Its certificate.
    pub leaf: LeafName,
}

impl Client {
    /// Places kubeconfig, certificate and authorities.
    pub(super) fn render(&self, draft: &mut Draft<'_, '_>) {
        let (authority, pair) = (self.authority(), format!("{}/client.pem", self.folder));
        draft.directory(self.folder, Access::root(0o700));
        let trust = draft.trust(AuthorityName::Kubernetes);
        draft.file(self.component, &authority, Access::root(0o600), trust);
        if let Some(leaf) = draft.leaf(self.leaf) {
            draft.secret(self.component, &pair, Access::root(0o600), joined(leaf));
        }
        let credential = Credential::Files { certificate: &pair, key: &pair };
        let content = content(draft, self.user, Trust::File(&authority), credential);
        // No key stands in it. One stood in the file of older versions at this path, and whoever compares two revisions, or a
        // revision and a host, must not show that one.
        draft.secret(self.component, self.config, Access::root(0o600), content);
    }

    /// Its files whose change restarts it.
    pub(super) fn restarts(&self) -> [String; 3] {
        [self.config.to_owned(), self.authority(), SIGNER.to_owned()]
    }

    fn authority(&self) -> String {
        format!("{}/ca.crt", self.folder)
    }
}

/// Certificate and key in one file: a file is wholly old or wholly new, so that no process, whenever it looks and wherever the power
/// was cut, finds a certificate beside another one's key.
pub(super) fn joined(leaf: &Leaf) -> Content {
    // Room for the whole: growing would leave copies of the key in freed memory.
    let mut pair = Vec::with_capacity(leaf.certificate.len() + leaf.key.len() + 1);
    pair.extend_from_slice(leaf.certificate.trim_end().as_bytes());
    pair.push(b'\n');
    pair.extend_from_slice(leaf.key.expose());
    Content::new(pair)
}

/// A kubeconfig with everything in it, because people copy it away.
pub(super) fn whole(draft: &mut Draft<'_, '_>, component: Component, path: &str, user: &str, name: LeafName) {
    if let Some(leaf) = draft.leaf(name) {
        let trust = draft.trust(AuthorityName::Kubernetes);
        let content = content(draft, user, Trust::Embedded(&trust), Credential::Embedded(leaf));
        draft.secret(component, path, Access::root(0o600), content);
    }
}

/// The kubelet's own, which names the pair that it renews by itself.
pub(super) fn of_kubelet(draft: &mut Draft<'_, '_>, path: &str, user: &str, authority: &str, pair: &str) {
    let credential = Credential::Files { certificate: pair, key: pair };
    let content = content(draft, user, Trust::File(authority), credential);
    draft.file(Component::Kubelet, path, Access::root(0o600), content.expose());
}

fn content(draft: &Draft<'_, '_>, user: &str, authority: Trust<'_>, credential: Credential<'_>) -> Content {
    let servers = [Server { name: draft.shop.cluster.name.clone(), url: LOCAL_API.to_owned() }];
    kubeconfig(&Kubeconfig { servers: &servers, authority, user, credential })
}
