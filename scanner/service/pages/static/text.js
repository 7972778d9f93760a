// Numbers as people read them. What is missing (null) is a dash.

export const DASH = "–";

const missing = (value) => value === null || value === undefined || !Number.isFinite(value);

/** 12,345 */
export const whole = (value) => (missing(value) ? DASH : Math.round(value).toLocaleString("en-GB"));

export const fixed = (value, digits) => (missing(value) ? DASH : value.toFixed(digits));

/** Three figures: 0.0123, 12.3, 1,230. */
export const figures = (value) => (missing(value) ? DASH : Number(value.toPrecision(3)).toLocaleString("en-GB", { maximumSignificantDigits: 3 }));

/** A probability as the contact sheet writes it. */
export const score = (value) => {
  if (missing(value)) return DASH;
  if (value >= 0.9995) return "> 0.999";
  return value > 0 && value < 0.0005 ? value.toExponential(1) : value.toFixed(3);
};

export const plural = (count, word) => `${whole(count)} ${word}${count === 1 ? "" : "s"}`;

/** Degrees as "12.345678 −3.210000". */
export const degrees = (ra, dec) => `${fixed(ra, 6)} ${dec < 0 ? "−" : "+"}${fixed(Math.abs(dec), 6)}`;

/** An angle in the unit that suits it. */
export const angle = (value) => {
  if (value >= 1) return `${Number(value.toPrecision(3))}°`;
  return value >= 1 / 60 ? `${Number((value * 60).toPrecision(3))}′` : `${Number((value * 3600).toPrecision(3))}″`;
};
