-- Which evaluations a model or a deployment asks for, as they were when they were required: a history that is only
-- appended to, the newest number counts. `deployment` is empty where the model itself asks.

CREATE TABLE required_evaluations (
    evaluation TEXT NOT NULL REFERENCES evaluations (id),
    deployment TEXT NOT NULL,
    number BIGINT NOT NULL,
    -- 0: from here on it is not required any more.
    required BIGINT NOT NULL,
    -- 1: asks for less than what its author had to meet before.
    relaxes BIGINT NOT NULL,
    author TEXT REFERENCES principals (id),
    test_set TEXT,
    test_set_digest TEXT,
    metrics TEXT NOT NULL,
    thresholds TEXT NOT NULL,
    policy_digest TEXT NOT NULL,
    -- Of what else decides what is asked: prompts, and where. Empty where nobody wrote it down.
    ask_digest TEXT NOT NULL,
    at BIGINT NOT NULL,
    PRIMARY KEY (evaluation, deployment, number)
);
CREATE INDEX required_evaluations__deployment ON required_evaluations (deployment);

-- What models were measured by so far is required of them.
INSERT INTO required_evaluations (evaluation, deployment, number, required, relaxes, author, test_set, test_set_digest,
    metrics, thresholds, policy_digest, ask_digest, at)
SELECT e.id, '', 1, 1, 0, NULL, e.test_set, s.digest, e.metrics, e.thresholds, e.policy_digest, '', e.updated_at
FROM evaluations e JOIN dataset_versions s ON s.id = e.test_set
WHERE e.deleted_at IS NULL AND e.method = 'automatic' AND e.thresholds <> '{}';

-- What a department lets pass at its gates, by name; a department without a row lets nothing pass.
CREATE TABLE gate_policies (
    department TEXT PRIMARY KEY REFERENCES departments (id),
    allows TEXT NOT NULL,
    at BIGINT NOT NULL
);
