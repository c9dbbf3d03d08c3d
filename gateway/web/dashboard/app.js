// The page: its views, what is open beside them, and its keys.

import { get } from "./api.js";
import { $, button, fill, h } from "./dom.js";
import { help } from "./help.js";
import { VIEWS, current, go, onChange, sameList, start, view } from "./route.js";
import { spansView } from "./spans.js";

const MAKERS = {
  spans: async () => spansView,
  traces: async () => (await import("./traces.js")).tracesView,
  trace: async () => (await import("./trace.js")).traceView,
  charts: async () => (await import("./charts.js")).chartsView,
  playground: async () => (await import("./playground.js")).playgroundView,
};

const main = $("#main");
const panel = $("#panel");
let shown = null;
let turn = 0;
let opener = null;
let whenChanged = () => {};
const narrow = matchMedia("(max-width: 720px)");

const unreachable = (again) => h("p", { class: "pad" }, h("span", { class: "bad" }, "The gateway cannot be reached. "), button("Try again", again));

async function show(state) {
  const mine = ++turn;
  const make = await MAKERS[state.trace ? "trace" : state.view]().catch(() => null);
  if (mine !== turn) return;
  if (!make) { fill(main, unreachable(() => show(state))); return; }
  const typing = document.activeElement?.id === "filter";
  shown?.leave?.();
  shown = make(state);
  fill(main, shown.element);
  // Each view fills its part by itself; those who type go on where they were.
  if (typing) $("#filter")?.focus();
  entitle();
  fill($(".views"), Object.entries(VIEWS).map(([name, told]) => h("a", { href: view(name), "aria-current": isOf(name, state) ? "page" : null }, told)));
}

const entitle = () => { document.title = shown?.title?.() ?? VIEWS[current().view]; };

const isOf = (name, state) => (state.trace ? name === "traces" : name === state.view);

async function open(state, before) {
  const was_open = !panel.hidden;
  if (!state.span) {
    panel.hidden = true;
    main.inert = false;
    panel.replaceChildren();
    document.body.classList.remove("beside");
    entitle();
    if (was_open) (opener?.isConnected ? opener : main).focus({ preventScroll: true });
    return;
  }
  if (before?.span === state.span && was_open) return;
  if (!was_open) opener = document.activeElement;
  const module = await import("./span.js").catch(() => null);
  if (current().span !== state.span) return;
  panel.hidden = false;
  document.body.classList.add("beside");
  // What it covers cannot be got at either.
  main.inert = narrow.matches;
  if (!module) { fill(panel, unreachable(() => open(state))); return; }
  const { elements, changed } = module.spanPanel(state.span, { onclose: () => go({ span: "" }), turn: shown?.keys?.["]"] && ((by) => shown.keys[by > 0 ? "]" : "["]()) });
  whenChanged = changed;
  fill(panel, elements);
  panel.scrollTop = 0;
  panel.focus({ preventScroll: true });
}

onChange((state, before) => {
  if (!sameList(state, before)) show(state).then(() => open(state, before));
  else open(state, before).then(() => shown?.moved?.());
});

function theme() {
  const dark = document.documentElement.dataset.theme
    ? document.documentElement.dataset.theme === "dark"
    : matchMedia("(prefers-color-scheme: dark)").matches;
  const chosen = dark ? "light" : "dark";
  document.documentElement.dataset.theme = chosen;
  localStorage.setItem("theme", chosen);
}

function who(session) {
  return [
    h("span", { class: "caller", title: `Signed in with the key ${session.key}` }, session.organization_id, h("span", { class: "quiet" }, ` · ${session.environment}`)),
    button("Dark or light", theme, { picture: "sun", class: "plain" }),
    h("button", { type: "button", class: "plain", "aria-label": "Keys and filters", title: "Keys and filters (?)", on: { click: help } }, "?"),
    h("form", { method: "post", action: "/logout" }, h("button", { class: "plain out" }, "Sign out")),
  ];
}

const GO_TO = { s: "spans", t: "traces", c: "charts", p: "playground" };
let going = 0;

addEventListener("keydown", (event) => {
  const typing = event.target.closest?.("input, textarea, select, [contenteditable]");
  if (event.metaKey || event.ctrlKey || event.altKey || $("dialog[open]")) return;
  if (event.key === "Escape") {
    if (typing) typing.blur();
    else if (current().span) go({ span: "" });
    else if (current().trace) go(view("traces"));
    return;
  }
  if (typing) return;
  if (event.key === "Enter" && event.target.closest("a, button, summary")) return;
  if (Date.now() - going < 1000 && event.key in GO_TO) { going = 0; event.preventDefault(); go(view(GO_TO[event.key])); return; }
  going = event.key === "g" ? Date.now() : 0;
  const own = { "/": () => $("#filter")?.focus(), "?": help, t: theme };
  const what = own[event.key] ?? shown?.keys?.[event.key];
  if (what) { event.preventDefault(); what(); }
});

document.addEventListener("spanchange", ({ detail }) => { if (detail.id === current().span) whenChanged(detail); });

start();
show(current()).then(() => open(current()));
get("/api/session/").then((session) => fill($(".who"), who(session))).catch(() => {});
// What is opened next is there by then.
addEventListener("load", () => setTimeout(() => { for (const name of ["span", "traces", "trace", "charts", "playground"]) import(`./${name}.js`).catch(() => {}); }, 500));
