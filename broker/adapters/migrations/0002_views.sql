-- Views for analysts. They hide FINAL, and every sum of money stands beside the number of rows it could price:
-- `priced` of `attempts` rows have a known cost, and `unpriced` rows used tokens that nobody knows the price of.

CREATE OR REPLACE VIEW spend_daily AS
SELECT
    toDate(a.created_at) AS day,
    tenant,
    alias,
    model,
    sum(a.cost) AS cost,
    count() AS attempts,
    countIf(a.billable) AS requests,
    count(a.cost) AS priced,
    countIf(a.cost IS NULL AND (a.outcome = 'answered' OR a.input_tokens + a.output_tokens > 0)) AS unpriced,
    sum(a.input_tokens) AS input_tokens,
    sum(a.output_tokens) AS output_tokens
FROM attempts AS a FINAL
GROUP BY day, tenant, alias, model;

CREATE OR REPLACE VIEW spend_by_tenant AS
SELECT
    tenant,
    team,
    key_id,
    sum(a.cost) AS cost,
    count() AS attempts,
    countIf(a.billable) AS requests,
    count(a.cost) AS priced,
    countIf(a.cost IS NULL AND (a.outcome = 'answered' OR a.input_tokens + a.output_tokens > 0)) AS unpriced,
    sum(a.input_tokens) AS input_tokens,
    sum(a.output_tokens) AS output_tokens,
    max(a.created_at) AS last_seen
FROM attempts AS a FINAL
GROUP BY tenant, team, key_id;

CREATE OR REPLACE VIEW spend_by_model AS
SELECT
    provider,
    model,
    sum(a.cost) AS cost,
    count() AS attempts,
    countIf(a.billable) AS requests,
    count(a.cost) AS priced,
    countIf(a.cost IS NULL AND (a.outcome = 'answered' OR a.input_tokens + a.output_tokens > 0)) AS unpriced,
    sum(a.input_tokens) AS input_tokens,
    sum(a.cached_tokens) AS cached_tokens,
    sum(a.output_tokens) AS output_tokens
FROM attempts AS a FINAL
GROUP BY provider, model;

CREATE OR REPLACE VIEW latency_by_deployment AS
SELECT
    toStartOfHour(a.created_at) AS hour,
    alias,
    deployment,
    count() AS attempts,
    countIf(a.outcome = 'answered') AS answered,
    quantilesTDigest(0.5, 0.95, 0.99)(a.upstream_ms) AS upstream_ms_p50_p95_p99,
    quantilesTDigest(0.5, 0.95, 0.99)(a.ttft_ms) AS ttft_ms_p50_p95_p99,
    quantilesTDigest(0.5, 0.95, 0.99)(a.queue_ms) AS queue_ms_p50_p95_p99,
    sumIf(a.output_tokens, a.outcome = 'answered') / nullIf(sumIf(a.upstream_ms, a.outcome = 'answered'), 0) * 1000
        AS output_tokens_per_second
FROM attempts AS a FINAL
WHERE a.upstream_ms > 0
GROUP BY hour, alias, deployment;

-- What retries, crashes and cancelled work cost: attempts that no caller pays for.
CREATE OR REPLACE VIEW waste AS
SELECT
    toDate(a.created_at) AS day,
    alias,
    deployment,
    outcome,
    error_code,
    count() AS attempts,
    sum(a.cost) AS cost,
    count(a.cost) AS priced,
    sum(a.input_tokens) AS input_tokens,
    sum(a.output_tokens) AS output_tokens,
    sum(a.upstream_ms) AS upstream_ms
FROM attempts AS a FINAL
WHERE NOT a.billable
GROUP BY day, alias, deployment, outcome, error_code;

-- What to add a price for: models that used tokens without a known price.
CREATE OR REPLACE VIEW unpriced AS
SELECT
    provider,
    deployment,
    model,
    price_version,
    count() AS attempts,
    sum(a.input_tokens) AS input_tokens,
    sum(a.output_tokens) AS output_tokens,
    min(a.created_at) AS first_seen,
    max(a.created_at) AS last_seen
FROM attempts AS a FINAL
WHERE a.cost IS NULL AND (a.outcome = 'answered' OR a.input_tokens + a.output_tokens > 0)
GROUP BY provider, deployment, model, price_version;
