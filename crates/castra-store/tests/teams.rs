//! Teams in the store: one transaction each, refused when somebody else was faster.
#![allow(clippy::unwrap_used)]

mod support;

use castra_proto::{TeamId, Timestamp};
use castra_store::*;
use serde_json::json;
use support::Home;

fn create(team: TeamId, name: Option<&str>, request: u8) -> TeamCommit {
    TeamCommit {
        team,
        at: Timestamp(1),
        create: Some(NewTeam {
            name: name.map(str::to_owned),
            request_hash: [request; 32],
            spec: r#"{"agents":{"a":{"session":{"env":{"TOKEN":"***"}}}}}"#.into(),
            secrets: Some(json!({"a": {"env": {"TOKEN": "s3cret"}}})),
        }),
        head: None,
        view: "{}".into(),
    }
}

fn change(team: TeamId, head: u64, view: &str) -> TeamCommit {
    TeamCommit { team, at: Timestamp(2), create: None, head: Some(head), view: view.into() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_team_reads_back_whole_and_its_secrets_only_by_themselves() {
    let home = Home::new().await;
    let (store, id) = (&home.store, TeamId::now());
    let made = store.commit_team(create(id, Some("duo"), 1)).await.unwrap();
    assert_eq!(made, TeamCommitted { head: 1, existed: false });
    let row = store.team(id).await.unwrap().unwrap();
    assert_eq!((row.name.as_deref(), row.head, row.view.as_str()), (Some("duo"), 1, "{}"));
    assert!(!row.spec.contains("s3cret"));
    assert_eq!(store.team_secrets(id).await.unwrap(), Some(json!({"a": {"env": {"TOKEN": "s3cret"}}})));
    for wanted in ["duo", &id.to_string(), &id.to_string()[..13]] {
        let found = store.find_team(wanted).await.unwrap();
        assert!(matches!(found, FoundTeam::One(row) if row.id == id), "{wanted}");
    }
    assert_eq!(store.find_team("no").await.unwrap(), FoundTeam::None);
    assert!(store.remove_team(id).await.unwrap() && !store.remove_team(id).await.unwrap());
    assert_eq!(store.team(id).await.unwrap(), None);
    home.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_request_is_one_team_and_whoever_was_overtaken_is_told() {
    let home = Home::new().await;
    let (store, id) = (&home.store, TeamId::now());
    store.commit_team(create(id, Some("duo"), 1)).await.unwrap();
    let again = store.commit_team(create(id, Some("duo"), 1)).await.unwrap();
    assert_eq!(again, TeamCommitted { head: 1, existed: true });
    let other = store.commit_team(create(id, None, 2)).await.unwrap_err();
    assert!(matches!(other, TeamError::Mismatch), "{other:?}");
    let taken = store.commit_team(create(TeamId::now(), Some("duo"), 1)).await.unwrap_err();
    assert!(matches!(&taken, TeamError::NameTaken { by, .. } if *by == id), "{taken:?}");

    assert_eq!(store.commit_team(change(id, 1, "{\"n\":1}")).await.unwrap().head, 2);
    let late = store.commit_team(change(id, 1, "{\"n\":2}")).await.unwrap_err();
    assert!(matches!(late, TeamError::Moved(2)), "{late:?}");
    assert_eq!(store.team(id).await.unwrap().unwrap().view, "{\"n\":1}");
    let none = store.commit_team(change(TeamId::now(), 1, "{}")).await.unwrap_err();
    assert!(matches!(none, TeamError::NoTeam(_)), "{none:?}");
    home.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn teams_are_listed_newest_first_a_page_at_a_time() {
    let home = Home::new().await;
    let store = &home.store;
    let ids = [TeamId::now(), TeamId::now(), TeamId::now()];
    for id in ids {
        store.commit_team(create(id, None, 1)).await.unwrap();
    }
    let page = store.teams(None, 2).await.unwrap();
    let rest = store.teams(page.next, 2).await.unwrap();
    let listed: Vec<_> = page.items.iter().chain(&rest.items).map(|row| row.id).collect();
    assert_eq!((listed, rest.next), (vec![ids[2], ids[1], ids[0]], None));
    home.finish().await;
}
