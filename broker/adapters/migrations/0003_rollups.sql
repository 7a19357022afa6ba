-- Rollups for dashboards. They are refreshable, not incremental: an incremental view over a replacing table counts an
-- event that is written twice as two. Each refresh recomputes its window, so a late duplicate corrects itself.

CREATE TABLE IF NOT EXISTS rollup_minute
(
    minute        DateTime('UTC'),
    tenant        LowCardinality(String),
    alias         LowCardinality(String),
    deployment    LowCardinality(String),
    model         LowCardinality(String),
    lane          LowCardinality(String),
    outcome       LowCardinality(String),
    attempts      UInt64,
    requests      UInt64,
    cost          Nullable(Decimal(38, 12)),
    priced        UInt64,
    input_tokens  UInt64,
    cached_tokens UInt64,
    output_tokens UInt64,
    upstream_ms   UInt64,
    queue_ms      UInt64
)
ENGINE = MergeTree
ORDER BY (minute, tenant, alias, deployment, model, lane, outcome);

CREATE MATERIALIZED VIEW IF NOT EXISTS rollup_minute_refresh
REFRESH EVERY 1 MINUTE TO rollup_minute AS
SELECT
    toStartOfMinute(toDateTime(a.created_at, 'UTC')) AS minute,
    tenant,
    alias,
    deployment,
    model,
    lane,
    outcome,
    count() AS attempts,
    countIf(a.billable) AS requests,
    sum(a.cost) AS cost,
    count(a.cost) AS priced,
    sum(a.input_tokens) AS input_tokens,
    sum(a.cached_tokens) AS cached_tokens,
    sum(a.output_tokens) AS output_tokens,
    sum(a.upstream_ms) AS upstream_ms,
    sum(a.queue_ms) AS queue_ms
FROM attempts AS a FINAL
WHERE a.created_at >= now() - INTERVAL 1 DAY
GROUP BY minute, tenant, alias, deployment, model, lane, outcome;

CREATE TABLE IF NOT EXISTS rollup_hour
(
    hour          DateTime('UTC'),
    tenant        LowCardinality(String),
    alias         LowCardinality(String),
    deployment    LowCardinality(String),
    model         LowCardinality(String),
    lane          LowCardinality(String),
    outcome       LowCardinality(String),
    attempts      UInt64,
    requests      UInt64,
    cost          Nullable(Decimal(38, 12)),
    priced        UInt64,
    input_tokens  UInt64,
    cached_tokens UInt64,
    output_tokens UInt64,
    upstream_ms   UInt64,
    queue_ms      UInt64
)
ENGINE = MergeTree
ORDER BY (hour, tenant, alias, deployment, model, lane, outcome);

CREATE MATERIALIZED VIEW IF NOT EXISTS rollup_hour_refresh
REFRESH EVERY 15 MINUTE TO rollup_hour AS
SELECT
    toStartOfHour(toDateTime(a.created_at, 'UTC')) AS hour,
    tenant,
    alias,
    deployment,
    model,
    lane,
    outcome,
    count() AS attempts,
    countIf(a.billable) AS requests,
    sum(a.cost) AS cost,
    count(a.cost) AS priced,
    sum(a.input_tokens) AS input_tokens,
    sum(a.cached_tokens) AS cached_tokens,
    sum(a.output_tokens) AS output_tokens,
    sum(a.upstream_ms) AS upstream_ms,
    sum(a.queue_ms) AS queue_ms
FROM attempts AS a FINAL
WHERE a.created_at >= now() - INTERVAL 92 DAY
GROUP BY hour, tenant, alias, deployment, model, lane, outcome;
