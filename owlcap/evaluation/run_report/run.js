"use strict";

// Values under the pointer, or moved over with the arrow keys.
for (const panel of document.querySelectorAll(".panel")) {
  const plot = panel.querySelector(".plot");
  const cursor = panel.querySelector(".cursor");
  const tip = panel.querySelector(".tip");
  const first = Number(panel.dataset.first);
  const span = Number(panel.dataset.last) - first;
  const curves = [...panel.querySelectorAll(".curve")].map((path) => ({
    label: path.dataset.label,
    points: JSON.parse(path.dataset.points),
  }));
  const steps = [...new Set(curves.flatMap((curve) => curve.points.map((point) => point[0])))].sort((a, b) => a - b);
  let at = steps.length - 1;

  const nearest = (points, step) =>
    points.reduce((best, point) => (Math.abs(point[0] - step) < Math.abs(best[0] - step) ? point : best));
  const show = () => {
    const step = steps[at];
    const share = span ? (step - first) / span : 0.5;
    const lines = curves.map((curve) => {
      const [where, value] = nearest(curve.points, step);
      return `${curve.label} ${Number(value.toPrecision(4))}${where === step ? "" : ` (step ${where})`}`;
    });
    tip.textContent = [`step ${step}`, ...lines].join("\n");
    cursor.hidden = tip.hidden = false;
    cursor.style.left = `${100 * share}%`;
    tip.style.left = share > 0.5 ? "auto" : `calc(${100 * share}% + 8px)`;
    tip.style.right = share > 0.5 ? `calc(${100 - 100 * share}% + 8px)` : "auto";
  };
  const hide = () => { cursor.hidden = tip.hidden = true; };
  plot.addEventListener("pointermove", (event) => {
    const box = plot.getBoundingClientRect();
    const wanted = first + (span * (event.clientX - box.left)) / box.width;
    at = steps.indexOf(nearest(steps.map((step) => [step]), wanted)[0]);
    if (at < 0) at = steps.findIndex((step) => step >= wanted);
    show();
  });
  plot.addEventListener("pointerleave", hide);
  plot.addEventListener("focus", () => { if (plot.matches(":focus-visible")) show(); });
  plot.addEventListener("blur", hide);
  plot.addEventListener("keydown", (event) => {
    const moves = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: steps.length - 1 };
    if (!(event.key in moves)) return;
    event.preventDefault();
    at = Math.min(Math.max(moves[event.key], 0), steps.length - 1);
    show();
  });
}

// A unit and its place in the text light up together, and the place tells what the judge made of it.
const lit = [];
const numbersOf = (one) => (one.dataset.unit || one.dataset.units).split(" ");
document.addEventListener("pointerover", (event) => {
  while (lit.length) lit.pop().classList.remove("lit");
  const here = event.target.closest("mark[data-units], li[data-unit]");
  if (!here) return;
  const reference = here.closest(".of-reference");
  const units = [];
  for (const other of (reference || here.closest(".caption")).querySelectorAll("mark[data-units], li[data-unit]")) {
    if (other.closest(".of-reference") !== reference) continue;
    if (!numbersOf(other).some((number) => numbersOf(here).includes(number))) continue;
    other.classList.add("lit");
    lit.push(other);
    if (other.dataset.unit) units.push(other.textContent.trim());
  }
  if (here.dataset.units) here.title = units.join("\n");
});

// Filters.
const form = document.getElementById("filters");
if (form) {
  const holder = document.getElementById("cards");
  const groups = [...holder.children];
  const number = (text) => (text === "" || text === undefined ? null : Number(text));
  const words = new Map(groups.map((group) => [group, {
    all: `${group.querySelector(".id").textContent} ${group.querySelector(".reference").textContent}`.toLowerCase(),
  }]));

  const apply = () => {
    const asked = new FormData(form);
    const text = asked.get("words").trim().toLowerCase();
    const [low, high] = [number(asked.get("low")), number(asked.get("high"))];
    const labels = asked.getAll("label");
    const tags = asked.getAll("tag");
    const anyUnit = labels.length === 3 && tags.length === 2;
    const kinds = labels.flatMap((label) => tags.map((tag) => `${label}-${tag}`));
    const wanted = (one) => labels.some((label) => one.classList.contains(label)) && tags.some((tag) => one.classList.contains(tag));
    let [numGroups, numCaptions, allCaptions] = [0, 0, 0];
    for (const group of groups) {
      const right =
        (!asked.get("step") || group.dataset.step === asked.get("step")) &&
        (!asked.get("kind") || group.dataset.kinds.split(" ").includes(asked.get("kind")));
      const named = !text || words.get(group).all.includes(text);
      let shown = 0;
      const captions = group.querySelectorAll(".caption");
      for (const caption of captions) {
        const reward = number(caption.dataset.reward);
        const has =
          (low === null || (reward !== null && reward >= low)) &&
          (high === null || (reward !== null && reward <= high)) &&
          (anyUnit || kinds.some((kind) => caption.dataset.kinds.split(" ").includes(kind))) &&
          (named || caption.querySelector(".words").textContent.toLowerCase().includes(text));
        caption.hidden = !has;
        shown += has;
        for (const unit of caption.querySelectorAll("mark, .units li:not(.empty)")) unit.classList.toggle("dim", !wanted(unit));
      }
      const whole = anyUnit && low === null && high === null && named;
      group.hidden = !right || (!shown && !(whole && !captions.length));
      numGroups += !group.hidden;
      numCaptions += group.hidden ? 0 : shown;
      allCaptions += captions.length;
    }
    const by = { best: (g) => -g.dataset.mean, worst: (g) => +g.dataset.mean, spread: (g) => -g.dataset.spread }[asked.get("order")];
    const figure = asked.get("order") === "spread" ? "spread" : "mean";
    const last = (group) => group.dataset[figure] === "";
    const order = by ? [...groups].sort((a, b) => last(a) - last(b) || by(a) - by(b)) : groups;
    if (order.some((group, place) => holder.children[place] !== group)) holder.append(...order);
    document.getElementById("count").textContent =
      `${numGroups} of ${groups.length} groups, ${numCaptions} of ${allCaptions} captions`;
    document.getElementById("none").hidden = numGroups > 0;
  };
  form.addEventListener("input", apply);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(apply));
  document.getElementById("reset").addEventListener("click", () => form.reset());
  const open = document.getElementById("open");
  open.addEventListener("click", () => {
    const opened = open.dataset.opened !== "yes";
    for (const group of groups) {
      if (!group.hidden) for (const details of group.querySelectorAll(".said > details")) details.open = opened;
    }
    open.dataset.opened = opened ? "yes" : "";
    open.textContent = opened ? "Close all judgements" : "Open all judgements";
  });
  apply();
}
