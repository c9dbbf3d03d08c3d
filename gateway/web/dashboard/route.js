// What the page shows is what its address says, and nothing else: so views can be shared, and Back works.

import { parse } from "./conditions.js";

export const VIEWS = { spans: "Spans", traces: "Traces", charts: "Charts", playground: "Playground" };
const SINGLE = ["view", "search", "range", "start_time", "end_time", "sort_by", "group_by", "span", "trace"];
/** What narrows down what is shown; it goes along from one view to another. */
const NARROWING = ["where", "search", "range", "start_time", "end_time"];

let state = read(location.search);
let is_back = false;
const listeners = new Set();

/** What an address's query says. */
export function read(query) {
  const params = new URLSearchParams(query);
  const where = params.getAll("where");
  const found = { where: where.filter(parse) };
  for (const name of SINGLE) found[name] = params.get(name) ?? "";
  // What is no condition can only be meant as words.
  found.search ||= where.filter((text) => text.trim() && !parse(text)).join(" ");
  if (!(found.view in VIEWS)) found.view = "spans";
  return found;
}

/** The address of a state. */
export function address(of) {
  const params = new URLSearchParams();
  for (const name of SINGLE) {
    if (of[name] && !(name === "view" && of[name] === "spans")) params.set(name, of[name]);
  }
  for (const one of of.where ?? []) params.append("where", one);
  const query = params.toString();
  return query ? `/?${query}` : "/";
}

/** What is shown now. */
export const current = () => state;

/** The address of what is shown now, but for these changes. */
export const but = (changes) => address({ ...state, ...changes });

/** The address of another view of the same spans. */
export function view(name) {
  const kept = Object.fromEntries(NARROWING.map((one) => [one, state[one]]));
  return address({ ...kept, view: name });
}

/** Goes somewhere; `replace`: as if one had been there at once. */
export function go(where, { replace = false } = {}) {
  const to = typeof where === "string" ? where : but(where);
  if (to !== location.pathname + location.search) history[replace ? "replaceState" : "pushState"]({}, "", to);
  arrive();
}

/** Whether one came to what is shown now by Back or Forward. */
export const isBack = () => is_back;

/** Calls this with the new state and the one before, whenever there is another one. */
export function onChange(listener) {
  listeners.add(listener);
}

function arrive(event) {
  const before = state;
  is_back = event?.type === "popstate";
  state = read(location.search);
  for (const listener of listeners) listener(state, before);
}

/** Whether two states show the same spans in the same way. */
export function sameList(a, b) {
  return [...NARROWING, "view", "sort_by", "group_by", "trace"].every((name) => String(a[name]) === String(b[name]));
}

/** Follows links within the page without loading it again. */
export function start() {
  addEventListener("popstate", arrive);
  document.addEventListener("click", (event) => {
    const link = event.target.closest("a[href]");
    const is_plain = event.button === 0 && !(event.metaKey || event.ctrlKey || event.shiftKey || event.altKey);
    if (!link || !is_plain || event.defaultPrevented || link.target || link.hasAttribute("download")) return;
    if (link.origin !== location.origin || link.pathname !== "/") return;
    if (link.hash && link.search === location.search) return;
    event.preventDefault();
    go(link.pathname + link.search);
  });
}
