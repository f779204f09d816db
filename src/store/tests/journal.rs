//! The journal.

use std::collections::BTreeSet;
use std::io::Write as _;

use super::support::id;
use crate::model::Component;
use crate::model::HostName;
use crate::store::Journal;
use crate::store::JournalLine;
use crate::store::Outcome;

fn line(stage: usize, outcome: Outcome) -> JournalLine {
    JournalLine {
        run: "1f".to_owned(),
        revision: id(1),
        time: 5,
        stage,
        host: Some(HostName::new("h1").unwrap()),
        components: BTreeSet::from([Component::Etcd, Component::ApiServer]),
        outcome,
    }
}

#[test]
fn lines_come_back_in_order_and_a_torn_one_is_passed_over() {
    let folder = tempfile::tempdir().unwrap();
    let journal = Journal::at(folder.path());
    assert_eq!(journal.read().unwrap(), []);
    journal.append(&line(1, Outcome::Started)).unwrap();
    journal.append(&line(1, Outcome::Finished)).unwrap();
    let mut file = std::fs::OpenOptions::new().append(true).open(folder.path().join("journal.jsonl")).unwrap();
    file.write_all(b"{\"run\":\"1f\",\"rev").unwrap();
    let told = [line(1, Outcome::Started), line(1, Outcome::Finished)];
    assert_eq!(journal.read().unwrap(), told);
    journal.append(&line(2, Outcome::Failed)).unwrap();
    assert_eq!(journal.read().unwrap(), [told.as_slice(), &[line(2, Outcome::Failed)]].concat());
}

#[test]
fn a_line_is_one_line() {
    let folder = tempfile::tempdir().unwrap();
    Journal::at(folder.path()).append(&line(1, Outcome::Started)).unwrap();
    let text = std::fs::read_to_string(folder.path().join("journal.jsonl")).unwrap();
    insta::assert_snapshot!(text, @r#"{"run":"1f","revision":{"number":1,"nonce":"0000000000000001"},"time":5,"stage":1,"host":"h1","components":["etcd","api-server"],"outcome":"started"}"#);
}
