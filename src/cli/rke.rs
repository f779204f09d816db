//! RKE's own flags of the commands that work under RKE's names.

use std::path::Path;
use std::path::PathBuf;

use clap::Args;

use crate::config;
use crate::config::BucketWords;
use crate::model::Content;
use crate::ops::BucketChoice;
use crate::ops::Invocation;
use crate::ops::OpsError;
use crate::ops::Talk;

/// What every command of RKE's takes.
#[derive(Debug, Clone, Copy, Default, Args)]
#[group(skip)]
pub(super) struct Common {
    /// Log in with the keys of the SSH agent, whatever the file says
    #[arg(long)]
    ssh_agent_auth: bool,
    /// Without a meaning here: no host runs Docker
    #[arg(long)]
    ignore_docker_version: bool,
}

impl Common {
    /// The invocation, with that choice.
    pub(super) fn with(self, invocation: Invocation) -> Invocation {
        Invocation { ssh_agent: self.ssh_agent_auth, ..invocation }
    }
}

/// What `etcd snapshot-save` and `etcd snapshot-restore` take besides.
#[derive(Debug, Clone, Default, Args)]
#[group(skip)]
pub(super) struct Snapshots {
    #[command(flatten)]
    common: Common,
    /// Use a bucket: the one that the other flags name, else that of cluster.yml
    #[arg(long)]
    s3: bool,
    /// The S3 server [default: s3.amazonaws.com]
    #[arg(long, value_name = "SERVER", requires = "s3")]
    s3_endpoint: Option<String>,
    /// A file with the certificates of whom to believe there
    #[arg(long, value_name = "FILE", requires = "s3")]
    s3_endpoint_ca: Option<PathBuf>,
    /// `AWS_ACCESS_KEY_ID` says it without showing it to everybody on this machine
    #[arg(long, value_name = "KEY", value_parser = secret, requires_all = ["s3", "secret_key"])]
    access_key: Option<Content>,
    /// `AWS_SECRET_ACCESS_KEY` says it without showing it to everybody on this machine
    #[arg(long, value_name = "KEY", value_parser = secret, requires_all = ["s3", "access_key"])]
    secret_key: Option<Content>,
    /// The bucket
    #[arg(long, value_name = "BUCKET", requires = "s3")]
    bucket_name: Option<String>,
    /// Its region
    #[arg(long, value_name = "REGION", requires = "s3")]
    region: Option<String>,
    /// What stands before the names of all objects
    #[arg(long = "folder", value_name = "FOLDER", requires = "s3")]
    s3_folder: Option<String>,
}

/// What `etcd snapshot-restore` takes besides.
#[derive(Debug, Clone, Default, Args)]
#[group(skip)]
pub(super) struct Restoring {
    #[command(flatten)]
    snapshots: Snapshots,
    /// Without a meaning here: certificates are those of the state, or of the snapshot
    #[arg(long, value_name = "FOLDER")]
    cert_dir: Option<PathBuf>,
    /// Without a meaning here: certificates are those of the state, or of the snapshot
    #[arg(long)]
    custom_certs: bool,
    /// What bastide always does: the state of a snapshot counts where there is no state folder
    #[arg(long)]
    use_local_state: bool,
}

/// A problem with it never repeats it.
#[allow(clippy::unnecessary_wraps, reason = "clap's form of a parser")]
fn secret(text: &str) -> Result<Content, String> {
    Ok(Content::new(text))
}

impl Snapshots {
    /// The invocation, with the bucket that these flags mean.
    pub(super) fn with(self, invocation: Invocation, talk: &dyn Talk) -> Result<Invocation, OpsError> {
        let invocation = self.common.with(invocation);
        if !self.s3 {
            return Ok(invocation);
        }
        if self.secret_key.is_some() {
            talk.warn(
                "--secret-key can be read by everybody on this machine as long as this runs; AWS_ACCESS_KEY_ID and \
                 AWS_SECRET_ACCESS_KEY, or cluster.yml, say it as well",
            );
        }
        Ok(Invocation { bucket: Some(self.choice()?), ..invocation })
    }

    /// As with RKE the flags take the place of all that the file says of a bucket.
    fn choice(self) -> Result<BucketChoice, OpsError> {
        let read = |path: &Path| config::read_text(path).map_err(|source| OpsError::local(path, source));
        let authorities = self.s3_endpoint_ca.as_deref().map(read).transpose()?;
        let words = BucketWords {
            endpoint: self.s3_endpoint,
            bucket: self.bucket_name,
            region: self.region,
            folder: self.s3_folder,
            authorities,
            keys: self.access_key.zip(self.secret_key),
        };
        if words == BucketWords::default() {
            return Ok(BucketChoice::OfFile);
        }
        let bucket = words.bucket().map_err(|reason| OpsError::Impossible(format!("--s3: {reason}")))?;
        Ok(BucketChoice::Named(bucket))
    }
}

impl Restoring {
    /// The invocation, with the bucket that these flags mean.
    pub(super) fn with(self, invocation: Invocation, talk: &dyn Talk) -> Result<Invocation, OpsError> {
        if self.custom_certs || self.cert_dir.is_some() {
            talk.warn(
                "--custom-certs and --cert-dir change nothing here: a restore keeps the state's certificates; `bastide rotate-certs \
                 --custom-certs` brings others",
            );
        }
        self.snapshots.with(invocation, talk)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use clap::Parser as _;

    use super::Snapshots;
    use crate::cli::args::Arguments;
    use crate::model::Content;
    use crate::ops::BucketChoice;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        snapshots: Snapshots,
    }

    fn choice(flags: &str) -> Result<BucketChoice, String> {
        let words = std::iter::once("x").chain(flags.split_whitespace());
        let line = Line::try_parse_from(words).map_err(|error| error.to_string())?;
        line.snapshots.choice().map_err(|error| error.to_string())
    }

    /// As RKE's documentation writes them.
    #[test]
    fn rke_s_command_lines_are_understood() {
        let s3 = "--s3 --access-key A --secret-key n33dl3 --bucket-name b-1 --folder f --s3-endpoint s3.amazonaws.com --region eu-1 \
                  --s3-endpoint-ca ca.pem";
        let common = "--ssh-agent-auth --ignore-docker-version --config cluster.yml";
        let certificates = "--cert-dir certs --custom-certs --use-local-state";
        for line in [
            format!("etcd snapshot-save --name n {s3} {common}"),
            format!("etcd snapshot-restore --name n {s3} {certificates} {common}"),
            "etcd snapshot-save".to_owned(),
            format!("util get-state-file {common}"),
            format!("util get-kubeconfig {common}"),
        ] {
            let words = std::iter::once("bastide").chain(line.split_whitespace());
            let parsed = Arguments::try_parse_from(words).unwrap_or_else(|error| panic!("{line}: {error}"));
            assert!(!format!("{parsed:?}").contains("n33dl3"), "{line}");
        }
    }

    #[test]
    fn the_flags_name_a_bucket_and_the_file_s_counts_without_them() {
        assert_eq!(choice("--s3"), Ok(BucketChoice::OfFile));
        let BucketChoice::Named(bucket) =
            choice("--s3 --bucket-name b-1 --folder /a/ --access-key A --secret-key n33dl3").unwrap()
        else {
            unreachable!()
        };
        assert_eq!(
            (bucket.address.host.as_str(), bucket.address.to_string().as_str()),
            ("s3.amazonaws.com", "s3://b-1/a")
        );
        assert_eq!(bucket.keys.unwrap().secret, Content::new("n33dl3"));
        assert!(choice("--bucket-name b-1").unwrap_err().contains("--s3"), "RKE's own need it too");
        assert!(choice("--s3 --access-key n33dl3").unwrap_err().contains("--secret-key"));
        assert!(choice("--s3 --region eu-1").unwrap_err().contains("--bucket-name"));
        let wrong = choice("--s3 --bucket-name b-1 --access-key A --secret-key n33\u{e4}dl3").unwrap_err();
        assert!(!wrong.contains("n33"), "{wrong}");
        assert!(choice("--s3 --bucket-name b-1 --s3-endpoint http://x").unwrap_err().contains("not encrypted"));
    }
}
