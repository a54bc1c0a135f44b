-- Who may use what: deployments that are open to all or stand in for what the configuration serves, people who are a key of the
-- keys file, and keys that are limited, were made by another key, or took the place of one.

ALTER TABLE deployments ADD COLUMN open_to_all BIGINT NOT NULL DEFAULT 0;
-- Whether it may stand in for a deployment of the same name in the configuration: by an administrator's word. What is
-- live already goes on as it was.
ALTER TABLE deployments ADD COLUMN adopted BIGINT NOT NULL DEFAULT 0;
UPDATE deployments SET adopted = 1 WHERE live_version IS NOT NULL;

-- The id of the key in the keys file that this principal is.
ALTER TABLE principals ADD COLUMN file_key TEXT;
CREATE UNIQUE INDEX principals__file_key_unique ON principals (file_key) WHERE deleted_at IS NULL;

ALTER TABLE api_keys ADD COLUMN models TEXT;
ALTER TABLE api_keys ADD COLUMN requests_per_minute BIGINT;
ALTER TABLE api_keys ADD COLUMN tokens_per_minute BIGINT;
ALTER TABLE api_keys ADD COLUMN requests_per_month BIGINT;
ALTER TABLE api_keys ADD COLUMN tokens_per_month BIGINT;
-- The key that made it: the id of the first of its line, or file:ID for one of the keys file.
ALTER TABLE api_keys ADD COLUMN made_by TEXT;
-- 1: it counts only as long as a key of that line does.
ALTER TABLE api_keys ADD COLUMN ends_with_maker BIGINT NOT NULL DEFAULT 0;
-- The first key of its line: the one that was rotated into this one, by one step or several.
ALTER TABLE api_keys ADD COLUMN line TEXT;
CREATE INDEX api_keys__line ON api_keys (line);

-- Sums by the day and the key, for the month's budget of a key.
CREATE TABLE usage_key_days (
    period BIGINT NOT NULL,
    api_key TEXT NOT NULL,
    requests BIGINT NOT NULL,
    errors BIGINT NOT NULL,
    input_tokens BIGINT NOT NULL,
    output_tokens BIGINT NOT NULL,
    cpu_us BIGINT NOT NULL,
    gpu_us BIGINT NOT NULL,
    bytes BIGINT NOT NULL,
    latency_us BIGINT NOT NULL,
    cost_micros BIGINT NOT NULL,
    PRIMARY KEY (period, api_key)
);
CREATE INDEX usage_key_days__key ON usage_key_days (api_key, period);
