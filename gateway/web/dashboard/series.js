// Sums over time, as the API has them, for axes that begin and end where spans may be.

import { get } from "./api.js";
import { asked } from "./conditions.js";

// A clock that is a little fast is none that is wrong; one of before this is.
const AHEAD_MS = 3600_000;
const EARLIEST = Date.UTC(2020, 0);

/** The series of a state; `more`: parameters besides. One span with a wrong clock must not draw an axis of years. */
export async function seriesOf(state, more = {}, options = {}) {
  const params = { ...asked(state, { search: false }), ...more };
  if (state.range) params.end_time = new Date().toISOString();
  const found = await get("/api/request-logs/series/", params, options);
  const first = params.start_time ? -Infinity : EARLIEST;
  const last = params.end_time ? Infinity : Date.now() + AHEAD_MS;
  if (Date.parse(found.start_time) >= first && Date.parse(found.end_time) <= last) return found;
  const times = found.results.map((point) => Date.parse(point.time));
  const within = times.filter((time) => time >= first && time <= last);
  if (!within.length) return found;
  const start_time = params.start_time ?? new Date(Math.max(Date.parse(found.start_time), Math.min(...within))).toISOString();
  const end_time = params.end_time ?? new Date(Math.min(Date.parse(found.end_time), last)).toISOString();
  const cut = await get("/api/request-logs/series/", { ...params, start_time, end_time }, options);
  const told = [times.some((time) => time > last) && "with times to come", times.some((time) => time < first) && "of before 2020"].filter(Boolean);
  return { ...cut, leaves_out: told.length ? `Spans ${told.join(" or ")} are not drawn.` : undefined };
}
