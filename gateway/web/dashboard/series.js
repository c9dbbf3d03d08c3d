// Sums over time, as the API has them, for axes that begin and end where spans may be.

import { get } from "./api.js";
import { asked } from "./conditions.js";

// A clock that is a little fast is none that is wrong; one of before this is.
const AHEAD_MS = 3600_000;
const EARLIEST = Date.UTC(2020, 0);
const NARROWED_AT_MOST = 2;

/** The series of a state; `more`: parameters besides. One span with a wrong clock must not draw an axis of years. */
export async function seriesOf(state, more = {}, options = {}) {
  const params = { ...asked(state, { search: false }), ...more };
  if (state.range) params.end_time = new Date().toISOString();
  const series = (bounds) => get("/api/request-logs/series/", { ...params, ...bounds }, options);
  const found = await series();
  const [begin, end] = [Date.parse(found.start_time), Date.parse(found.end_time)];
  const latest = Date.now() + AHEAD_MS;
  const bounds = {};
  if (!params.start_time && begin < EARLIEST) bounds.start_time = new Date(EARLIEST).toISOString();
  if (!params.end_time && end > latest) bounds.end_time = new Date(latest).toISOString();
  if (!Object.keys(bounds).length) return found;
  let cut = await series(bounds);
  // All that there is has such a clock.
  if (!cut.results.length) return within(found);
  // The longer an interval is, the less is known of where the first span in it lies.
  for (let turns = NARROWED_AT_MOST, before = ""; bounds.start_time && turns && cut.interval !== before; turns -= 1) {
    before = cut.interval;
    cut = await series({ ...bounds, start_time: new Date(Math.max(EARLIEST, Date.parse(cut.results[0].time))).toISOString() });
  }
  const missing = number(found) - number(cut);
  const told = [bounds.end_time && "in the future", bounds.start_time && "before 2020"].filter(Boolean).join(" or ");
  return { ...cut, leaves_out: missing ? `${missing} ${missing === 1 ? "span" : "spans"} dated ${told} ${missing === 1 ? "is" : "are"} not drawn.` : undefined };
}

const number = (found) => found.results.reduce((sum, point) => sum + point.number_of_requests, 0);

/** The same, from its first point to its last. */
function within(found) {
  if (!found.results.length) return found;
  const last = Date.parse(found.results.at(-1).time) + found.interval_seconds * 1000;
  return { ...found, start_time: found.results[0].time, end_time: new Date(last).toISOString() };
}
