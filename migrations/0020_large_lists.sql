-- The ledger is read by time, newest first, whatever it is filtered by: an index that ends in the order
-- of the page makes a week of last year as near as the last hour.

CREATE INDEX usage_entries__department_at ON usage_entries (department, at, id);
CREATE INDEX usage_entries__principal_at ON usage_entries (principal, at, id);
CREATE INDEX usage_entries__deployment_at ON usage_entries (deployment, at, id);
DROP INDEX usage_entries__department;
DROP INDEX usage_entries__principal;
DROP INDEX usage_entries__deployment;

-- Hours of whole departments. Where people and models are many, there are as many hours of each of them as
-- there are requests, and a chart of the whole would read them all.
CREATE TABLE usage_department_hours (
    period BIGINT NOT NULL,
    department TEXT NOT NULL,
    requests BIGINT NOT NULL,
    errors BIGINT NOT NULL,
    input_tokens BIGINT NOT NULL,
    output_tokens BIGINT NOT NULL,
    cpu_us BIGINT NOT NULL,
    gpu_us BIGINT NOT NULL,
    bytes BIGINT NOT NULL,
    latency_us BIGINT NOT NULL,
    cost_micros BIGINT NOT NULL,
    PRIMARY KEY (period, department)
);
CREATE INDEX usage_department_hours__department ON usage_department_hours (department, period);
INSERT INTO usage_department_hours (
    period, department, requests, errors, input_tokens, output_tokens, cpu_us, gpu_us, bytes, latency_us, cost_micros
)
SELECT
    period, department, CAST(SUM(requests) AS BIGINT), CAST(SUM(errors) AS BIGINT), CAST(SUM(input_tokens) AS BIGINT),
    CAST(SUM(output_tokens) AS BIGINT), CAST(SUM(cpu_us) AS BIGINT), CAST(SUM(gpu_us) AS BIGINT),
    CAST(SUM(bytes) AS BIGINT), CAST(SUM(latency_us) AS BIGINT), CAST(SUM(cost_micros) AS BIGINT)
FROM usage_hours
GROUP BY period, department;

-- One item of a run, in the order of a page: without this order SQLite goes through the whole run.
CREATE INDEX evaluation_samples__run_item ON evaluation_samples (run, item, ordinal, prompt_version);
