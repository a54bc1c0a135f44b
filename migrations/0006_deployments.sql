-- What is served, under which settings, and each change to it.

CREATE TABLE deployments (
    id TEXT PRIMARY KEY,
    department TEXT NOT NULL REFERENCES departments (id),
    owner TEXT REFERENCES principals (id),
    model TEXT NOT NULL REFERENCES models (id),
    -- The name that requests give as their model.
    endpoint TEXT NOT NULL,
    clearance TEXT NOT NULL,
    cpu_millis BIGINT NOT NULL,
    gpus BIGINT NOT NULL,
    memory_bytes BIGINT NOT NULL,
    zone TEXT,
    replicas BIGINT NOT NULL,
    engine_options TEXT NOT NULL,
    strategy TEXT NOT NULL,
    gate_policy TEXT NOT NULL,
    -- What traffic reaches now; null before the first work order has been promoted.
    live_version TEXT REFERENCES model_versions (id),
    live_digest TEXT,
    live_work_order TEXT,
    version BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    deleted_at BIGINT
);
CREATE UNIQUE INDEX deployments__endpoint_unique ON deployments (endpoint) WHERE deleted_at IS NULL;
CREATE INDEX deployments__model ON deployments (model, id);
CREATE INDEX deployments__live_version ON deployments (live_version);

CREATE TABLE work_orders (
    id TEXT PRIMARY KEY,
    deployment TEXT NOT NULL REFERENCES deployments (id),
    candidate TEXT NOT NULL REFERENCES model_versions (id),
    candidate_digest TEXT NOT NULL,
    previous TEXT REFERENCES model_versions (id),
    author TEXT REFERENCES principals (id),
    approver TEXT REFERENCES principals (id),
    state TEXT NOT NULL,
    -- The canary step that it stands at; 0 before the first.
    step BIGINT NOT NULL,
    -- The deployment's settings as they were when the order was made.
    snapshot TEXT NOT NULL,
    evidence TEXT,
    override_reason TEXT,
    reason TEXT NOT NULL,
    ended_because TEXT,
    finished_at BIGINT,
    version BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    deleted_at BIGINT
);
-- One active work order per deployment.
CREATE UNIQUE INDEX work_orders__deployment_unique ON work_orders (deployment)
    WHERE finished_at IS NULL AND deleted_at IS NULL;
CREATE INDEX work_orders__history ON work_orders (deployment, id);
CREATE INDEX work_orders__candidate ON work_orders (candidate, id);
CREATE INDEX work_orders__state ON work_orders (state, id);

CREATE TABLE work_order_steps (
    id TEXT PRIMARY KEY,
    work_order TEXT NOT NULL REFERENCES work_orders (id),
    name TEXT NOT NULL,
    status TEXT NOT NULL,
    actor TEXT NOT NULL,
    detail TEXT NOT NULL,
    started_at BIGINT NOT NULL,
    finished_at BIGINT,
    version BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    deleted_at BIGINT
);
CREATE INDEX work_order_steps__work_order ON work_order_steps (work_order, id);
