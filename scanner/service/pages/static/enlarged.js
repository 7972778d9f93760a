// The window of an enlarged picture: band after band, zoomed and moved by wheel, drag and keys.

import { find } from "./dom.js";

const MOST = 16;

export class Enlarged {
  /**
   * @param {HTMLDialogElement} dialog
   * @param {HTMLElement[]} figures each with a picture and a button that enlarges it
   */
  constructor(dialog, figures) {
    Object.assign(this, { dialog, figures, shown: 0, scale: 1, x: 0, y: 0 });
    this.image = find("img", dialog);
    this.frame = find(".frame", dialog);
    figures.forEach((figure, index) => find("button", figure).addEventListener("click", () => this.open(index)));
    find(".close", dialog).addEventListener("click", () => dialog.close());
    dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
    this.frame.addEventListener("wheel", (event) => {
      event.preventDefault();
      const { left, top, width, height } = this.frame.getBoundingClientRect();
      this.zoom(event.deltaY < 0 ? 1.25 : 0.8, (event.clientX - left) / width - 0.5, (event.clientY - top) / height - 0.5);
    }, { passive: false });
    this.frame.addEventListener("pointerdown", (event) => { event.preventDefault(); this.frame.setPointerCapture(event.pointerId); });
    this.frame.addEventListener("pointermove", (event) => {
      if (this.frame.hasPointerCapture(event.pointerId)) this.move(event.movementX / this.frame.clientWidth, event.movementY / this.frame.clientHeight);
    });
    // Elsewhere these two scroll the page.
    dialog.addEventListener("keydown", (event) => {
      if (event.key !== "ArrowUp" && event.key !== "ArrowDown") return;
      event.preventDefault();
      this.move(0, event.key === "ArrowUp" ? 0.1 : -0.1);
    });
    this.frame.addEventListener("dblclick", () => this.whole());
  }

  get isOpen() {
    return this.dialog.open;
  }

  /** Show one of the pictures, at the zoom that the last one had. */
  open(index = this.shown) {
    this.shown = (index + this.figures.length) % this.figures.length;
    const picture = find("img", this.figures[this.shown]);
    this.image.src = picture.src;
    this.image.alt = picture.alt;
    find("h2", this.dialog).textContent = picture.alt;
    if (!this.isOpen) this.dialog.showModal();
  }

  toggle() {
    if (this.isOpen) this.dialog.close(); else this.open();
  }

  step(by) {
    this.open(this.shown + by);
  }

  /** Nearer (factor > 1) or farther, about a point of the frame, whose middle is (0, 0) and whose sides are 1. */
  zoom(factor, atX = 0, atY = 0) {
    const scale = Math.min(MOST, Math.max(1, this.scale * factor));
    this.x = atX + ((this.x - atX) * scale) / this.scale;
    this.y = atY + ((this.y - atY) * scale) / this.scale;
    this.scale = scale;
    this.move(0, 0);
  }

  /** Move the picture by a part of the frame; it never leaves the frame. */
  move(dx, dy) {
    const most = (this.scale - 1) / 2;
    this.x = Math.min(most, Math.max(-most, this.x + dx));
    this.y = Math.min(most, Math.max(-most, this.y + dy));
    this.image.style.transform = `translate(${100 * this.x}%, ${100 * this.y}%) scale(${this.scale})`;
  }

  whole() {
    this.zoom(0);
  }

  keys() {
    const push = (dx, dy) => () => { if (this.isOpen) this.move(dx, dy); };
    return [
      { key: "z", group: "Pictures", does: "Enlarge; arrows for the other bands", run: () => this.toggle() },
      { key: ".", group: "Pictures", does: "Enlarged: nearer (or the wheel)", run: () => { if (!this.isOpen) this.open(); this.zoom(1.5); } },
      { key: ",", group: "Pictures", does: "Enlarged: farther", run: () => { if (this.isOpen) this.zoom(1 / 1.5); } },
      { key: "[", group: "Pictures", does: "Enlarged: at the left; ↑ and ↓ above and below, or drag", run: push(0.1, 0) },
      { key: "]", group: "Pictures", does: "Enlarged: at the right", run: push(-0.1, 0) },
    ];
  }
}
