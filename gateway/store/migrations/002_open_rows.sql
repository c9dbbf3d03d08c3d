-- A call under way has an open row. `boot_id` names the process that settles it, and stays where that process ended
-- before it did: `is_open` = 0 with a `boot_id` is an interrupted call. A posted span of status `running` is not open.
ALTER TABLE span ADD COLUMN is_call INTEGER NOT NULL DEFAULT 0;
ALTER TABLE span ADD COLUMN is_open INTEGER NOT NULL DEFAULT 0;
ALTER TABLE span ADD COLUMN boot_id TEXT;
-- Of a posted span: when it came, by the gateway's clock.
ALTER TABLE span ADD COLUMN received_at TEXT;
CREATE INDEX span_open ON span (boot_id) WHERE is_open = 1;

-- What came in, counted in the transaction that stores it, so that the rows can be checked against it.
-- `minute`: of the call's start, or of the arrival of a posted span.
CREATE TABLE ledger (
    organization_id TEXT NOT NULL,
    minute TEXT NOT NULL,
    entry TEXT NOT NULL CHECK (entry IN ('accepted', 'dropped', 'posted', 'repeated', 'refused')),
    number INTEGER NOT NULL,
    PRIMARY KEY (organization_id, minute, entry)
) WITHOUT ROWID;

UPDATE span SET is_call = 1 WHERE log_method = 'inference' AND upstream IS NOT NULL AND start_time IS NOT NULL;
UPDATE span SET received_at = timestamp WHERE is_call = 0;
INSERT INTO ledger
SELECT organization_id, substr(start_time, 1, 16), 'accepted', count(*) FROM span WHERE is_call = 1 GROUP BY 1, 2;
INSERT INTO ledger
SELECT organization_id, substr(timestamp, 1, 16), 'posted', count(*) FROM span WHERE is_call = 0 GROUP BY 1, 2;

DROP VIEW spans;
CREATE VIEW spans AS
SELECT
    span.id AS row_id, seq, unique_id, organization_id, organization_key_id, organization_key_name, environment,
    log_method, model, response_model, upstream, provider_id, log_type, stream,
    status, is_open, status_code, error_code, error_message, warnings,
    start_time, timestamp, latency, time_to_first_token, tokens_per_second, routing_time,
    prompt_tokens, completion_tokens, total_request_tokens,
    prompt_cache_hit_tokens, prompt_cache_creation_tokens, reasoning_tokens,
    cost_picos / 1e12 AS cost, cost_picos, prompt_unit_price, completion_unit_price,
    customer_identifier, customer_email, customer_name, thread_identifier, session_identifier, custom_identifier,
    group_identifier, evaluation_identifier, trace_unique_id, trace_group_identifier, span_unique_id, span_parent_id,
    span_name, span_workflow_name, metadata, properties, positive_feedback, note, category,
    prompt_id, prompt_name, is_custom_prompt,
    temperature, top_p, frequency_penalty, presence_penalty, max_tokens, disable_log,
    input, output, usage, customer_params, tool_calls, full_request, full_response,
    tools, tool_choice, response_format, stop, variables, extras
FROM span LEFT JOIN content ON content.span_id = span.id;
