-- What a version was measured by, and every input and output of it.

CREATE TABLE evaluations (
    id TEXT PRIMARY KEY,
    model TEXT NOT NULL REFERENCES models (id),
    owner TEXT REFERENCES principals (id),
    name TEXT NOT NULL,
    method TEXT NOT NULL,
    test_set TEXT REFERENCES dataset_versions (id),
    metrics TEXT NOT NULL,
    thresholds TEXT NOT NULL,
    -- sha256 of test set, metrics and thresholds: what evidence has to name.
    policy_digest TEXT NOT NULL,
    settings TEXT NOT NULL,
    version BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    deleted_at BIGINT
);
CREATE UNIQUE INDEX evaluations__name_unique ON evaluations (model, name) WHERE deleted_at IS NULL;

CREATE TABLE prompt_versions (
    id TEXT PRIMARY KEY,
    model TEXT NOT NULL REFERENCES models (id),
    author TEXT REFERENCES principals (id),
    name TEXT NOT NULL,
    number BIGINT NOT NULL,
    digest TEXT NOT NULL,
    template TEXT NOT NULL,
    sampling TEXT NOT NULL,
    note TEXT NOT NULL,
    version BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    deleted_at BIGINT
);
CREATE UNIQUE INDEX prompt_versions__number_unique ON prompt_versions (model, name, number);

CREATE TABLE evaluation_prompts (
    evaluation TEXT NOT NULL REFERENCES evaluations (id),
    prompt_version TEXT NOT NULL REFERENCES prompt_versions (id),
    PRIMARY KEY (evaluation, prompt_version)
);

CREATE TABLE evaluation_runs (
    id TEXT PRIMARY KEY,
    evaluation TEXT NOT NULL REFERENCES evaluations (id),
    model_version TEXT NOT NULL REFERENCES model_versions (id),
    task TEXT REFERENCES tasks (id),
    author TEXT REFERENCES principals (id),
    status TEXT NOT NULL,
    -- Copied when the run starts: the gate compares them, whatever is edited later.
    artifact_digest TEXT NOT NULL,
    test_set TEXT NOT NULL,
    policy_digest TEXT NOT NULL,
    baseline_version TEXT REFERENCES model_versions (id),
    samples BIGINT NOT NULL,
    scores TEXT NOT NULL,
    verdict TEXT,
    report TEXT NOT NULL,
    withdrawn_at BIGINT,
    error TEXT,
    started_at BIGINT,
    finished_at BIGINT,
    version BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    deleted_at BIGINT
);
CREATE INDEX evaluation_runs__evaluation ON evaluation_runs (evaluation, id);
CREATE INDEX evaluation_runs__model_version ON evaluation_runs (model_version, id);

-- Append-only; written in batches while the run goes on.
CREATE TABLE evaluation_samples (
    run TEXT NOT NULL REFERENCES evaluation_runs (id),
    prompt_version TEXT NOT NULL,
    ordinal BIGINT NOT NULL,
    item TEXT NOT NULL,
    input TEXT NOT NULL,
    expected TEXT,
    output TEXT,
    scores TEXT NOT NULL,
    -- The run's leading metric, for sorting and filtering.
    score DOUBLE PRECISION,
    passed BIGINT NOT NULL,
    error TEXT,
    latency_us BIGINT NOT NULL,
    input_tokens BIGINT NOT NULL,
    output_tokens BIGINT NOT NULL,
    at BIGINT NOT NULL,
    PRIMARY KEY (run, prompt_version, ordinal)
);
CREATE INDEX evaluation_samples__ordinal ON evaluation_samples (run, ordinal, prompt_version);
CREATE INDEX evaluation_samples__passed ON evaluation_samples (run, passed, ordinal, prompt_version);
CREATE INDEX evaluation_samples__score ON evaluation_samples (run, score, ordinal, prompt_version);
CREATE INDEX evaluation_samples__item ON evaluation_samples (item, run);
