// One trace as a waterfall. However many spans it has, only those in sight are drawn.

import { get, part } from "./api.js";
import { ticks } from "./chart.js";
import { $, button, copy, fill, h, tell } from "./dom.js";
import { brief, count, moment, seconds, short, usd } from "./format.js";
import { current, go, view } from "./route.js";
import { dot } from "./row.js";
import { extent, markCritical, rows, visible } from "./tree.js";

const ROW = 28;
const MORE = 10;
const INDENT = 14;
const INDENTS_AT_MOST = 20;
// What a time above the bars needs; one that has less to its right stands to its left.
const TICK_PX = 56;
const KINDS = {
  chat: "llm", completion: "llm", response: "llm", text: "llm", generation: "llm", embedding: "embedding", tool: "tool", function: "tool",
  workflow: "flow", agent: "flow", task: "task", handoff: "task", guardrail: "task",
};

/** The view of the trace that the address names. */
export function traceView(state) {
  const scroller = h("div", { class: "scroller trace", tabindex: -1 }, h("p", { class: "quiet pad" }, "Loading …"));
  const leaving = new AbortController();
  let drawn = null;
  let name = "";
  const title = () => (name ? `${name} · Trace` : "Trace");
  const load = async () => {
    try {
      const trace = await get(`/api/traces/${part(state.trace)}/`, { include_content: "false" }, { signal: leaving.signal });
      const before = drawn?.leave();
      drawn = waterfall(trace, scroller, load, before);
      name = trace.name || trace.trace_unique_id;
      if (!current().span) document.title = title();
    } catch (error) {
      if (error.name === "AbortError") return;
      // What is shown stays.
      if (drawn && error.status !== 404) return tell(error.message);
      fill(scroller, h("p", { class: "pad" }, h("span", { class: "bad" }, error.status === 404 ? "There is no such trace (any more)." : error.message, " "), error.status !== 404 && button("Try again", load)));
    }
  };
  load();
  const when = (what) => () => drawn?.[what]();
  return {
    element: scroller,
    title,
    moved: when("draw"),
    leave: () => { leaving.abort(); drawn?.leave(); },
    keys: {
      j: when("next"), k: when("previous"), ArrowDown: when("next"), ArrowUp: when("previous"), Enter: when("open"),
      ArrowRight: when("unfold"), ArrowLeft: when("fold"), "+": when("closer"), "-": when("wider"), 0: when("whole"),
      "]": when("turnNext"), "[": when("turnPrevious"), r: load,
    },
  };
}

/** `before`: how the one before it was left. */
function waterfall(trace, scroller, reload, before) {
  const all = markCritical(rows(trace.span_tree));
  const [first, last] = extent(all);
  const idOf = (row) => row.span.unique_id;
  const folded = new Set(before ? all.filter((row) => before.folded.has(idOf(row))) : []);
  let shown = visible(all, folded);
  let from = before?.range?.[0] ?? first;
  let to = before?.range?.[1] ?? last;
  let selected = Math.max(0, shown.findIndex((row) => idOf(row) === before?.selected));
  let is_critical = localStorage.getItem("critical") !== "no";

  const body = h("div", { class: "fall-rows", role: "rowgroup" });
  const ruler = h("div", { class: "ruler", title: "Drag to zoom in, double-click to see all; Shift and the wheel go sideways" });
  const fall = h("div", { class: "fall", role: "treegrid", "aria-label": "Spans of this trace", "aria-rowcount": all.length },
    h("div", { class: "fall-head", role: "row" },
      h("div", { role: "columnheader", class: "branch" }, "Span"), h("div", { role: "columnheader", class: "number" }, "Tokens"), h("div", { role: "columnheader", class: "number" }, "Cost"),
      h("div", { role: "columnheader", class: "number" }, "Time"), h("div", { role: "columnheader", class: "bars" }, ruler)),
    body);
  const critical = button("Critical path", () => {
    is_critical = !is_critical;
    localStorage.setItem("critical", is_critical ? "yes" : "no");
    critical.setAttribute("aria-pressed", String(is_critical));
    draw();
  }, { class: "toggle", "aria-pressed": String(is_critical), title: "Mark what the whole waited for" });
  const zoomed = h("span", { class: "quiet zoomed" });
  fill(scroller,
    h("header", { class: "trace-head" },
      h("h1", {}, h("a", { href: view("traces"), title: "All traces" }, "Traces"), " / ", trace.name || trace.trace_unique_id),
      h("dl", { class: "tiles" }, [
        ["Spans", count(trace.span_count)], ["Failed", count(trace.error_count), trace.error_count && "bad"], ["Duration", seconds(trace.duration)], ["Calls of models", count(trace.llm_call_count)],
        ["Cost", usd(trace.total_cost)], ["Tokens", short(trace.total_tokens)], ["Customer", trace.customer_identifier ?? "–", "lesser"], ["Began", moment(trace.start_time), "lesser"],
      ].map(([name, value, kind]) => h("div", { class: kind || null }, h("dt", {}, name), h("dd", {}, value)))),
      h("div", { class: "line" }, critical, h("span", { class: "joined" }, button("+", () => zoom(0.5), { title: "Zoom in (+)", "aria-label": "Zoom in" }), button("−", () => zoom(2), { title: "Zoom out (-)", "aria-label": "Zoom out" }), button("Whole", () => set(first, last), { title: "The whole trace (0)" })),
        button("Fold all", () => foldAll(true)), button("Unfold all", () => foldAll(false)), button("Copy the id", () => copy(trace.trace_unique_id, "Id copied")), button("Refresh", reload, { picture: "again", title: "Refresh (r)" }), zoomed)),
    fall);

  const share = (at) => `${(100 * (at - from)) / (to - from)}%`;
  const wide = (start, end) => `max(2px, ${(100 * (end - start)) / (to - from)}%)`;

  const draw = () => {
    const top = Math.max(0, scroller.scrollTop - body.offsetTop);
    const begin = Math.max(0, Math.floor(top / ROW) - MORE);
    const end = Math.min(shown.length, Math.ceil((top + scroller.clientHeight) / ROW) + MORE);
    body.style.setProperty("height", `${shown.length * ROW}px`);
    const focused = body.contains(document.activeElement);
    fill(body, shown.slice(begin, end).map((row, number) => drawnRow(row, begin + number)));
    if (focused) $(".selected", body)?.focus({ preventScroll: true });
  };

  const drawnRow = (row, number) => {
    const { span } = row;
    const kind = KINDS[span.log_type] ?? "other";
    const has_children = row.children.length > 0;
    const open = !folded.has(row);
    const told = `${span.span_name || span.model}: ${seconds((row.end - row.start) / 1000)}, ${seconds((row.start - first) / 1000)} after the start`;
    return h(
      "div",
      {
        role: "row", class: `fall-row${number === selected ? " selected" : ""}${span.unique_id === current().span ? " shown" : ""}${span.status === "failed" ? " failed" : ""}`, tabindex: number === selected ? 0 : -1,
        "aria-level": row.depth + 1, "aria-rowindex": number + 1, "aria-expanded": has_children ? String(open) : null, style: { top: `${number * ROW}px` },
        on: { click: (event) => { if (!event.target.closest(".fold")) { selected = number; go({ span: span.unique_id }); } } },
      },
      h("div", { role: "gridcell", class: "branch", style: { "padding-left": `min(${8 + INDENT * Math.min(row.depth, INDENTS_AT_MOST)}px, 45%)` } },
        has_children
          ? h("button", { type: "button", class: "fold", tabindex: -1, "aria-label": open ? "Fold" : `Unfold ${row.size - 1} spans`, on: { click: () => fold(row, open) } }, open ? "▾" : "▸")
          : h("span", { class: "fold" }),
        h("i", { class: `kind ${kind}`, title: span.log_type }), span.status !== "success" && dot(span),
        h("span", { class: "what", title: told }, span.span_name || span.model),
        !open && h("span", { class: "quiet" }, ` +${count(row.size - 1)}`),
        !row.parent && span.span_parent_id && h("span", { class: "quiet", title: `Its parent ${span.span_parent_id} is not among these spans` }, " parent missing"), row.failed > 0 && span.status !== "failed" && h("span", { class: "below" }, `${row.failed} failed`)),
      h("div", { role: "gridcell", class: "number" }, row.tokens ? short(row.tokens) : ""),
      h("div", { role: "gridcell", class: "number" }, row.cost ? usd(row.cost) : ""),
      h("div", { role: "gridcell", class: "number", title: seconds((row.end - row.start) / 1000) }, brief((row.end - row.start) / 1000)),
      h("div", { role: "gridcell", class: "bars" }, row.end >= from && row.start <= to && [
        h("i", { class: `bar ${kind}`, title: told, style: { left: share(row.start), width: wide(row.start, row.end) } }),
        is_critical && row.critical.map(([start, end]) => h("i", { class: "critical", style: { left: share(start), width: wide(start, end) } })),
      ]),
    );
  };

  // Zoom

  const set = (start, end) => {
    const least = Math.max(0.01, (last - first) / 1e6);
    const middle = (start + end) / 2;
    const half = Math.max(end - start, least) / 2;
    from = Math.max(first, middle - half);
    to = Math.min(last, middle + half);
    fill(zoomed, from > first || to < last ? `${seconds((from - first) / 1000)} to ${seconds((to - first) / 1000)} of ${seconds((last - first) / 1000)}` : "");
    marks();
    draw();
  };
  const zoom = (by, at = (from + to) / 2) => set(at - (at - from) * by, at + (to - at) * by);
  const marks = () => {
    const step = ticks((to - from) / 1000, Math.min(8, Math.max(1, ruler.clientWidth / 90)))[1];
    const made = [];
    for (let at = Math.ceil((from - first) / 1000 / step) * step; at <= (to - first) / 1000; at += step) made.push(at);
    fill(ruler, made.map((at) => {
      const time = first + at * 1000;
      const fits = (to - time) / (to - from) * ruler.clientWidth > TICK_PX;
      return h("span", { class: fits ? "" : "before", style: { left: share(time) } }, at === 0 ? "0" : seconds(Number(at.toPrecision(9))));
    }));
  };
  const timeAt = (event, place) => {
    const box = place.getBoundingClientRect();
    return from + ((to - from) * Math.min(1, Math.max(0, (event.clientX - box.left) / box.width)));
  };
  ruler.addEventListener("pointerdown", (event) => {
    const began = timeAt(event, ruler);
    const band = h("i", { class: "band" });
    ruler.append(band);
    ruler.setPointerCapture(event.pointerId);
    const move = (moved) => {
      const now = timeAt(moved, ruler);
      band.style.setProperty("left", share(Math.min(began, now)));
      band.style.setProperty("width", `${(100 * Math.abs(now - began)) / (to - from)}%`);
    };
    ruler.addEventListener("pointermove", move);
    ruler.addEventListener("pointerup", (ended) => {
      ruler.removeEventListener("pointermove", move);
      band.remove();
      const now = timeAt(ended, ruler);
      if (Math.abs(now - began) > (to - from) / 200) set(Math.min(began, now), Math.max(began, now));
    }, { once: true });
  });
  ruler.addEventListener("dblclick", () => set(first, last));
  const wheel = (event) => {
    if (!event.target.closest(".bars")) return;
    const sideways = event.shiftKey ? event.deltaY || event.deltaX : Math.abs(event.deltaX) > Math.abs(event.deltaY) ? event.deltaX : 0;
    if (sideways && !event.ctrlKey) {
      event.preventDefault();
      const by = Math.max(first - from, Math.min(last - to, (to - from) * sideways / ruler.clientWidth));
      return set(from + by, to + by);
    }
    if (!event.ctrlKey) return;
    event.preventDefault();
    zoom(event.deltaY > 0 ? 1.25 : 0.8, timeAt(event, ruler));
  };
  scroller.addEventListener("wheel", wheel, { passive: false });

  // Folding and going through

  const again = () => { shown = visible(all, folded); selected = Math.min(selected, shown.length - 1); draw(); };
  const fold = (row, is_folded) => { if (is_folded) folded.add(row); else folded.delete(row); again(); };
  const foldAll = (is_folded) => {
    folded.clear();
    if (is_folded) for (const row of all) if (row.children.length && row.depth > 0) folded.add(row);
    again();
  };
  const select = (number) => {
    selected = Math.min(shown.length - 1, Math.max(0, number));
    const top = body.offsetTop + selected * ROW;
    if (top < scroller.scrollTop + 60) scroller.scrollTop = top - 60;
    if (top + ROW > scroller.scrollTop + scroller.clientHeight) scroller.scrollTop = top + ROW - scroller.clientHeight;
    draw();
    $(".selected", body)?.focus({ preventScroll: true });
  };
  const turn = (by) => { select(selected + by); go({ span: shown[selected].span.unique_id }, { replace: true }); };

  let frame = null;
  const soon = () => { frame ??= requestAnimationFrame(() => { frame = null; draw(); }); };
  scroller.addEventListener("scroll", soon, { passive: true });
  const watched = new ResizeObserver(() => { marks(); soon(); });
  watched.observe(scroller);
  set(from, to);
  scroller.scrollTop = before?.top ?? 0;
  if (before?.was_reloading) $('[title^="Refresh"]', scroller).focus({ preventScroll: true });
  return {
    draw,
    leave: () => {
      watched.disconnect();
      scroller.removeEventListener("scroll", soon);
      scroller.removeEventListener("wheel", wheel);
      return {
        folded: new Set([...folded].map(idOf)), range: from > first || to < last ? [from, to] : null, selected: idOf(shown[selected]), top: scroller.scrollTop,
        was_reloading: scroller.contains(document.activeElement) && document.activeElement.title.startsWith("Refresh"),
      };
    },
    next: () => select(selected + 1), previous: () => select(selected - 1), open: () => go({ span: shown[selected].span.unique_id }),
    fold: () => { const row = shown[selected]; if (row.children.length && !folded.has(row)) fold(row, true); else if (row.parent) select(shown.indexOf(row.parent)); },
    unfold: () => fold(shown[selected], false), closer: () => zoom(0.5), wider: () => zoom(2), whole: () => set(first, last),
    turnNext: () => turn(1), turnPrevious: () => turn(-1),
  };
}
