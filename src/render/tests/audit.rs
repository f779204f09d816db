//! The audit policy, judged as the API server judges it: the first rule that matches decides.

use serde::Deserialize;

use crate::render::AUDIT_POLICY;

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Policy {
    #[serde(rename = "apiVersion")]
    _api_version: String,
    #[serde(rename = "kind")]
    _kind: String,
    omit_stages: Vec<String>,
    omit_managed_fields: bool,
    rules: Vec<Rule>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Rule {
    level: String,
    #[serde(default)]
    users: Vec<String>,
    #[serde(default)]
    user_groups: Vec<String>,
    #[serde(default)]
    verbs: Vec<String>,
    #[serde(default)]
    namespaces: Vec<String>,
    #[serde(default)]
    resources: Vec<Resources>,
    #[serde(default, rename = "nonResourceURLs")]
    paths: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Resources {
    group: String,
    #[serde(default)]
    resources: Vec<String>,
}

#[derive(Clone, Copy)]
enum What<'a> {
    /// Group, resource, namespace.
    Object(&'a str, &'a str, &'a str),
    Path(&'a str),
}

fn policy() -> Policy {
    serde_saphyr::from_str(AUDIT_POLICY).unwrap()
}

fn level(policy: &Policy, user: &str, groups: &[&str], verb: &str, what: What<'_>) -> String {
    let matches = |rule: &&Rule| {
        (rule.users.is_empty() || rule.users.iter().any(|u| u == user))
            && (rule.user_groups.is_empty() || rule.user_groups.iter().any(|g| groups.contains(&g.as_str())))
            && (rule.verbs.is_empty() || rule.verbs.iter().any(|v| v == verb))
            && match what {
                What::Path(path) => {
                    (rule.resources.is_empty() && rule.paths.is_empty() && rule.namespaces.is_empty())
                        || rule.paths.iter().any(|p| match p.strip_suffix('*') {
                            Some(prefix) => path.starts_with(prefix),
                            None => p == path,
                        })
                }
                What::Object(group, resource, namespace) => {
                    rule.paths.is_empty()
                        && (rule.namespaces.is_empty() || rule.namespaces.iter().any(|n| n == namespace))
                        && (rule.resources.is_empty()
                            || rule.resources.iter().any(|r| {
                                r.group == group
                                    && (r.resources.is_empty() || r.resources.iter().any(|name| name == resource))
                            }))
                }
            }
    };
    policy.rules.iter().find(matches).map_or_else(|| "None".to_owned(), |rule| rule.level.clone())
}

#[test]
fn no_body_of_a_secret_or_token_is_ever_recorded() {
    let policy = policy();
    let secret = [
        ("", "secrets"),
        ("", "configmaps"),
        ("", "serviceaccounts/token"),
        ("authentication.k8s.io", "tokenreviews"),
        ("authentication.k8s.io", "tokenrequests"),
    ];
    let people = [
        ("jane", &["bastide:admins", "system:authenticated"][..]),
        ("system:node:h1", &["system:nodes", "system:authenticated"]),
        ("system:kube-controller-manager", &["system:authenticated"]),
        ("bastide:up", &["system:masters", "system:authenticated"]),
    ];
    for (group, resource) in secret {
        for (user, groups) in people {
            for verb in ["get", "list", "watch", "create", "update", "patch", "delete", "deletecollection"] {
                let level = level(&policy, user, groups, verb, What::Object(group, resource, "kube-system"));
                assert_eq!(level, "Metadata", "{user} {verb} {group}/{resource}");
            }
        }
    }
}

#[test]
fn what_matters_is_recorded_and_noise_is_not() {
    let policy = policy();
    assert!(policy.omit_managed_fields);
    assert_eq!(policy.omit_stages, ["RequestReceived"]);
    let object = |group, resource| What::Object(group, resource, "default");
    let cases = [
        ("jane", "get", What::Path("/readyz"), "None"),
        ("jane", "get", What::Path("/metrics"), "Metadata"),
        ("jane", "create", object("", "pods/exec"), "Metadata"),
        ("jane", "create", object("", "pods"), "Metadata"),
        ("jane", "list", object("apps", "deployments"), "Metadata"),
        ("jane", "create", object("rbac.authorization.k8s.io", "clusterrolebindings"), "RequestResponse"),
        ("jane", "patch", object("", "nodes"), "RequestResponse"),
        ("jane", "delete", object("networking.k8s.io", "networkpolicies"), "RequestResponse"),
        ("jane", "update", object("certificates.k8s.io", "certificatesigningrequests/approval"), "Request"),
        ("jane", "create", object("", "events"), "None"),
        ("system:kube-proxy", "watch", object("discovery.k8s.io", "endpointslices"), "None"),
        ("system:kube-proxy", "get", object("", "secrets"), "Metadata"),
        ("system:anonymous", "get", object("", "pods"), "Metadata"),
    ];
    for (user, verb, what, wanted) in cases {
        let found = level(&policy, user, &["system:authenticated"], verb, what);
        let shown = match what {
            What::Object(group, resource, _) => format!("{group}/{resource}"),
            What::Path(path) => path.to_owned(),
        };
        assert_eq!(found, wanted, "{user} {verb} {shown}");
    }
}
