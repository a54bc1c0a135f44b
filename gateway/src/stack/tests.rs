use super::*;

#[test]
fn paths_become_a_bounded_set_of_labels() {
    for (path, label) in [
        ("/v1/chat/completions", "chat"),
        ("/v1/models/meta/llama", "models"),
        ("/v1/nothing", "v1"),
        ("/health/live", "health"),
        ("/healthy", "other"),
        ("/v2/models/x/infer", "v2"),
        ("/v2/health/ready", "health"),
        ("/api/v1/stats", "stats"),
        ("/api/v1/models", "control"),
        ("/api/2.0/mlflow/runs", "control"),
        ("/apis", "other"),
        ("/", "other"),
    ] {
        assert_eq!(Route::of(path).as_str(), label, "{path}");
    }
    for (index, route) in Route::ALL.into_iter().enumerate() {
        assert_eq!(route as usize, index, "ALL is in the order of the variants");
    }
}
