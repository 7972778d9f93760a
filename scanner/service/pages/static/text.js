// Numbers as people read them. What is missing (null) is a dash.

const DASH = "–";

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

/** "higher than 99.8% of 4,102 objects": rounded down, with as many digits as tell it from 100%. */
export const standing = (rank, objects) => {
  const share = (100 * (objects - rank)) / objects, digits = Math.max(0, Math.ceil(-Math.log10(100 - share)));
  return `higher than ${(Math.floor(share * 10 ** digits) / 10 ** digits).toFixed(digits)}% of ${plural(objects, "object")}`;
};

/** "190 × as likely as an average object"; null where that is not known. */
export const likelihood = (probability, prevalence) => {
  if (missing(probability) || missing(prevalence)) return null;
  const times = Number((probability / prevalence).toPrecision(2));
  return `${times >= 10 ? whole(times) : times} × as likely as an average object`;
};

export const plural = (count, word) => `${whole(count)} ${word}${count === 1 ? "" : "s"}`;

/** Degrees as "12.345678 −3.210000". */
export const degrees = (ra, dec) => `${fixed(ra, 6)} ${dec < 0 ? "−" : "+"}${fixed(Math.abs(dec), 6)}`;

/** An angle in the unit that suits it. */
export const angle = (value) => {
  if (value >= 1) return `${Number(value.toPrecision(3))}°`;
  return value >= 1 / 60 ? `${Number((value * 60).toPrecision(3))}′` : `${Number((value * 3600).toPrecision(3))}″`;
};

/** A share as a percentage of two or three figures. */
export const percent = (share) => (missing(share) ? DASH : `${Number((100 * share).toPrecision(share < 0.1 ? 2 : 3))}%`);

const SUPERSCRIPT = { "-": "⁻", 0: "⁰", 1: "¹", 2: "²", 3: "³", 4: "⁴", 5: "⁵", 6: "⁶", 7: "⁷", 8: "⁸", 9: "⁹" };

/** 10 to a whole power: "1", "10", "10⁻³". */
export const power = (exponent) => ({ 0: "1", 1: "10" })[exponent] ?? `10${[...String(exponent)].map((digit) => SUPERSCRIPT[digit]).join("")}`;
