-- One row per attempt. Every column of the sorting key is deterministic, so that an event written twice meets itself;
-- of two rows with one usage_id the later in the usage topic stays. Read with FINAL, or through the views.
CREATE TABLE IF NOT EXISTS attempts
(
    usage_id           String,
    request_id         String CODEC(ZSTD(1)),
    attempt            UInt32,
    tenant             LowCardinality(String),
    key_id             LowCardinality(String),
    team               LowCardinality(String),
    user               String CODEC(ZSTD(1)),
    alias              LowCardinality(String),
    requested_model    LowCardinality(String),
    provider           LowCardinality(String),
    deployment         LowCardinality(String),
    model              LowCardinality(String),
    endpoint           LowCardinality(String),
    lane               LowCardinality(String),
    tags               Map(String, String) CODEC(ZSTD(1)),
    outcome            LowCardinality(String) COMMENT 'answered, failed, rerouted, cached, cancelled, expired, refused, orphan, unknown',
    billable           Bool COMMENT 'the attempt whose outcome the caller was told: one per request',
    status             UInt16,
    error_code         LowCardinality(String),
    input_tokens       UInt32,
    cached_tokens      UInt32 COMMENT 'part of input_tokens',
    cache_write_tokens UInt32 COMMENT 'part of input_tokens',
    output_tokens      UInt32,
    reasoning_tokens   UInt32 COMMENT 'part of output_tokens',
    audio_tokens       UInt32,
    estimated          Bool COMMENT 'tokens were estimated, not reported',
    cost               Nullable(Decimal(18, 12)) COMMENT 'USD; NULL when no price is known, never 0 for unknown',
    price_version      LowCardinality(String),
    raw_usage          String CODEC(ZSTD(3)) COMMENT 'as the provider sent it',
    created_at         DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)),
    started_at         DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)),
    finished_at        DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)),
    queue_ms           UInt64 CODEC(T64, ZSTD(1)),
    upstream_ms        UInt32 CODEC(T64, ZSTD(1)),
    ttft_ms            Nullable(UInt32),
    topic              LowCardinality(String),
    partition          UInt32,
    offset             UInt64 CODEC(Delta, ZSTD(1)),
    worker             LowCardinality(String),
    config_hash        LowCardinality(String),
    trace_id           String CODEC(ZSTD(1)),
    usage_partition    UInt32 COMMENT 'where the event stood in the usage topic',
    usage_offset       UInt64 CODEC(Delta, ZSTD(1)),
    usage_resume       UInt64 CODEC(Delta, ZSTD(1)) COMMENT 'offset after the batch this row closed, 0 where rows of the batch were still to come'
)
ENGINE = ReplacingMergeTree(usage_offset)
PARTITION BY toYYYYMM(created_at)
ORDER BY (tenant, alias, toStartOfHour(created_at), usage_id)
SETTINGS ttl_only_drop_parts = 1;
