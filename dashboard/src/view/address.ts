/** The selected machine stands in the address, so that a link or a reload leads back to it. */

import { useEffect, useState } from "preact/hooks";

/** The machine that the address names (`#press-1`); without one, the first that is listed. */
export function useSelectedMachine(first: string | null): string | null {
  const [named, setNamed] = useState(machineOf(location.hash));
  useEffect(() => {
    const follow = () => setNamed(machineOf(location.hash));
    addEventListener("hashchange", follow);
    return () => removeEventListener("hashchange", follow);
  }, []);
  useEffect(() => {
    if (named !== null || first === null) return;
    // Replaced, not pushed: "back" must not lead to an address that comes here again.
    history.replaceState(null, "", hashOf(first));
    setNamed(first);
  }, [named, first]);
  return named;
}

export function hashOf(machine: string): string {
  return `#${encodeURIComponent(machine)}`;
}

export function machineOf(hash: string): string | null {
  try {
    return decodeURIComponent(hash.replace(/^#/, "")) || null;
  } catch {
    return null;
  }
}
