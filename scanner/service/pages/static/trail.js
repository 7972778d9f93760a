// The list that the reader came from, so that "next" on a candidate's page is the next of that list. Lives as long as the tab.

import { get } from "./api.js";

const KEY = "scanner trail";

/** Remember the ids of a list, the query that made it and the cursor for more. */
export const remember = (slug, query, ids, next) => {
  try { sessionStorage.setItem(KEY, JSON.stringify({ slug, query, ids, next })); } catch { /* then the ranking is the list */ }
};

/** The list of a collection that has been looked at last, or null. */
const recall = (slug) => {
  try {
    const trail = JSON.parse(sessionStorage.getItem(KEY) ?? "null");
    return trail?.slug === slug ? trail : null;
  } catch {
    return null;
  }
};

/** The query of that list; {} where there is none. */
export const listQuery = (slug) => recall(slug)?.query ?? {};

/** {previous, next, place, query} of a candidate in the remembered list; null where it is not in it. Fetches more at its end. */
export const neighboursInList = async (slug, id) => {
  const trail = recall(slug);
  const at = trail ? trail.ids.indexOf(id) : -1;
  if (at < 0) return null;
  if (at === trail.ids.length - 1 && trail.next !== null) {
    const { items, next } = await get(`collections/${encodeURIComponent(slug)}/candidates`, { ...trail.query, after: trail.next });
    trail.ids.push(...items.map((item) => item.id));
    trail.next = next;
    remember(slug, trail.query, trail.ids, next);
  }
  return { previous: trail.ids[at - 1] ?? null, next: trail.ids[at + 1] ?? null, place: at + 1, query: trail.query };
};
