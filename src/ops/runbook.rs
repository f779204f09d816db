//! `runbook`: what to do on this cluster when something is lost, in Markdown. From cluster.yml alone: no host is asked, no clock is
//! read, and no secret is known here.

mod losses;

use std::fmt::Write as _;

use crate::config::Cluster;
use crate::config::Node;
use crate::model::Role;
use crate::ops::Invocation;
use crate::ops::Local;
use crate::ops::OpsError;
use crate::store;

/// The runbook of the cluster that the file means.
pub fn runbook(invocation: &Invocation) -> Result<String, OpsError> {
    let local = Local::read(invocation)?;
    let folder = store::folder_for(&local.path);
    let folder = folder.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let file = local.path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    Ok(written(&local.cluster, &file, &folder))
}

/// The text for `cluster`, whose file and state folder are called so.
pub(crate) fn written(cluster: &Cluster, file: &str, folder: &str) -> String {
    let book = Book { cluster, file, folder };
    let parts = [
        book.head(),
        book.hosts(),
        book.places(),
        FIRST_LOOK.to_owned(),
        book.one_host(),
        book.quorum(),
        book.everything(),
        book.laptop(),
        book.identity(),
        book.certificates(),
        book.encryption(),
        book.upgrade(),
        book.rollback(),
    ];
    parts.join("\n")
}

const FIRST_LOOK: &str = "## First

```
bastide status                    # what is ill, silent, or different from the file
bastide etcd status               # members, leader, alarms
bastide etcd snapshot list        # what there is to go back to
bastide history                   # what was changed last, and whether a run was cut off
```

`bastide drill` rehearses a recovery on any quiet day, and says how long it takes and how much would be lost.
";

struct Book<'a> {
    cluster: &'a Cluster,
    file: &'a str,
    folder: &'a str,
}

/// The smallest number of `members` that can decide.
fn quorum(members: usize) -> usize {
    members / 2 + 1
}

/// One line of a table, or a word in it: nothing in it can end its cell.
fn cell(text: &str) -> String {
    text.chars().filter(|char| !char.is_control()).collect::<String>().replace('|', "\\|").replace('`', "'")
}

/// A word of a command line.
fn word(text: &str) -> String {
    let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-/:@".contains(&byte));
    if plain { text.to_owned() } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

fn names<'a>(nodes: impl Iterator<Item = &'a Node>) -> String {
    nodes.map(|node| node.name.to_string()).collect::<Vec<_>>().join(", ")
}

fn plural(count: usize, one: &str) -> String {
    if count == 1 { format!("1 {one}") } else { format!("{count} {one}s") }
}

impl Book<'_> {
    fn name(&self) -> String {
        word(&self.cluster.name)
    }

    fn members(&self) -> usize {
        self.cluster.etcd_members().count()
    }

    /// How many members may be gone while etcd goes on.
    fn spare(&self) -> usize {
        self.members() - quorum(self.members())
    }

    /// Hosts with a sealed copy of the state.
    fn holders(&self) -> impl Iterator<Item = &Node> {
        self.cluster.nodes.iter().filter(|node| node.roles.control_plane() || node.roles.etcd())
    }

    fn any_holder(&self) -> String {
        self.holders().next().map_or_else(String::new, |node| node.name.to_string())
    }

    fn first_member(&self) -> String {
        self.cluster.etcd_members().next().map_or_else(String::new, |node| node.name.to_string())
    }

    fn head(&self) -> String {
        format!(
            "# Runbook of cluster {}\n\n\
             Made by `bastide runbook` from {}; make it again when that file changes. It holds no secret. Run the commands in the folder \
             of {}, or name it with `--config`. Whatever changes the cluster shows a plan and asks first, and can be run again after it \
             was cut off. SNAPSHOT, FILE and SIGNER stand for what the night tells.\n",
            cell(&self.cluster.name),
            cell(self.file),
            cell(self.file)
        )
    }

    fn hosts(&self) -> String {
        let mut text = "## The hosts\n\n| node | SSH | internal address | roles |\n|---|---|---|---|\n".to_owned();
        for node in &self.cluster.nodes {
            let roles = [Role::ControlPlane, Role::Etcd, Role::Worker].into_iter().filter(|role| node.roles.has(*role));
            let roles: Vec<_> = roles.map(Role::as_str).collect();
            let _ = writeln!(
                text,
                "| {} | {}@{}:{} | {} | {} |",
                node.name,
                cell(&node.login.user),
                cell(&node.address),
                node.login.port,
                node.internal_address,
                roles.join(", ")
            );
        }
        for jump in &self.cluster.ssh.jumps {
            let _ = writeln!(
                text,
                "\nSSH goes by way of {}@{}:{}.",
                cell(&jump.login.user),
                cell(&jump.address),
                jump.login.port
            );
        }
        let (members, servers) = (self.members(), self.cluster.control_planes().count());
        let _ = write!(
            text,
            "\nKubernetes {}. etcd has {}: {}. {} of them must run for anything to be written, so {} may be away. {} ({}): one that runs \
             is enough to serve.\n",
            self.cluster.kubernetes,
            plural(members, "member"),
            names(self.cluster.etcd_members()),
            quorum(members),
            if self.spare() == 0 { "none".to_owned() } else { self.spare().to_string() },
            if servers == 1 { "1 control plane".to_owned() } else { format!("{servers} control planes") },
            names(self.cluster.control_planes()),
        );
        text
    }

    fn places(&self) -> String {
        let backup = &self.cluster.services.etcd.backup;
        let mut text = format!(
            "## Where things lie\n\n\
             | what | where |\n|---|---|\n\
             | the cluster's file | {} |\n\
             | the state: history, targets, keys; sealed | the folder {} beside it |\n\
             | the identity that opens it | `bastide/identities` in the configuration folder of whoever ran the first `up` (`~/.config`), \
             and its backup: {} |\n\
             | sealed copies of the newest state | `/var/lib/bastide/state.age` on {} |\n\
             | snapshots of etcd | `/var/lib/bastide/snapshots` on {}",
            cell(self.file),
            cell(self.folder),
            if self.cluster.options.recipients.is_empty() {
                "write here where it is".to_owned()
            } else {
                format!(
                    "{} of bastide.state.recipients can bring it back",
                    plural(self.cluster.options.recipients.len(), "key")
                )
            },
            names(self.holders()),
            names(self.cluster.etcd_members()),
        );
        if let Some(bucket) = &backup.bucket {
            let _ = write!(text, ", and {} at {}", cell(&bucket.address.to_string()), cell(&bucket.address.host));
        }
        let _ = writeln!(text, "; the newest {} stay |", backup.retention);
        if let Some(endpoint) = &self.cluster.options.endpoint {
            let _ = writeln!(text, "| the API for people | https://{}:{} |", cell(&endpoint.host), endpoint.port);
        }
        text.push_str("| the signer that the first `up` printed | write it here |\n");
        text
    }

    fn certificates(&self) -> String {
        let days = self.cluster.options.leaf_lifetime.as_secs() / (24 * 60 * 60);
        format!(
            "## Certificates\n\n\
             They last {}. `bastide up` issues anew what is about to end, and nothing else does: run it now and then.\n\n```\n\
             bastide certs check               # on disk and on the wire; 8 and 9 are the exit codes of an alarm\n\
             bastide rotate-certs              # all of them, host by host\n\
             bastide rotate-certs --ca         # the authorities too; docs/certificates.md\n\
             ```\n\n\
             Where all have ended, because the hosts were off, `bastide rotate-certs` alone brings the cluster back.\n",
            if days == 0 {
                "less than a day".to_owned()
            } else {
                plural(usize::try_from(days).unwrap_or(usize::MAX), "day")
            }
        )
    }

    fn encryption(&self) -> String {
        if self.cluster.services.api.custom_encryption.is_some() {
            return "## Keys for encryption at rest\n\nThe file brings a configuration of its own: change it step by step (add the new key, \
                    put it first, write everything anew, drop the old one), each step with `bastide up`.\n\n```\n\
                    bastide encrypt status\n```\n"
                .to_owned();
        }
        "## Keys for encryption at rest\n\nIn three legs, without a restart; every API server's host must answer. A snapshot is taken first. Cut off, the same \
         command goes on.\n\n```\n\
         bastide encrypt status\n\
         bastide encrypt rotate-key\n\
         ```\n"
            .to_owned()
    }

    fn upgrade(&self) -> String {
        format!(
            "## Another patch release of Kubernetes 1.{}\n\n\
             Write `kubernetes_version` and the bundle of that release into {}. A snapshot is taken first. A change that makes a component ill is taken back by \
             itself (exit code 7).\n\n```\n\
             bastide plan\n\
             bastide up\n\
             bastide status\n\
             ```\n\n\
             Another minor release is refused: bastide does not do that yet.\n",
            self.cluster.kubernetes.minor,
            cell(self.file)
        )
    }

    fn rollback(&self) -> String {
        format!(
            "## Back\n\n\
             A run that was cut off or failed goes forward with `bastide up`, or back. etcd's data do not go back: that is a restore.\n\n```\n\
             bastide history\n\
             bastide diff\n\
             bastide rollback                  # to the revision before\n\
             bastide rollback --to 1           # to the revision with that number\n\
             ```\n\n\
             {} still asks for what was taken back: put it right before the next `up`.\n",
            cell(self.file)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::cell;
    use super::quorum;
    use super::word;
    use super::written;
    use crate::render::tests::support;

    #[test]
    fn the_numbers_are_those_of_the_cluster() {
        assert_eq!([1, 2, 3, 4, 5].map(quorum), [1, 2, 2, 3, 3]);
        let one = written(&support::cluster(support::ONE_HOST), "cluster.yml", "cluster.bastide");
        assert!(
            one.contains("etcd has 1 member: h1. 1 of them must run for anything to be written, so none may be away"),
            "{one}"
        );
        assert!(one.contains("this one's loss stops all changes"), "{one}");
        let three = written(&support::cluster(support::THREE_HOSTS), "cluster.yml", "cluster.bastide");
        assert!(three.contains("etcd has 3 members: h1, h2, h3. 2 of them must run"), "{three}");
        assert!(three.contains("so 1 may be away"), "{three}");
        assert!(three.contains("2 of 3 members are left and 2 are needed"), "{three}");
        assert!(three.contains("2 of 3 members gone: nothing can be written"), "{three}");
        for (host, address) in [("h1", "192.0.2.11"), ("h2", "192.0.2.12"), ("h3", "192.0.2.13")] {
            assert!(
                three.contains(&format!("| {host} | root@{address}:22 | {address} | controlplane, etcd, worker |")),
                "{three}"
            );
            assert!(three.contains(&format!("bastide up --without {host}")), "{three}");
        }
    }

    #[test]
    fn the_same_file_gives_the_same_text_and_no_secret_of_it() {
        let text = "nodes:\n  - {address: 192.0.2.11, user: root, role: [controlplane, etcd, worker], hostname_override: h1}\nservices:\n  etcd:\n    backup_config:\n      s3backupconfig:\n        {endpoint: s3.example.com, bucket_name: nightly, access_key: s3cr3t-n33dl3, secret_key: s3cr3t-n33dl3, region: x}\n";
        let write = || written(&support::cluster(text), "cluster.yml", "cluster.bastide");
        assert_eq!(write(), write());
        assert!(write().contains("s3://nightly at s3.example.com"), "{}", write());
        assert!(!write().contains("s3cr3t-n33dl3"));
    }

    #[test]
    fn no_word_ends_its_cell_or_its_command() {
        assert_eq!(cell("a|b`c\nd"), "a\\|b'cd");
        assert_eq!([word("demo-1"), word("it's; rm -rf /"), word("")], ["demo-1", "'it'\\''s; rm -rf /'", "''"]);
    }
}
