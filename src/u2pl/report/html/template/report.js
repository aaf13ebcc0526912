"use strict";
// The confusion matrix says the counts of a cell also without a mouse, and the gallery divides pixels by their entropy.
(() => {
  const byId = (id) => document.getElementById(id);
  const matrix = document.querySelector(".confusion");
  if (matrix) {
    matrix.addEventListener("pointerover", (event) => {
      const cell = event.target.closest("td[title]");
      if (cell) byId("confusion-count").textContent = cell.title;
    });
  }
  const source = byId("gallery-data");
  if (!source) return;

  const LEVELS = 256, IGNORED = 255;
  const gallery = JSON.parse(source.textContent);
  const controls = byId("controls"), canvas = byId("canvas"), pen = canvas.getContext("2d", {willReadFrequently: true});
  const classOf = new Map(gallery.palette.map(([r, g, b], index) => [(r << 16) | (g << 8) | b, index]));
  let wanted = -1, pixels = null;  // the image asked for last, and the values of the one that is shown

  /** The RGBA values of an embedded picture. */
  async function read(kind, number) {
    const picture = new Image();
    picture.src = byId(kind + "-" + number).src;
    await picture.decode();
    const sheet = document.createElement("canvas");
    sheet.width = picture.naturalWidth;
    sheet.height = picture.naturalHeight;
    const context = sheet.getContext("2d", {willReadFrequently: true});
    context.drawImage(picture, 0, 0);
    return context.getImageData(0, 0, sheet.width, sheet.height).data;
  }

  function classes(rgba) {
    const found = new Uint8Array(rgba.length / 4);
    for (let at = 0; at < found.length; at++) {
      const index = classOf.get((rgba[4 * at] << 16) | (rgba[4 * at + 1] << 8) | rgba[4 * at + 2]);
      found[at] = index === undefined ? IGNORED : index;
    }
    return found;
  }

  const sum = (numbers) => numbers.reduce((one, other) => one + other, 0);

  /** The smallest level with at most the share alpha of the pixels at or above it, as in Python. */
  function threshold(counts, alpha) {
    const allowed = alpha * sum(counts);
    let above = 0, level = LEVELS;
    while (level > 0 && above + counts[level - 1] <= allowed) {
      level -= 1;
      above += counts[level];
    }
    return level;
  }

  const shareAbove = (counts, level) => sum(counts.slice(level)) / Math.max(1, sum(counts));
  const percent = (share) => (100 * share).toFixed(2) + " %";
  const chosen = (name) => controls.elements[name].value;

  function tell(id, share) {
    byId(id).textContent = percent(share);
    byId(id).dataset.share = String(share);
  }

  function draw() {
    if (!pixels) return;
    const alpha = byId("alpha").value / 100, opacity = byId("opacity").value / 100;
    const layer = chosen("layer"), zoom = Number(byId("zoom").value);
    const level = threshold(chosen("over") === "all" ? gallery.pixels : pixels.counts, alpha);
    byId("alpha-value").textContent = alpha.toFixed(2);
    tell("share-all", shareAbove(gallery.pixels, level));
    tell("share-one", shareAbove(pixels.counts, level));
    const shown = new Set([...controls.querySelectorAll("[name=class]:checked")].map((box) => Number(box.value)));
    const width = pixels.width, result = new Uint8ClampedArray(pixels.image);
    for (let at = 0; at < pixels.entropy.length; at++) {
      let colour = null;
      const stripe = (at % width + Math.floor(at / width)) % 6 < 3;
      if (layer === "entropy") {
        const value = 255 * gallery.values[pixels.entropy[at]];
        colour = [value, value, value];
      } else if (layer === "partition") {
        colour = pixels.entropy[at] < level ? [0, 158, 115] : stripe ? [213, 94, 0] : [255, 255, 255];
      } else if (shown.has(pixels[layer][at])) {
        colour = gallery.palette[pixels[layer][at]];
      }
      if (layer === "partition" && !shown.has(pixels.mask[at])) colour = null;
      if (colour) {
        for (let part = 0; part < 3; part++) {
          result[4 * at + part] += opacity * (colour[part] - result[4 * at + part]);
        }
      }
    }
    canvas.width = width;
    canvas.height = pixels.height;
    pen.putImageData(new ImageData(result, width), 0, 0);
    canvas.style.width = Math.round(width * zoom) + "px";
  }

  async function open(number) {
    wanted = number;
    const card = gallery.cards[number];
    const [image, truth, mask, entropy] = await Promise.all(
      ["image", "truth", "mask", "entropy"].map((kind) => read(kind, number)));
    if (number !== wanted) return;  // meanwhile another one is asked for
    const levels = Uint8Array.from({length: entropy.length / 4}, (_, at) => entropy[4 * at]);
    const counts = new Array(LEVELS).fill(0);
    for (const level of levels) counts[level] += 1;
    pixels = {image, truth: classes(truth), mask: classes(mask), entropy: levels, counts, width: card.width, height: card.height};
    if (byId("viewer").hidden) {
      byId("viewer").hidden = false;
      byId("zoom").value = Math.min(byId("stage").clientWidth, 640) / card.width - 0.25;  // as large as fits
    }
    canvas.setAttribute("aria-label", "Image " + card.name + ", " + card.score + " % mIoU");
    for (const button of document.querySelectorAll(".open")) {
      const own = Number(button.dataset.card) === number;
      button.setAttribute("aria-expanded", String(own));
      button.closest(".card").classList.toggle("opened", own);
    }
    byId("readout").textContent = card.name + ": point at a pixel to read it";
    draw();
    document.body.dataset.opened = String(number);
  }

  function step(by) {
    const count = gallery.cards.length;
    open((wanted + by + count) % count);
  }

  function move(id, by) {
    const range = byId(id);
    range.value = Number(range.value) + by;
    draw();
  }

  canvas.addEventListener("pointermove", (event) => {
    if (!pixels) return;
    const box = canvas.getBoundingClientRect();
    const x = Math.floor((event.clientX - box.left) / box.width * pixels.width);
    const y = Math.floor((event.clientY - box.top) / box.height * pixels.height);
    const at = y * pixels.width + x;
    if (!(at >= 0 && at < pixels.entropy.length)) return;
    const name = (index) => index === IGNORED ? "ignored" : gallery.classes[index];
    byId("readout").textContent = "truth: " + name(pixels.truth[at]) + "; prediction: " + name(pixels.mask[at]) +
      "; entropy: " + percent(gallery.values[pixels.entropy[at]]) + " of the largest possible";
  });
  controls.addEventListener("input", draw);
  controls.addEventListener("submit", (event) => event.preventDefault());
  byId("previous").addEventListener("click", () => step(-1));
  byId("next").addEventListener("click", () => step(1));
  for (const button of document.querySelectorAll(".open")) {
    button.setAttribute("aria-expanded", "false");
    button.setAttribute("aria-controls", "viewer");
    button.addEventListener("click", () => open(Number(button.dataset.card)).then(() => {
      byId("stage").focus({preventScroll: true});
      byId("viewer").scrollIntoView({block: "start"});
    }));
  }

  const layers = new Map([["p", "mask"], ["t", "truth"], ["e", "entropy"], ["r", "partition"]]);
  document.addEventListener("keydown", (event) => {
    const command = event.ctrlKey || event.metaKey || event.altKey;
    if (!pixels || (command && !event.getModifierState("AltGraph"))) return;  // many keyboards need AltGr for brackets
    const stage = byId("stage");  // where arrows scroll, they do not change the image
    const scrolls = event.target === stage && stage.scrollWidth > stage.clientWidth;
    const own = scrolls || event.target.closest("input, .scroll:not(#stage)");
    const key = event.key.toLowerCase();
    if (layers.has(key)) {
      controls.elements.layer.value = layers.get(key);
      draw();
    } else if (key === "[") move("alpha", -1);
    else if (key === "]") move("alpha", 1);
    else if (key === "+" || key === "=") move("zoom", 0.5);
    else if (key === "-") move("zoom", -0.5);
    else if (!own && key === "arrowleft") step(-1);
    else if (!own && key === "arrowright") step(1);
    else return;
    event.preventDefault();
  });
  open(0);
})();
