-- Who may do what. Every table that is edited ends in the same four columns: version (the optimistic
-- lock), created_at, updated_at, deleted_at (soft delete; null while the row counts).
-- A unique index is named TABLE__FIELD_unique after its last column: the store reads the field from
-- that name when it tells a caller what collided.

CREATE TABLE departments (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    description TEXT NOT NULL,
    version BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    deleted_at BIGINT
);
CREATE UNIQUE INDEX departments__name_unique ON departments (name) WHERE deleted_at IS NULL;

CREATE TABLE principals (
    id TEXT PRIMARY KEY,
    department TEXT NOT NULL REFERENCES departments (id),
    name TEXT NOT NULL,
    email TEXT,
    role TEXT NOT NULL,
    clearance TEXT NOT NULL,
    disabled BIGINT NOT NULL,
    version BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    deleted_at BIGINT
);
CREATE UNIQUE INDEX principals__name_unique ON principals (name) WHERE deleted_at IS NULL;
CREATE INDEX principals__department ON principals (department, id);

-- The secret itself is never stored: hash is the sha256 of it, prefix what people recognise it by.
CREATE TABLE api_keys (
    id TEXT PRIMARY KEY,
    principal TEXT NOT NULL REFERENCES principals (id),
    name TEXT NOT NULL,
    prefix TEXT NOT NULL,
    hash TEXT NOT NULL,
    scopes TEXT NOT NULL,
    expires_at BIGINT,
    last_used_at BIGINT,
    version BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    deleted_at BIGINT
);
CREATE UNIQUE INDEX api_keys__hash_unique ON api_keys (hash);
CREATE INDEX api_keys__principal ON api_keys (principal, id);

-- Access to one object (a dataset, a model) beyond what the role gives. Exactly one grantee.
CREATE TABLE grants (
    id TEXT PRIMARY KEY,
    object_kind TEXT NOT NULL,
    object_id TEXT NOT NULL,
    principal TEXT REFERENCES principals (id),
    department TEXT REFERENCES departments (id),
    access TEXT NOT NULL,
    version BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    deleted_at BIGINT,
    CHECK ((principal IS NULL) <> (department IS NULL))
);
CREATE INDEX grants__object ON grants (object_kind, object_id);
CREATE INDEX grants__principal ON grants (principal);
CREATE INDEX grants__department ON grants (department);

-- Append-only: no version, no update, no delete.
CREATE TABLE audit_events (
    id TEXT PRIMARY KEY,
    at BIGINT NOT NULL,
    actor TEXT,
    actor_name TEXT NOT NULL,
    verb TEXT NOT NULL,
    object_kind TEXT NOT NULL,
    object_id TEXT NOT NULL,
    before_json TEXT,
    after_json TEXT,
    reason TEXT,
    request TEXT
);
CREATE INDEX audit_events__object ON audit_events (object_id, id);
CREATE INDEX audit_events__actor ON audit_events (actor, id);
CREATE INDEX audit_events__verb ON audit_events (verb, id);
CREATE INDEX audit_events__kind ON audit_events (object_kind, id);

-- Every state change, append-only. With it any record's history can be replayed.
CREATE TABLE transitions (
    id TEXT PRIMARY KEY,
    at BIGINT NOT NULL,
    object_kind TEXT NOT NULL,
    object_id TEXT NOT NULL,
    object_version BIGINT NOT NULL,
    from_state TEXT NOT NULL,
    event TEXT NOT NULL,
    to_state TEXT NOT NULL,
    actor TEXT,
    actor_name TEXT NOT NULL,
    reason TEXT
);
CREATE UNIQUE INDEX transitions__object_version_unique ON transitions (object_id, object_version);

-- The answer to a write, so that a client may repeat it. status is null while the first is under way.
CREATE TABLE idempotency_keys (
    principal TEXT NOT NULL,
    idempotency_key TEXT NOT NULL,
    request_digest TEXT NOT NULL,
    status BIGINT,
    response TEXT,
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    PRIMARY KEY (principal, idempotency_key)
);
CREATE INDEX idempotency_keys__expires ON idempotency_keys (expires_at);
