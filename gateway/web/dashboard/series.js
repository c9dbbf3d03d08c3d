// Sums over time, as the API has them, for axes that end today.

import { get } from "./api.js";
import { asked } from "./conditions.js";

// A clock that is a little fast is none that is wrong.
const AHEAD_MS = 3600_000;

/** The series of a state; `more`: parameters besides. One span with a wrong clock must not draw an axis of years. */
export async function seriesOf(state, more = {}, options = {}) {
  const params = { ...asked(state, { search: false }), ...more };
  if (state.range) params.end_time = new Date().toISOString();
  const found = await get("/api/request-logs/series/", params, options);
  const latest = Date.now() + AHEAD_MS;
  if (state.end_time || Date.parse(found.end_time) <= latest) return found;
  const cut = await get("/api/request-logs/series/", { ...params, end_time: new Date(latest).toISOString() }, options);
  return { ...cut, leaves_out: "Spans with times to come are not drawn." };
}
