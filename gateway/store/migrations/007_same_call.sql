-- A client's own span of a call that the gateway logged too names that call here, and is left out of sums.
ALTER TABLE span ADD COLUMN gateway_log_id TEXT;
CREATE INDEX span_told_twice ON span (organization_id, gateway_log_id) WHERE gateway_log_id IS NOT NULL;
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
    prompt_id, prompt_name, is_custom_prompt, gateway_log_id,
    temperature, top_p, frequency_penalty, presence_penalty, max_tokens, disable_log,
    CASE input WHEN '=' THEN full_request -> '$.messages' ELSE input END AS input,
    CASE output WHEN '=' THEN full_response -> '$.choices[0].message' ELSE output END AS output,
    CASE usage WHEN '=' THEN full_response -> '$.usage' ELSE usage END AS usage,
    customer_params,
    CASE tool_calls WHEN '=' THEN full_response -> '$.choices[0].message.tool_calls' ELSE tool_calls END AS tool_calls,
    full_request, full_response,
    CASE tools WHEN '=' THEN full_request -> '$.tools' ELSE tools END AS tools,
    CASE tool_choice WHEN '=' THEN full_request -> '$.tool_choice' ELSE tool_choice END AS tool_choice,
    CASE response_format WHEN '=' THEN full_request -> '$.response_format' ELSE response_format END AS response_format,
    CASE stop WHEN '=' THEN full_request -> '$.stop' ELSE stop END AS stop,
    variables, extras
FROM span LEFT JOIN content ON content.span_id = span.id;
