//! The names of the API server's admission plugins.

use crate::config::ComponentSettings;
use crate::render::RenderError;
use crate::render::judge::Judge;

/// Plugins of kube-apiserver 1.36 and 1.37, from the help text of `--enable-admission-plugins`.
const PLUGINS: &[&str] = &[
    "AlwaysAdmit",
    "AlwaysDeny",
    "AlwaysPullImages",
    "CertificateApproval",
    "CertificateSigning",
    "CertificateSubjectRestriction",
    "ClusterTrustBundleAttest",
    "DefaultIngressClass",
    "DefaultStorageClass",
    "DefaultTolerationSeconds",
    "DenyServiceExternalIPs",
    "EventRateLimit",
    "ExtendedResourceToleration",
    "ImagePolicyWebhook",
    "JobValidation",
    "LimitPodHardAntiAffinityTopology",
    "LimitRanger",
    "MutatingAdmissionPolicy",
    "MutatingAdmissionWebhook",
    "NamespaceAutoProvision",
    "NamespaceExists",
    "NamespaceLifecycle",
    "NodeDeclaredFeatureValidator",
    "NodeRestriction",
    "OwnerReferencesPermissionEnforcement",
    "PersistentVolumeClaimResize",
    "PodGroupProtection",
    "PodGroupWorkloadExists",
    "PodNodeSelector",
    "PodResizeValidator",
    "PodSecurity",
    "PodTolerationRestriction",
    "PodTopologyLabels",
    "Priority",
    "ResourceQuota",
    "RuntimeClass",
    "ServiceAccount",
    "StorageObjectInUseProtection",
    "TaintNodesByCondition",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionWebhook",
];

/// What became of those that old files carry.
const GONE: &[(&str, &str)] = &[
    ("Initializers", "it was removed in 1.14"),
    ("PersistentVolumeLabel", "the cloud provider's own controller sets the labels; it was removed in 1.31"),
    ("PodSecurityPolicy", "use services.kube-api.pod_security_configuration; it was removed in 1.25"),
    ("SecurityContextDeny", "use services.kube-api.pod_security_configuration; it was removed in 1.30"),
];

/// Refuses plugins that there are none of: the API server would not start.
pub(super) fn check(settings: &ComponentSettings, judge: &mut Judge<'_>) {
    for flag in ["enable-admission-plugins", "disable-admission-plugins"] {
        let single = settings.extra_args.get(flag).into_iter();
        let listed = settings.extra_args_array.get(flag).into_iter().flatten();
        for plugin in single.chain(listed).flat_map(|value| value.split(',')).map(str::trim) {
            if !plugin.is_empty() && !PLUGINS.contains(&plugin) {
                let became = GONE.iter().find(|(gone, _)| *gone == plugin).map(|(_, what)| *what);
                judge.errors.push(RenderError::Impossible {
                    place: format!("services.kube-api.extra_args.{flag}"),
                    why: format!(
                        "there is no admission plugin {plugin}: {}",
                        became.unwrap_or("remove it or correct its name")
                    ),
                });
            }
        }
    }
}
