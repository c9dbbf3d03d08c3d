// A chat through this gateway, and the span that each of its calls leaves.

import { failure, get, part, signIn } from "./api.js";
import { conversation } from "./conversation.js";
import { button, fill, h, tell } from "./dom.js";
import { only } from "./filterbar.js";
import { sections } from "./span.js";

const KEPT = "playground";
// A span is there when its answer has ended; one that is not stored in time comes a little later.
const TRIES = 5;
const AGAIN_AFTER_MS = 300;
// So many pixels from its end is at its end.
const NEAR = 40;
// Of a long answer the drawing takes long: three quarters of the time are left to the others.
const PAUSE = 3;
const PAUSE_AT_LEAST_MS = 16;

/** The view. */
export function playgroundView() {
  const kept = JSON.parse(sessionStorage.getItem(KEPT) ?? "null");
  const messages = Array.isArray(kept?.messages) ? [...kept.messages] : [];
  let extra = Object.fromEntries(Object.entries(kept ?? {}).filter(([name]) => !["model", "messages", "stream", "temperature", "max_tokens"].includes(name)));
  let running = null;
  // Which call the talk and the span beside it are of; what comes of another one comes too late.
  let turn = 0;
  let unanswered = false;

  const models = h("datalist", { id: "models" });
  const model = h("input", { id: "model", list: "models", required: true, value: kept?.model ?? "", autocomplete: "off", spellcheck: "false" });
  const temperature = h("input", { id: "temperature", type: "number", min: 0, max: 2, step: 0.1, placeholder: "default", value: kept?.temperature ?? "" });
  const most = h("input", { id: "most", type: "number", min: 1, placeholder: "default", value: kept?.max_tokens ?? "" });
  const streamed = h("input", { id: "streamed", type: "checkbox", checked: kept?.stream !== false });
  const system = h("textarea", { id: "system", rows: 2, dir: "auto", placeholder: "You are …" });
  if (messages[0]?.role === "system" && typeof messages[0].content === "string") system.value = messages.shift().content;
  const ask = h("textarea", { id: "ask", rows: 3, dir: "auto", placeholder: "Say something; Ctrl+Enter sends it", "aria-label": "Your message", on: { keydown: (event) => { if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); send(); } } } });
  const last = messages.at(-1);
  if (last?.role === "user" && typeof last.content === "string") ask.value = messages.pop().content;

  const past = h("div", { class: "messages" });
  const now = h("div", { class: "messages" });
  const talk = h("div", { class: "talk", "aria-live": "polite" }, past, now);
  const leaveOut = () => { extra = {}; also.remove(); };
  const also = h("p", { class: "quiet" }, `Also sent: ${Object.keys(extra).join(", ")}. `, button("Leave out", () => { leaveOut(); keep(); }));
  const beside = h("aside", { class: "beside-call", "aria-label": "The span of this call" }, h("p", { class: "quiet pad" }, "The span of each call appears here."));
  const sender = h("button", { type: "submit", class: "primary" }, "Send");
  const form = h("form", { class: "composer", on: { submit: (event) => { event.preventDefault(); if (running) running.abort(); else send(); } } },
    ask, h("div", { class: "line" }, sender, button("Start over", () => { end(); messages.length = 0; leaveOut(); draw(); fill(beside); keep(); ask.focus(); })));
  const field = (label, input) => h("label", { for: input.id }, h("span", {}, label), input);
  const element = h("div", { class: "scroller playground", tabindex: -1 }, h("h1", { class: "unseen" }, "Playground"),
    h("section", { class: "settings", "aria-label": "Settings" }, field("Model", model), models, field("System", system), field("Temperature", temperature), field("Max tokens", most), h("label", { class: "check", for: "streamed" }, streamed, " Streamed"), Object.keys(extra).length > 0 && also),
    h("section", { class: "chat", "aria-label": "Chat" }, talk, form), beside);

  // All that is said is shown, and followed by who is at its end.
  const following = (change) => {
    const { scrollTop: top, scrollHeight: all, clientHeight: seen } = talk;
    change();
    talk.scrollTop = all - seen - top < NEAR ? talk.scrollHeight : top;
  };
  const draw = (more) => following(() => {
    fill(past, conversation(messages, { is_whole: true }));
    fill(now, more, !messages.length && !more && h("p", { class: "empty" }, "What you send goes through this gateway like any other call: with your key, its limits, and a span each."));
  });
  const grow = (answer) => following(() => fill(now, conversation([answer], { is_whole: true })));
  // With what is in the box and not yet sent.
  const keep = () => {
    const made = body();
    if (ask.value.trim()) made.messages.push({ role: "user", content: ask.value });
    try {
      sessionStorage.setItem(KEPT, JSON.stringify(made));
    } catch {
      tell("The talk is too large to be kept.");
    }
  };
  // What was not answered can be sent again, and is no part of the talk.
  const takeBack = () => {
    if (unanswered) ask.value = [messages.pop().content, ask.value].filter(Boolean).join("\n");
    unanswered = false;
  };
  const end = () => {
    turn += 1;
    unanswered = false;
    running?.abort();
    running = null;
    fill(sender, "Send");
  };
  const body = () => {
    const made = { model: model.value, messages: [...(system.value.trim() ? [{ role: "system", content: system.value }] : []), ...messages], ...extra };
    if (temperature.value !== "") made.temperature = Number(temperature.value);
    if (most.value !== "") made.max_tokens = Number(most.value);
    made.stream = streamed.checked;
    return made;
  };

  async function send() {
    if (running) return;
    if (!model.value) return model.focus();
    const is_said = Boolean(ask.value.trim());
    if (is_said) messages.push({ role: "user", content: ask.value });
    if (messages.at(-1)?.role !== "user") return ask.focus();
    unanswered = is_said;
    ask.value = "";
    keep();
    const mine = ++turn;
    const isCurrent = () => mine === turn;
    running = new AbortController();
    fill(sender, "Stop");
    const answer = { role: "assistant", content: "" };
    const isEmpty = () => !answer.content && !answer.tool_calls && !answer.reasoning_content && !answer.refusal;
    let id = null;
    let wrong = null;
    try {
      draw(h("p", { class: "quiet pad" }, "Waiting …"));
      talk.scrollTop = talk.scrollHeight;
      const response = await fetch("/v1/chat/completions", { method: "POST", body: JSON.stringify(body()), headers: { "Content-Type": "application/json" }, signal: running.signal });
      if (response.status === 401 && !response.headers.has("X-Respan-Log-Id")) return await signIn();
      id = response.headers.get("X-Respan-Log-Id");
      if (!response.ok) throw await failure(response);
      if ((response.headers.get("Content-Type") ?? "").startsWith("text/event-stream")) await stream(response, answer, () => { if (isCurrent() && !isEmpty()) grow(answer); });
      else Object.assign(answer, (await response.json()).choices?.[0]?.message);
    } catch (error) {
      wrong = error.name === "AbortError" ? "Stopped." : error.message;
    }
    if (!isCurrent()) return;
    running = null;
    fill(sender, "Send");
    if (isEmpty()) {
      wrong ??= "The answer is empty.";
      takeBack();
    } else messages.push(answer);
    unanswered = false;
    draw(wrong && h("p", { class: "notice bad" }, wrong));
    keep();
    if (element.isConnected) ask.focus();
    return id && showSpan(id, beside, isCurrent);
  }

  draw();
  get("/v1/models").then(({ data }) => {
    fill(models, data.map(({ id }) => h("option", { value: id })));
    if (!model.value && data.length) model.value = data[0].id;
  }).catch(() => {});
  requestAnimationFrame(() => ask.focus());
  return { element, leave: () => { takeBack(); keep(); end(); }, keys: {} };
}

/** Puts a streamed answer together, chunk by chunk. */
async function stream(response, answer, drawn) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  let timer = null;
  let pause = PAUSE_AT_LEAST_MS;
  const draw = () => {
    const began = performance.now();
    timer = null;
    drawn();
    pause = Math.max(PAUSE_AT_LEAST_MS, PAUSE * (performance.now() - began));
  };
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) break;
      const lines = (rest + value).split(/\r?\n/);
      rest = lines.pop();
      for (const line of lines) if (line.startsWith("data:")) take(line.slice(5).trim(), answer);
      timer ??= setTimeout(draw, pause);
    }
  } finally {
    // What is drawn from here on is drawn by who called.
    clearTimeout(timer);
  }
}

function take(data, answer) {
  if (data === "[DONE]") return;
  const event = JSON.parse(data);
  if (event.error) throw new Error(event.error.message ?? "The stream broke off.");
  const delta = event.choices?.[0]?.delta ?? {};
  answer.content += delta.content ?? "";
  if (delta.reasoning_content) answer.reasoning_content = (answer.reasoning_content ?? "") + delta.reasoning_content;
  for (const piece of delta.tool_calls ?? []) {
    answer.tool_calls ??= [];
    const call = (answer.tool_calls[piece.index] ??= { id: piece.id, type: "function", function: { name: "", arguments: "" } });
    call.function.name += piece.function?.name ?? "";
    call.function.arguments += piece.function?.arguments ?? "";
  }
}

async function showSpan(id, place, isWanted) {
  for (let left = TRIES; left; left--) {
    try {
      const span = await get(`/api/request-logs/${part(id)}/`);
      if (!isWanted()) return;
      if (span.is_open || span.status === "running") throw new Error("it still runs");
      fill(place, h("div", { class: "span-body" }, h("p", { class: "pad" }, only("unique_id", id, "Show it in the list")), sections(span)));
      return;
    } catch {
      await new Promise((then) => setTimeout(then, AGAIN_AFTER_MS));
    }
  }
  if (isWanted()) fill(place, h("p", { class: "quiet pad" }, "Its span is not stored yet; the list shows it when it is."));
}
