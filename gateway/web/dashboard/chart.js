// Charts over time, drawn as SVG: stacked bars, or lines. Small enough to be read, and to need no library.

import { fill, h, svg } from "./dom.js";
import { interval, mark } from "./format.js";

const BOTTOM = 20;
const TOP = 8;
// So many pixels between two marks on the axis of time.
const APART = 64;
// And as many that a letter of one takes, at most, and what is to be free beside a text.
const LETTER = 6.5;
const FREE = 8;

// Between two marks on an axis of time, in seconds.
const DAY = 86400;
const APARTS = [60, 300, 600, 1800, 3600, 7200, 10800, 21600, 43200, DAY, 2 * DAY, 7 * DAY, 14 * DAY, 28 * DAY, 56 * DAY, 112 * DAY, 364 * DAY];

/** Whether an interval has a mark: by the clock on the wall, and by whole days where intervals are days. */
function isMark(time, apart, step) {
  const zone = step < DAY ? new Date(time).getTimezoneOffset() * 60 : 0;
  // Weeks begin on Mondays.
  const seconds = time / 1000 - zone - (apart >= 7 * DAY ? 4 * DAY : 0);
  return seconds % apart < step;
}

/** Fills in what a series of the API leaves out: the intervals in which nothing was. */
export function grid(found) {
  const step = found.interval_seconds * 1000;
  // Weeks begin on Monday there; the epoch was a Thursday.
  const shift = found.interval === "1w" ? 4 * 86400000 : 0;
  const floor = (at) => Math.floor((at - shift) / step) * step + shift;
  const [start, end] = [floor(Date.parse(found.start_time)), Date.parse(found.end_time)];
  const first = Math.min(start, ...found.results.map((one) => Date.parse(one.time)));
  const times = [];
  for (let at = first; at < end || !times.length; at += step) times.push(at);
  return { times, step: found.interval_seconds, place: new Map(times.map((at, number) => [at, number])) };
}

/** Upper ends of axes that read well, and the marks below them. */
export function ticks(most, number = 3) {
  if (!(most > 0)) return [0, 1];
  const rough = most / number;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((one) => one * power).find((one) => one >= rough * 0.999999);
  const marks = [];
  for (let at = 0; at < most + step * 0.999; at += step) marks.push(Number(at.toPrecision(12)));
  return marks;
}

/**
 * A chart. `series`: [{ name, color, values }] with a value for each of `times` (ms), null where there is none.
 * `kind`: "bars", which are stacked, or "lines". `format` of values, `short` of those at the axis; `onpick(number)` where a
 * place can be chosen.
 */
export function chart({ label, times, step, series, kind = "bars", format, short = format, height = 150, axes = true, onpick, tip = true }) {
  const place = h("div", { class: `chart ${kind}`, style: { "--height": `${height}px` } });
  const over = h("div", { class: "tip", hidden: true });
  let at = -1;
  let touched = -1;
  let width = 0;

  const most = kind === "bars"
    ? Math.max(0, ...times.map((_, number) => series.reduce((sum, one) => sum + (one.values[number] ?? 0), 0)))
    : Math.max(0, ...series.flatMap((one) => one.values.filter((value) => value !== null)));
  const marks = axes ? ticks(most) : [0, most || 1];
  const top = marks.at(-1);
  const names = marks.map((value) => (value === 0 && kind === "lines" ? "0" : short(value)));
  const left = axes ? Math.ceil(LETTER * Math.max(...names.map((name) => name.length))) + FREE + 2 : 0;
  const floor = height - (axes ? BOTTOM : 0);
  const head = axes ? TOP : 1;

  const x = (number) => left + ((width - left) * number) / times.length;
  const y = (value) => floor - ((floor - head) * value) / top;

  const draw = () => {
    const drawn = svg("svg", {
      viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": label, tabindex: onpick || tip ? 0 : null,
    });
    if (axes) drawn.append(lines(), ...dates());
    drawn.append(svg("rect", { class: "at", x: 0, y: head, width: Math.max(1, x(1) - x(0)), height: floor - head, visibility: "hidden" }));
    drawn.append(...(kind === "bars" ? bars() : curves().reverse()));
    drawn.addEventListener("pointermove", (event) => show(numberAt(event)));
    drawn.addEventListener("pointerleave", hide);
    drawn.addEventListener("blur", hide);
    drawn.addEventListener("click", (event) => {
      const number = numberAt(event);
      // On a screen that is touched, the first touch shows the numbers.
      if (event.pointerType === "touch" && touched !== number) { touched = number; show(number); return; }
      onpick?.(number, partAt(event, number));
    });
    drawn.addEventListener("keydown", (event) => {
      const move = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (move) { event.preventDefault(); show(Math.min(times.length - 1, Math.max(0, at < 0 ? times.length - 1 : at + move))); }
      if (event.key === "Enter" && at >= 0) { event.stopPropagation(); onpick?.(at, null); }
    });
    fill(place, drawn, tip && over);
  };

  /** Which part of a bar is meant; null where it is none. */
  const partAt = (event, number) => {
    if (kind !== "bars") return null;
    const value = ((floor - (event.clientY - place.getBoundingClientRect().top)) / (floor - head)) * top;
    let sum = 0;
    const found = series.findIndex((one) => { sum += one.values[number] ?? 0; return value <= sum; });
    return found < 0 || value < 0 ? null : found;
  };

  const numberAt = (event) => {
    const { left: edge } = place.getBoundingClientRect();
    const number = Math.floor(((event.clientX - edge - left) / (width - left)) * times.length);
    return Math.min(times.length - 1, Math.max(0, number));
  };

  const lines = () => svg("g", { class: "lines" }, marks.map((value, number) => [
    svg("line", { x1: left, x2: width, y1: y(value), y2: y(value) }),
    svg("text", { x: left - 6, y: y(value) + 3.5, "text-anchor": "end" }, names[number]),
  ]));

  const dates = () => {
    const least = (APART * times.length * step) / (width - left);
    const apart = APARTS.find((one) => one >= least && one >= step) ?? Math.ceil(least / APARTS.at(-1)) * APARTS.at(-1);
    const marked = times.map((time, number) => [time, x(number), mark(new Date(time), step)]);
    let free = left;
    const shown = marked.filter(([time, place, text]) => {
      const end = place + LETTER * text.length;
      const fits = isMark(time, apart, step) && place >= free && end < width;
      if (fits) free = end + FREE;
      return fits;
    });
    return shown.map(([, place, text]) => svg("text", { class: "date", x: place, y: height - 5 }, text));
  };

  const bars = () => {
    const gap = x(1) - x(0) > 4 ? 1 : 0;
    const drawn = [];
    times.forEach((_, number) => {
      let sum = 0;
      for (const one of series) {
        const value = one.values[number];
        // A cost below zero, which can be sent, has no place on this axis.
        if (!(value > 0)) continue;
        const [low, high] = [y(sum), y(sum + value)];
        // What is there can be seen, however little it is.
        const tall = Math.max(low - high, 1);
        drawn.push(svg("rect", { x: x(number), y: low - tall, width: Math.max(0.5, x(1) - x(0) - gap), height: tall, fill: one.color }));
        sum += value;
      }
    });
    return drawn;
  };

  const curves = () => series.flatMap((one) => {
    const drawn = [];
    let path = "";
    one.values.forEach((value, number) => {
      if (value === null) { path = flush(drawn, path, one); return; }
      const [here, high] = [x(number + 0.5), y(value)];
      const alone = (one.values[number - 1] ?? null) === null && (one.values[number + 1] ?? null) === null;
      if (alone) drawn.push(svg("circle", { cx: here, cy: high, r: 2, fill: one.color }));
      path += `${path ? "L" : "M"}${here.toFixed(1)} ${high.toFixed(1)}`;
    });
    flush(drawn, path, one);
    return drawn;
  });

  const flush = (drawn, path, one) => {
    if (path.includes("L")) drawn.push(svg("path", { d: path, stroke: one.color, fill: "none", "stroke-width": 1.6, "stroke-linejoin": "round" }));
    return "";
  };

  const show = (number) => {
    at = number;
    const drawn = place.firstElementChild;
    const bar = drawn.querySelector(".at");
    bar.setAttribute("x", x(number));
    bar.setAttribute("visibility", "visible");
    if (!tip) return;
    const known = series.filter((one) => one.values[number] !== null && (kind === "lines" || one.values[number]));
    fill(
      over,
      h("strong", {}, interval(times[number], step)),
      known.map((one) => h("div", {}, h("i", { style: { background: one.color } }), h("span", {}, one.name), h("b", {}, format(one.values[number])))),
      !known.length && h("div", { class: "quiet" }, "nothing"),
    );
    over.hidden = false;
    const half = over.offsetWidth / 2;
    const middle = Math.min(width - half, Math.max(half, x(number + 0.5)));
    over.style.setProperty("left", `${middle - half}px`);
  };

  const hide = () => {
    at = -1;
    over.hidden = true;
    place.querySelector(".at")?.setAttribute("visibility", "hidden");
  };

  new ResizeObserver(([entry]) => {
    const wide = Math.floor(entry.contentRect.width);
    if (wide && wide !== width) { width = wide; draw(); }
  }).observe(place);
  return place;
}

/** Which colour is what. */
export function legend(series) {
  return h("ul", { class: "legend" }, series.map((one) => h("li", {}, h("i", { style: { background: one.color } }), one.name)));
}

/** Colours for things that have none of their own, so far as they go. */
export const COLORS = Array.from({ length: 8 }, (_, number) => `var(--series-${number + 1})`);
export const REST = "var(--series-rest)";
