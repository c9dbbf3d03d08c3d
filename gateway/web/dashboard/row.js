// A span as a row of the list: its columns, and what of a span they show.

import { h } from "./dom.js";
import { brief, clock, count, moment, seconds, speed, usd } from "./format.js";
import { but } from "./route.js";

/** The fields that are asked for. */
export const SHOWN = [
  "unique_id", "timestamp", "start_time", "status", "status_code", "is_open", "error_message", "model", "response_model", "span_name",
  "log_type", "stream", "input_preview", "output_preview", "prompt_tokens", "completion_tokens", "total_request_tokens", "cost",
  "time_to_first_token", "tokens_per_second", "latency", "customer_identifier", "warnings", "positive_feedback", "note",
].join(",");

/** Columns: title, class, what is shown, by what it sorts. */
const COLUMNS = [
  ["Time", "time", (span) => h("time", { datetime: span.timestamp, title: moment(span.timestamp) }, clock(span.timestamp)), "timestamp"],
  ["Model or name", "name", name],
  ["Input", "said", (span) => said(span.input_preview)],
  ["Output", "said out", (span) => (span.status === "failed" ? h("span", { class: "bad" }, span.error_message || `failed, ${span.status_code}`) : said(span.output_preview))],
  ["Tokens", "number tokens", (span) => guess(span, count(span.total_request_tokens), tokens(span)), "total_request_tokens"],
  ["Cost", "number cost", (span) => guess(span, usd(span.cost), span.cost === null ? "no price is known" : `$${span.cost}`), "cost"],
  ["First token", "number ttft", (span) => lasting(span.time_to_first_token), "time_to_first_token"],
  ["Tokens/s", "number speed", (span) => speed(span.tokens_per_second || null), "tokens_per_second"],
  ["Latency", "number latency", (span) => (span.is_open ? elapsed(span) : lasting(span.latency)), "latency"],
  ["Customer", "customer", (span) => span.customer_identifier ?? ""],
];

const lasting = (value) => h("span", { title: seconds(value) }, brief(value));
/** How long a call that runs has been under way. */
export function elapsed(span) {
  const whole = Math.max(0, Math.floor((Date.now() - Date.parse(span.start_time)) / 1000));
  return h("span", { title: "so far" }, whole < 100 ? `${whole} s` : brief(whole), " …");
}
const said = (text) => text ?? h("span", { class: "quiet" }, "–");
const tokens = (span) => `${count(span.prompt_tokens)} in, ${count(span.completion_tokens)} out`;

/** A number that is a guess says so. */
function guess(span, text, title) {
  const is_guess = span.status === "warning" && text !== "–";
  return h("span", { title: is_guess ? `${title}; an estimate: ${warning(span)}` : title }, is_guess && h("span", { class: "about" }, "≈"), text);
}

const warning = (span) => (typeof span.warnings === "string" ? span.warnings : JSON.stringify(span.warnings));

function name(span) {
  const own = span.span_name && span.span_name !== span.model ? span.span_name : "";
  return [
    dot(span),
    h("a", { class: "open-span", href: but({ span: span.id }) }, own || span.model),
    own && span.model !== "none" && h("span", { class: "quiet" }, span.model),
    span.positive_feedback !== null && span.positive_feedback !== undefined && h("span", { class: "mark", title: span.positive_feedback ? "liked" : "disliked" }, span.positive_feedback ? "▲" : "▼"),
    span.note && h("span", { class: "mark", title: span.note }, "✎"),
  ];
}

/** How it went, by colour and in words. */
export function dot(span) {
  const how = span.is_open ? "running" : span.status === "failed" ? "failed" : span.status === "warning" ? "warning" : span.status === "success" ? "fine" : "other";
  return h("span", { class: `dot ${how}`, title: how === "warning" ? `warning: ${warning(span)}` : how === "other" ? span.status : how }, h("span", { class: "unseen" }, how === "other" ? span.status : how));
}

/** The cells of a span. */
export function cells(span) {
  return COLUMNS.map(([, kind, shown]) => h("div", { role: "cell", class: `cell ${kind}` }, shown(span)));
}

/** The titles above them; a click on one sorts. */
export function header(state) {
  return h("div", { role: "row", class: "row head" }, COLUMNS.map(([title, kind, , sort]) => {
    const by = (state.sort_by || "-timestamp").replace(/^-/, "");
    const is_down = (state.sort_by || "-").startsWith("-");
    const is_by = sort === by;
    const to = sort === "timestamp" && (!is_by || !is_down) ? "" : is_by && is_down ? sort : `-${sort}`;
    return h(
      "div", { role: "columnheader", class: `cell ${kind}`, "aria-sort": is_by ? (is_down ? "descending" : "ascending") : null },
      sort ? h("a", { href: but({ sort_by: to, span: "" }), title: `Sort by ${title.toLowerCase()}` }, title, is_by && h("span", { "aria-hidden": "true" }, is_down ? " ↓" : " ↑")) : title,
    );
  }));
}

/** Whether a span stands above another: those that run first, then the later ones. */
export function before(one, other) {
  if (Boolean(one.is_open) !== Boolean(other.is_open)) return Boolean(one.is_open);
  return one.timestamp > other.timestamp;
}
