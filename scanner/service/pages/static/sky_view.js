// Where one looks on the sky: the middle and the field in degrees, and how that maps to the pixels of a canvas.
// Up to 100° a gnomonic field that can be moved anywhere; beyond that the whole sky in Mollweide's projection.

import { gnomonic, mollweide, turned } from "./projection.js";

const WHOLE_SKY = 360;
const WIDEST = 100;
const NARROWEST = 0.002;
const MARGIN = 0.3;

export class SkyView {
  constructor() {
    Object.assign(this, { ra: 0, dec: 0, field: WHOLE_SKY });
    this.home = { ra: 0, dec: 0, field: WHOLE_SKY };
  }

  /** Whether the whole sky is shown. */
  get isWide() {
    return this.field > WIDEST;
  }

  /** Make a circle on the sky what is shown first, and again after `goHome`. */
  setHome({ ra, dec, radius }) {
    const field = radius > 40 ? WHOLE_SKY : Math.max(2.3 * radius, 0.02);
    this.home = { ra, dec: field > WIDEST ? 0 : dec, field };
    this.goHome();
  }

  goHome() {
    Object.assign(this, this.home);
  }

  /** {width, height, place(ra, dec) -> [x, y] | null, position(x, y) -> [ra, dec] | null} for a canvas in CSS pixels. */
  frame(width, height) {
    const plane = this.isWide ? mollweide(this.ra) : gnomonic(this.ra, this.dec);
    const scale = this.isWide
      ? Math.min(width / (4 * Math.SQRT2 + MARGIN), height / (2 * Math.SQRT2 + MARGIN))
      : Math.min(width, height) / (2 * Math.tan((this.field * Math.PI) / 360));
    return {
      width,
      height,
      place: (ra, dec) => {
        const at = plane.forward(ra, dec);
        return at && [width / 2 + at[0] * scale, height / 2 - at[1] * scale];
      },
      position: (x, y) => plane.inverse((x - width / 2) / scale, (height / 2 - y) / scale),
    };
  }

  /** Show `factor` of the field; the position `towards` stays where it is on the screen. */
  zoom(factor, towards = null) {
    if (this.isWide) {
      if (factor >= 1) return;
      [this.ra, this.dec] = towards ?? [this.ra, this.dec];
      this.field = WIDEST - 10;
      return;
    }
    const next = Math.max(NARROWEST, this.field * factor);
    if (next > WIDEST) {
      Object.assign(this, { dec: 0, field: WHOLE_SKY });
      return;
    }
    if (towards) {
      const moved = 1 - next / this.field;
      this.ra = turned(this.ra + (turned(towards[0] - this.ra + 180) - 180) * moved);
      this.dec += (towards[1] - this.dec) * moved;
    }
    this.field = next;
  }

  /** Move what is shown by some pixels. */
  shift(dx, dy, { width, height, position }) {
    if (this.isWide) {
      this.ra = turned(this.ra + (dx / width) * 400);
      return;
    }
    const at = position(width / 2 - dx, height / 2 - dy);
    if (at) [this.ra, this.dec] = [at[0], Math.max(-89.9, Math.min(89.9, at[1]))];
  }
}
