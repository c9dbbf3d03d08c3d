// The list of traces.

import { get } from "./api.js";
import { asked } from "./conditions.js";
import { $, button, fill, h, tell } from "./dom.js";
import { filterbar } from "./filterbar.js";
import { brief, clock, count, moment, seconds, short, usd } from "./format.js";
import { picking } from "./picking.js";
import { address, current, go } from "./route.js";
import { whenNear } from "./scroll.js";

const PAGE = 50;
const COLUMNS = [
  ["Latest", "time", (trace) => h("time", { datetime: trace.end_time, title: `${moment(trace.end_time)}; began ${moment(trace.start_time)}` }, clock(trace.end_time))],
  ["Trace", "name", (trace) => [
    h("span", { class: `dot ${trace.error_count ? "failed" : "fine"}`, title: trace.error_count ? `${trace.error_count} failed` : "fine" }, h("span", { class: "unseen" }, trace.error_count ? "failed" : "fine")),
    h("a", { class: "open-span", href: to(trace) }, trace.name || trace.trace_unique_id)]],
  ["Input", "said", (trace) => cut(trace.input)],
  ["Output", "said out", (trace) => cut(trace.output)],
  ["Spans", "number", (trace) => count(trace.span_count)],
  ["Calls", "number calls", (trace) => count(trace.llm_call_count)],
  ["Failed", "number failures", (trace) => (trace.error_count ? h("span", { class: "bad" }, count(trace.error_count)) : "0")],
  ["Tokens", "number tokens", (trace) => short(trace.total_tokens)],
  ["Cost", "number cost", (trace) => usd(trace.total_cost)],
  ["Duration", "number latency", (trace) => h("span", { title: seconds(trace.duration) }, brief(trace.duration))],
  ["Customer", "customer", (trace) => trace.customer_identifier ?? ""],
];

const to = (trace) => address({ ...current(), view: "traces", trace: trace.trace_unique_id, span: "" });
const cut = (text) => (text ? text.slice(0, 200).replace(/\s+/g, " ") : h("span", { class: "quiet" }, "–"));

/** The view. */
export function tracesView(state) {
  const leaving = new AbortController();
  const body = h("div", { role: "rowgroup", class: "rows" });
  const footer = h("p", { class: "list-foot", role: "status" }, "Loading …");
  const head = h("div", { role: "row", class: "row head" }, COLUMNS.map(([title, kind]) => h("div", { role: "columnheader", class: `cell ${kind}` }, title)));
  const scroller = h("div", { class: "scroller", tabindex: -1 }, h("h1", { class: "unseen" }, "Traces"), filterbar(button("Refresh", () => again(), { picture: "again", title: "Refresh (r)" })), h("div", { class: "table traces", role: "table", "aria-label": "Traces" }, h("div", { role: "rowgroup", class: "heads" }, head), body), footer);
  let page = 1;
  let loading = false;

  const load = async (is_anew = false) => {
    if (loading || (!page && !is_anew)) return;
    loading = true;
    const wanted = is_anew ? 1 : page;
    try {
      const found = await get("/api/traces/list/", { ...asked({ ...state, search: "" }), page: wanted, page_size: PAGE }, { signal: leaving.signal });
      if (is_anew) body.replaceChildren();
      body.append(...found.results.map(row));
      page = found.next ? wanted + 1 : 0;
      const number = body.childElementCount;
      fill(footer, !number ? h("span", { class: "empty" }, "No trace fits. Spans that share a ", h("code", {}, "trace_unique_id"), " make one.") : page ? `${count(number)} shown; the others come as you scroll` : `${count(number)} ${number === 1 ? "trace" : "traces"}, all there are`);
    } catch (error) {
      if (error.name === "AbortError") return;
      // What is shown stays.
      if (is_anew && body.firstElementChild) tell(error.message);
      else {
        page = 0;
        fill(footer, h("span", { class: "bad" }, error.message, " "), error.status !== 400 && button("Try again", () => { page = wanted; load(); }));
      }
    } finally {
      loading = false;
    }
    watched.look();
  };
  const row = (trace) => h(
    "div", { role: "row", tabindex: -1, class: `row${trace.error_count ? " failed" : ""}`, data: { id: trace.trace_unique_id }, on: { click: (event) => { if (!event.target.closest("a")) go(to(trace)); } } },
    COLUMNS.map(([, kind, shown]) => h("div", { role: "cell", class: `cell ${kind}` }, shown(trace))));
  const again = () => load(true);

  const { picked, step } = picking(body);
  const watched = whenNear(scroller, footer, () => load());
  load();
  return {
    element: scroller,
    leave: () => leaving.abort(),
    keys: { j: () => step(1), k: () => step(-1), Enter: () => picked() && $("a", picked()).click(), r: again },
  };
}
