//! What the file may not weaken, how it may all the same, and what the person is told.

use crate::render::tests::support;

/// The problems of a cluster of one host with `more` under it.
fn problems(more: &str) -> String {
    match support::render(&format!("{}{more}", support::ONE_HOST)) {
        Ok(_) => "none".to_owned(),
        Err(errors) => errors.to_string(),
    }
}

#[test]
fn a_weaker_flag_is_refused_with_the_lines_that_allow_it() {
    insta::assert_snapshot!(problems("services: {kube-api: {extra_args: {profiling: true}}}\n"), @r#"
    services.kube-api.extra_args.profiling: profiling=true weakens a hardened setting (CIS 1.2.15: must be false); to allow it, write
    bastide:
      hardening:
        allow:
          - setting: kube-api.profiling
            reason: "say why"
    "#);
}

#[test]
fn an_allowance_by_name_is_used_and_shown() {
    let rendered = support::rendered(&format!(
        "{}services: {{kube-api: {{extra_args: {{profiling: true}}}}}}\n\
         bastide: {{hardening: {{allow: [{{setting: kube-api.profiling, reason: a memory leak}}]}}}}\n",
        support::ONE_HOST
    ));
    assert_eq!(rendered.flags("h1", "kube-apiserver")["profiling"], "true");
    assert_eq!(rendered.desired.allowances.len(), 1);
    assert_eq!(rendered.desired.allowances[0].reason, "a memory leak");
}

#[test]
fn every_problem_is_told_once_although_it_holds_for_every_host() {
    let text = format!(
        "{}services:
  kube-api: {{extra_args: {{tls-cert-file: /x, enable-bootstrap-token-auth: true, disable-admission-plugins: NoSuch}}}}
  kubelet: {{extra_args: {{anonymous-auth: true, node-ip: 192.0.2.1}}}}
  scheduler: {{extra_args: {{bind-address: 0.0.0.0}}}}
bastide:
  kubelet: {{extra_config: {{readOnlyPort: 10255, authentication: null, maxpods: 5, failCgroup: false}}}}
  hardening: {{allow: [{{setting: kube-api.profilling, reason: a slip}}]}}
",
        support::THREE_HOSTS
    );
    insta::assert_snapshot!(support::render(&text).unwrap_err().to_string());
}

#[test]
fn lists_keep_what_is_needed_and_lose_what_is_weak() {
    let rendered = support::rendered(&format!(
        "{}services: {{kube-api: {{extra_args: {{enable-admission-plugins: 'PodNodeSelector,NodeRestriction', \
         authorization-mode: 'Webhook,Node,RBAC', \
         tls-cipher-suites: 'TLS_RSA_WITH_AES_128_CBC_SHA,TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256'}}}}}}\n",
        support::ONE_HOST
    ));
    let flags = rendered.flags("h1", "kube-apiserver");
    assert_eq!(
        flags["enable-admission-plugins"],
        "PodNodeSelector,NodeRestriction,EventRateLimit,DenyServiceExternalIPs"
    );
    assert_eq!(flags["authorization-mode"], "Webhook,Node,RBAC");
    assert_eq!(flags["tls-cipher-suites"], "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256");
    assert_eq!(rendered.notes.len(), 1, "{:?}", rendered.notes);
}

#[test]
fn banned_list_items_are_refused() {
    let text = problems("services: {kube-api: {extra_args: {authorization-mode: 'AlwaysAllow'}}}\n");
    assert!(text.contains("must not list AlwaysAllow"), "{text}");
    let text = problems("services: {kube-api: {extra_args: {enable-admission-plugins: 'PodSecurityPolicy'}}}\n");
    assert!(text.contains("removed in 1.25"), "{text}");
}

#[test]
fn single_sign_on_flags_become_the_authentication_configuration() {
    let rendered = support::rendered(&format!(
        "{}services: {{kube-api: {{extra_args: {{oidc-issuer-url: 'https://id.example', oidc-client-id: k8s, \
         oidc-username-claim: email, oidc-groups-claim: groups, oidc-groups-prefix: 'oidc:'}}}}}}\n",
        support::ONE_HOST
    ));
    let flags = rendered.flags("h1", "kube-apiserver");
    assert!(flags.keys().all(|flag| !flag.starts_with("oidc-")));
    insta::assert_snapshot!(rendered.text("h1", "/etc/kubernetes/authn/authentication.yaml"));
}

#[test]
fn other_configuration_is_laid_over_bastides_own() {
    let rendered = support::rendered(&format!(
        "{}bastide:
  kubelet: {{extra_config: {{failCgroupV1: false, maxPods: 250, evictionHard: {{memory.available: 1Gi}}}}}}
  kube_proxy: {{extra_config: {{mode: nftables}}}}
  containerd: {{extra_config: {{plugins: {{io.containerd.cri.v1.runtime: {{restrict_oom_score_adj: true}}}}}}}}
",
        support::ONE_HOST
    ));
    let kubelet = rendered.yaml("h1", "/var/lib/kubelet/config.yaml");
    assert_eq!(kubelet["failCgroupV1"], false);
    assert_eq!(kubelet["maxPods"], 250);
    assert_eq!(kubelet["evictionHard"]["memory.available"], "1Gi");
    assert_eq!(kubelet["evictionHard"]["nodefs.available"], "10%");
    assert_eq!(rendered.yaml("h1", "/var/lib/kube-proxy/config.conf")["mode"], "nftables");
    let containerd = rendered.text("h1", "/etc/containerd/config.toml");
    assert!(
        containerd.contains("[plugins.\"io.containerd.cri.v1.runtime\"]\nrestrict_oom_score_adj = true\n"),
        "{containerd}"
    );
}

#[test]
fn kube_proxy_s_health_stays_where_it_is_asked() {
    let flag = |value: &str| {
        problems(&format!("services: {{kubeproxy: {{extra_args: {{healthz-bind-address: '{value}'}}}}}}\n"))
    };
    for fits in ["127.0.0.1", "0.0.0.0:10256", "127.0.0.1:10256", "::"] {
        assert_eq!(flag(fits), "none", "{fits}");
    }
    for lost in ["0.0.0.0:10300", "192.0.2.1", "127.0.0.1:"] {
        assert!(flag(lost).contains("services.kubeproxy.extra_args.healthz-bind-address"), "{lost}");
    }
    let field = "bastide: {kube_proxy: {extra_config: {healthzBindAddress: '0.0.0.0:1'}}}\n";
    insta::assert_snapshot!(problems(field), @"bastide.kube_proxy.extra_config.healthzBindAddress: 0.0.0.0:1: kube-proxy's health is asked on 127.0.0.1:10256; write 0.0.0.0 or 127.0.0.1, and no other port");
}

#[test]
fn anonymous_access_can_be_allowed_only_by_name() {
    let more = "services: {kube-api: {extra_args: {anonymous-auth: true}}}\n";
    let refused = problems(more);
    assert!(refused.contains("setting: kube-api.anonymous-auth"), "{refused}");
    let allow = "bastide: {hardening: {allow: [{setting: kube-api.anonymous-auth, reason: an old balancer}]}}\n";
    assert_eq!(problems(&format!("{more}{allow}")), "none");
    // False is no weakening: it closes the health paths too.
    let rendered = support::rendered(&format!(
        "{}services: {{kube-api: {{extra_args: {{anonymous-auth: false}}}}}}\n",
        support::ONE_HOST
    ));
    assert_eq!(rendered.flags("h1", "kube-apiserver")["anonymous-auth"], "false");
}

#[test]
fn pod_security_falls_below_baseline_only_by_name() {
    let with = |level: &str| problems(&format!("services: {{kube-api: {{pod_security_configuration: {level}}}}}\n"));
    assert_eq!([with("baseline"), with("restricted")], ["none", "none"]);
    assert!(with("privileged").contains("setting: kube-api.pod_security_configuration"));
}
