//! Three test hosts, the real `bastide up`, and something to look at.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;
use anyhow::bail;
use bed::Bed;
use bed::Cache;
use bed::ClusterFile;
use bed::Keep;
use bed::Node;
use bed::judge;

use crate::phase::phase;
use crate::setup;
use crate::tree::root;
use crate::tree::run;

const HOSTS: [&str; 3] = ["h1", "h2", "h3"];
const NAME: &str = "demo";
const NET: &str = "10.90.0";

/// Builds everything, boots the hosts anew, brings the cluster up and leaves it running.
pub(crate) fn up() -> Result<()> {
    phase("setup", || setup::all(setup::MINOR))?;
    let program = phase("bastide", setup::bastide)?;
    let bed = bed();
    phase("test hosts", || {
        bed.destroy()?;
        bed.start(&HOSTS)
    })?;
    let folder = folder();
    _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(folder.join("bin"))?;
    let folder = fs::canonicalize(&folder)?;
    let mut file = ClusterFile::new(NAME, HOSTS.iter().map(|host| Node::all_roles(host)).collect());
    file.recurring = true;
    file.write(&bed, &folder)?;
    // The hosts are given it for their snapshots: without what only a debugger reads it is half as large.
    let small = folder.join("bastide");
    run(Command::new("strip").arg("-o").arg(&small).arg(&program))?;
    write_environment(&folder, &small)?;

    phase("bastide up", || {
        run(Command::new(folder.join("bin/bastide")).args(["up", "--yes", "--no-identity-backup"]))
    })?;
    let kubectl = || Command::new(folder.join("bin/kubectl"));
    println!("\n$ kubectl get nodes -o wide");
    run(kubectl().args(["get", "nodes", "-o", "wide"]))?;
    println!("\n$ kubectl get pods --all-namespaces -o wide");
    run(kubectl().args(["get", "pods", "--all-namespaces", "-o", "wide"]))?;
    println!(
        "
kubeconfig       {folder}/kube_config_cluster.yml
try it           . {shown}/env.sh; kubectl get nodes; bastide status; host h1 crictl ps
log in           . {shown}/env.sh; host h1
judge it         cargo xtask judge
stop it          cargo xtask demo --destroy",
        folder = folder.display(),
        shown = "target/demo",
    );
    Ok(())
}

/// Removes the hosts and `target/demo`.
pub(crate) fn destroy() -> Result<()> {
    bed().destroy()?;
    _ = fs::remove_dir_all(folder());
    Ok(())
}

/// Runs kube-bench on each host and prints the totals and every check that is not PASS.
pub(crate) fn judge_hosts() -> Result<()> {
    let bed = bed();
    if !bed.folder().join("h1").exists() {
        bail!("there is no demo: run `cargo xtask demo` first");
    }
    let mut failed = 0;
    for name in HOSTS {
        let verdict = judge(&bed.host(name))?;
        println!(
            "{name}: {} PASS, {} FAIL, {} WARN, {} INFO (kube-bench 0.15.6, cis-1.12, sections 1 to 4)",
            verdict.pass, verdict.fail, verdict.warn, verdict.info
        );
        for check in &verdict.open {
            println!("  {check}");
        }
        failed += verdict.fail;
    }
    if failed > 0 {
        bail!("{failed} checks FAIL");
    }
    Ok(())
}

fn bed() -> Bed {
    Bed::named(NAME, NET, Keep::Running)
}

fn folder() -> PathBuf {
    root().join("target/demo")
}

/// `env.sh` puts three commands on PATH: programs, not shell functions, so that `watch` and scripts find them too.
fn write_environment(folder: &Path, program: &Path) -> Result<()> {
    let cache = Cache::from_environment();
    let script = fs::canonicalize(root())?.join("tests/bed/bed.sh");
    let bed = format!(
        "export BED={NAME} NET={NET} BASTIDE_BED_CACHE={cache}\n\
         export BASTIDE_CONFIG=\"${{BASTIDE_CONFIG:-{folder}/cluster.yml}}\"\n\
         # The demo's keys and logs stay in its folder, not in the user's own.\n\
         export XDG_CONFIG_HOME={folder}/config XDG_STATE_HOME={folder}/state\n",
        cache = cache.folder().display(),
        folder = folder.display(),
    );
    let script = script.display();
    let kubectl = cache.kubernetes(setup::MINOR).join("bin/kubectl");
    let commands = [
        ("bastide", format!("exec {script} run {} \"$@\"\n", program.display())),
        (
            "kubectl",
            format!(
                "exec {script} run env KUBECONFIG=\"${{KUBECONFIG:-{}/kube_config_cluster.yml}}\" {} \"$@\"\n",
                folder.display(),
                kubectl.display()
            ),
        ),
        (
            "host",
            format!(
                "# host NAME [COMMAND...]: one argument is a shell command; several are one command, word by word\n\
                 name=${{1:?host NAME [COMMAND...]}}; shift\n\
                 [ $# -le 1 ] && exec {script} ssh \"$name\" \"$@\"\n\
                 exec {script} ssh \"$name\" \"$(printf '%q ' \"$@\")\"\n"
            ),
        ),
    ];
    for (name, body) in commands {
        let path = folder.join("bin").join(name);
        fs::write(&path, format!("#!/bin/bash\n{bed}{body}"))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    }
    let env = format!(
        "# . env.sh: gives this shell `bastide`, `kubectl` (both where the demo's hosts can be reached) and `host NAME COMMAND...`\n\
         PATH={folder}/bin:$PATH\nexport PATH\nhash -r 2>/dev/null || true\n",
        folder = folder.display()
    );
    Ok(fs::write(folder.join("env.sh"), env)?)
}
