use super::*;

#[test]
fn a_roll_back_says_what_it_came_to() {
    let said = |answer: Value| taken_back("helpdesk", &answer);
    let at = "2026-11-26T18:21:12Z";
    assert_eq!(
        said(json!({ "queued": true, "revision": "v1-ab12cd", "message": "written down later" })),
        "helpdesk  v1-ab12cd answers; written down later"
    );
    assert_eq!(
        said(json!({
            "queued": true, "revision": "v1-ab12cd", "message": "v1-ab12cd is loaded and answers then"
        })),
        "helpdesk  v1-ab12cd is loaded and answers then"
    );
    assert_eq!(
        said(json!({
            "already": true, "message": "already taken back: v1-ab12cd was brought back", "further": ["v0-ef34ab"]
        })),
        "helpdesk  already taken back: v1-ab12cd was brought back\n`sluice rollback helpdesk --to v0-ef34ab` does that"
    );
    assert_eq!(
        said(json!({ "id": "wo_1", "state": "rolled_back", "restores": null, "finished_at": at })),
        "helpdesk  the release wo_1 is rolled back"
    );
    assert_eq!(
        said(
            json!({ "id": "wo_1", "state": "rolling_back", "restores": null, "finished_at": null })
        ),
        "helpdesk  the release wo_1 is taken back (rolling back)"
    );
    assert_eq!(
        said(json!({ "id": "wo_2", "state": "promoted", "restores": "wo_0", "finished_at": at })),
        "helpdesk  the revision before is back: wo_2 is promoted"
    );
    let coming = said(
        json!({ "id": "wo_2", "state": "preparing", "restores": "wo_0", "finished_at": null }),
    );
    assert!(
        coming.ends_with("`sluice workorder watch wo_2` follows it"),
        "{coming}"
    );
}
