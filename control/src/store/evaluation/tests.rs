#![expect(clippy::unwrap_used, reason = "tests")]

use serde_json::json;

use super::super::model::tests::{dataset_version, evaluation_run};
use super::super::rig::{Fresh, on_both, somebody};
use super::super::{Json, tests};
use super::*;
use crate::domain::roles::Role;
use crate::domain::secrecy::Secrecy;

fn sample(run: EvaluationRunId, prompt: &str, ordinal: i64) -> EvaluationSample {
    EvaluationSample {
        run,
        prompt_version: prompt.into(),
        ordinal,
        item: format!("item-{ordinal}"),
        input: Json(json!([{ "role": "user", "content": "my VPN is down" }])),
        expected: Some(Json(json!("vpn"))),
        output: (ordinal != 3).then(|| Json(json!("vpn"))),
        scores: Json(json!({ "exact_match": 1.0 })),
        score: (ordinal != 3).then_some(ordinal as f64 / 10.0),
        passed: ordinal % 2 == 0,
        error: (ordinal == 3).then(|| "timed out".into()),
        latency_us: 1000,
        first_token_us: None,
        input_tokens: 5,
        output_tokens: 1,
        tags: Json(Vec::new()),
        detail: None,
        at: Timestamp::from_micros(1),
    }
}

#[tokio::test]
async fn samples_are_paged_in_the_order_of_the_test_set_and_filtered() {
    on_both(async |fresh: std::sync::Arc<Fresh>| {
        let store = &fresh.store;
        let who = somebody(store, Role::Developer).await;
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
        let (_, test_set) = dataset_version(store, &who, "tests", Secrecy::Internal).await;
        let run = evaluation_run(store, &who, &version, test_set, "nightly")
            .await
            .id;
        let samples: Vec<_> = (0..6)
            .flat_map(|ordinal| ["", "prv_a"].map(|prompt| sample(run, prompt, ordinal)))
            .collect();

        let mut tx = store.begin().await.unwrap();
        tx.add_samples(&samples[6..]).await.unwrap();
        tx.add_samples(&samples)
            .await
            .expect("a restarted run sends some of them again");
        tx.add_samples(&[]).await.unwrap();
        tx.commit().await.unwrap();

        let mut seen = Vec::new();
        let mut filter = SampleFilter::default();
        loop {
            let page = store.samples(run, &filter, 5).await.unwrap();
            seen.extend(page.items);
            filter.after = page.next;
            if filter.after.is_none() {
                break;
            }
        }
        assert_eq!(seen, samples);

        let count = async |filter: SampleFilter| {
            store.samples(run, &filter, 100).await.unwrap().items.len()
        };
        let all = SampleFilter::default;
        assert_eq!(
            count(SampleFilter {
                passed: Some(false),
                ..all()
            })
            .await,
            6
        );
        assert_eq!(
            count(SampleFilter {
                prompt_version: Some("prv_a".into()),
                ..all()
            })
            .await,
            6
        );
        assert_eq!(
            count(SampleFilter {
                item: Some("item-2".into()),
                ..all()
            })
            .await,
            2
        );
        assert_eq!(
            count(SampleFilter {
                score_below: Some(0.2),
                ..all()
            })
            .await,
            4,
            "what has no score is not below"
        );
        let forged = SampleFilter {
            after: Some("x".into()),
            ..all()
        };
        assert!(matches!(
            store.samples(run, &forged, 5).await,
            Err(StoreError::Invalid { .. })
        ));
    })
    .await;
}
