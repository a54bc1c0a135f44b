#![expect(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use sluice_gateway::auth::keys;

use super::*;
use crate::deploy::tests::rig::{deployment, people, product, small};
use crate::domain::record::Scope;
use crate::id::{Id as _, UsageId};
use crate::store::rig::{Fresh, on_both, somebody};
use crate::store::{Amounts, UsageEntry};

fn used(key: &str, deployment: DeploymentId, at: Timestamp, status: i64) -> UsageEntry {
    UsageEntry {
        id: UsageId::new(),
        at,
        department: String::new(),
        principal: String::new(),
        api_key: key.to_owned(),
        deployment: deployment.to_string(),
        model_version: String::new(),
        request: String::new(),
        status,
        amounts: Amounts {
            requests: 3,
            ..Amounts::default()
        },
    }
}

#[tokio::test]
async fn who_used_what_he_may_not_any_more_is_listed_and_granted() {
    on_both(async |fresh: std::sync::Arc<Fresh>| {
        let store = &fresh.store;
        let own = people(store).await;
        let product = product(store, &own).await;
        let at = deployment(store, &own, &product, "helpdesk", small()).await;
        let stranger = somebody(store, Role::Viewer).await;
        let actor = Actor::system("test");
        let mut issued = Vec::new();
        for person in [stranger.principal, own.developer.actor.principal.unwrap()] {
            let scopes = vec![Scope::Inference];
            let key = store
                .issue_key(&actor, person, "k", scopes, None)
                .await
                .unwrap();
            issued.push(key.key.id.to_string());
        }
        let file = keys::from_environment("bot:sk-bot").unwrap();
        let of_file = key_id(&file[0].digest).to_string();
        let now = Timestamp::now();
        let long_ago = now.before(Duration::from_secs(40 * 24 * 3600));
        let mut tx = store.begin().await.unwrap();
        tx.record_usage(&[
            used(&issued[0], at.id, now, 200),
            used(&issued[0], at.id, now, 200),
            used(&issued[1], at.id, now, 200),
            used(&of_file, at.id, now, 200),
            used("000000000000", at.id, now, 200),
            used(&issued[0], at.id, long_ago, 200),
            used(&issued[0], at.id, now, 404),
        ])
        .await
        .unwrap();
        tx.commit().await.unwrap();
        let since = now.before(Duration::from_secs(30 * 24 * 3600));
        let list = async || refused(store, since, &file).await.unwrap();
        let found = list().await;
        let mut holders: Vec<_> = found
            .iter()
            .map(|it| (it.key.clone(), it.requests, it.can_be_granted))
            .collect();
        holders.sort();
        let mut wanted = vec![(issued[0].clone(), 6, true), (of_file, 3, true)];
        wanted.sort();
        assert_eq!(holders, wanted);
        assert_eq!(grant(store, &found).await.unwrap(), 2);
        assert!(list().await.is_empty());

        // A grant lifts nobody over a clearance.
        store
            .update::<crate::domain::record::Deployment>(&actor, at.id, None, |it| {
                it.clearance = crate::domain::secrecy::Secrecy::Secret;
            })
            .await
            .unwrap();
        let found = list().await;
        assert_eq!(found.len(), 3);
        assert!(found.iter().all(|it| !it.can_be_granted), "{found:?}");
        assert_eq!(grant(store, &found).await.unwrap(), 0);
    })
    .await;
}
