// Spans as they come, by server-sent events. It stops while nobody looks, and then goes on where it was.

import { failure, signIn, url } from "./api.js";

const AGAIN_AFTER_MS = 2000;

/** Follows what fits `params`. `heard`: { ready, span, gone, deleted, gap, state, refused }, each called with what came. */
export function follow(params, heard) {
  let source = null;
  let place = null;
  let timer = null;
  let is_over = false;

  const open = () => {
    clearTimeout(timer);
    if (is_over || source || document.hidden) return;
    const asked = url("/api/request-logs/live/", { ...params(), after: place });
    source = new EventSource(asked);
    const on = (name, what) => source.addEventListener(name, (event) => {
      place = event.lastEventId || place;
      what(JSON.parse(event.data || "{}"));
    });
    on("ready", heard.ready);
    on("span", heard.span);
    // Whether it is deleted, or fits no more, is the same to a list.
    on("left", heard.gone);
    on("deleted", (one) => { heard.gone(one); heard.deleted(one); });
    on("gap", heard.gap);
    source.onopen = () => heard.state(true);
    source.onerror = () => {
      const is_answered = source.readyState === EventSource.CLOSED;
      heard.state(false);
      close();
      timer = setTimeout(open, AGAIN_AFTER_MS);
      if (is_answered) why(asked);
    };
  };
  // An EventSource does not tell with what it was turned down.
  const why = async (asked) => {
    const reading = new AbortController();
    const response = await fetch(asked, { signal: reading.signal }).catch(() => null);
    if (!response || is_over) return reading.abort();
    if (response.status === 401) return signIn();
    if (response.status === 400) {
      end();
      heard.refused(await failure(response));
    }
    return reading.abort();
  };
  const close = () => {
    source?.close();
    source = null;
  };
  const look = () => (document.hidden ? close() : open());

  document.addEventListener("visibilitychange", look);
  open();
  const end = () => {
    is_over = true;
    clearTimeout(timer);
    document.removeEventListener("visibilitychange", look);
    close();
  };
  return end;
}
