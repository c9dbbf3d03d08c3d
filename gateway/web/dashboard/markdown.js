// Markdown as models write it, made into elements. What is no Markdown stays text; there is no way for HTML in.

import { h } from "./dom.js";

// Beyond that it is shown as it is; and no mark reaches further than a thousand signs, so that no text takes long.
const MOST = 100_000;
const PIECES = 5000;
const INLINE = /\\([!-/:-@[-`{-~])|(`{1,9})([^]{1,1000}?)\2(?!`)|\*\*(?=\S)([^]{0,1000}?\S)\*\*|__(?=\S)([^]{0,1000}?\S)__(?!\w)|\*(?=[^\s*])([^*\n]{0,1000}?[^\s*])\*|\b_(?=[^\s_])([^_\n]{0,1000}?[^\s_])_(?!\w)|~~(?=\S)([^\n]{1,1000}?)~~|!?\[([^\]\n]{0,500})\]\(<?([^\s()<>]{1,2000}(?:\([^\s()<>]*\))?)>?(?:\s+"[^"\n]*")?\)|(https?:\/\/[^\s<>()"'`]{1,2000}[^\s<>()"'`.,:;!?\]])/;

/** The elements of a text. */
export function markdown(text) {
  if (text.length > MOST) return h("pre", { class: "plain", dir: "auto" }, text);
  return h("div", { class: "markdown" }, blocks(text.replace(/\r\n?/g, "\n").split("\n")));
}

function blocks(lines, depth = 0) {
  const made = [];
  // What lies within another goes with that one.
  const dir = depth ? null : "auto";
  let at = 0;
  while (at < lines.length) {
    const line = lines[at];
    const fence = fenced(line);
    const heading = /^ {0,3}(#{1,6})\s+(.*)$/.exec(line);
    if (!line.trim()) {
      at += 1;
    } else if (fence) {
      const end = lines.findIndex((one, number) => number > at && one.trim().startsWith(fence[1]) && !one.trim().slice(fence[1].length).trim());
      const last = end < 0 ? lines.length : end;
      made.push(h("pre", { class: "code", dir: "ltr", data: fence[2] ? { language: fence[2] } : {} }, h("code", {}, lines.slice(at + 1, last).join("\n"))));
      at = last + 1;
    } else if (heading) {
      // Below the headings of the page itself.
      made.push(h(`h${Math.min(6, heading[1].length + 3)}`, { dir }, inline(withoutMarks(heading[2].trimEnd()))));
      at += 1;
    } else if (/^ {0,3}([-*_])(?:\s*\1){2,}\s*$/.test(line)) {
      made.push(h("hr"));
      at += 1;
    } else if (/^ {0,3}>/.test(line) && depth < 8) {
      const inside = take(lines, at, (one) => /^ {0,3}>/.test(one));
      made.push(h("blockquote", { dir }, blocks(inside.map((one) => one.replace(/^ {0,3}> ?/, "")), depth + 1)));
      at += inside.length;
    } else if (item(line) && depth < 8) {
      const [list, used] = listing(lines, at, depth);
      made.push(list);
      at += used;
    } else if (line.includes("|") && /^\|?\s*:?-+:?\s*(\|\s*:?-+:?\s*)*\|?$/.test((lines[at + 1] ?? "").trim())) {
      const inside = take(lines, at, (one) => one.includes("|"));
      made.push(tabled(inside, dir));
      at += inside.length;
    } else {
      const inside = [line, ...take(lines, at + 1, (one) => one.trim() && !/^ {0,3}(?:#{1,6}\s|>|```|~~~)/.test(one) && !item(one))];
      made.push(h("p", { dir }, inside.map((one, number) => [number > 0 && h("br"), inline(one)])));
      at += inside.length;
    }
  }
  return made;
}

/** The fence with which code begins, and its language. */
function fenced(line) {
  const found = /^ {0,3}(`{3,}|~{3,})(.*)$/.exec(line);
  if (!found || found[2].includes("`")) return null;
  return [line, found[1], /^[\w+#.-]*/.exec(found[2].trimStart())[0]];
}

/** A heading without the marks at its end, which stand by themselves: C# is a word. */
function withoutMarks(text) {
  let end = text.length;
  while (text[end - 1] === "#") end -= 1;
  return end && /\S/.test(text[end - 1]) ? text : text.slice(0, end).trimEnd();
}

const item = (line) => /^( *)([-*+]|\d{1,9}[.)])\s+(.*)$/.exec(line);

function take(lines, from, fits) {
  let end = from;
  while (end < lines.length && fits(lines[end])) end += 1;
  return lines.slice(from, end);
}

function listing(lines, from, depth) {
  const [, indent, sign] = item(lines[from]);
  const is_numbered = /\d/.test(sign);
  const items = [];
  let at = from;
  while (at < lines.length) {
    const found = item(lines[at]);
    if (found && found[1].length <= indent.length + 1) {
      if (/\d/.test(found[2]) !== is_numbered || found[1].length < indent.length) break;
      items.push([found[3].replace(/^\[ \] /, "☐ ").replace(/^\[[xX]\] /, "☑ ")]);
    } else if (!lines[at].trim()) {
      // A gap belongs to the list if it goes on behind it.
      const after = lines[at + 1] ?? "";
      if (!item(after) && !/^ {2,}\S/.test(after)) break;
      items.at(-1).push("");
    } else if (found || /^ {2,}/.test(lines[at]) || lines[at - 1]?.trim()) {
      items.at(-1).push(lines[at].slice(Math.min(indent.length + 2, /^ */.exec(lines[at])[0].length)));
    } else break;
    at += 1;
  }
  const start = is_numbered ? Number.parseInt(sign, 10) : 1;
  const made = items.map((inside) => {
    const inner = blocks(inside, depth + 1);
    return h("li", {}, inner.length === 1 && inner[0].tagName === "P" ? [...inner[0].childNodes] : inner);
  });
  return [h(is_numbered ? "ol" : "ul", { dir: depth ? null : "auto", start: is_numbered && start !== 1 ? start : null }, made), at - from];
}

function tabled(lines, dir) {
  const cells = (line) => line.trim().replace(/^\||\|$/g, "").split(/(?<!\\)\|/).map((cell) => inline(cell.trim().replaceAll("\\|", "|")));
  const [head, , ...rows] = lines;
  return h("div", { class: "wide" }, h("table", { dir },
    h("thead", {}, h("tr", {}, cells(head).map((cell) => h("th", {}, cell)))),
    h("tbody", {}, rows.map((row) => h("tr", {}, cells(row).map((cell) => h("td", {}, cell)))))));
}

function inline(text, depth = 0) {
  const made = [];
  let rest = text;
  while (rest) {
    const found = depth < 6 && INLINE.exec(rest);
    if (!found || made.length > PIECES) { made.push(rest); break; }
    made.push(rest.slice(0, found.index));
    const [whole, escaped, , code, strong, strong2, light, light2, struck, label, target, bare] = found;
    const more = (inside) => inline(inside, depth + 1);
    if (escaped) made.push(escaped);
    else if (code !== undefined) made.push(h("code", {}, code.trim() || code));
    else if (strong ?? strong2) made.push(h("strong", {}, more(strong ?? strong2)));
    else if (light ?? light2) made.push(h("em", {}, more(light ?? light2)));
    else if (struck) made.push(h("del", {}, more(struck)));
    else made.push(link(bare ?? target, bare ?? label));
    rest = rest.slice(found.index + whole.length);
  }
  return made;
}

/** Pictures become links as well: nothing is loaded from elsewhere. */
function link(target, label) {
  if (!/^(?:https?:\/\/|mailto:)/i.test(target)) return `${label} (${target})`;
  return h("a", { href: target, target: "_blank", rel: "noopener noreferrer nofollow", title: target }, label || target);
}
