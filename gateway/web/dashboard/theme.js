// Not a module: it runs before anything is painted, so that a page that is to be dark does not flash.
(() => {
  const chosen = localStorage.getItem("theme");
  if (chosen === "dark" || chosen === "light") document.documentElement.dataset.theme = chosen;
})();
