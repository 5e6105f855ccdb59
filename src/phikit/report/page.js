// Shows the values behind charts, cells and tokens on hover, tap or keyboard focus. No network, no storage.
(() => {
  const tip = document.getElementById("tip");
  let pinned = null;

  const place = (x, y) => {
    tip.hidden = false;
    const w = tip.offsetWidth, h = tip.offsetHeight, room = document.documentElement.clientWidth;
    tip.style.left = Math.max(8, Math.min(x - w / 2, room - w - 8)) + "px";
    tip.style.top = (y - h - 14 < 8 ? y + 20 : y - h - 14) + "px";
  };
  const show = (text, x, y) => { tip.textContent = text; place(x, y); };
  const hide = () => { tip.hidden = true; };
  const above = (el) => { const b = el.getBoundingClientRect(); return [b.left + b.width / 2, b.top]; };

  for (const el of document.querySelectorAll("[data-tip]")) {
    const open = () => show(el.dataset.tip, ...above(el));
    el.addEventListener("pointerenter", open);
    el.addEventListener("focus", open);
    el.addEventListener("pointerleave", () => { if (pinned !== el) hide(); });
    el.addEventListener("blur", () => { pinned = null; hide(); });
    el.addEventListener("click", () => { pinned = el; open(); });
  }

  for (const svg of document.querySelectorAll("svg[data-points]")) {
    const points = JSON.parse(svg.dataset.points);
    const cross = svg.querySelector(".cross"), mark = svg.querySelector(".mark");
    let at = points.length - 1;
    const point = (i) => {
      at = i;
      const [x, y, label] = points[i], b = svg.getBoundingClientRect(), k = b.width / svg.viewBox.baseVal.width;
      cross.setAttribute("x1", x); cross.setAttribute("x2", x);
      mark.setAttribute("cx", x); mark.setAttribute("cy", y);
      cross.removeAttribute("hidden"); mark.removeAttribute("hidden");
      show(label, b.left + x * k, b.top + y * k);
    };
    const leave = () => { cross.setAttribute("hidden", ""); mark.setAttribute("hidden", ""); hide(); };
    const nearest = (e) => {
      const b = svg.getBoundingClientRect();
      const x = (e.clientX - b.left) / b.width * svg.viewBox.baseVal.width;
      let best = 0;
      points.forEach((p, i) => { if (Math.abs(p[0] - x) < Math.abs(points[best][0] - x)) best = i; });
      point(best);
    };
    svg.addEventListener("pointermove", nearest);
    svg.addEventListener("pointerdown", nearest);
    svg.addEventListener("pointerleave", (e) => { if (e.pointerType === "mouse") leave(); });
    svg.addEventListener("focus", () => point(at));
    svg.addEventListener("blur", leave);
    svg.addEventListener("keydown", (e) => {
      const step = { ArrowLeft: -1, ArrowRight: 1 }[e.key];
      if (step) { e.preventDefault(); point(Math.max(0, Math.min(points.length - 1, at + step))); }
    });
  }
  addEventListener("scroll", hide, { passive: true });
  addEventListener("keydown", (e) => { if (e.key === "Escape") hide(); });
})();
