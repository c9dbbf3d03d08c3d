// A call as something to run again: with curl, or with Python and the openai package. The key is left to who runs it.

const KEY = "GATEWAY_KEY";
const PATHS = { chat: "/v1/chat/completions", embedding: "/v1/embeddings", response: "/v1/responses", completion: "/v1/completions" };
const METHODS = { chat: "chat.completions", embedding: "embeddings", response: "responses", completion: "completions" };
const SAMPLED = ["frequency_penalty", "logit_bias", "max_tokens", "n", "presence_penalty", "seed", "stop", "stream", "stream_options", "temperature", "top_p", "user"];
const ANSWERED = ["metadata", "parallel_tool_calls", "prompt_cache_key", "safety_identifier", "service_tier", "store", "tool_choice", "tools", "top_logprobs"];
/** What the methods of the openai package take by name; all else they take in `extra_body` only. */
export const NAMED = {
  chat: ["model", "messages", ...SAMPLED, ...ANSWERED, "audio", "function_call", "functions", "logprobs", "max_completion_tokens", "modalities", "prediction", "reasoning_effort", "response_format", "verbosity", "web_search_options"],
  embedding: ["model", "input", "dimensions", "encoding_format", "user"],
  response: ["model", "input", ...ANSWERED, "background", "conversation", "include", "instructions", "max_output_tokens", "max_tool_calls", "previous_response_id", "prompt", "reasoning", "stream", "stream_options", "temperature", "text", "top_p", "truncation", "user"],
  completion: ["model", "prompt", ...SAMPLED, "best_of", "echo", "logprobs", "suffix"],
};

/** Whether it is a call of Anthropic's API, which has messages as well. */
export function isAnthropic(span) {
  const { full_request: asked, full_response: answered } = span;
  if (span.log_type !== "chat" || !asked || typeof asked !== "object") return false;
  return answered?.type === "message" || (!answered?.choices && (Object.hasOwn(asked, "system") || list(asked.tools).some((one) => one?.input_schema)));
}

const list = (value) => (Array.isArray(value) ? value : []);

/** Whether the playground can go on with it. */
export function isTalk(span, body) {
  return span.log_type === "chat" && Array.isArray(body.messages) && !isAnthropic(span);
}

/** The request of a span, as far as it is known; null where it was no call of a model. */
export function request(span) {
  if (!(span.log_type in PATHS)) return null;
  if (span.full_request && typeof span.full_request === "object") return { model: span.model, ...span.full_request };
  if (span.log_type !== "chat" || !Array.isArray(span.prompt_messages)) return null;
  const body = { model: span.model, messages: span.prompt_messages };
  for (const name of ["tools", "tool_choice", "response_format", "max_tokens", "stop", "frequency_penalty", "presence_penalty"]) {
    if (span[name] !== null && span[name] !== undefined) body[name] = span[name];
  }
  for (const name of ["temperature", "top_p"]) if (span[name] !== 1) body[name] = span[name];
  if (span.stream) body.stream = true;
  return body;
}

/** For a shell. */
export function curl(span, body, origin = location.origin) {
  const text = JSON.stringify(body, null, 2).replaceAll("'", "'\\''");
  const [path, version] = isAnthropic(span) ? ["/v1/messages", "  -H 'anthropic-version: 2023-06-01' \\\n"] : [PATHS[span.log_type], ""];
  return `curl ${body.stream ? "-N " : ""}${origin}${path} \\\n  -H "Authorization: Bearer $${KEY}" \\\n${version}  -H 'Content-Type: application/json' \\\n  -d '${text}'\n`;
}

/** For Python; not for Anthropic's API, which the openai package does not know. */
export function python(span, body, origin = location.origin) {
  const is_named = (name) => NAMED[span.log_type].includes(name);
  const args = Object.entries(body).filter(([name]) => is_named(name)).map(([name, value]) => `    ${name}=${literal(value, 1)},\n`);
  const others = Object.entries(body).filter(([name]) => !is_named(name));
  if (others.length) args.push(`    extra_body=${literal(Object.fromEntries(others), 1)},\n`);
  const made = `client.${METHODS[span.log_type]}.create(\n${args.join("")})`;
  const use = body.stream ? `for chunk in ${made}:\n    print(chunk)\n` : `print(${made})\n`;
  return `import os\n\nfrom openai import OpenAI\n\nclient = OpenAI(base_url="${origin}/v1", api_key=os.environ["${KEY}"])\n${use}`;
}

/** A JSON value as Python writes it. */
function literal(value, depth) {
  const pad = "    ".repeat(depth + 1);
  const end = "    ".repeat(depth);
  if (value === null) return "None";
  if (value === true) return "True";
  if (value === false) return "False";
  if (typeof value === "string") return JSON.stringify(value).replaceAll("\u007f", "\\x7f");
  if (JSON.isRawJSON?.(value)) return value.rawJSON;
  if (typeof value !== "object") return String(value);
  const inside = Array.isArray(value)
    ? value.map((one) => literal(one, depth + 1))
    : Object.entries(value).map(([key, one]) => `${JSON.stringify(key)}: ${literal(one, depth + 1)}`);
  const [open, close] = Array.isArray(value) ? "[]" : "{}";
  if (!inside.length) return open + close;
  const flat = `${open}${inside.join(", ")}${close}`;
  return flat.length < 70 && !flat.includes("\n") ? flat : `${open}\n${inside.map((one) => `${pad}${one},\n`).join("")}${end}${close}`;
}
