-- Content-addressed storage: a blob is one file's bytes, an artifact a set of named blobs.

CREATE TABLE blobs (
    digest TEXT PRIMARY KEY,
    bytes BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    -- When the bytes had arrived; null while they are on their way in or out.
    stored_at BIGINT,
    -- Raised by every upload that finds the blob already there: the sweep spares what is this young.
    touched_at BIGINT NOT NULL,
    -- Set by the first of the sweep's two passes; cleared when something refers to the blob again.
    condemned_at BIGINT
);
CREATE INDEX blobs__touched ON blobs (touched_at);

CREATE TABLE artifacts (
    id TEXT PRIMARY KEY,
    department TEXT NOT NULL REFERENCES departments (id),
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    -- sha256 over the sorted (path, blob digest) list; the same content is the same digest.
    digest TEXT NOT NULL,
    bytes BIGINT NOT NULL,
    files BIGINT NOT NULL,
    source TEXT,
    version BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    deleted_at BIGINT
);
CREATE UNIQUE INDEX artifacts__digest_unique ON artifacts (department, kind, digest) WHERE deleted_at IS NULL;
CREATE INDEX artifacts__digest ON artifacts (digest);
CREATE INDEX artifacts__department ON artifacts (department, id);

CREATE TABLE artifact_files (
    artifact TEXT NOT NULL REFERENCES artifacts (id),
    path TEXT NOT NULL,
    blob TEXT NOT NULL REFERENCES blobs (digest),
    bytes BIGINT NOT NULL,
    PRIMARY KEY (artifact, path)
);
CREATE INDEX artifact_files__blob ON artifact_files (blob);

-- Who needs an artifact. Without a row here it may be collected.
CREATE TABLE artifact_references (
    artifact TEXT NOT NULL REFERENCES artifacts (id),
    owner_kind TEXT NOT NULL,
    owner_id TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (artifact, owner_kind, owner_id)
);
CREATE INDEX artifact_references__owner ON artifact_references (owner_id);

CREATE TABLE uploads (
    id TEXT PRIMARY KEY,
    principal TEXT REFERENCES principals (id),
    department TEXT NOT NULL REFERENCES departments (id),
    path TEXT NOT NULL,
    state TEXT NOT NULL,
    expected_digest TEXT,
    expected_bytes BIGINT,
    received_bytes BIGINT NOT NULL,
    -- What the store's own multipart upload needs to go on after a restart (JSON).
    backend_state TEXT,
    blob TEXT REFERENCES blobs (digest),
    expires_at BIGINT NOT NULL,
    version BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    deleted_at BIGINT
);
CREATE INDEX uploads__expires ON uploads (state, expires_at);

CREATE TABLE upload_parts (
    upload TEXT NOT NULL REFERENCES uploads (id),
    part BIGINT NOT NULL,
    start_byte BIGINT NOT NULL,
    bytes BIGINT NOT NULL,
    digest TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (upload, part)
);
