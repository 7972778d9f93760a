// Aladin Lite beside the built-in plot, only when asked for and only where the network allows. It runs in a frame without an
// origin (sandbox), so that a script of another server can read nothing of this service: it is sent positions and names.

import { find, h, root } from "./dom.js";

export class AladinPanel {
  /** @param {HTMLElement} host @param {() => {view: object, candidates: object[], tiles: number[][][]}} scene what to show */
  constructor(host, scene) {
    this.host = host;
    this.note = h("p", { class: "quiet" }, "Loads Aladin Lite and survey images from the CDS in Strasbourg.");
    this.button = h("button", { type: "button", onclick: () => this.open(scene) }, "Show in Aladin Lite");
    host.append(this.button, this.note);
  }

  open(scene) {
    this.button.disabled = true;
    this.note.textContent = "Asking the CDS…";
    const frame = h("iframe", { src: `${root}/aladin`, sandbox: "allow-scripts", title: "Aladin Lite", class: "aladin" });
    const hear = (event) => {
      if (event.source !== frame.contentWindow) return;
      if (event.data === "loaded") {
        this.note.textContent = "";
        frame.contentWindow.postMessage(scene(), "*");
      } else if (event.data === "failed") {
        removeEventListener("message", hear);
        frame.remove();
        this.button.disabled = false;
        this.note.textContent = "The CDS cannot be reached from here; the built-in map shows the same positions.";
      }
    };
    addEventListener("message", hear);
    find("iframe", this.host)?.remove();
    this.host.append(frame);
  }
}
