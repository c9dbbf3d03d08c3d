-- What was said long ago is compressed (zlib), column by column: such a value is a BLOB. The first words stay readable.
ALTER TABLE content ADD COLUMN input_text TEXT;
ALTER TABLE content ADD COLUMN output_text TEXT;

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
    CASE input WHEN '=' THEN iif(typeof(full_request) = 'text', full_request, NULL) -> '$.messages' ELSE input END
    AS input,
    CASE output
        WHEN '=' THEN iif(typeof(full_response) = 'text', full_response, NULL) -> '$.choices[0].message'
        ELSE output
    END AS output,
    CASE usage WHEN '=' THEN iif(typeof(full_response) = 'text', full_response, NULL) -> '$.usage' ELSE usage END
    AS usage,
    customer_params,
    CASE tool_calls
        WHEN '=' THEN iif(typeof(full_response) = 'text', full_response, NULL) -> '$.choices[0].message.tool_calls'
        ELSE tool_calls
    END AS tool_calls,
    full_request, full_response,
    CASE tools WHEN '=' THEN iif(typeof(full_request) = 'text', full_request, NULL) -> '$.tools' ELSE tools END
    AS tools,
    CASE tool_choice
        WHEN '=' THEN iif(typeof(full_request) = 'text', full_request, NULL) -> '$.tool_choice'
        ELSE tool_choice
    END AS tool_choice,
    CASE response_format
        WHEN '=' THEN iif(typeof(full_request) = 'text', full_request, NULL) -> '$.response_format'
        ELSE response_format
    END AS response_format,
    CASE stop WHEN '=' THEN iif(typeof(full_request) = 'text', full_request, NULL) -> '$.stop' ELSE stop END AS stop,
    variables, extras
FROM span LEFT JOIN content ON content.span_id = span.id;

-- What was asked last and what was answered, as text; of compressed content the first 200 characters.
CREATE VIEW texts AS
SELECT
    row_id, unique_id, spans.organization_id, timestamp, model, customer_identifier, status,
    coalesce(
        content.input_text,
        CASE
            WHEN typeof(spans.input) <> 'text' THEN NULL
            WHEN NOT json_valid(spans.input) THEN spans.input
            WHEN json_type(spans.input) = 'array' THEN
                coalesce(spans.input ->> '$[#-1].content', spans.input ->> '$[#-1]')
            ELSE coalesce(iif(json_type(spans.input) = 'object', spans.input ->> '$.content', NULL), spans.input ->> '$')
        END
    ) AS input_text,
    coalesce(
        content.output_text,
        CASE
            WHEN typeof(spans.output) <> 'text' THEN NULL
            WHEN NOT json_valid(spans.output) THEN spans.output
            WHEN json_type(spans.output) = 'array' THEN
                coalesce(spans.output ->> '$[#-1].content', spans.output ->> '$[#-1]')
            ELSE coalesce(
                iif(json_type(spans.output) = 'object', spans.output ->> '$.content', NULL), spans.output ->> '$'
            )
        END
    ) AS output_text
FROM spans LEFT JOIN content ON content.span_id = spans.row_id;
