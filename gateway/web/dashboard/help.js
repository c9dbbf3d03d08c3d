// Keys, and what they do.

import { button, h } from "./dom.js";

const KEYS = [
  ["j, k", "next, previous row"], ["Enter", "open it"], ["Esc", "close what is open"], ["/", "filter or search"],
  ["g s, g t, g c, g p", "spans, traces, charts, playground"], ["p", "pause the live list, or go on"], ["r", "refresh traces, a trace, charts"], ["[, ]", "span above, below, while one is open"],
  ["t", "dark or light"], ["?", "this"],
];
const WAYS = [
  ["model=gpt-4o", "is; several of one field are alternatives"], ["cost>=0.01", "at least; also <=, >, <, !="],
  ["error_message~timeout", "holds, whatever the case; !~ does not"], ["metadata__plan=pro", "a key of metadata"],
  ["note=", "nothing there; note!= something"], ["two words", "searched for in input and output"],
];

/** Shows the help, over the page. */
export function help() {
  const rows = (pairs) => h("dl", { class: "keys" }, pairs.map(([key, told]) => h("div", {}, h("dt", {}, h("kbd", {}, key)), h("dd", {}, told))));
  const dialog = h(
    "dialog", { class: "help", "aria-labelledby": "help-title", on: { close: () => dialog.remove(), click: (event) => event.target === dialog && dialog.close() } },
    h("div", {}, h("header", {}, h("h2", { id: "help-title" }, "Keys"), button("Close", () => dialog.close(), { picture: "close" })),
      rows(KEYS), h("h2", {}, "Filters"), rows(WAYS), h("footer", {}, h("a", { href: "/docs", target: "_blank" }, "API reference"), h("form", { method: "post", action: "/logout" }, h("button", { class: "plain" }, "Sign out")))),
  );
  document.body.append(dialog);
  dialog.showModal();
}
