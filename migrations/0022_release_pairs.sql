-- A sample of copied requests with both answers, for reading side by side. Prompts and answers are content: they
-- are here and nowhere else.

CREATE TABLE release_pairs (
    id TEXT PRIMARY KEY,
    work_order TEXT NOT NULL REFERENCES work_orders (id),
    -- When the live request ended.
    at BIGINT NOT NULL,
    request_id TEXT NOT NULL,
    -- Hash of its unit, in hexadecimal.
    unit TEXT NOT NULL,
    agrees BIGINT NOT NULL,
    similarity DOUBLE PRECISION NOT NULL,
    how TEXT NOT NULL,
    -- Drawn at random: of too many, those with the greatest go.
    draw BIGINT NOT NULL,
    -- The body, or the beginning of it.
    request TEXT NOT NULL,
    -- Both answers (JSON).
    live TEXT NOT NULL,
    candidate TEXT NOT NULL,
    version BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    deleted_at BIGINT
);
CREATE INDEX release_pairs__work_order ON release_pairs (work_order, id);
CREATE INDEX release_pairs__sample ON release_pairs (work_order, agrees, draw);
