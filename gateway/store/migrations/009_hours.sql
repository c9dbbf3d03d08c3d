-- The hours in which spans ended, and whether their sums stand (1). Any other number but 0 is of one who makes them just
-- now. A change to any of its spans takes an hour's sums out of use, in the same transaction.
CREATE TABLE span_hour (
    organization_id TEXT NOT NULL,
    hour TEXT NOT NULL,
    summed INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (organization_id, hour)
) WITHOUT ROWID;
INSERT INTO span_hour (organization_id, hour) SELECT DISTINCT organization_id, substr(timestamp, 1, 13) FROM span;

CREATE TRIGGER span_came AFTER INSERT ON span BEGIN
    INSERT INTO span_hour (organization_id, hour) VALUES (NEW.organization_id, substr(NEW.timestamp, 1, 13))
    ON CONFLICT DO UPDATE SET summed = 0 WHERE summed <> 0;
END;
CREATE TRIGGER span_went AFTER DELETE ON span BEGIN
    UPDATE span_hour SET summed = 0
    WHERE organization_id = OLD.organization_id AND hour = substr(OLD.timestamp, 1, 13) AND summed <> 0;
END;
CREATE TRIGGER span_changed AFTER UPDATE ON span BEGIN
    UPDATE span_hour SET summed = 0
    WHERE organization_id = OLD.organization_id AND hour = substr(OLD.timestamp, 1, 13) AND summed <> 0;
    INSERT INTO span_hour (organization_id, hour) VALUES (NEW.organization_id, substr(NEW.timestamp, 1, 13))
    ON CONFLICT DO UPDATE SET summed = 0 WHERE summed <> 0;
END;

-- Sums are in two halves, of 1e9 and of 1, so that none outgrows 64 bits.
CREATE TABLE hourly_sum (
    organization_id TEXT NOT NULL,
    hour TEXT NOT NULL,
    environment TEXT,
    model TEXT,
    log_type TEXT,
    status TEXT,
    upstream TEXT,
    provider_id TEXT,
    organization_key_id TEXT,
    organization_key_name TEXT,
    spans INTEGER NOT NULL,
    failed INTEGER NOT NULL,
    with_cost INTEGER NOT NULL,
    cost_high INTEGER,
    cost_low INTEGER,
    total_high INTEGER,
    total_low INTEGER,
    prompt_high INTEGER,
    prompt_low INTEGER,
    completion_high INTEGER,
    completion_low INTEGER,
    latency_sum REAL,
    latency_count INTEGER NOT NULL,
    tokens_per_second_sum REAL,
    tokens_per_second_count INTEGER NOT NULL,
    time_to_first_token_sum REAL,
    time_to_first_token_count INTEGER NOT NULL,
    newest TEXT NOT NULL
);
CREATE INDEX hourly_sum_of_hour ON hourly_sum (organization_id, hour);

CREATE VIEW daily AS
SELECT
    substr(timestamp, 1, 10) AS day, organization_id, environment, model,
    count(*) AS spans, sum(status = 'failed') AS failed,
    sum(prompt_tokens) AS prompt_tokens, sum(completion_tokens) AS completion_tokens,
    sum(coalesce(total_request_tokens, coalesce(prompt_tokens, 0) + coalesce(completion_tokens, 0))) AS total_tokens,
    sum(cost_picos) / 1e12 AS cost, avg(latency) AS latency, avg(time_to_first_token) AS time_to_first_token,
    avg(tokens_per_second) AS tokens_per_second
FROM span WHERE gateway_log_id IS NULL
GROUP BY 1, 2, 3, 4;

CREATE VIEW traces AS
SELECT
    trace_unique_id, organization_id,
    min(coalesce(start_time, timestamp)) AS start_time, max(timestamp) AS end_time,
    count(*) AS spans, sum(status = 'failed') AS failed,
    sum(CASE WHEN gateway_log_id IS NULL THEN cost_picos END) / 1e12 AS cost,
    sum(CASE WHEN gateway_log_id IS NULL THEN prompt_tokens END) AS prompt_tokens,
    sum(CASE WHEN gateway_log_id IS NULL THEN completion_tokens END) AS completion_tokens,
    max(customer_identifier) AS customer_identifier,
    max(CASE WHEN coalesce(span_parent_id, '') = '' THEN span_name END) AS name
FROM span WHERE trace_unique_id <> ''
GROUP BY 1, 2;
