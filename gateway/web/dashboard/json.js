// JSON to be read: indented, with its parts in colours.

import { h } from "./dom.js";

const COLOURED = 100_000;
const TOKEN = /("(?:[^"\\]|\\.)*")(\s*:)?|(-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)|\b(true|false|null)\b/g;

/** A value as text in colours; very long ones without. */
export function json(value) {
  const text = typeof value === "string" ? value : JSON.stringify(value, null, 2);
  if (text === undefined) return h("span", { class: "quiet" }, "nothing");
  if (text.length > COLOURED) return h("pre", { class: "json" }, text);
  const made = [];
  let at = 0;
  for (const found of text.matchAll(TOKEN)) {
    const [whole, string, colon, number] = found;
    made.push(text.slice(at, found.index));
    const kind = string ? (colon ? "key" : "string") : number ? "number" : "word";
    made.push(h("span", { class: kind }, string ?? whole), colon ?? "");
    at = found.index + whole.length;
  }
  made.push(text.slice(at));
  return h("pre", { class: "json" }, made);
}

/** A text that may be JSON: in colours where it is an object or a list, else null. */
export function maybeJson(text) {
  if (!/^\s*[[{]/.test(text)) return null;
  try {
    return json(JSON.parse(text));
  } catch {
    return null;
  }
}
