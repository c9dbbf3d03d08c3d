// What can be filtered by, those that are asked for most first. A test holds this beside what the API takes.

export const FIELDS = [
  "model", "status", "customer_identifier", "upstream", "organization_key_name", "cost", "latency", "time_to_first_token",
  "tokens_per_second", "status_code", "error_message", "error_code", "span_name", "log_type", "total_request_tokens",
  "prompt_tokens", "completion_tokens", "trace_unique_id", "thread_identifier", "session_identifier", "stream",
  "environment", "positive_feedback", "note", "input", "output", "response_model", "provider_id", "unique_id",
  "custom_identifier", "group_identifier", "customer_email", "customer_name", "span_workflow_name", "span_unique_id",
  "span_parent_id", "trace_group_identifier", "evaluation_identifier", "organization_key_id", "prompt_id",
  "prompt_name", "deployment_name", "log_method", "category", "error_class", "error_fingerprint", "fault_domain",
  "cache_key", "behaviors", "reasoning_tokens", "prompt_cache_hit_tokens", "prompt_cache_creation_tokens", "max_tokens",
  "prompt_version_number", "routing_time", "temperature", "top_p", "has_tool_calls", "cache_bit",
  "used_custom_credential", "is_root_span", "is_custom_prompt", "disable_log", "timestamp", "start_time",
];

const ALIASES = new Set(["id", "trace_id", "total_cost", "input_tokens", "output_tokens", "total_tokens", "all_tokens", "ttft", "generation_time", "name"]);
const KEYED = /^(metadata|properties|scores)__./;

/** The same of traces: what they have themselves, and what any of their spans may have. */
export const TRACE_FIELDS = [
  "name", "model", "status", "customer_identifier", "total_cost", "duration", "error_count", "span_count", "llm_call_count",
  "total_request_tokens", "total_prompt_tokens", "total_completion_tokens", "span_name", "error_message", "error_code",
  "status_code", "cost", "latency", "time_to_first_token", "tokens_per_second", "log_type", "span_workflow_name",
  "trace_unique_id", "thread_identifier", "session_identifier", "trace_group_identifier", "environment", "prompt_tokens",
  "completion_tokens", "prompt_cache_hit_tokens", "prompt_cache_creation_tokens", "custom_identifier", "group_identifier",
  "provider_id", "deployment_name", "prompt_id", "prompt_name", "prompt_version_number", "log_method", "error_class",
  "error_fingerprint", "routing_time", "span_unique_id", "span_parent_id", "root_span_unique_id", "organization_key_id",
  "unique_organization_id", "timestamp", "start_time", "end_time",
];
const TRACE_ALIASES = new Set(["id", "trace_id"]);
const TRACE_KEYED = /^metadata__./;

/** What a view's list can be filtered by. */
export const fieldsOf = (view) => (view === "traces" ? TRACE_FIELDS : FIELDS);

/** The field of this name in a view, whatever its case; null where there is none. */
export function fieldOf(name, view) {
  const [aliases, keyed] = view === "traces" ? [TRACE_ALIASES, TRACE_KEYED] : [ALIASES, KEYED];
  if (keyed.test(name)) return name;
  const lower = name.toLowerCase();
  return fieldsOf(view).includes(lower) || aliases.has(lower) ? lower : null;
}

/** Whether a condition on this field narrows down what a view shows: one that is of traces alone no spans, and the other
 * way round. What is unknown goes to the API, which says so. */
export function fits(field, view) {
  const [own, other] = view === "traces" ? ["traces", "spans"] : ["spans", "traces"];
  return Boolean(fieldOf(field, own)) || !fieldOf(field, other);
}

/** Beside which a value is likely not the whole one, or a number. */
const NUMBERS = new Set([
  "cost", "latency", "time_to_first_token", "tokens_per_second", "status_code", "total_request_tokens", "prompt_tokens",
  "completion_tokens", "reasoning_tokens", "prompt_cache_hit_tokens", "prompt_cache_creation_tokens", "max_tokens",
  "prompt_version_number", "routing_time", "temperature", "top_p", "timestamp", "start_time", "end_time", "total_cost",
  "duration", "error_count", "span_count", "llm_call_count", "total_prompt_tokens", "total_completion_tokens",
]);
const TEXTS = new Set(["input", "output", "error_message", "note"]);

/** The signs that fit a field, the likeliest first. */
export function signs(field) {
  if (NUMBERS.has(field)) return [">=", "<=", "=", ">", "<", "!="];
  if (field === "input" || field === "output") return ["~", "!~"];
  return TEXTS.has(field) ? ["~", "=", "!=", "!~"] : ["=", "!=", "~", "!~"];
}

/** Whether the API tells which values a field has. */
export const hasValues = (field) => !NUMBERS.has(field) && field !== "input" && field !== "output" && fieldOf(field, "spans") !== null;
