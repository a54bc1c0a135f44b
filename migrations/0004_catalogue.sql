-- Models, and what a version of one is made from.

CREATE TABLE datasets (
    id TEXT PRIMARY KEY,
    department TEXT NOT NULL REFERENCES departments (id),
    owner TEXT REFERENCES principals (id),
    name TEXT NOT NULL,
    description TEXT NOT NULL,
    source TEXT NOT NULL,
    modality TEXT NOT NULL,
    secrecy TEXT NOT NULL,
    version BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    deleted_at BIGINT
);
CREATE UNIQUE INDEX datasets__name_unique ON datasets (department, name) WHERE deleted_at IS NULL;
CREATE INDEX datasets__secrecy ON datasets (secrecy, id);

CREATE TABLE dataset_versions (
    id TEXT PRIMARY KEY,
    dataset TEXT NOT NULL REFERENCES datasets (id),
    number BIGINT NOT NULL,
    author TEXT REFERENCES principals (id),
    artifact TEXT REFERENCES artifacts (id),
    digest TEXT NOT NULL,
    row_count BIGINT NOT NULL,
    bytes BIGINT NOT NULL,
    schema_json TEXT NOT NULL,
    statistics TEXT NOT NULL,
    parent TEXT REFERENCES dataset_versions (id),
    note TEXT NOT NULL,
    version BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    deleted_at BIGINT
);
CREATE UNIQUE INDEX dataset_versions__number_unique ON dataset_versions (dataset, number);
CREATE INDEX dataset_versions__digest ON dataset_versions (digest);

CREATE TABLE models (
    id TEXT PRIMARY KEY,
    department TEXT NOT NULL REFERENCES departments (id),
    owner TEXT REFERENCES principals (id),
    name TEXT NOT NULL,
    description TEXT NOT NULL,
    train_framework TEXT NOT NULL,
    inference_framework TEXT NOT NULL,
    code_url TEXT,
    dashboard_url TEXT,
    version BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    deleted_at BIGINT
);
CREATE UNIQUE INDEX models__name_unique ON models (name) WHERE deleted_at IS NULL;
CREATE INDEX models__department ON models (department, id);

CREATE TABLE trainings (
    id TEXT PRIMARY KEY,
    model TEXT NOT NULL REFERENCES models (id),
    owner TEXT REFERENCES principals (id),
    name TEXT NOT NULL,
    -- A model version; not a foreign key, because versions refer to training runs.
    base_version TEXT,
    recipe TEXT NOT NULL,
    hyperparameters TEXT NOT NULL,
    resources TEXT NOT NULL,
    version BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    deleted_at BIGINT
);
CREATE UNIQUE INDEX trainings__name_unique ON trainings (model, name) WHERE deleted_at IS NULL;

CREATE TABLE training_datasets (
    training TEXT NOT NULL REFERENCES trainings (id),
    dataset_version TEXT NOT NULL REFERENCES dataset_versions (id),
    PRIMARY KEY (training, dataset_version)
);
CREATE INDEX training_datasets__dataset_version ON training_datasets (dataset_version);

CREATE TABLE training_runs (
    id TEXT PRIMARY KEY,
    training TEXT NOT NULL REFERENCES trainings (id),
    task TEXT REFERENCES tasks (id),
    author TEXT REFERENCES principals (id),
    status TEXT NOT NULL,
    params TEXT NOT NULL,
    metrics TEXT NOT NULL,
    -- The exact inputs used, by digest: what the training said then, not what it says now.
    inputs TEXT NOT NULL,
    artifact TEXT REFERENCES artifacts (id),
    error TEXT,
    started_at BIGINT,
    finished_at BIGINT,
    version BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    deleted_at BIGINT
);
CREATE INDEX training_runs__training ON training_runs (training, id);

CREATE TABLE conversion_runs (
    id TEXT PRIMARY KEY,
    model TEXT NOT NULL REFERENCES models (id),
    task TEXT REFERENCES tasks (id),
    author TEXT REFERENCES principals (id),
    status TEXT NOT NULL,
    source_artifact TEXT REFERENCES artifacts (id),
    source_framework TEXT NOT NULL,
    exporter TEXT NOT NULL,
    opset BIGINT,
    -- The numeric format asked for: fp32, fp16, int8, int4. ("precision" is a word of SQL.)
    number_format TEXT NOT NULL,
    params TEXT NOT NULL,
    parity TEXT,
    parity_passed BIGINT,
    output_artifact TEXT REFERENCES artifacts (id),
    output_digest TEXT,
    error TEXT,
    started_at BIGINT,
    finished_at BIGINT,
    version BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    deleted_at BIGINT
);
CREATE INDEX conversion_runs__model ON conversion_runs (model, id);
CREATE INDEX conversion_runs__output_digest ON conversion_runs (output_digest);

CREATE TABLE model_versions (
    id TEXT PRIMARY KEY,
    model TEXT NOT NULL REFERENCES models (id),
    number BIGINT NOT NULL,
    author TEXT REFERENCES principals (id),
    state TEXT NOT NULL,
    artifact TEXT REFERENCES artifacts (id),
    digest TEXT,
    training_run TEXT REFERENCES training_runs (id),
    conversion_run TEXT REFERENCES conversion_runs (id),
    -- The evaluation run whose evidence the approval rests on.
    evidence TEXT,
    approver TEXT REFERENCES principals (id),
    approved_at BIGINT,
    note TEXT NOT NULL,
    version BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    deleted_at BIGINT
);
CREATE UNIQUE INDEX model_versions__number_unique ON model_versions (model, number);
CREATE INDEX model_versions__digest ON model_versions (digest);
CREATE INDEX model_versions__state ON model_versions (state, id);
CREATE INDEX model_versions__training_run ON model_versions (training_run);

CREATE TABLE model_version_datasets (
    model_version TEXT NOT NULL REFERENCES model_versions (id),
    dataset_version TEXT NOT NULL REFERENCES dataset_versions (id),
    use_of TEXT NOT NULL,
    PRIMARY KEY (model_version, dataset_version)
);
CREATE INDEX model_version_datasets__dataset_version ON model_version_datasets (dataset_version);
