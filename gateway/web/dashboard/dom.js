// Elements are made of parts, never of markup: whatever a span holds can only ever become text.

const SVG = "http://www.w3.org/2000/svg";
const SAFE = /^(?:\/(?!\/)|\?|#|https?:|mailto:)/i;

/** An element. `props`: `class`, `on` (listeners), `style` (custom properties too), `data`, else attributes. */
export function h(tag, props, ...children) {
  return filled(document.createElement(tag), props, children);
}

/** The same for SVG. */
export function svg(tag, props, ...children) {
  return filled(document.createElementNS(SVG, tag), props, children);
}

function filled(element, props, children) {
  for (const [name, value] of Object.entries(props ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name === "on") for (const [event, handler] of Object.entries(value)) element.addEventListener(event, handler);
    else if (name === "style") for (const [key, one] of Object.entries(value)) element.style.setProperty(key, one);
    else if (name === "data") Object.assign(element.dataset, value);
    else if (name === "value") element.value = value;
    else if (name === "href") SAFE.test(value) && element.setAttribute("href", value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** Puts these in the place of what is in an element. */
export function fill(element, ...children) {
  element.replaceChildren(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

export const $ = (selector, within = document) => within.querySelector(selector);

const ICONS = {
  up: "M6 9V4.5L8.5 1c1 0 1.5.8 1.5 1.6V6h3.2c.8 0 1.4.7 1.2 1.5l-1.1 5c-.2.6-.7 1-1.3 1H6M6 6.5H2.5v7H6z",
  down: "M6 7v4.5L8.5 15c1 0 1.5-.8 1.5-1.6V10h3.2c.8 0 1.4-.7 1.2-1.5l-1.1-5c-.2-.6-.7-1-1.3-1H6M6 9.5H2.5v-7H6z",
  close: "M3.5 3.5l9 9m0-9l-9 9",
  left: "M10 3L5 8l5 5",
  right: "M6 3l5 5-5 5",
  sun: "M8 5.2a2.8 2.8 0 100 5.6 2.8 2.8 0 000-5.6zM8 1v1.5M8 13.5V15M1 8h1.5M13.5 8H15M3 3l1.1 1.1M11.9 11.9L13 13M13 3l-1.1 1.1M4.1 11.9L3 13",
  copy: "M5.5 5.5h8v8h-8zM3 10.5h-.5v-8h8V3",
  download: "M8 2v8m-3-3l3 3 3-3M2.5 13.5h11",
  search: "M7 2.5a4.5 4.5 0 100 9 4.5 4.5 0 000-9zM10.5 10.5L14 14",
  again: "M13.5 8a5.5 5.5 0 11-1.6-3.9M13.5 1.5v3.2h-3.2",
  pause: "M5.5 3.5v9M10.5 3.5v9",
  play: "M5 3l7.5 5L5 13z",
};

/** A small picture that says nothing to those who do not see it. */
export function icon(name) {
  return svg("svg", { class: "icon", viewBox: "0 0 16 16", "aria-hidden": "true" }, svg("path", { d: ICONS[name] }));
}

/** A button; `label` is read out and shown as its tip where it has a picture only. */
export function button(label, onclick, { picture, title, ...more } = {}) {
  const shown = picture ? icon(picture) : label;
  return h("button", { type: "button", "aria-label": picture ? label : null, title: title ?? (picture ? label : null), on: { click: onclick }, ...more }, shown);
}

/** Says something for a moment, to everyone. */
export function tell(text) {
  const place = $("#told");
  fill(place, h("span", { class: "toast" }, text));
  clearTimeout(tell.timer);
  tell.timer = setTimeout(() => place.replaceChildren(), 2600);
}

/** Copies text, and says so. */
export async function copy(text, what = "Copied") {
  try {
    await navigator.clipboard.writeText(text);
    tell(what);
  } catch {
    tell("The browser does not let this page copy; select the text instead.");
  }
}
