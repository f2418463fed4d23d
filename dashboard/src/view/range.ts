/** A y range that grows at once and shrinks only when half of it is empty: a calm axis under moving data. */
export function steadyRange(): (low: number | null, high: number | null) => [number, number] {
  let held: [number, number] | null = null;
  return (low, high) => {
    if (low === null || high === null || !Number.isFinite(low) || !Number.isFinite(high)) return held ?? [0, 1];
    if (held && held[0] <= low && high <= held[1] && high - low >= (held[1] - held[0]) / 2) return held;
    // A constant gets room around it: a tenth of its size, or 1 around zero.
    const room = high > low ? (high - low) * 0.12 : Math.abs(high) * 0.1 || 1;
    held = [low - room, high + room];
    return held;
  };
}
