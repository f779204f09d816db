//! The connection: one for everything, mended when it breaks, and never another cluster's.

use std::time::Duration;
use std::time::Instant;

use bastide::api::Api;
use bastide::api::ApiError;
use bastide::api::Credentials;

use crate::Target;
use crate::config_map;
use crate::proxy::State;
use crate::proxy::Wire;
use crate::server::LOOPBACK;
use crate::server::Server;
use crate::server::foreign_authority;
use crate::turn;

fn api(wire: &Wire, server: &Server, patience: u64) -> Api {
    let wire = wire.clone();
    let dial = move || {
        let wire = wire.clone();
        async move { wire.dial().await }
    };
    Api::over(dial, LOOPBACK, server.port, &server.credentials(), Duration::from_secs(patience)).unwrap()
}

#[tokio::test]
async fn everything_goes_over_one_connection() {
    let _turn = turn().await;
    let server = Server::get();
    let wire = Wire::to(server.port);
    let many: Vec<_> = (0..40).map(|number| config_map(&format!("many-{number}"), "1")).collect();
    let target = Target::addon("many", &many);
    let api = api(&wire, server, 60);
    target.apply(&api).await.unwrap();
    api.observe(&target.objects, &target.blobs).await.unwrap();
    assert_eq!(wire.dialed(), 1);
}

#[tokio::test]
async fn a_server_that_is_away_for_a_while_is_waited_for() {
    let _turn = turn().await;
    let server = Server::get();
    let wire = Wire::to(server.port);
    let api = api(&wire, server, 60);
    let target = Target::addon("away", &[config_map("away", "1")]);
    api.observe(&target.objects, &target.blobs).await.unwrap();
    wire.set(State::Cut);
    let mending = async {
        tokio::time::sleep(Duration::from_secs(2)).await;
        wire.set(State::Whole);
    };
    let (applied, ()) = tokio::join!(target.apply(&api), mending);
    applied.unwrap();
    assert_eq!(wire.dialed(), 2);
}

#[tokio::test]
async fn a_server_that_stays_away_is_an_error_within_the_patience() {
    let _turn = turn().await;
    let server = Server::get();
    let wire = Wire::to(server.port);
    for state in [State::Cut, State::Frozen] {
        wire.set(State::Whole);
        let api = api(&wire, server, 6);
        let target = Target::addon("gone", &[config_map("gone", "1")]);
        api.observe(&[], &target.blobs).await.unwrap();
        wire.set(state);
        let started = Instant::now();
        let lost = target.apply(&api).await.unwrap_err();
        assert!(started.elapsed() < Duration::from_secs(30), "{:?}", started.elapsed());
        let ApiError::Unreachable { patience, .. } = &lost else { panic!("{lost:?}") };
        assert_eq!(*patience, Duration::from_secs(6));
        assert!(lost.to_string().contains("did not answer within 6 s while"), "{lost}");
    }
}

#[tokio::test]
async fn a_frozen_connection_is_given_up_for_a_new_one() {
    let _turn = turn().await;
    let server = Server::get();
    let frozen = Wire::to(server.port);
    let api = api(&frozen, server, 120);
    let target = Target::addon("thawed", &[config_map("thawed", "1")]);
    api.observe(&target.objects, &target.blobs).await.unwrap();
    frozen.set(State::Stale);
    let started = Instant::now();
    target.apply(&api).await.unwrap();
    assert!(started.elapsed() < Duration::from_secs(90), "{:?}", started.elapsed());
    assert_eq!(frozen.dialed(), 2);
}

#[tokio::test]
async fn another_clusters_server_is_refused_at_once() {
    let _turn = turn().await;
    let server = Server::get();
    let credentials = Credentials { authorities: foreign_authority(), ..server.credentials() };
    let api = Api::direct(LOOPBACK, server.port, &credentials, Duration::from_mins(1)).unwrap();
    let started = Instant::now();
    let refused = api.observe(&[], &Target::default().blobs).await.unwrap_err();
    assert!(matches!(refused, ApiError::Untrusted { .. }), "{refused:?}");
    assert!(started.elapsed() < Duration::from_secs(30));
}
