// A call as something to run again: with curl, or with Python and the openai package. The key is left to who runs it.

const KEY = "GATEWAY_KEY";
const PATHS = { chat: "/v1/chat/completions", embedding: "/v1/embeddings", response: "/v1/responses", completion: "/v1/completions" };
const METHODS = { chat: "chat.completions", embedding: "embeddings", response: "responses", completion: "completions" };

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
  return `curl ${body.stream ? "-N " : ""}${origin}${PATHS[span.log_type]} \\\n  -H "Authorization: Bearer $${KEY}" \\\n  -H 'Content-Type: application/json' \\\n  -d '${text}'\n`;
}

/** For Python. */
export function python(span, body, origin = location.origin) {
  const args = Object.entries(body).map(([name, value]) => (/^[A-Za-z_]\w*$/.test(name) ? `    ${name}=${literal(value, 1)},\n` : null));
  const others = Object.entries(body).filter(([name]) => !/^[A-Za-z_]\w*$/.test(name));
  if (others.length) args.push(`    extra_body=${literal(Object.fromEntries(others), 1)},\n`);
  const made = `client.${METHODS[span.log_type]}.create(\n${args.filter(Boolean).join("")})`;
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
  if (typeof value !== "object") return String(value);
  const inside = Array.isArray(value)
    ? value.map((one) => literal(one, depth + 1))
    : Object.entries(value).map(([key, one]) => `${JSON.stringify(key)}: ${literal(one, depth + 1)}`);
  const [open, close] = Array.isArray(value) ? "[]" : "{}";
  if (!inside.length) return open + close;
  const flat = `${open}${inside.join(", ")}${close}`;
  return flat.length < 70 && !flat.includes("\n") ? flat : `${open}\n${inside.map((one) => `${pad}${one},\n`).join("")}${end}${close}`;
}
