//! `services.etcd.backup_config`.

use std::time::Duration;

use super::read;
use super::said;
use super::with;
use crate::config::Backup;
use crate::model::Content;

const AUTHORITY: &str = include_str!("authority.pem");

fn backup(text: &str) -> Backup {
    let parsed = read(&with(&format!("services: {{etcd: {{backup_config: {text}}}}}\n")));
    parsed.unwrap_or_else(|errors| panic!("{errors:?}")).cluster.services.etcd.backup
}

#[test]
fn what_is_absent_or_zero_is_rkes_default() {
    let usual = Backup {
        enabled: true,
        interval: Duration::from_hours(12),
        retention: 6,
        timeout: Duration::from_mins(5),
        bucket: None,
    };
    let nothing = "{enabled: null, interval_hours: 0, retention: 0, timeout: 0, safe_timestamp: false, s3backupconfig: {endpoint: '', region: ''}}";
    for text in ["null", "{}", nothing] {
        assert_eq!(backup(text), usual);
    }
    let own = backup("{enabled: false, interval_hours: 6, retention: 20, timeout: 600}");
    let wanted = Backup {
        enabled: false,
        interval: Duration::from_hours(6),
        retention: 20,
        timeout: Duration::from_mins(10),
        bucket: None,
    };
    assert_eq!(own, wanted);
}

#[test]
fn a_bucket_is_read_as_rke_and_rancher_write_it() {
    let text = "{endpoint: 'https://minio.example.com:9000/', bucket_name: snapshots, region: eu-1, folder: /a/b/,
        access_key: AKIA1, secret_key: 'n33dl3/+=', custom_ca: CA}"
        .replace("CA}", &format!("{AUTHORITY:?}}}"));
    for key in ["s3backupconfig", "s3_backup_config"] {
        let bucket = backup(&format!("{{{key}: {text}}}")).bucket.unwrap();
        let address = &bucket.address;
        assert_eq!((address.host.as_str(), address.port), ("minio.example.com", Some(9000)));
        assert_eq!((address.region.as_deref(), address.key("x").as_str()), (Some("eu-1"), "a/b/x"));
        assert_eq!(address.to_string(), "s3://snapshots/a/b");
        assert_eq!(address.authorities.as_deref(), Some(AUTHORITY));
        let keys = bucket.keys.as_ref().unwrap();
        assert_eq!(keys.secret, Content::new("n33dl3/+="));
        assert!(!format!("{bucket:?}").contains("n33dl3") && !format!("{bucket:?}").contains("AKIA1"));
    }
    let small = backup("{s3backupconfig: {endpoint: s3.amazonaws.com, bucket_name: b.c}}").bucket.unwrap();
    assert_eq!((small.keys, small.address.key("x").as_str(), small.address.port), (None, "x", None));
}

#[test]
fn everything_that_is_wrong_with_a_bucket_is_said_at_once_and_no_key_with_it() {
    insta::assert_snapshot!(said(&with(
        "
services:
  etcd:
    backup_config:
      enabled: false
      interval_hours: often
      s3backupconfig:
        endpoint: http://minio.example.com
        bucket_name: a/b
        region: eu 1
        folder: a//../b
        secret_key: hunter2
        custom_ca: hunter2
        access_kee: hunter2
",
    )), @r#"
    10:23 error: services.etcd.backup_config.interval_hours: "often" is not a whole number from 0 to 8760
    12:19 error: services.etcd.backup_config.s3backupconfig.endpoint: "http://minio.example.com" is not encrypted: S3 is spoken over TLS alone, as by RKE
    13:22 error: services.etcd.backup_config.s3backupconfig.bucket_name: "a/b" is not the name of a bucket: 3 to 63 letters, digits, '.', '-' and '_'
    14:17 error: services.etcd.backup_config.s3backupconfig.region: "eu 1" is not a region such as eu-central-1
    15:17 error: services.etcd.backup_config.s3backupconfig.folder: "a//../b" is not a folder of a bucket: parts between single slashes, none of them '.' or '..'
    16:9 error: services.etcd.backup_config.s3backupconfig.secret_key: there is no access_key beside it
        add `access_key:`, or write neither, and give both as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY
    17:20 error: services.etcd.backup_config.s3backupconfig.custom_ca: it holds no certificate in PEM (-----BEGIN CERTIFICATE-----)
    18:9 error: services.etcd.backup_config.s3backupconfig.access_kee: unknown key
        did you mean `access_key`?
    "#);
    insta::assert_snapshot!(said(&with(
        "
services:
  etcd:
    backup_config:
      enabled: false
      s3backupconfig: {region: eu-1, access_key: 'hunter2 ', secret_key: \"hun\\nter2\"}
      s3_backup_config: {endpoint: minio.example.com/path, bucket_name: b}
",
    )), @r#"
    10:7 error: services.etcd.backup_config.s3backupconfig: the S3 server is missing
        add `endpoint: s3.eu-central-1.amazonaws.com`
    10:7 error: services.etcd.backup_config.s3backupconfig: the bucket is missing
        add `bucket_name: my-snapshots`
    10:50 error: services.etcd.backup_config.s3backupconfig.access_key: a key has no spaces, line ends or special characters
    10:74 error: services.etcd.backup_config.s3backupconfig.secret_key: a key has no spaces, line ends or special characters
    11:7 error: services.etcd.backup_config.s3_backup_config: s3backupconfig stands here as well
        keep one of them
    "#);
}

#[test]
fn the_older_keys_count_where_backup_config_does_not_stand() {
    let etcd = |text: &str| {
        let parsed = read(&with(&format!("services: {{etcd: {text}}}\n")));
        parsed.unwrap_or_else(|errors| panic!("{errors:?}")).cluster.services.etcd.backup
    };
    let older = etcd("{snapshot: true, creation: 6h, retention: 25h}");
    assert_eq!((older.enabled, older.interval, older.retention), (true, Duration::from_hours(6), 5));
    assert!(!etcd("{snapshot: false}").enabled);
    let often = etcd("{creation: 5m0s, retention: 24h}");
    assert_eq!((often.interval, often.retention), (Duration::from_hours(1), 24));
    let both = etcd("{snapshot: false, creation: 6h, backup_config: {interval_hours: 3}}");
    assert_eq!((both.enabled, both.interval, both.retention), (true, Duration::from_hours(3), 6));
}

#[test]
fn a_bucket_without_keys_of_its_own_is_none_of_the_hosts() {
    insta::assert_snapshot!(said(&with(
        "services: {etcd: {backup_config: {s3backupconfig: {endpoint: s3.amazonaws.com, bucket_name: b.c}}}}\n",
    )), @r"
    5:35 warning: services.etcd.backup_config.s3backupconfig: without access_key and secret_key the etcd hosts ask for the role of their own machine, as with RKE; where that gives none, recurring snapshots stay on the hosts: keys of your environment are not given to them
        write both, or run `bastide etcd snapshot save` for what is to lie in the bucket
    ");
    assert_eq!(
        said(&with(
            "services: {etcd: {backup_config: {enabled: false, s3backupconfig: {endpoint: s3.a.com, bucket_name: b.c}}}}\n",
        )),
        ""
    );
}
