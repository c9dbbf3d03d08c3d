// JSON to be read: indented, with its parts in colours. Its numbers and texts stay as they were written.

import { h } from "./dom.js";

const LONG = 4000;
// Of what is clamped so much is drawn, of what is shown in full so much in colours.
const CLAMPED = 20_000;
const COLOURED = 50_000;
// More at once would hold up the page.
export const MOST_DRAWN = 200_000;
// Beyond that what is deep would be mostly indents.
const DEEPEST = 40;
const SPACE = /\s*/y;
const NUMBERS = /([-+\d.eE,\s]+)\]/y;
const SCALAR = /[^\s"[\]{},:]+/y;

/** A value, or JSON as text, in colours; clamped where it is long. */
export function json(value) {
  const text = typeof value === "string" ? value : JSON.stringify(value);
  if (text === undefined) return h("span", { class: "quiet" }, "nothing");
  const parts = lay(text);
  return clamped(lengthOf(parts), (most) => drawn(parts, most), MOST_DRAWN);
}

/** The same in full, up to so many characters, with how many there are; and as text. */
export function whole(value, most) {
  const parts = lay(JSON.stringify(value));
  return { element: drawn(parts, most), length: lengthOf(parts), text: () => parts.map(([piece]) => piece).join("") };
}

/** A text that may be JSON: in colours where it is an object or a list, else null. */
export function maybeJson(text) {
  if (!/^\s*[[{]/.test(text)) return null;
  try {
    JSON.parse(text);
  } catch {
    return null;
  }
  return json(text);
}

/** What is long, of so many characters: its start, with a button that shows all, or so many. `draw(most)` makes that much of it. */
export function clamped(length, draw, at_most = Infinity) {
  if (length <= LONG) return draw(length);
  const place = h("div", { class: "long" }, draw(CLAMPED));
  const more = h("button", { type: "button", class: "more", on: { click: () => {
    place.classList.remove("long");
    if (length > CLAMPED) place.replaceChildren(draw(Math.min(length, at_most)));
    more.remove();
  } } }, length > at_most ? `Show ${grouped(at_most)} of ${grouped(length)} characters` : `Show all ${grouped(length)} characters`);
  return [place, more];
}

const grouped = (number) => number.toLocaleString("en-US");
const lengthOf = (parts) => parts.reduce((sum, [piece]) => sum + piece.length, 0);

function drawn(parts, most) {
  const made = [];
  let left = most;
  let bare = "";
  for (const [piece, kind] of parts) {
    if (left <= 0) break;
    const shown = piece.slice(0, left);
    if (kind && most - left < COLOURED) {
      made.push(bare, h("span", { class: kind }, shown));
      bare = "";
    } else bare += shown;
    left -= shown.length;
  }
  return h("pre", { class: "json", dir: "ltr" }, made, bare);
}

/** The pieces of JSON with their kinds, and the indents between them; lists of numbers stay on one line. */
function lay(text) {
  const parts = [];
  const open = [];
  let at = after(text, 0);
  const line = () => parts.push([`\n${"  ".repeat(Math.min(open.length, DEEPEST))}`]);
  while (at < text.length) {
    const sign = text[at];
    let end = at + 1;
    if (sign === '"') {
      while (end < text.length && text[end] !== '"') end += text[end] === "\\" ? 2 : 1;
      const next = after(text, end + 1);
      parts.push([text.slice(at, end + 1), text[next] === ":" ? "key" : "string"]);
      end += 1;
    } else if (sign === "[" || sign === "{") {
      const inside = after(text, end);
      const numbers = sign === "[" ? numbered(text, inside) : null;
      if (text[inside] === "]" || text[inside] === "}") {
        parts.push([sign + text[inside]]);
        end = inside + 1;
      } else if (numbers) {
        parts.push(["["], [numbers.text, "number"], ["]"]);
        end = numbers.end;
      } else {
        parts.push([sign]);
        open.push(sign);
        line();
      }
    } else if (sign === "]" || sign === "}") {
      open.pop();
      line();
      parts.push([sign]);
    } else if (sign === ",") {
      parts.push([sign]);
      line();
    } else if (sign === ":") parts.push([": "]);
    else {
      SCALAR.lastIndex = at;
      const [scalar] = SCALAR.exec(text);
      parts.push([scalar, /^[-\d]/.test(scalar) ? "number" : "word"]);
      end = at + scalar.length;
    }
    at = after(text, end);
  }
  return parts;
}

function after(text, at) {
  SPACE.lastIndex = at;
  SPACE.test(text);
  return SPACE.lastIndex;
}

/** The numbers that are all there is up to the end of this list: no other values have only these signs. */
function numbered(text, from) {
  NUMBERS.lastIndex = from;
  const found = NUMBERS.exec(text);
  return found && { text: found[1].split(",").map((one) => one.trim()).join(", "), end: NUMBERS.lastIndex };
}
