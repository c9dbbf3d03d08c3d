// Not a module: it runs before anything is painted, so that a page that is to be dark does not flash.
(() => {
  let chosen = null;
  try {
    chosen = localStorage.getItem("theme");
  } catch { /* Where nothing may be kept, it is as the system has it. */ }
  if (chosen === "dark" || chosen === "light") document.documentElement.dataset.theme = chosen;
})();
