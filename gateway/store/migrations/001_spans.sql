-- One row a span, in the order of the journal (seq). What was said stands in `content`, so that lists and sums
-- read short rows. `cost_picos` is exact: whole units of 1e-12 USD.
CREATE TABLE journal (
    only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
    seq INTEGER NOT NULL
);

INSERT INTO journal VALUES (1, 0);

CREATE TABLE span (
    id INTEGER PRIMARY KEY,
    seq INTEGER NOT NULL UNIQUE,
    organization_id TEXT NOT NULL,
    unique_id TEXT NOT NULL,
    organization_key_id TEXT,
    organization_key_name TEXT,
    environment TEXT NOT NULL,
    log_method TEXT,
    model TEXT NOT NULL,
    response_model TEXT,
    upstream TEXT,
    provider_id TEXT,
    log_type TEXT NOT NULL,
    stream INTEGER NOT NULL,
    status TEXT NOT NULL,
    status_code INTEGER NOT NULL,
    error_code TEXT,
    error_message TEXT,
    warnings TEXT,
    start_time TEXT,
    timestamp TEXT NOT NULL,
    latency REAL,
    time_to_first_token REAL,
    tokens_per_second REAL,
    routing_time REAL,
    prompt_tokens INTEGER,
    completion_tokens INTEGER,
    total_request_tokens INTEGER,
    prompt_cache_hit_tokens INTEGER,
    prompt_cache_creation_tokens INTEGER,
    reasoning_tokens INTEGER,
    cost_picos INTEGER,
    prompt_unit_price REAL,
    completion_unit_price REAL,
    customer_identifier TEXT,
    customer_email TEXT,
    customer_name TEXT,
    thread_identifier TEXT,
    session_identifier TEXT,
    custom_identifier TEXT,
    group_identifier TEXT,
    evaluation_identifier TEXT,
    trace_unique_id TEXT,
    trace_group_identifier TEXT,
    span_unique_id TEXT,
    span_parent_id TEXT,
    span_name TEXT,
    span_workflow_name TEXT,
    metadata TEXT,
    properties TEXT,
    positive_feedback INTEGER,
    note TEXT,
    category TEXT,
    prompt_id TEXT,
    prompt_name TEXT,
    is_custom_prompt INTEGER NOT NULL,
    temperature REAL NOT NULL,
    top_p REAL NOT NULL,
    frequency_penalty REAL,
    presence_penalty REAL,
    max_tokens INTEGER,
    disable_log INTEGER,
    UNIQUE (organization_id, unique_id)
);

CREATE INDEX span_newest ON span (organization_id, timestamp, id);

CREATE TABLE content (
    span_id INTEGER PRIMARY KEY REFERENCES span (id) ON DELETE CASCADE,
    input TEXT,
    output TEXT,
    usage TEXT,
    customer_params TEXT,
    tool_calls TEXT,
    full_request TEXT,
    full_response TEXT,
    tools TEXT,
    tool_choice TEXT,
    response_format TEXT,
    stop TEXT,
    variables TEXT,
    extras TEXT
);

CREATE VIEW spans AS
SELECT
    span.id AS row_id, seq, unique_id, organization_id, organization_key_id, organization_key_name, environment,
    log_method, model, response_model, upstream, provider_id, log_type, stream,
    status, status_code, error_code, error_message, warnings,
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
