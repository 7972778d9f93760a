// Addresses of the pictures of a candidate, and what the reader chose for them: field, brightness, inversion.

import { root } from "./dom.js";

/** The id of what a campaign handed out, for its pictures. */
export const handedId = (campaign, handout) => `campaign:${encodeURIComponent(campaign)}/${handout}`;

/** Address of a picture or file of /cutout; null and empty values are left to the service's defaults. */
export const cutout = (id, query) => {
  const handed = /^campaign:([^/]+\/[^/]+)$/.exec(id);
  const kept = Object.entries(handed ? query : { id, ...query }).filter(([, value]) => value !== null && value !== undefined && value !== "");
  return `${root}/cutout${handed ? `/${handed[1]}` : ""}?${new URLSearchParams(kept)}`;
};

/** The look in the gallery: kept while the browser's tab is open. */
export class Look {
  constructor() {
    this.size = 10;
    this.invert = false;
    this.deflector = true;
    try { Object.assign(this, JSON.parse(sessionStorage.getItem("scanner look") ?? "{}")); } catch { /* the defaults do */ }
  }

  set(parts) {
    Object.assign(this, parts);
    try { sessionStorage.setItem("scanner look", JSON.stringify({ size: this.size, invert: this.invert, deflector: this.deflector })); } catch { /* until the page is left */ }
  }

  /** Of a band's picture; the deflector is taken out of VIS alone, as every fit takes a moment. */
  query(band) {
    return { size: this.size === 20 ? "" : this.size, invert: this.invert ? 1 : "", deflector: this.deflector || band !== "VIS" ? "" : 0 };
  }
}
