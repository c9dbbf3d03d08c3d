// What was said, as a conversation: roles, texts, pictures, tool calls and what came of them.

import { h } from "./dom.js";
import { size } from "./format.js";
import { clamped, json, maybeJson } from "./json.js";
import { markdown } from "./markdown.js";

// Of a long conversation its start and its end; the others come when they are asked for, so many at a time.
const FIRST = 20;
const LAST = 80;
const AT_ONCE = 200;
// Of pictures only what is in the span itself: nothing is loaded from elsewhere.
const PICTURE = /^data:image\/(?:png|jpeg|jpg|gif|webp|avif|bmp);base64,[A-Za-z0-9+/=\s]+$/;

/** Messages, one below the other. `how`: `is_plain`, texts as they are, without their Markdown; `is_whole`, all of what is
 * long. */
export function conversation(messages, how = {}) {
  const made = (from, to) => messages.slice(from, to).map((one) => message(one, how));
  const end = messages.length - LAST;
  if (end <= FIRST + 1) return made();
  let at = FIRST;
  const label = () => `Show the other ${(end - at).toLocaleString("en-US")}`;
  const add = () => {
    if (!more.isConnected) return;
    more.before(...made(at, Math.min(end, at + AT_ONCE)));
    at += AT_ONCE;
    if (at >= end) return more.remove();
    more.textContent = label();
    setTimeout(add);
  };
  const more = h("button", { type: "button", class: "more", on: { click: () => { more.disabled = true; add(); } } }, label());
  return [made(0, FIRST), more, made(end)];
}

function message(one, how) {
  if (typeof one === "string") return box("user", text(one, how));
  if (!one || typeof one !== "object" || Array.isArray(one)) return box("data", json(one));
  const role = typeof one.role === "string" ? one.role : typeof one.type === "string" ? one.type : "data";
  if (one.type === "reasoning") return box(role, reasoning(one, how));
  const parts = [];
  const thought = one.reasoning_content ?? one.reasoning;
  if (typeof thought === "string" && thought) parts.push(folded("Reasoning", text(thought, how)));
  parts.push(...content(one.content, role, how));
  if (one.refusal) parts.push(h("p", { class: "bad" }, "Refused: ", told(one.refusal)));
  for (const call of list(one.tool_calls)) parts.push(toolCall(call?.function?.name ?? call?.name, call?.function?.arguments ?? call?.arguments ?? call?.input, call?.id));
  if (one.function_call) parts.push(toolCall(one.function_call.name, one.function_call.arguments));
  if (one.type === "function_call") parts.push(toolCall(one.name, one.arguments, one.call_id));
  if (typeof one.audio?.transcript === "string") parts.push(text(one.audio.transcript, how));
  if (one.type === "function_call_output") parts.push(value(one.output));
  if (!parts.length) parts.push(json(one));
  const about = [one.name, one.tool_call_id ?? one.call_id].filter((known) => typeof known === "string").join(" · ");
  return box(role, parts, about);
}

/** How the Responses API tells it: as a summary, seldom in full, often as nothing but what only its maker can read. */
function reasoning(one, how) {
  const texts = [...list(one.summary), ...list(one.content)].map((each) => each?.text ?? each).filter((each) => typeof each === "string");
  const plain = one.thinking ?? one.text;
  if (typeof plain === "string") texts.push(plain);
  return folded("Reasoning", texts.length ? texts.map((each) => text(each, how)) : json(one));
}

/** Whatever it is, as text. */
const told = (value) => (typeof value === "string" ? value : value === null || value === undefined ? "" : JSON.stringify(value));

const list = (value) => (Array.isArray(value) ? value : []);

function box(role, inside, about) {
  const kind = { system: "system", developer: "system", user: "user", assistant: "assistant", tool: "tool", function: "tool" }[role] ?? "other";
  return h("article", { class: `message ${kind}` }, h("header", {}, h("span", { class: "role" }, role), about && h("span", { class: "quiet" }, about)), h("div", { class: "said" }, inside));
}

function content(given, role, how) {
  if (given === null || given === undefined || given === "") return [];
  if (typeof given === "string") return [role === "tool" || role === "function" ? value(given) : text(given, how)];
  if (Array.isArray(given)) return given.map((one) => partOf(one, how));
  return [json(given)];
}

function partOf(one, how) {
  if (typeof one === "string") return text(one, how);
  if (!one || typeof one !== "object") return json(one);
  const said = one.text ?? one.refusal ?? one.input_text ?? one.output_text;
  switch (one.type) {
    case "thinking": case "reasoning":
      return reasoning(one, how);
    case "image_url": case "input_image": case "image":
      return picture(one);
    case "input_audio": case "audio":
      return h("p", { class: "attached" }, `audio, ${one.input_audio?.format ?? "format not said"}, ${size(one.input_audio?.data ?? "")} as base64`);
    case "file": case "input_file": case "document":
      return h("p", { class: "attached" }, `file ${one.file?.filename ?? one.filename ?? one.title ?? one.file?.file_id ?? one.file_id ?? ""}`);
    case "tool_use":
      return toolCall(one.name, one.input, one.id);
    case "tool_result":
      return h("div", { class: "tool-call" }, h("header", {}, "result ", h("span", { class: "quiet" }, told(one.tool_use_id))), typeof one.content === "string" ? value(one.content) : content(one.content, "tool", how));
    default:
      return typeof said === "string" ? text(said, how) : json(one);
  }
}

function picture(one) {
  const source = one.source?.type === "base64" ? `data:${one.source.media_type};base64,${one.source.data}` : (one.image_url?.url ?? one.image_url ?? one.source?.url);
  const attached = (...said) => h("p", { class: "attached" }, said);
  if (typeof source !== "string" || !source) return attached("a picture that is not here");
  if (!PICTURE.test(source)) return attached("a picture elsewhere, not loaded: ", h("code", {}, source.slice(0, 300)));
  const shown = h("img", { src: source, alt: "a picture of this message", loading: "lazy", on: { error: () => shown.replaceWith(attached("a picture that cannot be shown")) } });
  return shown;
}

function toolCall(name, given, id) {
  return h("div", { class: "tool-call" }, h("header", {}, h("code", {}, told(name) || "tool"), h("span", { class: "quiet" }, told(id))), given === undefined || given === null ? null : value(given));
}

const value = (given) => (typeof given === "string" ? (maybeJson(given) ?? text(given, { is_plain: true })) : json(given));

function text(given, { is_plain, is_whole }) {
  const draw = is_plain ? (most) => h("pre", { class: "plain", dir: "auto" }, given.slice(0, most)) : (most) => markdown(given.slice(0, most));
  if (is_whole) return draw(given.length);
  return (!is_plain && maybeJson(given)) || clamped(given.length, draw);
}

const folded = (title, inside) => h("details", { class: "folded" }, h("summary", {}, title), inside);
