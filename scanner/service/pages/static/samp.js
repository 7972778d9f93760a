// SAMP's Web Profile (IVOA 1.3, section 5): hands a table or an image to TOPCAT, Aladin or DS9 on the reader's machine.

import { plural } from "./text.js";

/** Where every hub listens for pages of browsers. */
const HUB = "http://localhost:21012/";
const NO_HUB = "No program answers: start TOPCAT or Aladin, then send again.";

/** A text or a struct of texts and structs as an XML-RPC value. */
const encode = (document, value) => {
  const element = document.createElement("value");
  const kind = element.appendChild(document.createElement(typeof value === "string" ? "string" : "struct"));
  if (typeof value === "string") {
    kind.textContent = value;
    return element;
  }
  for (const [name, part] of Object.entries(value)) {
    const member = kind.appendChild(document.createElement("member"));
    member.appendChild(document.createElement("name")).textContent = name;
    member.appendChild(encode(document, part));
  }
  return element;
};

const decode = (element) => {
  const kind = element.firstElementChild;
  if (kind?.tagName === "struct") return Object.fromEntries([...kind.children].map((member) => [member.querySelector("name").textContent, decode(member.querySelector("value"))]));
  if (kind?.tagName === "array") return [...kind.querySelector("data").children].map(decode);
  return element.textContent;
};

/** Call a method of the hub. */
const call = async (method, ...parameters) => {
  const request = document.implementation.createDocument(null, "methodCall");
  request.documentElement.appendChild(request.createElement("methodName")).textContent = `samp.webhub.${method}`;
  const params = request.documentElement.appendChild(request.createElement("params"));
  for (const one of parameters) params.appendChild(request.createElement("param")).appendChild(encode(request, one));
  let answer;
  try {
    answer = await fetch(HUB, { method: "POST", headers: { "Content-Type": "text/xml" }, body: new XMLSerializer().serializeToString(request), referrerPolicy: "no-referrer" });
  } catch {
    throw new Error(NO_HUB);
  }
  const found = new DOMParser().parseFromString(await answer.text(), "text/xml");
  const fault = found.querySelector("fault > value");
  if (fault) throw new Error(`The hub refused: ${decode(fault).faultString}`);
  const value = found.querySelector("methodResponse > params > param > value");
  if (!value) throw new Error("What answers on this machine is no SAMP hub.");
  return decode(value);
};

/** Send one message to every program that understands it; says to how many it went. The hub asks the reader first. */
const send = async (type, parameters) => {
  const key = (await call("register", { "samp.name": "scanner" }))["samp.private-key"];
  try {
    const reached = await call("notifyAll", key, { "samp.mtype": type, "samp.params": parameters });
    return reached.length ? `Sent to ${plural(reached.length, "program")}.` : NO_HUB;
  } finally {
    await call("unregister", key);
  }
};

/**
 * Let a button send what it is for.
 * @param {HTMLElement | null} button null: the page has none
 * @param {HTMLElement} said where the outcome is announced
 * @param {string} type SAMP's message type: table.load.votable, image.load.fits
 * @param {() => {url: string, name: string}} what the file's address, and what the program calls it
 */
export const sends = (button, said, type, what) => {
  button?.addEventListener("click", async () => {
    button.disabled = true;
    said.textContent = "Asking the programs on this machine…";
    try {
      const { url, name } = what();
      said.textContent = await send(type, { url: new URL(url, location.href).href, name });
    } catch (error) {
      said.textContent = error.message;
    }
    button.disabled = false;
  });
};
