-- What was sent to whom of the events of releases.

CREATE TABLE webhooks (
    -- SHA-256 of the URL, in hexadecimal.
    id TEXT PRIMARY KEY,
    -- When it was first seen: what was decided before is not sent.
    since BIGINT NOT NULL,
    -- Attempts in a row that failed, and when the next one may be made.
    failures BIGINT NOT NULL,
    next_at BIGINT NOT NULL,
    -- The receiver said that it is gone.
    disabled_at BIGINT
);

-- Decisions that are done with for a hook: delivered, of no interest, or given up. A set and not a mark up to which
-- all is done: a transaction that commits late may bring a decision that is older than one that was sent.
CREATE TABLE webhook_deliveries (
    hook TEXT NOT NULL REFERENCES webhooks (id),
    decision TEXT NOT NULL REFERENCES release_decisions (id),
    at BIGINT NOT NULL,
    PRIMARY KEY (hook, decision)
);
CREATE INDEX webhook_deliveries__at ON webhook_deliveries (at);
CREATE INDEX release_decisions__created_at ON release_decisions (created_at, id);
