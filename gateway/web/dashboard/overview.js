// Above the list: what all the spans that it is of come to, and when they were.

import { get } from "./api.js";
import { chart, grid } from "./chart.js";
import { asked } from "./conditions.js";
import { fill, h } from "./dom.js";
import { count, percent, seconds, short, speed, usd } from "./format.js";
import { go } from "./route.js";
import { seriesOf } from "./series.js";

/** The tiles and the bars of a state. `load()` asks for them anew, `fail()` says that there are none; `told(number)` hears of how many spans there are. */
export function overview(state, told) {
  const tiles = h("dl", { class: "tiles" }, TILES.map(([name]) => h("div", {}, h("dt", {}, name), h("dd", {}, "…"))));
  const bars = h("div", { class: "overview-bars" });
  const element = h("section", { class: "overview", "aria-label": "Sums of these spans" }, tiles, bars);

  // Who is at the bars sees the newer ones when he leaves them.
  let later = null;
  const put = (draw) => { if (bars.firstElementChild && bars.matches(":hover, :focus-within")) later = draw; else draw(); };
  const left = () => { const draw = later; later = null; draw?.(); };
  bars.addEventListener("pointerleave", () => { if (!bars.matches(":focus-within")) left(); });
  bars.addEventListener("focusout", () => { if (!bars.matches(":hover")) left(); });

  const load = async (signal) => {
    const [sums, found] = await Promise.all([get("/api/request-logs/summary/", asked(state, { search: false }), { signal }), seriesOf(state, {}, { signal })]);
    fill(tiles, TILES.map(([name, of, style]) => {
      const [value, more] = [of(sums)].flat();
      return h("div", { class: style?.(sums) }, h("dt", {}, name), h("dd", {}, value, more && h("small", {}, more)));
    }));
    put(() => fill(bars, traffic(found)));
    bars.title = found.leaves_out ?? "";
    told(sums.number_of_requests);
  };
  const fail = () => fill(tiles, TILES.map(([name]) => h("div", {}, h("dt", {}, name), h("dd", {}, "–"))));
  return { element, load, fail };
}

const known = (value, format) => (value ? format(value) : "–");

const TILES = [
  ["Spans", (sums) => count(sums.number_of_requests)],
  ["Failed", (sums) => [count(sums.error_count), sums.error_count ? percent(sums.error_count, sums.number_of_requests) : ""], (sums) => sums.error_count && "bad"],
  ["Cost", (sums) => usd(sums.total_cost)],
  ["Tokens", (sums) => [short(sums.total_tokens), sums.total_tokens ? `${short(sums.total_prompt_tokens)} in, ${short(sums.total_completion_tokens)} out` : ""]],
  ["Latency, mean", (sums) => known(sums.avg_latency, seconds)],
  ["First token, mean", (sums) => known(sums.avg_ttft, seconds)],
  ["Tokens/s, mean", (sums) => known(sums.avg_tps, speed)],
];

/** How many spans there were and when; a bar shows its own. */
function traffic(found) {
  const { times, step, place } = grid(found);
  const good = times.map(() => 0);
  const bad = times.map(() => 0);
  for (const one of found.results) {
    const number = place.get(Date.parse(one.time));
    if (number === undefined) continue;
    good[number] = one.number_of_requests - one.error_count;
    bad[number] = one.error_count;
  }
  const total = good.concat(bad).reduce((sum, one) => sum + one, 0);
  return chart({
    label: `Spans over time, ${count(total)} in all. Arrow keys go through them, Enter shows those of one bar.`,
    times, step, height: 62, axes: false, format: count,
    series: [{ name: "fine", color: "var(--good-bar)", values: good }, { name: "failed", color: "var(--bad-bar)", values: bad }],
    onpick: (number) => go(within(times[number], step)),
  });
}

/** The range of an interval, as a change of what is shown. */
export function within(start, step) {
  // What ends an interval begins the next one; times are told to the microsecond.
  const end = new Date(start + step * 1000 - 1).toISOString().replace("Z", "999Z");
  return { range: "", start_time: new Date(start).toISOString(), end_time: end };
}
