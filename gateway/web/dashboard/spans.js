// The list of spans, newest first, as they come.

import { get } from "./api.js";
import { RANGES, asked, isMoving } from "./conditions.js";
import { $, button, fill, h } from "./dom.js";
import { exporting, filterbar } from "./filterbar.js";
import { count } from "./format.js";
import { follow } from "./live.js";
import { overview } from "./overview.js";
import { picking } from "./picking.js";
import { address, current, go, isBack } from "./route.js";
import { SHOWN, before, cells, elapsed, header } from "./row.js";
import { whenNear } from "./scroll.js";

const PAGE = 50;
// A live list that grows and grows is cut at its end again; what is cut off is loaded again by who scrolls there.
const ROWS_AT_MOST = 1000;
const ROWS_KEPT = 300;
const SUMS_EVERY_MS = 3000;
const NEW_FOR_MS = 1200;
// How often a range moves on: a hundred times in its length, and not more often than this.
const MOVES_EVERY_MS = 10_000;
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
  let refused = null;
  let wrong = null;
  let was_ready = false;
  let paused = sessionStorage.getItem("paused") === "yes";
  let stop = () => {};

  const sums = overview(state, (number) => { total = number; foot(); });
  const body = h("div", { role: "rowgroup", class: "rows" });
  const footer = h("p", { class: "list-foot", role: "status" }, "Loading …");
  const fresh = button("", () => { scroller.scrollTop = 0; flush(); }, { class: "fresh", hidden: true });
  const live = button("", () => pause(!paused), { class: "toggle live" });
  const table = h("div", { class: "table spans", role: "table", "aria-label": "Spans" }, h("div", { role: "rowgroup", class: "heads" }, header(state)), body);
  const scroller = h("div", { class: "scroller", tabindex: -1 }, sums.element, filterbar(can_live && live, exporting(params)), fresh, table, footer);

  // Rows

  const make = (span) => {
    const row = h("div", {
      role: "row", tabindex: -1, class: `row${span.status === "failed" ? " failed" : ""}${span.is_open ? " open" : ""}`, data: { id: span.id },
      on: { click: (event) => { if (!event.target.closest("a")) go({ span: span.id }); } },
    });
    return fill(row, cells(span));
  };

  const put = (span, is_new) => {
    const known = rows.get(span.id);
    const row = make(span);
    if (is_new) {
      // Not faded: at some spans a second that would be most of what the page does.
      row.classList.add("new");
      setTimeout(() => row.classList.remove("new"), NEW_FOR_MS);
    }
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
    else if (wrong) fill(footer, h("span", { class: "bad" }, wrong.message, " "), wrong.status !== 400 && button("Try again", () => (next || is_cut ? more() : again())));
    else if (!shown) fill(footer, nothing(state));
    else if (next || is_cut) fill(footer, `${count(shown)}${of_all} shown; the others come as you scroll`);
    else if (total > shown) fill(footer, `${count(shown)}${of_all} shown. `, button("Load again", () => again()));
    else fill(footer, `${count(shown)} ${shown === 1 ? "span" : "spans"}, all there are`);
  };

  // Loading

  const load = async (where, then) => {
    if (loading) return;
    loading = true;
    wrong = null;
    foot();
    try {
      const found = await get("/api/request-logs/list/", where, { signal: leaving.signal });
      then?.();
      for (const span of found.results) put(span);
      next = cursor(found.next);
      mark();
    } catch (error) {
      if (error.name === "AbortError") return;
      wrong = error;
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
    wrong = null;
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
    watched.look();
  };

  const watched = whenNear(scroller, footer, () => (loading || wrong ? undefined : more()));

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
    return load({ ...first, ...params() });
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

  /** Takes out what has left a range that goes back from now. */
  const moveOn = () => {
    if (paused || document.hidden) return;
    const start = Date.parse(params().start_time);
    for (const [id, { row, span }] of rows) {
      if (!span.is_open && Date.parse(span.timestamp) < start) {
        row.remove();
        rows.delete(id);
        if (total > rows.size) total -= 1;
      }
    }
    foot();
    sumsSoon();
  };
  const ticking = setInterval(() => {
    for (const row of body.querySelectorAll(".row.open")) fill($(".latency", row), elapsed(rows.get(row.dataset.id).span));
  }, 1000);
  const moving = can_live && isMoving(state) && setInterval(moveOn, Math.max(MOVES_EVERY_MS, RANGES[state.range][0] * 10));

  const begin = () => follow(() => ({ ...params(), start_time: undefined, include_fields: SHOWN }), {
    state: (is_on) => { is_lost = !is_on; told(); },
    refused: (error) => { refused = error; told(); },
    ready: () => {
      // The first time they are being asked for anyway.
      if (was_ready) sumsSoon();
      was_ready = true;
      refresh().catch(() => {});
    },
    span: came,
    gone: ({ id }) => {
      waiting.delete(id);
      rows.get(id)?.row.remove();
      if (rows.delete(id)) { foot(); sumsSoon(); }
    },
    deleted: ({ id }) => document.dispatchEvent(new CustomEvent("spanchange", { detail: { id, is_deleted: true } })),
    gap: () => refresh().catch(() => {}),
  });

  const pause = (is_paused) => {
    paused = is_paused;
    refused = null;
    sessionStorage.setItem("paused", paused ? "yes" : "no");
    stop();
    stop = paused || !can_live ? () => {} : begin();
    told();
  };
  const told = () => {
    fill(live, h("i", {}), paused ? "Paused" : refused ? "Not live" : is_lost ? "Reconnecting …" : "Live");
    live.classList.toggle("lost", (is_lost || Boolean(refused)) && !paused);
    live.setAttribute("aria-pressed", String(!paused));
    live.title = paused ? "Show spans as they come (p)" : refused ? refused.message : is_lost ? "The gateway cannot be reached; it is tried again and again" : "New spans appear by themselves; p pauses that";
  };

  // Selection

  const { picked, pick, step } = picking(body, () => more());
  const mark = () => {
    const { span } = current();
    for (const row of body.querySelectorAll(".shown")) row.classList.remove("shown");
    if (span) rows.get(span)?.row.classList.add("shown");
  };
  const turn = (by) => {
    const from = $(".row.shown", body);
    const to = from && (by > 0 ? from.nextElementSibling : from.previousElementSibling);
    if (to) { pick(to); go({ span: to.dataset.id }, { replace: true }); mark(); }
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
  begin_at().then(() => sums.load(leaving.signal)).catch((error) => { if (error.name !== "AbortError") sums.fail(); });

  return {
    element: scroller,
    moved: mark,
    leave: () => {
      sessionStorage.setItem(kept_as, JSON.stringify({ rows: rows.size, top: scroller.scrollTop }));
      stop();
      leaving.abort();
      clearTimeout(summing);
      clearInterval(moving);
      clearInterval(ticking);
    },
    keys: {
      j: () => step(1), k: () => step(-1), Enter: () => picked() && go({ span: picked().dataset.id }),
      "]": () => turn(1), "[": () => turn(-1), p: () => can_live && pause(!paused),
    },
  };
}

const cursor = (next) => (next ? new URL(next).searchParams.get("cursor") : null);

function nothing(state) {
  if (state.where.length || state.search || state.range || state.start_time || state.end_time) {
    return h("span", { class: "empty" }, "No span fits this filter. ", h("a", { href: "/" }, "Show all"));
  }
  return h("span", { class: "empty" }, "Nothing yet. Point an OpenAI SDK at ", h("code", {}, `${location.origin}/v1`), ", or try the ", h("a", { href: "/?view=playground" }, "playground"), ": its spans appear here by themselves.");
}
