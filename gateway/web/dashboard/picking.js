// Going through the rows of a list with the keys.

import { $ } from "./dom.js";

/** Of the rows in `body`: which is picked, picking one, and a step down (1) or up (-1). `more()`: at the last one. */
export function picking(body, more = () => {}) {
  const picked = () => $(".row.selected", body);
  const pick = (row) => {
    if (!row) return;
    picked()?.classList.remove("selected");
    row.classList.add("selected");
    row.scrollIntoView({ block: "nearest" });
    row.focus({ preventScroll: true });
    if (!row.nextElementSibling) more();
  };
  const step = (by) => {
    const from = picked() ?? $(".row.shown", body);
    pick(from ? (by > 0 ? from.nextElementSibling : from.previousElementSibling) : body.firstElementChild);
  };
  return { picked, pick, step };
}
