"use strict";
// Reading values off a chart, bringing out one curve, sorting a table. Without it the page shows the same.
(() => {
  const clock = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });

  const elapsed = (ms) => {
    const seconds = ms / 1000;
    if (seconds < 60) return seconds.toFixed(seconds < 10 ? 2 : 1) + " s";
    const pad = (number) => String(number).padStart(2, "0");
    const whole = Math.round(seconds);
    return Math.floor(whole / 3600) + ":" + pad(Math.floor(whole / 60) % 60) + ":" + pad(whole % 60);
  };

  const written = (value) => {
    if (value === null || value === undefined) return "–";
    return value.toLocaleString(undefined, { maximumSignificantDigits: 4 });
  };

  for (const section of document.querySelectorAll(".chart")) {
    const data = JSON.parse(section.querySelector("script").textContent);
    const plot = section.querySelector(".plot");
    const cursor = section.querySelector(".cursor");
    const readout = section.querySelector(".readout");
    const hint = readout.textContent;
    const buttons = [...section.querySelectorAll(".legend button")];
    const count = data.series[0].mean.length;
    const [left, right] = data.x;
    let shown = null;

    const show = (bin) => {
      shown = Math.max(0, Math.min(count - 1, bin));
      const part = (shown + 0.5) / count;
      cursor.style.left = 100 * (left + (right - left) * part) + "%";
      cursor.hidden = false;
      const at = part * data.length_ms;
      const phases = data.phases.filter(([, begin, end]) => begin <= at && at < end).map(([label]) => label);
      let sum = 0;
      data.series.forEach((series, index) => {
        const mean = series.mean[shown];
        const high = series.high ? series.high[shown] : mean;
        sum += mean ?? 0;
        const peak = high !== null && high > mean * 1.005 ? " (max " + written(high) + ")" : "";
        buttons[index].querySelector(".value").textContent = written(mean) + (mean === null ? "" : " " + data.unit) + peak;
      });
      readout.textContent =
        elapsed(at) + " after the start, " + clock.format(new Date(data.begin_unix_ms + at)) +
        (data.stacked ? ", together " + written(sum) + " " + data.unit : "") +
        (phases.length ? ", phase " + phases.join(" / ") : "");
    };

    const hide = () => {
      shown = null;
      cursor.hidden = true;
      readout.textContent = hint;
      for (const button of buttons) button.querySelector(".value").textContent = "";
    };

    plot.addEventListener("pointermove", (event) => {
      const box = plot.getBoundingClientRect();
      const part = ((event.clientX - box.left) / box.width - left) / (right - left);
      if (part >= 0 && part <= 1) show(Math.floor(part * count));
      else hide();
    });
    plot.addEventListener("pointerleave", hide);
    plot.addEventListener("blur", hide);
    plot.addEventListener("keydown", (event) => {
      const steps = { ArrowLeft: -1, ArrowRight: 1, PageUp: -20, PageDown: 20, Home: -count, End: count };
      if (event.key === "Escape") hide();
      if (!(event.key in steps)) return;
      event.preventDefault();
      show((shown ?? (steps[event.key] > 0 ? -1 : count)) + steps[event.key]);
    });

    for (const button of buttons) {
      button.addEventListener("click", () => {
        const on = button.getAttribute("aria-pressed") !== "true";
        for (const other of buttons) {
          other.setAttribute("aria-pressed", String(on && other === button));
          const color = other.dataset.color;
          for (const shape of plot.querySelectorAll(`[stroke="${color}"], [fill="${color}"]`)) {
            shape.classList.toggle("faint", on && other !== button);
          }
        }
      });
    }
  }

  const compare = (a, b) => {
    if (a.number !== null && b.number !== null) return a.number - b.number;
    if (a.number !== null || b.number !== null) return a.number !== null ? -1 : 1;
    return a.text.localeCompare(b.text, undefined, { numeric: true });
  };

  for (const table of document.querySelectorAll("table")) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      head.querySelector("button").addEventListener("click", () => {
        const first = head.classList.contains("number") ? "descending" : "ascending";
        const other = first === "ascending" ? "descending" : "ascending";
        const order = head.getAttribute("aria-sort") === first ? other : first;
        for (const each of heads) each.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", order);
        const body = table.tBodies[0];
        const rows = [...body.rows].map((row) => {
          const cell = row.cells[column];
          const value = cell.dataset.value;
          return { row, text: cell.textContent, number: value === undefined ? null : Number(value) };
        });
        // What has no value stays at the end, in either order.
        const empty = (entry) => entry.number === null && entry.text === "";
        rows.sort((a, b) => empty(a) - empty(b) || (order === "ascending" ? compare(a, b) : compare(b, a)));
        body.append(...rows.map((entry) => entry.row));
      });
    });
  }
})();
