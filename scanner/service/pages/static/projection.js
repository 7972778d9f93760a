// From the sky to the plane and back: gnomonic for small fields, Mollweide for the whole sky (Calabretta & Greisen 2002).
// Angles in degrees; plane in radians, x to the right, y up, right ascension growing to the left. Null where there is no answer.

const RAD = Math.PI / 180;

/** Right ascension in [0, 360). */
export const turned = (ra) => ((ra % 360) + 360) % 360;

/** The difference of right ascensions in [-180, 180). */
const away = (ra, from) => turned(ra - from + 180) - 180;

/** Great-circle distance (haversine). */
export const separation = (ra1, dec1, ra2, dec2) => {
  const a = Math.sin(((dec2 - dec1) * RAD) / 2) ** 2;
  const b = Math.cos(dec1 * RAD) * Math.cos(dec2 * RAD) * Math.sin((away(ra2, ra1) * RAD) / 2) ** 2;
  return (2 * Math.asin(Math.min(1, Math.sqrt(a + b)))) / RAD;
};

/** Tangent plane at (ra0, dec0); what is 80° away or more is null. */
export const gnomonic = (ra0, dec0) => {
  const [sin0, cos0] = [Math.sin(dec0 * RAD), Math.cos(dec0 * RAD)];
  return {
    forward(ra, dec) {
      const d = away(ra, ra0) * RAD;
      const [sin, cos] = [Math.sin(dec * RAD), Math.cos(dec * RAD)];
      const depth = sin0 * sin + cos0 * cos * Math.cos(d);
      if (depth < 0.17) return null;
      return [(-cos * Math.sin(d)) / depth, (cos0 * sin - sin0 * cos * Math.cos(d)) / depth];
    },
    inverse(x, y) {
      const depth = cos0 - y * sin0;
      const dec = Math.atan2(sin0 + y * cos0, Math.hypot(x, depth)) / RAD;
      return [turned(ra0 + Math.atan2(-x, depth) / RAD), dec];
    },
  };
};

/** The whole sky with ra0 in its middle; the ellipse is 2√2 wide to either side and √2 high. */
export const mollweide = (ra0) => ({
  forward(ra, dec) {
    const goal = Math.PI * Math.sin(dec * RAD);
    let theta = dec * RAD;
    if (Math.abs(dec) > 89.9999) theta = (Math.sign(dec) * Math.PI) / 2;
    else {
      for (let i = 0; i < 50; i += 1) {
        const step = (2 * theta + Math.sin(2 * theta) - goal) / (2 + 2 * Math.cos(2 * theta));
        theta -= step;
        if (Math.abs(step) < 1e-9) break;
      }
    }
    return [((-2 * Math.SQRT2) / Math.PI) * away(ra, ra0) * RAD * Math.cos(theta), Math.SQRT2 * Math.sin(theta)];
  },
  inverse(x, y) {
    const sin = y / Math.SQRT2;
    if (Math.abs(sin) > 1) return null;
    const theta = Math.asin(sin);
    const d = Math.cos(theta) < 1e-9 ? 0 : (-Math.PI * x) / (2 * Math.SQRT2 * Math.cos(theta));
    if (Math.abs(d) > Math.PI) return null;
    return [turned(ra0 + d / RAD), Math.asin(Math.min(1, Math.max(-1, (2 * theta + Math.sin(2 * theta)) / Math.PI))) / RAD];
  },
});

/** Middle and radius in degrees of positions [[ra, dec], …]: the direction of their mean vector and the farthest from it. */
export const bounds = (positions) => {
  let [x, y, z] = [0, 0, 0];
  for (const [ra, dec] of positions) {
    x += Math.cos(dec * RAD) * Math.cos(ra * RAD);
    y += Math.cos(dec * RAD) * Math.sin(ra * RAD);
    z += Math.sin(dec * RAD);
  }
  const length = Math.hypot(x, y, z);
  const [ra, dec] = length < 1e-9 ? [0, 0] : [turned(Math.atan2(y, x) / RAD), Math.asin(z / length) / RAD];
  const radius = positions.reduce((most, [a, d]) => Math.max(most, separation(ra, dec, a, d)), 0);
  return { ra, dec, radius };
};

/** The vertices of an `s_region` as POLYGON writes it: "POLYGON ICRS ra dec ra dec …"; none where it is another shape. */
export const vertices = (region) => {
  if (!/^\s*POLYGON/i.test(region ?? "")) return [];
  const numbers = region.replace(/^\s*POLYGON\s+(ICRS)?/i, "").trim().split(/\s+/).map(Number);
  const pairs = [];
  for (let i = 0; i + 1 < numbers.length; i += 2) pairs.push([numbers[i], numbers[i + 1]]);
  return pairs.every(([ra, dec]) => Number.isFinite(ra) && Number.isFinite(dec)) ? pairs : [];
};
