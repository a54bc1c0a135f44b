#![expect(clippy::unwrap_used, reason = "tests")]

use super::super::model::tests::{deployment, work_order};
use super::super::rig::{Fresh, on_both, somebody};
use super::super::tests;
use super::*;
use crate::domain::roles::Role;
use WorkOrderEvent::{Advance, Approve, Finish, Pause, Prepare, Promote, Resume, StartCanary};

#[tokio::test]
async fn a_deployment_has_one_unfinished_work_order_at_a_time() {
    on_both(async |fresh: std::sync::Arc<Fresh>| {
        let store = &fresh.store;
        let who = somebody(store, Role::Operator).await;
        let model = store
            .create(&who.actor, tests::model(who.department, "m"))
            .await
            .unwrap();
        let mut tx = store.begin().await.unwrap();
        let version = tx
            .add_model_version(&who.actor, tests::version(model.id, None))
            .await
            .unwrap();
        tx.commit().await.unwrap();
        let at = store
            .create(&who.actor, deployment(&who, model.id, "helpdesk"))
            .await
            .unwrap();
        assert_eq!(
            store.deployment_at("helpdesk").await.unwrap().unwrap().id,
            at.id
        );
        assert_eq!(store.deployment_at("other").await.unwrap(), None);
        assert_eq!(store.active_work_order(at.id).await.unwrap(), None);

        let order = store
            .create(&who.actor, work_order(at.id, version.id))
            .await
            .unwrap();
        let second = store
            .create(&who.actor, work_order(at.id, version.id))
            .await
            .unwrap_err();
        assert_eq!(
            second.to_string(),
            "there is another work order with this deployment"
        );
        assert_eq!(
            store.active_work_order(at.id).await.unwrap().unwrap().id,
            order.id
        );

        let steps = [
            (Approve, 0),
            (Prepare, 0),
            (StartCanary, 1),
            (Advance, 2),
            (Pause, 2),
            (Resume, 2),
            (Advance, 3),
            (Promote, 3),
            (Finish, 3),
        ];
        for (event, step) in steps {
            let moved = store
                .transition::<WorkOrder>(&who.actor, order.id, None, event, |_| ())
                .await
                .unwrap();
            assert_eq!(moved.step, step, "after {event}");
            assert_eq!(moved.finished_at.is_some(), event == Finish);
        }
        assert_eq!(store.active_work_order(at.id).await.unwrap(), None);
        store
            .create(&who.actor, work_order(at.id, version.id))
            .await
            .expect("the deployment is free again");
    })
    .await;
}
