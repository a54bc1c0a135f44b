-- Grey release: where a work order's release stands, and each decision about it.

-- State of the release (JSON); NULL where all traffic is switched at once.
ALTER TABLE work_orders ADD COLUMN release_state TEXT;
-- The order whose revision this one brings back.
ALTER TABLE work_orders ADD COLUMN restores TEXT REFERENCES work_orders (id);
-- The order whose revision was live before this one's.
ALTER TABLE work_orders ADD COLUMN replaced TEXT REFERENCES work_orders (id);

CREATE TABLE release_decisions (
    id TEXT PRIMARY KEY,
    work_order TEXT NOT NULL REFERENCES work_orders (id),
    -- When it was decided; written later where the database did not answer then.
    at BIGINT NOT NULL,
    actor TEXT NOT NULL,
    kind TEXT NOT NULL,
    action TEXT,
    reason TEXT,
    -- The release after it.
    state TEXT NOT NULL,
    -- What was known of the candidate.
    evidence TEXT,
    version BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    deleted_at BIGINT
);
CREATE INDEX release_decisions__work_order ON release_decisions (work_order, id);
