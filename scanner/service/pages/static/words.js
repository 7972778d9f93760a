// What the server's registry of columns says of members and flags; the page carries it as data.

const words = JSON.parse(document.getElementById("words").textContent);

/** {column, name, title, kind} of every member, in the order of the ensemble. */
export const { members } = words;

/** {bit, word, explanation} of every flag. */
export const flagWords = words.flags;

/** How many objects are ranked; the rank of the last candidate, 0 where there is none. */
export const { n_objects: objects, last_candidate_rank: lastCandidate } = words;

/** By run, the share of lenses that probabilities are stated for. */
export const skyPrevalence = words.sky_prevalence;
