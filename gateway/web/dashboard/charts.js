// How much, how fast and at what cost, over time; as a whole, or by what spans have in common.

import { COLORS, REST, chart, grid, legend } from "./chart.js";
import { button, fill, h, tell } from "./dom.js";
import { filterbar } from "./filterbar.js";
import { brief, count, percent, seconds, short, speed, usd } from "./format.js";
import { within } from "./overview.js";
import { but, go } from "./route.js";
import { seriesOf } from "./series.js";

const GROUPS = { "": "all together", model: "by model", upstream: "by upstream", customer_identifier: "by customer", organization_key_name: "by key", status: "by status", log_type: "by kind", environment: "by environment" };
const SHARES = ["p50", "p95", "p99"];
const SHARE_COLORS = ["var(--series-1)", "var(--series-3)", "var(--series-5)"];
const SUMS = [
  ["Calls", (point) => point.number_of_requests, count],
  ["Errors", (point) => point.error_count, count],
  ["Cost", (point) => point.total_cost, usd],
  ["Tokens", (point) => point.total_tokens, short],
];
const SPREADS = [["Latency", "latency", seconds, brief], ["Time to first token", "time_to_first_token", seconds, brief], ["Tokens per second", "tokens_per_second", speed]];
const NONE = "(none)";
const SUMMED = ["number_of_requests", "error_count", "total_cost", "total_tokens", "total_prompt_tokens", "total_completion_tokens"];
// Stands for the groups that have no colour of their own.
const REST_KEY = Symbol("rest");

/** The view. */
export function chartsView(state) {
  const leaving = new AbortController();
  const place = h("div", { class: "charts" }, h("p", { class: "quiet pad" }, "Loading …"));
  const group = h("select", { "aria-label": "Group", on: { change: () => go({ group_by: group.value }) } }, Object.entries(GROUPS).map(([value, told]) => h("option", { value, selected: value === state.group_by }, told)));
  const by = h("select", { "aria-label": "Percentile", hidden: !state.group_by, on: { change: () => found && draw() } }, SHARES.map((one) => h("option", { value: one, selected: one === "p95" }, one)));
  const scroller = h("div", { class: "scroller", tabindex: -1 }, h("h1", { class: "unseen" }, "Charts"), filterbar(group, by, button("Refresh", () => load(), { picture: "again", title: "Refresh (r)" })), place);
  let found = null;

  const draw = () => fill(place, found.results.length ? [cards(found, state, by.value), found.leaves_out && h("p", { class: "quiet pad" }, found.leaves_out), breakdown(found, state)] : h("p", { class: "empty pad" }, "No span fits."));
  const load = async () => {
    try {
      const whole = await seriesOf(state, {}, leaving);
      const { start_time, end_time, leaves_out } = whole;
      const parts = state.group_by ? await seriesOf(state, { group_by: state.group_by, limit: COLORS.length - 1, start_time, end_time }, leaving) : whole;
      found = { ...withRest(whole, parts, state.group_by), leaves_out };
      draw();
    } catch (error) {
      if (error.name === "AbortError") return;
      // What is shown stays.
      if (found) tell(error.message);
      else fill(place, h("p", { class: "pad" }, h("span", { class: "bad" }, error.message, " "), error.status !== 400 && button("Try again", load)));
    }
  };
  load();
  return { element: scroller, leave: () => leaving.abort(), keys: { r: load } };
}

/** A grouped series with what its groups leave out, so that sums are of everything. */
function withRest(whole, parts, group) {
  if (!group || !parts.requests_left_out) return parts;
  const rest = new Map(whole.results.map((point) => [point.time, { ...point, [group]: REST_KEY, latency: {}, time_to_first_token: {}, tokens_per_second: {} }]));
  for (const point of parts.results) {
    const left = rest.get(point.time);
    if (left) for (const name of SUMMED) left[name] = Math.max(0, left[name] - point[name]);
  }
  return { ...parts, results: [...parts.results, ...[...rest.values()].filter((point) => point.number_of_requests > 0)] };
}

/** The groups of a series, largest first, each with its colour. */
function groupsOf(found, group) {
  if (!group) return [{ key: undefined, name: "all", color: COLORS[0] }];
  const sizes = new Map();
  for (const point of found.results) sizes.set(point[group], (sizes.get(point[group]) ?? 0) + point.number_of_requests);
  const place = ([key, size]) => (key === REST_KEY ? -1 : size);
  return [...sizes].sort((a, b) => place(b) - place(a)).map(([key], number) => ({ key, name: key === REST_KEY ? "others, or none" : (key ?? NONE), color: key === REST_KEY ? REST : COLORS[number] }));
}

/** The values of one group in each interval, `empty` where there is nothing. */
function valuesOf(found, { times, place }, group, key, of, empty) {
  const values = times.map(() => empty);
  for (const point of found.results) {
    if (group && point[group] !== key) continue;
    const number = place.get(Date.parse(point.time));
    if (number !== undefined) values[number] = of(point) ?? empty;
  }
  return values;
}

function cards(found, state, share) {
  const laid = grid(found);
  const group = state.group_by;
  const groups = groupsOf(found, group);
  const onpick = (number, place) => {
    const key = group && place !== null ? groups[place]?.key : REST_KEY;
    const where = key === REST_KEY ? state.where : [...state.where, `${group}=${key ?? ""}`];
    go(but({ ...within(laid.times[number], laid.step), where, view: "spans", group_by: "" }));
  };
  const values = (of, empty) => (one) => ({ name: one.name, color: one.color, values: valuesOf(found, laid, group, one.key, of, empty) });

  const sums = SUMS.map(([title, of, format]) => {
    let series = groups.map(values(of, 0));
    if (!group && title === "Calls") {
      series = [{ name: "fine", color: "var(--good-bar)", values: valuesOf(found, laid, "", null, (point) => point.number_of_requests - point.error_count, 0) }, { name: "failed", color: "var(--bad-bar)", values: valuesOf(found, laid, "", null, (point) => point.error_count, 0) }];
    } else if (!group && title === "Tokens") {
      series = [{ name: "prompt", color: COLORS[0], values: valuesOf(found, laid, "", null, (point) => point.total_prompt_tokens, 0) }, { name: "completion", color: COLORS[1], values: valuesOf(found, laid, "", null, (point) => point.total_completion_tokens, 0) }];
    } else if (!group && title === "Errors") {
      series[0].color = "var(--bad-bar)";
    } else if (!group) series[0].name = title.toLowerCase();
    const total = found.results.reduce((sum, point) => sum + of(point), 0);
    return card(title, format === short ? count(total) : format(total), series, { ...laid, kind: "bars", format, onpick }, !group);
  });
  const spreads = SPREADS.map(([title, measure, format, at_axis]) => {
    const series = group ? groups.filter((one) => one.key !== REST_KEY).map(values((point) => point[measure][share], null)) : SHARES.map((one, number) => ({ name: one, color: SHARE_COLORS[number], values: valuesOf(found, laid, "", null, (point) => point[measure][one], null) }));
    return card(title, group ? share : "p50, p95, p99", series, { ...laid, kind: "lines", format, short: at_axis, onpick }, !group);
  });
  return [group && legend(groups), h("div", { class: "cards sums" }, sums), h("div", { class: "cards spreads" }, spreads)];
}

function card(title, total, series, options, is_told) {
  const label = `${title} over time, ${total}. Arrow keys go through it, Enter shows the spans of one interval.`;
  return h("section", { class: "card", "aria-label": title, data: { total } }, h("header", {}, h("h2", {}, title), h("b", {}, total)), chart({ label, series, ...options }), is_told && series.length > 1 && legend(series));
}

/** The same as a table, a line for each group. */
function breakdown(found, state) {
  const group = state.group_by;
  if (!group) return h("p", { class: "quiet pad" }, `An interval is ${found.interval}. Choose a group above to see them by model, upstream, customer or key.`);
  const lines = groupsOf(found, group).map((one) => {
    const points = found.results.filter((point) => point[group] === one.key);
    return { ...one, sums: SUMS.map(([, of]) => points.reduce((sum, point) => sum + of(point), 0)) };
  });
  const to = ({ key }) => but({ where: [...state.where, `${group}=${key ?? ""}`], view: "spans", group_by: "", span: "" });
  return h("div", { class: "wide" }, h("table", { class: "breakdown" },
    h("thead", {}, h("tr", {}, [GROUPS[group].replace("by ", ""), "Calls", "Errors", "", "Cost", "Tokens"].map((one) => h("th", { scope: "col" }, one)))),
    h("tbody", {}, lines.map((line) => h("tr", {},
      h("th", { scope: "row" }, h("i", { class: "swatch", style: { background: line.color } }), line.key === REST_KEY ? line.name : h("a", { href: to(line), title: line.name }, line.name)),
      h("td", {}, count(line.sums[0])), h("td", {}, count(line.sums[1])), h("td", { class: "quiet" }, percent(line.sums[1], line.sums[0])), h("td", { title: `$${line.sums[2]}` }, usd(line.sums[2])), h("td", {}, count(line.sums[3]))))),
  ));
}
