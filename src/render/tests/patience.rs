//! How long a container may take to start.

use crate::render::tests::support;

#[test]
fn a_container_may_take_as_long_to_start_as_its_health_is_waited_for_and_never_less_than_its_own_time() {
    for (deadline, pods) in [("30s", [150, 300]), ("10m", [300, 300]), ("61m", [1830, 1830])] {
        let text = format!("{}bastide: {{deadlines: {{health: {deadline}}}}}\n", support::ONE_HOST);
        let rendered = support::rendered(&text);
        for (name, failures) in ["kube-apiserver", "etcd"].iter().zip(pods) {
            let pod = rendered.pod("h1", name);
            let probe = pod.spec.unwrap().containers.remove(0).startup_probe.unwrap();
            assert_eq!(
                (probe.period_seconds, probe.failure_threshold),
                (Some(2), Some(failures)),
                "{name}, {deadline}"
            );
        }
    }
}
