// A trace as rows of a waterfall: when each span was, what all below it cost, and which of them made it take as long.

/** Rows in the order in which they are shown, of the API's `span_tree`; without recursion: it may be very deep. */
export function rows(roots) {
  const made = [];
  const stack = [...roots].reverse().map((span) => [span, null]);
  while (stack.length) {
    const [span, parent] = stack.pop();
    const end = Date.parse(span.end_time ?? span.timestamp);
    const start = span.start_time ? Date.parse(span.start_time) : end - 1000 * (span.latency ?? 0);
    const row = {
      span, parent, number: made.length, depth: parent ? parent.depth + 1 : 0, children: [], start: Math.min(start, end), end,
      // One that is the sender's view of a call is counted with the call.
      cost: span.gateway_log_id ? 0 : (span.cost ?? 0), tokens: span.gateway_log_id ? 0 : (span.total_request_tokens ?? 0),
      failed: span.status === "failed" ? 1 : 0, size: 1, critical: [],
    };
    // Of all below it as well: what was begun may go on when its parent has ended.
    [row.first, row.last] = [row.start, row.end];
    parent?.children.push(row);
    made.push(row);
    for (let place = (span.children ?? []).length - 1; place >= 0; place--) stack.push([span.children[place], row]);
  }
  for (let place = made.length - 1; place > 0; place--) {
    const { parent, cost, tokens, failed, size } = made[place];
    if (!parent) continue;
    parent.first = Math.min(parent.first, made[place].first);
    parent.last = Math.max(parent.last, made[place].last);
    parent.cost += cost;
    parent.tokens += tokens;
    parent.failed += failed;
    parent.size += size;
  }
  return made;
}

/** Marks in each row the parts of its time that the whole waited for: from the end back, always what ended last. */
export function markCritical(all) {
  const roots = all.filter((row) => !row.parent);
  const [first, last] = extent(all);
  const stack = [[{ children: roots, start: first, end: last, critical: [] }, first, last]];
  while (stack.length) {
    const [row, from, until] = stack.pop();
    let at = until;
    const own = (start, end) => {
      const [begin, stop] = [Math.max(start, row.start), Math.min(end, row.end)];
      if (begin < stop) row.critical.push([begin, stop]);
    };
    for (const child of [...row.children].sort((a, b) => b.last - a.last)) {
      const [start, end] = [Math.max(child.first, from), Math.min(child.last, at)];
      if (start >= end) continue;
      own(end, at);
      stack.push([child, start, end]);
      at = start;
    }
    own(from, at);
  }
  return all;
}

/** The rows that are seen while those in `folded` hide what is below them. */
export function visible(all, folded) {
  const made = [];
  for (let place = 0; place < all.length; place++) {
    made.push(all[place]);
    if (folded.has(all[place])) place += all[place].size - 1;
  }
  return made;
}

/** From when to when a trace was, in ms; never nothing. */
export function extent(all) {
  let [start, end] = [Infinity, -Infinity];
  for (const row of all) {
    start = Math.min(start, row.first);
    end = Math.max(end, row.last);
  }
  return [start, Math.max(end, start + 1)];
}
