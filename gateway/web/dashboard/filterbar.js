// The line above a list: which spans. What is chosen goes into the address.

import { get } from "./api.js";
import { RANGES, asked, isInForce, parse, written } from "./conditions.js";
import { $, fill, h, icon } from "./dom.js";
import { fieldOf, fieldsOf, hasValues, signs } from "./fields.js";
import { count } from "./format.js";
import { but, current, go } from "./route.js";

/** The filter line. `extras`: what else stands at its end. */
export function filterbar(...extras) {
  const state = current();
  const input = h("input", {
    id: "filter", type: "text", role: "combobox", "aria-expanded": "false", "aria-controls": "suggestions",
    "aria-autocomplete": "list", "aria-label": "Filter, or search in input and output", autocomplete: "off", spellcheck: "false",
    placeholder: "Filter: model=…, cost>=0.01, or words to search for",
  });
  const list = h("ul", { id: "suggestions", role: "listbox", "aria-label": "Suggestions", tabindex: -1, hidden: true });
  const box = h("div", { class: "filter-box" }, icon("search"), chips(state), input, list);
  suggesting(input, list);
  return h("div", { class: "filterbar", role: "search" }, box, range(state), ...extras);
}

function chips(state) {
  const found = state.where.map((text) => chip(text, { where: state.where.filter((one) => one !== text) }, isInForce(text, state.view)));
  if (state.search) found.push(chip(`“${state.search}”`, { search: "" }, state.view !== "traces"));
  return found.length ? h("ul", { class: "chips", "aria-label": "Filters in force" }, found) : null;
}

function chip(text, without, is_in_force) {
  const condition = parse(text);
  const shown = condition && !text.startsWith("“")
    ? [h("span", { class: "quiet" }, condition.field, " ", condition.sign), " ", condition.value || "nothing"]
    : text;
  const [is_of, is_not] = current().view === "traces" ? ["spans", "traces"] : ["traces", "spans"];
  return h("li", { class: is_in_force ? "chip" : "chip off", title: is_in_force ? null : `It is of ${is_of}: ${is_not} are not narrowed down by it.` }, h("span", {}, shown), h("a", { href: but({ ...without, span: "" }), "aria-label": `Remove the filter ${text}` }, icon("close")));
}

function range(state) {
  const is_own = !state.range && (state.start_time || state.end_time);
  const options = Object.entries(RANGES).map(([name, [, told]]) => h("option", { value: name, selected: state.range === name }, `Last ${told}`));
  const select = h(
    "select",
    { "aria-label": "Time range", on: { change: () => (select.value === "own" ? showOwn() : go({ range: select.value, start_time: "", end_time: "" })) } },
    h("option", { value: "" }, "All time"), options, h("option", { value: "own", selected: Boolean(is_own) }, is_own ? "From … to …" : "From … to …"),
  );
  const own = h("span", { class: "own-range", hidden: !is_own });
  const end = (name, label) => h("input", { type: "datetime-local", step: "any", "aria-label": label, value: local(state[name]), data: { name } });
  const showOwn = () => { own.hidden = false; $("input", own).focus(); };
  // Not at each change: a year that is typed is at first one of long ago.
  const take = () => {
    const given = Object.fromEntries([...own.querySelectorAll("input")].filter((input) => input.value !== local(state[input.dataset.name])).map((input) => [input.dataset.name, utc(input.value)]));
    if (Object.keys(given).length) go({ range: "", ...given });
  };
  own.addEventListener("focusout", (event) => { if (!own.contains(event.relatedTarget)) take(); });
  own.addEventListener("keydown", (event) => { if (event.key === "Enter") take(); });
  fill(own, end("start_time", "From"), h("span", { class: "quiet" }, "to"), end("end_time", "To"));
  return [select, own];
}

/** A time as its input wants it: local, without a zone. */
function local(text) {
  if (!text) return "";
  const at = new Date(text);
  return Number.isNaN(at.getTime()) ? "" : new Date(at.getTime() - at.getTimezoneOffset() * 60000).toISOString().slice(0, 19).replace(/:00$/, "");
}

const utc = (text) => (text ? new Date(text).toISOString() : "");

/** Adds a condition, or words to search for. */
function add(text) {
  const condition = typedCondition(text);
  if (condition) go({ where: [...new Set([...current().where, written(condition)])], span: "" });
  else if (text.trim()) go({ search: text.trim(), span: "" });
  requestAnimationFrame(() => $("#filter")?.focus());
}

/** A condition as it is typed: with spaces round its sign, and a field in whatever case. */
function typedCondition(text) {
  const condition = parse(text);
  // One of the other kind is kept for where it is in force.
  const field = condition && (fieldOf(condition.field, current().view) ?? fieldOf(condition.field, "spans") ?? fieldOf(condition.field, "traces"));
  return field && { ...condition, field, value: condition.value.trim() };
}

function suggesting(input, list) {
  let shown = [];
  let chosen = -1;
  let turn = 0;

  const close = () => { list.hidden = true; chosen = -1; input.setAttribute("aria-expanded", "false"); input.removeAttribute("aria-activedescendant"); };

  const show = (found) => {
    shown = found;
    chosen = -1;
    input.removeAttribute("aria-activedescendant");
    fill(list, found.map((one, number) => h(
      "li", { role: "option", id: `suggestion-${number}`, "aria-selected": "false", on: { mousedown: (event) => { event.preventDefault(); take(one); } } },
      h("span", {}, one.text), one.told && h("span", { class: "quiet" }, one.told),
    )));
    list.hidden = !found.length;
    input.setAttribute("aria-expanded", String(Boolean(found.length)));
  };

  const choose = (number) => {
    if (!shown.length) return;
    chosen = (number + shown.length) % shown.length;
    [...list.children].forEach((one, place) => one.setAttribute("aria-selected", String(place === chosen)));
    list.children[chosen].scrollIntoView({ block: "nearest" });
    input.setAttribute("aria-activedescendant", `suggestion-${chosen}`);
  };

  const take = (one) => {
    input.value = one.value;
    if (one.words) { close(); go({ search: one.words, span: "" }); }
    else if (one.is_whole) { close(); go({ where: [...new Set([...current().where, one.value])], span: "" }); }
    else suggest();
  };

  const suggest = async () => {
    const mine = ++turn;
    const found = await suggestions(input.value).catch(() => []);
    // Another key has been pressed meanwhile, or the field was left.
    if (mine === turn && document.activeElement === input) show(found);
  };

  input.addEventListener("input", suggest);
  input.addEventListener("focus", suggest);
  input.addEventListener("blur", () => { turn++; close(); });
  input.addEventListener("keydown", (event) => {
    if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      event.preventDefault();
      choose(event.key === "ArrowDown" ? chosen + 1 : chosen < 0 ? -1 : chosen - 1);
    } else if (event.key === "Enter") {
      event.preventDefault();
      if (chosen >= 0) take(shown[chosen]);
      else if (input.value.trim()) { close(); add(input.value); }
    } else if (event.key === "Tab" && chosen >= 0) {
      event.preventDefault();
      take(shown[chosen]);
    } else if (event.key === "Escape") {
      event.stopPropagation();
      if (list.hidden) input.blur();
      close();
    } else if (event.key === "Backspace" && !input.value) {
      const { where, search } = current();
      if (search) go({ search: "" });
      else if (where.length) go({ where: where.slice(0, -1) });
      requestAnimationFrame(() => $("#filter")?.focus());
    }
  });
}

/** What may be meant by what has been typed so far. */
async function suggestions(typed) {
  const text = typed.trimStart();
  const condition = typedCondition(text);
  if (condition) return [...(hasValues(condition.field) ? await values(condition) : []), search(text)];
  const is_key = /^(metadata|properties)__\S+$/.test(text);
  const keys = is_key || (text && "metadata__".startsWith(text.toLowerCase())) ? await keysOf(text) : [];
  const fields = fieldsOf(current().view);
  if (is_key || fields.includes(text.trim())) {
    const name = text.trim();
    return [...keys.filter((one) => one.value !== name), ...signs(name).map((sign) => ({ text: `${name} ${sign}`, value: `${name}${sign}`, told: MEANS[sign] }))];
  }
  if (/\s/.test(text)) return [search(text)];
  const needle = text.toLowerCase();
  const found = fields.filter((one) => one.includes(needle)).sort((a, b) => b.startsWith(needle) - a.startsWith(needle));
  return [...(text ? [search(text)] : []), ...keys, ...found.map((one) => ({ text: one, value: one }))];
}

const MEANS = { "=": "is", "!=": "is not", "~": "holds", "!~": "does not hold", ">=": "at least", "<=": "at most", ">": "more than", "<": "less than" };

const search = (text) => ({ text: `Search for “${text.trim()}”`, words: text.trim(), value: text, told: "in input and output" });

async function values({ field, sign, value }) {
  const state = current();
  // Values of one field are alternatives.
  const where = state.where.filter((text) => parse(text)?.field !== field);
  const { results, spans_looked_at: seen } = await get("/api/request-logs/values/", { ...asked({ ...state, where, view: "spans" }, { search: false }), field, prefix: value, limit: 20 });
  return results.map((one, number) => ({
    text: String(one.value), value: `${field}${sign}${one.value}`, is_whole: true,
    told: number ? count(one.number_of_requests) : `${count(one.number_of_requests)} of the newest ${count(seen)}`,
  }));
}

/** The keys that an object of the callers' has. */
async function keysOf(text) {
  const [field, prefix] = text.startsWith("properties__") ? ["properties", text.slice(12)] : ["metadata", text.slice(10)];
  const { results } = await get("/api/request-logs/values/", { field, prefix, limit: 10 });
  return results.filter((one) => parse(`${field}__${one.value}=`)?.field === `${field}__${one.value}`).map((one) => ({ text: `${field}__${one.value}`, value: `${field}__${one.value}`, told: count(one.number_of_requests) }));
}

/** A link by which a view is narrowed down to one value of a field. */
export function only(field, value, ...shown) {
  const where = [...new Set([...current().where, `${field}=${value}`])];
  return h("a", { href: but({ where, span: "", trace: "", view: "spans" }), title: `Only spans with ${field} = ${value}` }, shown.length ? shown : value);
}

/** A button that hands out what the filter finds. */
export function exporting(params) {
  const link = (format, told) => h("a", { role: "menuitem", href: href(format), download: "" }, told);
  const href = (format) => `/api/request-logs/export/?${new URLSearchParams({ ...params(), format })}`;
  return h(
    "details", { class: "menu", on: {
      toggle: (event) => event.target.open && fill($(".menu-list", event.target), link("jsonl", "JSON lines"), link("csv", "CSV")),
      focusout: (event) => { if (!event.currentTarget.contains(event.relatedTarget)) event.currentTarget.open = false; },
      keydown: (event) => {
        if (event.key !== "Escape" || !event.currentTarget.open) return;
        event.stopPropagation();
        event.currentTarget.open = false;
        $("summary", event.currentTarget).focus();
      },
    } },
    h("summary", { "aria-label": "Export what the filter finds", title: "Export what the filter finds" }, icon("download")),
    h("div", { class: "menu-list", role: "menu" }),
  );
}
