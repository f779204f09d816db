//! Kubeconfig files of the components, readable by root alone (CIS 1.1.13 to 1.1.18, 4.1.3 to 4.1.6).

use crate::model::Access;
use crate::model::Component;
use crate::render::draft::Draft;
use crate::secrets::AuthorityName;
use crate::secrets::Credential;
use crate::secrets::Kubeconfig;
use crate::secrets::LeafName;
use crate::secrets::Server;
use crate::secrets::kubeconfig;

/// Where every component of a host finds an API server: its own, or the host's balancer.
const LOCAL_API: &str = "https://127.0.0.1:6443";

/// A kubeconfig whose one user authenticates with this host's leaf, everything embedded.
pub(super) fn render(draft: &mut Draft<'_, '_>, component: Component, path: &str, user: &str, name: LeafName) {
    if let Some(leaf) = draft.leaf(name) {
        write(draft, component, path, user, Credential::Embedded(leaf), true);
    }
}

/// A kubeconfig that names a file with certificate and key, because its owner renews them.
pub(super) fn by_path(draft: &mut Draft<'_, '_>, component: Component, path: &str, user: &str, pair: &str) {
    write(draft, component, path, user, Credential::Files { certificate: pair, key: pair }, false);
}

fn write(
    draft: &mut Draft<'_, '_>,
    component: Component,
    path: &str,
    user: &str,
    credential: Credential<'_>,
    secret: bool,
) {
    let authority = draft.trust(AuthorityName::Kubernetes);
    let servers = [Server { name: draft.shop.cluster.name.clone(), url: LOCAL_API.to_owned() }];
    let content = kubeconfig(&Kubeconfig { servers: &servers, authority: &authority, user, credential });
    if secret {
        draft.secret(component, path, Access::root(0o600), content);
    } else {
        draft.file(component, path, Access::root(0o600), content.expose());
    }
}
