/** What happened between two looks at the counters, as pure arithmetic. */

export const LANES = ["interactive", "bulk"];

const sum = (counts) => Object.values(counts).reduce((total, number) => total + number, 0);

/**
 * Return each lane's last interval; null if the two looks are of different processes, or the same instant.
 *
 * @param {object} before a snapshot of `/stats/stream`
 * @param {object} now a later one
 * @returns {Record<string, {arrived: number, delivered: number, lost: number, batch: number|null, encode: number|null,
 *   wait: number|null}>|null} by lane: items a second in, out and lost; items of a batch; 95th percentiles in seconds
 */
export function between(before, now) {
  const seconds = now.at - before.at;
  if (!(seconds > 0)) return null;
  const lanes = {};
  for (const name of LANES) {
    const [was, is] = [before.processor[name], now.processor[name]];
    if (is.offered < was.offered) return null;
    const batches = is.batch.batches - was.batch.batches;
    lanes[name] = {
      arrived: (is.offered - was.offered) / seconds,
      delivered: (is.delivered - was.delivered) / seconds,
      lost: (lost(is) - lost(was)) / seconds,
      batch: batches ? (is.batch.items - was.batch.items) / batches : null,
      encode: percentile(was.batch.encode, is.batch.encode, 0.95),
      wait: percentile(was.wait, is.wait, 0.95),
    };
  }
  return lanes;
}

/** Return how many items of a lane were refused, given up or failed since the start. */
export function lost(lane) {
  return sum(lane.rejected) + sum(lane.dropped) + sum(lane.failed);
}

/** Return the reasons for which items were lost, with how many, most first: [["queue_full", 12], …]. */
export function reasons(lanes) {
  const found = new Map();
  for (const lane of lanes) {
    for (const counts of [lane.rejected, lane.dropped, lane.failed]) {
      for (const [reason, number] of Object.entries(counts)) found.set(reason, (found.get(reason) ?? 0) + number);
    }
  }
  return [...found].filter(([, number]) => number).sort((a, b) => b[1] - a[1]);
}

/**
 * Return a percentile of what a histogram gained, evenly spread within its buckets; null if it gained nothing.
 *
 * @param {{bounds: number[], counts: number[]}} before
 * @param {{bounds: number[], counts: number[]}} now one more count than bounds: the last has no upper bound
 * @param {number} share 0 to 1
 */
export function percentile(before, now, share) {
  const gained = now.counts.map((count, index) => count - before.counts[index]);
  const wanted = share * sum(gained);
  if (!(wanted > 0)) return null;
  let below = 0;
  for (const [index, count] of gained.entries()) {
    if (below + count >= wanted) {
      const low = now.bounds[index - 1] ?? 0;
      const high = now.bounds[index] ?? low;
      return low + (high - low) * ((wanted - below) / count);
    }
    below += count;
  }
  return null;
}
