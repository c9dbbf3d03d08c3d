// The end of a list comes into sight: time for more of it.

const AHEAD = 600;

/** Calls `more` while `end` is in sight of a scroller, or will soon be. `look()`: after there was more, which may not
 * have been enough. */
export function whenNear(scroller, end, more) {
  const look = () => {
    if (!end.isConnected) return;
    const is_near = end.getBoundingClientRect().top < scroller.getBoundingClientRect().bottom + AHEAD;
    if (is_near) more()?.catch(() => {});
  };
  new IntersectionObserver(([seen]) => { if (seen.isIntersecting) look(); }, { root: scroller, rootMargin: `${AHEAD}px` }).observe(end);
  return { look };
}
