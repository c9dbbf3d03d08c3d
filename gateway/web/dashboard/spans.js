// The list of spans, newest first, as they come.

import { get } from "./api.js";
import { asked } from "./conditions.js";
import { $, button, fill, h } from "./dom.js";
import { exporting, filterbar } from "./filterbar.js";
import { clock, count, moment, seconds, speed, usd } from "./format.js";
import { follow } from "./live.js";
import { overview } from "./overview.js";
import { whenNear } from "./scroll.js";
import { address, but, current, go, isBack } from "./route.js";

const PAGE = 50;
// A live list that grows and grows is cut at its end again; what is cut off is loaded again by who scrolls there.
const ROWS_AT_MOST = 1000;
const ROWS_KEPT = 300;
const SUMS_EVERY_MS = 3000;
const SHOWN = [
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
  ["First token", "number ttft", (span) => seconds(span.time_to_first_token), "time_to_first_token"],
  ["Tokens/s", "number speed", (span) => speed(span.tokens_per_second || null), "tokens_per_second"],
  ["Latency", "number latency", (span) => seconds(span.latency), "latency"],
  ["Customer", "customer", (span) => span.customer_identifier ?? ""],
];

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

/** The view. Gives its element, keys, and what ends it. */
export function spansView(state) {
  const params = () => asked(state);
  const is_newest_first = !state.sort_by || state.sort_by === "-timestamp";
  const can_live = is_newest_first && !state.end_time;
  const rows = new Map();
  const waiting = new Map();
  const leaving = new AbortController();
  let next = null;
  let is_cut = false;
  let loading = false;
  let total = null;
  let missed = 0;
  let is_lost = false;
  let paused = sessionStorage.getItem("paused") === "yes";
  let stop = () => {};

  const sums = overview(state, (number) => { total = number; foot(); });
  const body = h("div", { role: "rowgroup", class: "rows" });
  const footer = h("p", { class: "list-foot", role: "status" }, "Loading …");
  const fresh = button("", () => { scroller.scrollTop = 0; flush(); }, { class: "fresh", hidden: true });
  const live = button("", () => pause(!paused), { class: "toggle live" });
  const table = h("div", { class: "table spans", role: "table", "aria-label": "Spans" }, h("div", { role: "rowgroup" }, header(state)), body);
  const scroller = h("div", { class: "scroller", tabindex: -1 }, sums.element, filterbar(can_live && live, exporting(params)), fresh, table, footer);

  // Rows

  const make = (span) => {
    const row = h("div", {
      role: "row", tabindex: -1, class: `row${span.status === "failed" ? " failed" : ""}${span.is_open ? " open" : ""}`, data: { id: span.id },
      on: { click: (event) => { if (!event.target.closest("a")) go({ span: span.id }); } },
    });
    return fill(row, COLUMNS.map(([, kind, shown]) => h("div", { role: "cell", class: `cell ${kind}` }, shown(span))));
  };

  const put = (span, is_new) => {
    const known = rows.get(span.id);
    const row = make(span);
    if (is_new) row.classList.add("new");
    const had_focus = known?.row === document.activeElement;
    if (known) {
      row.classList.toggle("selected", known.row.classList.contains("selected"));
      known.row.remove();
    }
    rows.set(span.id, { row, span });
    place(row, span);
    if (had_focus) row.focus({ preventScroll: true });
  };

  /** Where it belongs; nearly always that is at the top, or at the end. */
  const place = (row, span) => {
    const last = body.lastElementChild;
    if (!is_newest_first || !last || !before(span, rows.get(last.dataset.id).span)) return body.append(row);
    for (const other of body.children) {
      if (before(span, rows.get(other.dataset.id).span)) return other.before(row);
    }
    return body.append(row);
  };

  const foot = () => {
    const shown = rows.size;
    const of_all = total === null ? "" : ` of ${count(Math.max(total, shown))}`;
    if (loading) fill(footer, "Loading …");
    else if (!shown) fill(footer, nothing(state));
    else if (next || is_cut) fill(footer, `${count(shown)}${of_all} shown; the others come as you scroll`);
    else if (total > shown) fill(footer, `${count(shown)}${of_all} shown. `, button("Load again", () => again()));
    else fill(footer, `${count(shown)} ${shown === 1 ? "span" : "spans"}, all there are`);
  };

  // Loading

  const load = async (where, then) => {
    if (loading) return;
    loading = true;
    foot();
    try {
      const found = await get("/api/request-logs/list/", where, { signal: leaving.signal });
      then?.();
      for (const span of found.results) put(span);
      next = cursor(found.next);
      mark();
    } catch (error) {
      if (error.name !== "AbortError") fill(footer, h("span", { class: "bad" }, error.message));
      throw error;
    } finally {
      loading = false;
    }
    foot();
    watched.look();
  };

  const first = { ...params(), include_fields: SHOWN, page_size: PAGE, sort_by: state.sort_by };

  const more = () => {
    if (next) return load({ ...first, page_size: 2 * PAGE, cursor: next, page: 2 });
    const last = body.lastElementChild && rows.get(body.lastElementChild.dataset.id).span;
    if (is_cut && last) return load({ ...first, page_size: 2 * PAGE, end_time: last.timestamp }, () => { is_cut = false; });
    return undefined;
  };

  let meanwhile = null;
  const refresh = async () => {
    const came_since = (meanwhile = new Set());
    const found = await get("/api/request-logs/list/", { ...first, ...params() }, { signal: leaving.signal });
    meanwhile = null;
    const shown = new Set([...found.results.map((span) => span.id), ...came_since]);
    if (found.next && !found.results.some((span) => rows.has(span.id) && !came_since.has(span.id))) {
      // More has come meanwhile than one page holds: what is below would not follow on what is above.
      for (const [id, { row }] of rows) if (!came_since.has(id)) { row.remove(); rows.delete(id); }
      next = cursor(found.next);
      is_cut = false;
    }
    // What is above the last of these, and not among them, has gone.
    const last = found.results.at(-1);
    for (const [id, { row, span }] of rows) {
      if (!shown.has(id) && (!cursor(found.next) || (last && before(span, last)))) { row.remove(); rows.delete(id); }
    }
    for (const span of found.results) {
      if (!came_since.has(span.id) && JSON.stringify(rows.get(span.id)?.span) !== JSON.stringify(span)) put(span);
    }
    mark();
    foot();
  };

  const watched = whenNear(scroller, footer, () => (loading ? undefined : more()));

  // Live

  const flush = () => {
    fresh.hidden = true;
    if (missed) return again();
    for (const span of waiting.values()) put(span, true);
    waiting.clear();
    if (rows.size > ROWS_AT_MOST) {
      for (const row of [...body.children].slice(ROWS_KEPT)) { rows.delete(row.dataset.id); row.remove(); }
      next = null;
      is_cut = true;
    }
    mark();
    foot();
    return sumsSoon();
  };

  /** From the top, where more has come than is worth putting in one by one. */
  const again = () => {
    missed = 0;
    waiting.clear();
    rows.clear();
    body.replaceChildren();
    next = null;
    is_cut = false;
    sumsSoon();
    return load({ ...first, ...params() }).catch(() => {});
  };

  let frame = null;
  const came = (span) => {
    meanwhile?.add(span.id);
    document.dispatchEvent(new CustomEvent("spanchange", { detail: span }));
    const { start_time: start } = params();
    if (start && !span.is_open && Date.parse(span.timestamp) < Date.parse(start)) return sumsSoon();
    const last = body.lastElementChild && rows.get(body.lastElementChild.dataset.id)?.span;
    const is_on_a_later_page = (next || is_cut) && last && !rows.has(span.id) && before(last, span);
    if (is_on_a_later_page) return sumsSoon();
    if (scroller.scrollTop >= 40 && rows.has(span.id)) return put(span);
    if (waiting.size < ROWS_KEPT || waiting.has(span.id)) waiting.set(span.id, span);
    else missed += 1;
    if (scroller.scrollTop < 40) {
      frame ??= requestAnimationFrame(() => { frame = null; flush(); });
    } else {
      fresh.hidden = false;
      fill(fresh, `↑ ${count(waiting.size + missed)} new`);
    }
    return undefined;
  };

  let summing = null;
  const sumsSoon = () => {
    summing ??= setTimeout(() => { summing = null; sums.load(leaving.signal).catch(() => {}); }, SUMS_EVERY_MS);
  };

  const begin = () => follow(() => ({ ...params(), start_time: undefined, include_fields: SHOWN }), {
    state: (is_on) => { is_lost = !is_on; told(); },
    ready: () => { sumsSoon(); refresh().catch(() => {}); },
    span: came,
    gone: ({ id }) => {
      waiting.delete(id);
      rows.get(id)?.row.remove();
      if (rows.delete(id)) { foot(); sumsSoon(); }
    },
    gap: () => refresh().catch(() => {}),
  });

  const pause = (is_paused) => {
    paused = is_paused;
    sessionStorage.setItem("paused", paused ? "yes" : "no");
    stop();
    stop = paused || !can_live ? () => {} : begin();
    told();
  };
  const told = () => {
    fill(live, h("i", {}), paused ? "Paused" : is_lost ? "Reconnecting …" : "Live");
    live.classList.toggle("lost", is_lost && !paused);
    live.setAttribute("aria-pressed", String(!paused));
    live.title = paused ? "Show spans as they come (p)" : is_lost ? "The gateway cannot be reached; it is tried again and again" : "New spans appear by themselves; p pauses that";
  };

  // Selection

  const selected = () => $(".row.selected", body);
  const select = (row) => {
    if (!row) return;
    selected()?.classList.remove("selected");
    row.classList.add("selected");
    row.scrollIntoView({ block: "nearest" });
    row.focus({ preventScroll: true });
    if (!row.nextElementSibling) more()?.catch(() => {});
  };
  const mark = () => {
    const { span } = current();
    for (const row of body.querySelectorAll(".shown")) row.classList.remove("shown");
    if (span) rows.get(span)?.row.classList.add("shown");
  };
  const step = (by) => {
    const from = selected() ?? $(".row.shown", body);
    select(from ? (by > 0 ? from.nextElementSibling : from.previousElementSibling) : body.firstElementChild);
  };
  const turn = (by) => {
    const from = $(".row.shown", body);
    const to = from && (by > 0 ? from.nextElementSibling : from.previousElementSibling);
    if (to) { select(to); go({ span: to.dataset.id }, { replace: true }); mark(); }
  };

  // Who comes back finds the list as long, and as far down, as he left it.
  const kept_as = `list ${address({ ...state, span: "" })}`;
  const left = isBack() ? JSON.parse(sessionStorage.getItem(kept_as) ?? "null") : null;
  const begin_at = async () => {
    await load(left ? { ...first, page_size: Math.min(ROWS_AT_MOST, Math.max(PAGE, left.rows)) } : first);
    if (left) scroller.scrollTop = left.top;
  };

  pause(paused);
  // The rows first: where much is stored, sums take longer, and the gateway reads one thing after another.
  begin_at().catch(() => {}).then(() => sums.load(leaving.signal)).catch((error) => { if (error.name !== "AbortError") sums.fail(); });

  return {
    element: scroller,
    moved: mark,
    leave: () => {
      sessionStorage.setItem(kept_as, JSON.stringify({ rows: rows.size, top: scroller.scrollTop }));
      stop();
      leaving.abort();
      clearTimeout(summing);
    },
    keys: {
      j: () => step(1), k: () => step(-1), Enter: () => selected() && go({ span: selected().dataset.id }),
      "]": () => turn(1), "[": () => turn(-1), p: () => can_live && pause(!paused),
    },
  };
}

/** Whether a span stands above another: those that run first, then the later ones. */
function before(one, other) {
  if (Boolean(one.is_open) !== Boolean(other.is_open)) return Boolean(one.is_open);
  return one.timestamp > other.timestamp;
}

const cursor = (next) => (next ? new URL(next).searchParams.get("cursor") : null);

function header(state) {
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

function nothing(state) {
  if (state.where.length || state.search || state.range || state.start_time || state.end_time) {
    return h("span", { class: "empty" }, "No span fits this filter. ", h("a", { href: "/" }, "Show all"));
  }
  return h("span", { class: "empty" }, "Nothing yet. Point an OpenAI SDK at ", h("code", {}, `${location.origin}/v1`), ", or try the ", h("a", { href: "/?view=playground" }, "playground"), ": its spans appear here by themselves.");
}
