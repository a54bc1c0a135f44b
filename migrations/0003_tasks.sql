-- Durable tasks: everything that takes longer than a request.

CREATE TABLE tasks (
    id TEXT PRIMARY KEY,
    kind TEXT NOT NULL,
    department TEXT REFERENCES departments (id),
    principal TEXT REFERENCES principals (id),
    parent TEXT REFERENCES tasks (id),
    -- The record that the task works for, such as a conversion run.
    subject_kind TEXT,
    subject_id TEXT,
    params TEXT NOT NULL,
    result TEXT,
    error TEXT,
    state TEXT NOT NULL,
    priority BIGINT NOT NULL,
    run_at BIGINT NOT NULL,
    -- Not worth starting any more after this.
    expires_at BIGINT,
    -- The number of the latest attempt; 0 before the first claim.
    attempt BIGINT NOT NULL,
    max_attempts BIGINT NOT NULL,
    -- The claim: who, until when, and the token that every later write must name.
    worker TEXT,
    lease_until BIGINT,
    fencing_token BIGINT NOT NULL,
    heartbeat_at BIGINT,
    timeout_us BIGINT,
    -- When the running attempt times out.
    deadline_at BIGINT,
    progress_fraction DOUBLE PRECISION,
    progress_message TEXT,
    cancel_requested BIGINT NOT NULL,
    idempotency_key TEXT,
    started_at BIGINT,
    finished_at BIGINT,
    version BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    deleted_at BIGINT
);
CREATE UNIQUE INDEX tasks__idempotency_key_unique ON tasks (kind, idempotency_key);
-- A claim takes the first of a kind in this order: a level of priority is worth a minute of waiting.
CREATE INDEX tasks__claim ON tasks (kind, (run_at - priority * 60000000), id) WHERE state = 'queued';
CREATE INDEX tasks__expiry ON tasks (expires_at) WHERE state = 'queued' AND expires_at IS NOT NULL;
CREATE INDEX tasks__leases ON tasks (lease_until) WHERE lease_until IS NOT NULL;
CREATE INDEX tasks__retries ON tasks (run_at) WHERE state = 'retrying';
CREATE INDEX tasks__running ON tasks (kind, state) WHERE finished_at IS NULL;
CREATE INDEX tasks__kind ON tasks (kind, id);
CREATE INDEX tasks__state ON tasks (state, id);
CREATE INDEX tasks__department ON tasks (department, id);
CREATE INDEX tasks__subject ON tasks (subject_id, id);
CREATE INDEX tasks__parent ON tasks (parent, id);

CREATE TABLE task_attempts (
    task TEXT NOT NULL REFERENCES tasks (id),
    attempt BIGINT NOT NULL,
    fencing_token BIGINT NOT NULL,
    worker TEXT NOT NULL,
    claimed_at BIGINT NOT NULL,
    started_at BIGINT,
    finished_at BIGINT,
    outcome TEXT,
    error TEXT,
    PRIMARY KEY (task, attempt)
);

-- Log lines, progress, metrics and steps, in the order that a watcher reads them.
CREATE TABLE task_events (
    task TEXT NOT NULL REFERENCES tasks (id),
    sequence BIGINT NOT NULL,
    attempt BIGINT NOT NULL,
    at BIGINT NOT NULL,
    kind TEXT NOT NULL,
    body TEXT NOT NULL,
    PRIMARY KEY (task, sequence)
);

CREATE TABLE task_checkpoints (
    task TEXT NOT NULL REFERENCES tasks (id),
    step TEXT NOT NULL,
    attempt BIGINT NOT NULL,
    at BIGINT NOT NULL,
    result TEXT NOT NULL,
    PRIMARY KEY (task, step)
);
