-- What a run does, copied when it is asked for; and what a sample's answer came with.

ALTER TABLE evaluation_runs ADD COLUMN plan TEXT NOT NULL DEFAULT '{}';
CREATE INDEX evaluation_runs__unfinished ON evaluation_runs (status) WHERE finished_at IS NULL;

-- A JSON list of the test set's own labels for the row.
ALTER TABLE evaluation_samples ADD COLUMN tags TEXT NOT NULL DEFAULT '[]';
ALTER TABLE evaluation_samples ADD COLUMN first_token_us BIGINT;
-- Why the answer ended, what a judge said.
ALTER TABLE evaluation_samples ADD COLUMN detail TEXT;
