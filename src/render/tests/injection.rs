//! No value of the file can become structure on a host.

use std::collections::BTreeMap;

use proptest::prelude::*;

use crate::config::Cluster;
use crate::render;
use crate::render::Rendered;
use crate::render::tests::support;
use crate::secrets::Secrets;

/// Text that would mean something to YAML, handlebars, TOML, systemd or a shell.
fn hostile() -> impl Strategy<Value = String> {
    let pieces = prop_oneof![
        Just("\n".to_owned()),
        Just("\"".to_owned()),
        Just("'".to_owned()),
        Just("{{name}}".to_owned()),
        Just("{{{inputs}}}".to_owned()),
        Just("privileged: true".to_owned()),
        Just("\n        - --anonymous-auth=true".to_owned()),
        Just("\\".to_owned()),
        Just("%n".to_owned()),
        Just("$(reboot)".to_owned()),
        Just("${HOME}".to_owned()),
        Just("\u{2028}".to_owned()),
        Just("#".to_owned()),
        Just(": ".to_owned()),
        "[ -~]{0,8}",
    ];
    prop::collection::vec(pieces, 1..5).prop_map(|pieces| pieces.concat())
}

fn with(cluster: &Cluster, secrets: &Secrets) -> Rendered {
    let rendered =
        render::desired(cluster, secrets, &support::release(), &[], &BTreeMap::new(), Some(&support::signers(cluster)));
    rendered.unwrap_or_else(|errors| panic!("{errors}"))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn arguments_and_environment_stay_what_they_are(value in hostile(), second in hostile()) {
        let mut cluster = support::cluster(support::ONE_HOST);
        let secrets = support::secrets(&cluster);
        let plain = with(&cluster, &secrets);
        let api = &mut cluster.services.api.common;
        api.extra_args.insert("external-hostname".to_owned(), value.clone());
        api.extra_env.push(format!("EXTRA={second}"));
        cluster.services.etcd.common.extra_args.insert("discovery-srv-name".to_owned(), value.clone());

        let rendered = with(&cluster, &secrets);

        let spec = rendered.pod("h1", "kube-apiserver").spec.unwrap();
        let mut meant = plain.pod("h1", "kube-apiserver").spec.unwrap();
        let container = &mut meant.containers[0];
        let command = container.command.as_mut().unwrap();
        command.push(format!("--external-hostname={value}"));
        command[1..].sort_by(|a, b| a.split('=').next().cmp(&b.split('=').next()));
        container.env = Some(vec![serde_json::from_value(serde_json::json!({"name": "EXTRA", "value": second})).unwrap()]);
        prop_assert_eq!(spec, meant);
        prop_assert_eq!(&rendered.flags("h1", "etcd")["discovery-srv-name"], &value);
    }

    #[test]
    fn structures_stay_what_they_are(key in hostile(), value in hostile()) {
        let mut cluster = support::cluster(support::ONE_HOST);
        let secrets = support::secrets(&cluster);
        let extra = serde_json::json!({"staticPodURLHeader": {key.clone(): [value.clone()]}});
        cluster.options.kubelet_config = extra;
        cluster.options.proxy_config = serde_json::json!({"nodePortAddresses": [value.clone()]});

        let rendered = with(&cluster, &secrets);

        let config = rendered.yaml("h1", "/var/lib/kubelet/config.yaml");
        prop_assert_eq!(&config["staticPodURLHeader"], &serde_json::json!({key: [value.clone()]}));
        prop_assert_eq!(&config["readOnlyPort"], 0);
        let config = rendered.yaml("h1", "/var/lib/kube-proxy/config.conf");
        prop_assert_eq!(&config["nodePortAddresses"], &serde_json::json!([value]));
    }

    #[test]
    fn unit_arguments_stay_on_their_line(value in "[ -~\\n\\t]{1,24}") {
        let mut cluster = support::cluster(support::ONE_HOST);
        let secrets = support::secrets(&cluster);
        let lines = with(&cluster, &secrets).text("h1", "/etc/systemd/system/kubelet.service").lines().count();
        let kubelet = &mut cluster.services.kubelet.common;
        kubelet.extra_args.insert("root-dir".to_owned(), value.clone());
        kubelet.extra_env.push(format!("NAME={value}"));

        let rendered = with(&cluster, &secrets);

        let unit = rendered.text("h1", "/etc/systemd/system/kubelet.service");
        prop_assert_eq!(unit.lines().count(), lines + 2);
        let line = unit.lines().find(|line| line.contains("--root-dir=")).unwrap().trim();
        let line = line.strip_suffix('\\').unwrap_or(line).trim();
        prop_assert_eq!(unquoted(line), format!("--root-dir={value}"));
    }
}

/// One argument of `ExecStart=` as systemd reads it (systemd.service(5), "Command lines").
fn unquoted(text: &str) -> String {
    let inner = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap();
    let mut out = String::new();
    let mut rest = inner.chars();
    while let Some(character) = rest.next() {
        out.push(match character {
            '\\' => match rest.next().unwrap() {
                'n' => '\n',
                't' => '\t',
                other => other,
            },
            '%' => {
                assert_eq!(rest.next(), Some('%'), "a specifier in {text}");
                '%'
            }
            '$' => {
                assert_eq!(rest.next(), Some('$'), "a variable in {text}");
                '$'
            }
            '"' => panic!("the argument ends early in {text}"),
            other => other,
        });
    }
    out
}
