// One span: what was said, what it cost and why, when what happened, and where it belongs.

import { get, getExactly, part, patch } from "./api.js";
import { parse, written } from "./conditions.js";
import { conversation } from "./conversation.js";
import { curl, isAnthropic, isTalk, python, request } from "./copyas.js";
import { $, button, copy, fill, h, tell } from "./dom.js";
import { count, moment, seconds, size, speed, usd } from "./format.js";
import { MOST_DRAWN, whole } from "./json.js";
import { but, current, go } from "./route.js";
import { dot } from "./row.js";

const PLAIN = "plain-text";
const NOTE_AFTER_MS = 800;
const NOTE_AGAIN_MS = 5000;
// What runs without a model.
const WORK = new Set(["tool", "function", "workflow", "task", "agent", "handoff", "guardrail", "custom"]);
// What changes while a call runs and when its tokens are counted; and by others who look at it.
const MEASURED = ["status", "latency", "total_request_tokens", "cost"];
const SAID = ["note", "positive_feedback"];

/** The panel of a span; it loads by itself, and when it hears (`changed`) of a change. `turn(by)`: to the one above or
 * below, where there is such. */
export function spanPanel(id, { onclose, turn } = {}) {
  let shown = null;
  const body = h("div", { class: "span-body" }, h("p", { class: "quiet pad" }, "Loading …"));
  const title = h("h1", {}, "Span");
  const head = h("header", { class: "span-head" }, title, h("div", { class: "actions" },
    turn && button("The one above", () => turn(-1), { picture: "left", title: "The one above ([)", class: "plain upright" }),
    turn && button("The one below", () => turn(1), { picture: "right", title: "The one below (])", class: "plain upright" }),
    button("Copy the link to this span", () => copy(new URL(but({ span: id }), location.origin).href, "Link copied"), { picture: "copy", class: "plain" }),
    onclose && button("Close", onclose, { picture: "close", title: "Close (Esc)", class: "plain" })));
  const load = async () => {
    try {
      const span = (shown = await getExactly(`/api/request-logs/${part(id)}/`));
      fill(title, dot(span), " ", span.span_name || span.model);
      title.title = span.span_name || span.model;
      entitle(`${span.span_name || span.model} · Span`);
      fill(body, sections(span));
    } catch (error) {
      if (error.status === 404) gone();
      else fill(body, h("p", { class: "pad" }, h("span", { class: "bad" }, error.message, " "), button("Try again", load)));
    }
  };
  const changed = (span) => {
    if (span.is_deleted) return gone();
    if (!shown) return undefined;
    const differs = (name) => (shown[name] ?? null) !== (span[name] ?? null);
    const is_edited = $(".unkept:not(:empty)", body) || (body.contains(document.activeElement) && document.activeElement.tagName === "TEXTAREA");
    if (MEASURED.some(differs) && !is_edited) return load();
    if (SAID.some(differs)) $(".feedback", body)?.dispatchEvent(new CustomEvent("said", { detail: span }));
    return undefined;
  };
  const entitle = (text) => { if (current().span === id) document.title = text; };
  const gone = () => { entitle("Span"); fill(body, h("p", { class: "bad pad" }, "There is no such span (any more).")); };
  load();
  return { elements: [head, body], changed };
}

/** What is told of a span, from the most asked for to the least. */
export function sections(span) {
  return [failure, figures, timeline, said, feedback, cost, belongs, parameters, raw].map((make) => {
    try {
      return make(span);
    } catch (error) {
      // Whatever is odd in one part, the others are there.
      return h("p", { class: "bad" }, `A part of this span cannot be shown: ${error.message}.`);
    }
  });
}

function failure(span) {
  const warned = span.warnings ? h("p", { class: "notice" }, typeof span.warnings === "string" ? span.warnings : JSON.stringify(span.warnings)) : null;
  if (span.status !== "failed") return warned;
  return [h("div", { class: "notice bad" }, h("strong", {}, `Failed${span.status_code ? `, ${span.status_code}` : ""}${span.error_code ? ` · ${span.error_code}` : ""}`), h("p", {}, span.error_message || "Nothing was said of why.")), warned];
}

function figures(span) {
  const about = span.status === "warning" ? "≈" : "";
  const guess = (text) => (text === "–" ? text : about + text);
  const shown = [
    ["Latency", seconds(span.latency)], ["First token", seconds(span.time_to_first_token)], ["Tokens/s", guess(speed(span.tokens_per_second || null))],
    ["Tokens", guess(count(span.total_request_tokens)), `${count(span.prompt_tokens)} in, ${count(span.completion_tokens)} out`], ["Cost", guess(usd(span.cost)), span.cost ? `$${span.cost}` : ""],
  ];
  return h("dl", { class: "figures" }, shown.map(([name, value, title]) => h("div", { title }, h("dt", {}, name), h("dd", {}, value))));
}

/** From the request's arrival to the end of the answer, to scale. */
function timeline(span) {
  const { latency } = span;
  if (!(latency > 0)) return null;
  // What is said to have been before the arrival, or after the end, has no place here.
  const within = (value, from) => (value > from && value <= latency ? value : null);
  const routed = within(span.routing_time, 0);
  const first = within(span.time_to_first_token, routed ?? 0);
  const share = (value) => `${(100 * value) / latency}%`;
  const steps = [
    routed && ["routed", "inside the gateway", 0, routed],
    first ? ["waiting", "waiting for the first token", routed ?? 0, first] : ["waiting", WORK.has(span.log_type) ? "at work" : span.stream && !span.time_to_first_token ? "nothing was generated" : "waiting for the answer", routed ?? 0, latency],
    first && ["generating", "generating", first, latency],
  ].filter(Boolean);
  return h("section", {}, h("h2", {}, "Timeline"),
    h("div", { class: "timeline", role: "img", "aria-label": steps.map(([, told, from, to]) => `${told}: ${seconds(to - from)}`).join(", ") },
      steps.map(([kind, told, from, to]) => h("i", { class: kind, title: `${told}: ${seconds(to - from)}`, style: { left: share(from), width: share(to - from) } }))),
    h("ul", { class: "legend" }, steps.map(([kind, told, from, to]) => h("li", {}, h("i", { class: kind }), told, " ", h("b", {}, seconds(to - from))))),
    h("p", { class: "quiet" }, moment(span.start_time), span.timestamp && ` → ${moment(span.timestamp)}`));
}

function said(span) {
  const is_plain = localStorage.getItem(PLAIN) === "yes";
  const place = h("section", { class: "conversation" });
  const draw = (plain) => {
    const input = span.prompt_messages ?? messagesOf(span.input, "input");
    const output = span.completion_messages ?? (span.completion_message ? [span.completion_message] : messagesOf(span.output, "output"));
    const flip = button("Plain text", () => { localStorage.setItem(PLAIN, plain ? "no" : "yes"); draw(!plain); }, { class: "toggle", "aria-pressed": String(plain), title: "Show texts as they are, without their Markdown" });
    fill(place, h("h2", {}, span.prompt_messages ? "Conversation" : "Input and output", flip),
      conversation(input, { is_plain: plain }), conversation(output, { is_plain: plain }),
      !input.length && !output.length && h("p", { class: "quiet" }, span.disable_log ? "Its sender asked for nothing to be kept." : span.status === "running" ? "It still runs." : "Nothing was kept."));
  };
  draw(is_plain);
  return place;
}

function messagesOf(value, role) {
  if (value === null || value === undefined || value === "") return [];
  return [typeof value === "string" ? { role, content: value } : { role, content: [value] }];
}

function feedback(span) {
  const path = `/api/request-logs/${part(span.id)}/`;
  const thumb = (is_good, picture, label) => button(label, async () => {
    const before = span.positive_feedback;
    // What is heard of it meanwhile is no news.
    span.positive_feedback = before === is_good ? null : is_good;
    try {
      await patch(path, { positive_feedback: span.positive_feedback });
      tell(span.positive_feedback === null ? "Taken back" : "Thank you");
    } catch (error) {
      span.positive_feedback = before;
      tell(error.message);
    }
    press();
  }, { picture, class: "toggle thumb", "data-good": String(is_good) });
  const thumbs = [thumb(true, "up", "Good"), thumb(false, "down", "Bad")];
  const press = () => { for (const one of thumbs) one.setAttribute("aria-pressed", String(one.dataset.good === String(span.positive_feedback))); };
  press();
  const note = h("textarea", { id: "note", rows: 1, dir: "auto", placeholder: "A note on this span", value: span.note ?? "", on: {
    focus: () => { told = false; },
    // Also what is typed when the field goes away, as it does with Back.
    input: () => { clearTimeout(timer); timer = setTimeout(keep, NOTE_AFTER_MS); addEventListener("pagehide", atLast, { once: true }); },
    blur: () => keep(),
    keydown: (event) => { if (event.key === "Enter" && (event.metaKey || event.ctrlKey)) note.blur(); },
  } });
  const unkept = h("p", { class: "bad unkept", role: "status" });
  let kept = note.value;
  let saving = false;
  let told = false;
  let timer = null;
  // One after the other, so that the last one stays.
  const keep = async () => {
    clearTimeout(timer);
    if (saving) return;
    saving = true;
    try {
      while (kept !== note.value) {
        const text = note.value;
        span.note = text || null;
        await patch(path, { note: span.note });
        kept = text;
        fill(unkept);
        if (!told) tell("Note kept");
        told = true;
      }
    } catch (error) {
      fill(unkept, `Not kept yet: ${error.message}`);
      // Also of a panel that was closed meanwhile, as long as the span is there.
      if (error.status !== 404) timer = setTimeout(keep, NOTE_AGAIN_MS);
    }
    saving = false;
  };
  const atLast = () => {
    if (kept !== note.value) fetch(path, { method: "PATCH", keepalive: true, headers: { "Content-Type": "application/json" }, body: JSON.stringify({ note: note.value || null }) });
  };
  const hear = ({ detail }) => {
    Object.assign(span, { note: detail.note ?? null, positive_feedback: detail.positive_feedback ?? null });
    press();
    if (kept === note.value && document.activeElement !== note) kept = note.value = detail.note ?? "";
  };
  return h("section", { class: "feedback", on: { said: hear } }, h("h2", {}, "Feedback"), h("div", { class: "line" },
    thumbs, h("label", { class: "unseen", for: "note" }, "Note"), note), unkept);
}

/** Which tokens there were, at which prices, and what that comes to. */
function cost(span) {
  if (span.prompt_tokens === null && span.completion_tokens === null && span.cost === null) return null;
  const place = h("section", {}, h("h2", {}, "Usage and cost"));
  const prompt = span.prompt_tokens ?? 0;
  const read = span.prompt_cache_hit_tokens ?? 0;
  const written = span.prompt_cache_creation_tokens ?? 0;
  const lines = (price) => [
    ["Prompt", span.prompt_tokens === null ? null : Math.max(0, prompt - read - written), price?.prompt],
    read && ["Prompt, read from the cache", read, price?.cached_prompt ?? price?.prompt],
    written && ["Prompt, written to the cache", written, price?.cache_creation ?? price?.prompt],
    ["Completion", span.completion_tokens === null ? null : Math.max(0, span.completion_tokens), price?.completion],
  ].filter(Boolean);
  const draw = (price, source) => {
    const made = lines(price);
    const sum = price ? made.reduce((total, [, number, each]) => total + (number * (each ?? 0)) / 1e6, 0) : null;
    const differs = sum !== null && span.cost !== null && Math.abs(sum - span.cost) > 1e-9 + 1e-6 * Math.abs(span.cost);
    fill(place, h("h2", {}, "Usage and cost"), h("table", { class: "bill" },
      h("thead", {}, h("tr", {}, ["", "Tokens", "USD per million", "USD"].map((one) => h("th", { scope: "col" }, one)))),
      h("tbody", {}, made.map(([name, number, each]) => h("tr", {}, h("th", { scope: "row" }, name), h("td", {}, count(number)), h("td", {}, each === undefined || each === null ? "–" : String(each)), h("td", {}, number === null || each === undefined || each === null ? "–" : usd((number * each) / 1e6)))),
        span.reasoning_tokens ? h("tr", { class: "quiet" }, h("th", { scope: "row" }, "of which reasoning"), h("td", {}, count(span.reasoning_tokens)), h("td"), h("td")) : null),
      h("tfoot", {}, h("tr", {}, h("th", { scope: "row" }, "Stored"), h("td", {}, count(span.total_request_tokens)), h("td"), h("td", { title: span.cost === null ? "" : `$${span.cost}` }, usd(span.cost))))),
      h("p", { class: "quiet" }, source, differs && " The stored cost is another one: it was sent, or made at the price of its day."));
  };
  draw(null, "");
  const own = span.prompt_unit_price !== null || span.completion_unit_price !== null;
  if (own) draw({ prompt: span.prompt_unit_price, completion: span.completion_unit_price }, "At the unit prices that were sent with it.");
  else {
    // The API takes no number of tokens that there cannot be.
    const tokens = prompt >= 0 && prompt < 1e12 ? span.prompt_tokens : null;
    get("/api/prices/", { model: span.model, response_model: span.response_model, prompt_tokens: tokens, time: span.timestamp }).then((found) => {
      draw(found.price, found.price ? `Prices of ${found.price.model}, ${found.price.source === "configuration" ? "from the configuration" : "from the shipped table"}.` : "No price is known for this model: set one under [prices] in the configuration.");
    }).catch(() => {});
  }
  return place;
}

function belongs(span) {
  const only = (field, value, told = value) => h("a", { href: but({ where: [`${field}=${value}`], search: "", range: "", start_time: "", end_time: "", span: "", trace: "", view: "spans" }) }, told);
  const rows = [
    ["Trace", span.trace_unique_id && [h("a", { href: but({ trace: span.trace_unique_id, view: "traces" }) }, span.trace_unique_id), span.span_parent_id && h("span", { class: "quiet" }, ` under ${span.span_parent_id}`)]],
    ["Workflow", span.span_workflow_name],
    ["Thread", span.thread_identifier && only("thread_identifier", span.thread_identifier)],
    ["Session", span.session_identifier && only("session_identifier", span.session_identifier)],
    ["Customer", span.customer_identifier && [only("customer_identifier", span.customer_identifier), [span.customer_name, span.customer_email].filter(Boolean).map((one) => h("span", { class: "quiet" }, ` ${one}`))]],
    ["Group", span.group_identifier && only("group_identifier", span.group_identifier)],
    ["Upstream", span.upstream && only("upstream", span.upstream)],
    ["Model", [only("model", span.model), span.response_model && span.response_model !== span.model && h("span", { class: "quiet" }, ` answered as ${span.response_model}`)]],
    ["Key", span.organization_key_name && only("organization_key_name", span.organization_key_name)],
    ["Same call", span.gateway_log_id && h("a", { href: but({ span: span.gateway_log_id }) }, span.gateway_log_id)],
    ["Id", [h("code", {}, span.unique_id), button("Copy the id", () => copy(span.unique_id, "Id copied"), { picture: "copy", class: "plain small" })]],
  ].filter(([, value]) => value);
  const own = Object.entries(span.metadata ?? {}).map(([key, value]) => {
    const field = `metadata__${key}`;
    // A key that has a sign in it cannot be asked for.
    return [key, parse(written({ field, sign: "=", value }))?.field === field ? only(field, value) : value];
  });
  const pairs = (title, of) => of.length > 0 && h("section", {}, h("h2", {}, title), h("dl", { class: "pairs" }, of.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value)))));
  return [pairs("Where it belongs", rows), pairs("Metadata", own)];
}

const PARAMETERS = ["log_type", "stream", "temperature", "top_p", "max_tokens", "frequency_penalty", "presence_penalty", "stop", "tool_choice", "response_format", "prompt_name", "prompt_id", "custom_identifier", "environment", "log_method"];

function parameters(span) {
  const shown = PARAMETERS.filter((name) => span[name] !== null && span[name] !== undefined && !(name === "stream" && !span.stream));
  const more = [["Tools", span.tools], ["Variables", span.variables], ["Properties", span.properties], ["Customer", span.customer_params]].filter(([, value]) => value && Object.keys(value).length);
  return h("section", {}, h("h2", {}, "Parameters"),
    h("dl", { class: "pairs" }, shown.map((name) => h("div", {}, h("dt", {}, name), h("dd", {}, typeof span[name] === "object" ? JSON.stringify(span[name]) : String(span[name]))))),
    more.map(([name, value]) => opening(name, value)));
}

function raw(span) {
  const body = request(span);
  return h("section", {}, h("h2", {}, "Raw"),
    body && h("div", { class: "line" },
      button("Copy as curl", () => copy(curl(span, body), "Copied; it takes the key from $GATEWAY_KEY")),
      !isAnthropic(span) && button("Copy as Python", () => copy(python(span, body), "Copied; it takes the key from $GATEWAY_KEY")),
      // In the playground itself it is there already.
      isTalk(span, body) && current().view !== "playground" && button("Open in the playground", () => toPlayground(body))),
    span.full_request && opening("Request", span.full_request), span.full_response && opening("Response", span.full_response), opening("Whole span", span));
}

function toPlayground(body) {
  try {
    sessionStorage.setItem("playground", JSON.stringify(body));
  } catch {
    return tell("It is too large for the playground.");
  }
  return go("/?view=playground");
}

/** JSON that is drawn when it is opened: it may be large. */
function opening(title, value) {
  const place = h("div", { class: "opened" });
  const draw = () => {
    const { element, length, text } = whole(value, MOST_DRAWN);
    fill(place, button("Copy", () => copy(text()), { picture: "copy", class: "plain copy" }), element,
      length > MOST_DRAWN && h("p", { class: "quiet" }, `${count(length - MOST_DRAWN)} more characters are not shown; Copy takes them all.`));
  };
  return h("details", { class: "folded", on: { toggle: (event) => { if (event.target.open && !place.firstChild) draw(); } } },
    h("summary", {}, title, h("span", { class: "quiet" }, ` ${size(JSON.stringify(value))}`)), place);
}
