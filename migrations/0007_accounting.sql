-- Limits, and what was used.

CREATE TABLE quotas (
    id TEXT PRIMARY KEY,
    department TEXT REFERENCES departments (id),
    principal TEXT REFERENCES principals (id),
    -- Null means without limit.
    requests_per_minute BIGINT,
    tokens_per_minute BIGINT,
    requests_per_month BIGINT,
    tokens_per_month BIGINT,
    cpu_millis BIGINT,
    gpus BIGINT,
    memory_bytes BIGINT,
    storage_bytes BIGINT,
    cost_micros_per_month BIGINT,
    version BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    deleted_at BIGINT,
    CHECK ((principal IS NULL) <> (department IS NULL))
);
CREATE UNIQUE INDEX quotas__department_unique ON quotas (department) WHERE deleted_at IS NULL;
CREATE UNIQUE INDEX quotas__principal_unique ON quotas (principal) WHERE deleted_at IS NULL;

-- The ledger, append-only: one row a request or a stretch of use. Text columns are '' where unknown,
-- so that they can be part of the roll-up's key.
CREATE TABLE usage_entries (
    id TEXT PRIMARY KEY,
    at BIGINT NOT NULL,
    department TEXT NOT NULL,
    principal TEXT NOT NULL,
    api_key TEXT NOT NULL,
    deployment TEXT NOT NULL,
    model_version TEXT NOT NULL,
    request TEXT NOT NULL,
    status BIGINT NOT NULL,
    requests BIGINT NOT NULL,
    input_tokens BIGINT NOT NULL,
    output_tokens BIGINT NOT NULL,
    cpu_us BIGINT NOT NULL,
    gpu_us BIGINT NOT NULL,
    bytes BIGINT NOT NULL,
    latency_us BIGINT NOT NULL,
    cost_micros BIGINT NOT NULL
);
CREATE INDEX usage_entries__at ON usage_entries (at, id);
CREATE INDEX usage_entries__department ON usage_entries (department, id);
CREATE INDEX usage_entries__principal ON usage_entries (principal, id);
CREATE INDEX usage_entries__deployment ON usage_entries (deployment, id);

-- Sums by the hour and by the day (UTC), added to in the transaction that appends to the ledger. A
-- report over months reads days, of which there are few, however many requests there were.
CREATE TABLE usage_hours (
    period BIGINT NOT NULL,
    department TEXT NOT NULL,
    principal TEXT NOT NULL,
    deployment TEXT NOT NULL,
    model_version TEXT NOT NULL,
    requests BIGINT NOT NULL,
    errors BIGINT NOT NULL,
    input_tokens BIGINT NOT NULL,
    output_tokens BIGINT NOT NULL,
    cpu_us BIGINT NOT NULL,
    gpu_us BIGINT NOT NULL,
    bytes BIGINT NOT NULL,
    latency_us BIGINT NOT NULL,
    cost_micros BIGINT NOT NULL,
    PRIMARY KEY (period, department, principal, deployment, model_version)
);
CREATE INDEX usage_hours__department ON usage_hours (department, period);
CREATE INDEX usage_hours__principal ON usage_hours (principal, period);
CREATE INDEX usage_hours__deployment ON usage_hours (deployment, period);

CREATE TABLE usage_days (
    period BIGINT NOT NULL,
    department TEXT NOT NULL,
    principal TEXT NOT NULL,
    deployment TEXT NOT NULL,
    model_version TEXT NOT NULL,
    requests BIGINT NOT NULL,
    errors BIGINT NOT NULL,
    input_tokens BIGINT NOT NULL,
    output_tokens BIGINT NOT NULL,
    cpu_us BIGINT NOT NULL,
    gpu_us BIGINT NOT NULL,
    bytes BIGINT NOT NULL,
    latency_us BIGINT NOT NULL,
    cost_micros BIGINT NOT NULL,
    PRIMARY KEY (period, department, principal, deployment, model_version)
);
CREATE INDEX usage_days__department ON usage_days (department, period);
CREATE INDEX usage_days__principal ON usage_days (principal, period);
CREATE INDEX usage_days__deployment ON usage_days (deployment, period);
