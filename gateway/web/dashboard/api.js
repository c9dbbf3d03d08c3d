// The gateway's HTTP API, the same that everyone has. The browser sends the sign-in along.

/** An answer that is none; says what the API said. */
class ApiError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** A path with a query of those that are given. */
export function url(path, params = {}) {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(params)) {
    if (value !== undefined && value !== null && value !== "") query.set(name, value);
  }
  return query.size ? `${path}?${query}` : path;
}

/** One part of a path: an id may hold anything. */
export const part = (id) => id.split("/").map(encodeURIComponent).join("/");

export const get = (path, params, options) => ask("GET", url(path, params), undefined, options);
/** The same of one thing, whose large integers stay as they were written, see `exactly`. */
export const getExactly = (path) => ask("GET", path, undefined, { parse: exactly });
export const patch = (path, body) => ask("PATCH", path, body);

async function ask(method, path, body, { signal, parse = JSON.parse } = {}) {
  const init = { method, signal, headers: { Accept: "application/json" } };
  if (body !== undefined) {
    init.body = JSON.stringify(body);
    init.headers["Content-Type"] = "application/json";
  }
  let response;
  try {
    response = await fetch(path, init);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, "The gateway cannot be reached.");
  }
  if (response.status === 401) return signIn();
  if (!response.ok) throw await failure(response);
  return response.status === 204 ? null : parse(await response.text());
}

/** JSON in which integers beyond 2^53, which as numbers were others, are kept as `JSON.rawJSON`, where the browser knows
 * that; but for those of the outermost object, which are measures. */
function exactly(text) {
  if (!JSON.rawJSON || !/\d{16}/.test(text)) return JSON.parse(text);
  const isLarge = (value) => Number.isInteger(value) && !Number.isSafeInteger(value);
  const found = JSON.parse(text, (_, value, { source }) => (isLarge(value) ? JSON.rawJSON(source) : value));
  for (const [name, value] of Object.entries(found)) if (JSON.isRawJSON(value)) found[name] = Number(value.rawJSON);
  return found;
}

/** Why an answer is none. */
export async function failure(response) {
  const body = await response.json().catch(() => ({}));
  const fields = Object.entries(body.errors ?? {}).map(([name, texts]) => `${name}: ${texts.join(" ")}`);
  const said = body.detail ?? body.error?.message ?? body.error ?? `The gateway answered with ${response.status}.`;
  return new ApiError(response.status, [said, ...fields].join(" "));
}

/** To where one signs in, and back here afterwards. */
export function signIn() {
  location.assign(`/login?next=${encodeURIComponent(location.pathname + location.search)}`);
  return new Promise(() => {});
}
