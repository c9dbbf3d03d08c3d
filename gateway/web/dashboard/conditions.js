// Conditions as people write them, `cost>=0.01`, and as the API's filters have them.

import { fits } from "./fields.js";

/** By which sign; the longer ones come first. */
const SIGNS = [["!=", "not_in"], [">=", "gte"], ["<=", "lte"], ["!~", "not_contains"], ["=", "in"], [">", "gt"], ["<", "lt"], ["~", "icontains"]];
const FORM = /^\s*([A-Za-z_][\w.-]*?(?:__[^=!<>~]+?)?)\s*(!=|>=|<=|!~|=|>|<|~)([^]*)$/;

/** The parts of a condition, or null where a text is none. */
export function parse(text) {
  const found = FORM.exec(text);
  return found && { field: found[1], sign: found[2], value: found[3] };
}

/** A condition as text. */
export const written = ({ field, sign, value }) => `${field}${sign}${value}`;

/** The API's filters of these conditions. Values of one field that are to be equal are alternatives. */
export function filters(conditions) {
  const found = {};
  for (const text of conditions) {
    const condition = parse(text);
    if (!condition) continue;
    const { field, value } = condition;
    const operator = SIGNS.find(([sign]) => sign === condition.sign)[1];
    const of_field = (found[field] ??= []);
    const same = of_field.find((one) => one.operator === operator && operator.endsWith("in"));
    if (same) same.value.push(value);
    else of_field.push({ operator, value: [value] });
  }
  for (const one of Object.values(found).flat()) {
    // Among others, an empty one stands for nothing at all.
    if (one.operator.endsWith("in") && one.value.every((value) => value === "")) one.operator = one.operator === "in" ? "empty" : "not_empty";
  }
  return found;
}

/** By its name, seconds that a range goes back. */
export const RANGES = {
  "15m": [900, "15 minutes"], "1h": [3600, "hour"], "6h": [21600, "6 hours"], "24h": [86400, "24 hours"], "7d": [604800, "7 days"],
  "30d": [2592000, "30 days"], "90d": [7776000, "90 days"], "1y": [31536000, "year"],
};

/** Whether a state has a range that goes back from now. */
export const isMoving = (state) => Object.hasOwn(RANGES, state.range);

/** The range of a state, as query parameters. */
function bounds(state, now = Date.now()) {
  if (isMoving(state)) return { start_time: new Date(now - RANGES[state.range][0] * 1000).toISOString() };
  const given = {};
  if (state.start_time) given.start_time = state.start_time;
  if (state.end_time) given.end_time = state.end_time;
  return given;
}

/** Whether a condition of a state narrows down what its view shows. */
export const isInForce = (text, view) => fits(parse(text)?.field ?? "", view);

/** What a state asks the API for. */
export function asked(state, { search = true } = {}) {
  const params = { ...bounds(state) };
  const found = filters(state.where.filter((text) => isInForce(text, state.view)));
  if (state.search && !search) found.search = [{ operator: "full_text_search", value: [state.search] }];
  if (Object.keys(found).length) params.filters = JSON.stringify(found);
  if (state.search && search) params.search = state.search;
  return params;
}
