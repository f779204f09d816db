//! The pages for what is lost.

use std::fmt::Write as _;

use super::Book;
use super::cell;
use super::plural;
use super::quorum;
use crate::config::Node;

impl Book<'_> {
    pub(super) fn one_host(&self) -> String {
        let mut text = "## One host is lost\n\nInstall it anew with the same address, and let its new SSH key be known: take the old \
                        line out of known_hosts, compare what is shown with the host's console.\n"
            .to_owned();
        for node in &self.cluster.nodes {
            let _ = write!(text, "\n### {}\n\n{}", node.name, self.loss_of(node));
        }
        text
    }

    fn loss_of(&self, node: &Node) -> String {
        let name = &node.name;
        if !node.roles.etcd() {
            let consequence = match (node.roles.control_plane(), self.cluster.control_planes().count()) {
                (true, 1) => "It is the only control plane: the cluster runs on, and nobody can change it.",
                (true, _) => "The other control planes go on.",
                (false, _) => "Its pods start elsewhere after about five minutes.",
            };
            return format!("{consequence}\n\n```\nbastide hosts trust {name}\nbastide up\n```\n");
        }
        if self.spare() == 0 {
            let members = self.members();
            return format!(
                "etcd needs {} of its {}, so this one's loss stops all changes. See \"Quorum is lost\".\n",
                quorum(members),
                plural(members, "member")
            );
        }
        format!(
            "{} of {} members are left and {} are needed: etcd goes on, nothing is lost, and {}. Until the host is back, changes go \
             round it:\n\n```\nbastide up --without {name}\n```\n\n\
             A member whose disk is lost is replaced while the others go on: it takes a snapshot first, leaves etcd, and joins anew \
             with the others' data:\n\n```\n\
             bastide hosts trust {name}\n\
             bastide etcd rejoin {name}\n\
             ```\n",
            self.members() - 1,
            self.members(),
            quorum(self.members()),
            if self.spare() == 1 {
                "no other member may be lost".to_owned()
            } else {
                format!("{} more may be lost", self.spare() - 1)
            },
        )
    }

    pub(super) fn quorum(&self) -> String {
        let member = self.first_member();
        format!(
            "## Quorum is lost\n\n\
             {} of {} gone: nothing can be written. Where they may come back with their disks, wait: then nothing is lost. Otherwise install \
             the lost hosts anew at their addresses, or take them out of the file, and restore the newest snapshot. What was written since \
             is lost; what was deleted since comes back.\n\n```\n\
             bastide etcd snapshot list\n\
             bastide etcd snapshot restore SNAPSHOT\n\
             ```\n\n\
             Without a snapshot, from the member that survived (here {member}; of several the one that holds most):\n\n```\n\
             bastide etcd recover --from {member}\n\
             ```\n\n\
             Cut off, the same command goes on, and this puts the old data back:\n\n```\n\
             bastide etcd snapshot restore --abort\n\
             ```\n",
            self.spare() + 1,
            plural(self.members(), "member"),
        )
    }

    pub(super) fn everything(&self) -> String {
        let (where_from, snapshot) = match &self.cluster.services.etcd.backup.bucket {
            Some(bucket) => {
                (format!("Snapshots are in {} too: a name is enough.", cell(&bucket.address.to_string())), "SNAPSHOT")
            }
            None => (
                "The file names no bucket: the snapshot must be a file that lay somewhere else than on the hosts."
                    .to_owned(),
                "./SNAPSHOT.snapshot",
            ),
        };
        format!(
            "## All hosts are lost\n\n\
             What is needed: {} empty hosts (other addresses go into {}), the file, the state folder, the identity, and a snapshot. \
             {where_from}\n\n```\n\
             bastide hosts trust\n\
             bastide etcd snapshot restore {snapshot}\n\
             bastide up\n\
             ```\n\n\
             Without the state folder, name the snapshot's file; its own copy of the state takes the folder's place:\n\n```\n\
             bastide etcd snapshot restore ./SNAPSHOT.snapshot\n\
             ```\n",
            self.cluster.nodes.len(),
            cell(self.file),
        )
    }

    pub(super) fn laptop(&self) -> String {
        let holder = self.any_holder();
        format!(
            "## The machine with the state is lost\n\n\
             Put {} and the identity's backup onto another machine, and fetch the state from whichever host holds the newest copy:\n\n```\n\
             bastide hosts trust\n\
             bastide state recover\n\
             bastide up\n\
             ```\n\n\
             `up` finds nothing to do. From a certain host: `bastide state recover --host {holder}`.\n",
            cell(self.file),
        )
    }

    pub(super) fn identity(&self) -> String {
        let (holder, name) = (self.any_holder(), self.name());
        let recipient = if self.cluster.options.recipients.is_empty() {
            "No bastide.state.recipients are named in the file, so that nobody else opens the state.".to_owned()
        } else {
            format!(
                "One of bastide.state.recipients brings it back, and nothing is lost:\n\n```\n\
                 bastide state recover --host {holder} --recipient-key FILE --signer SIGNER\n```"
            )
        };
        format!(
            "## The identity is lost\n\n{recipient}\n\n\
             When nobody opens the state any more, the cluster can be taken over from its hosts, all of which must answer. Other authorities \
             for etcd and the front proxy take the place of the old ones; Secrets stay readable and tokens valid. The history is lost, and \
             so is every snapshot that only the old identity opens.\n\n```\n\
             bastide state recover --without-identity\n\
             bastide etcd snapshot save\n\
             ```\n\n\
             In a script: `bastide state recover --without-identity --yes --cluster {name}`.\n"
        )
    }
}
