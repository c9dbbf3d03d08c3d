// Spans as they come, by server-sent events. It stops while nobody looks, and then goes on where it was.

import { url } from "./api.js";

const AGAIN_AFTER_MS = 2000;

/** Follows what fits `params`. `heard`: { ready, span, gone, gap, state }, each called with what came. */
export function follow(params, heard) {
  let source = null;
  let place = null;
  let timer = null;
  let is_over = false;

  const open = () => {
    clearTimeout(timer);
    if (is_over || source || document.hidden) return;
    source = new EventSource(url("/api/request-logs/live/", { ...params(), after: place }));
    const on = (name, what) => source.addEventListener(name, (event) => {
      place = event.lastEventId || place;
      what(JSON.parse(event.data || "{}"));
    });
    on("ready", heard.ready);
    on("span", heard.span);
    // Whether it is deleted, or fits no more, is the same to a list.
    on("left", heard.gone);
    on("deleted", heard.gone);
    on("gap", heard.gap);
    source.onopen = () => heard.state(true);
    source.onerror = () => {
      heard.state(false);
      close();
      timer = setTimeout(open, AGAIN_AFTER_MS);
    };
  };
  const close = () => {
    source?.close();
    source = null;
  };
  const look = () => (document.hidden ? close() : open());

  document.addEventListener("visibilitychange", look);
  open();
  return () => {
    is_over = true;
    clearTimeout(timer);
    document.removeEventListener("visibilitychange", look);
    close();
  };
}
