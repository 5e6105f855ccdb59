// Filters the samples by words and verdict. No network, no storage.
(() => {
  const find = document.getElementById("find"), verdict = document.getElementById("verdict");
  const shown = document.getElementById("shown");
  if (!find) return;
  const cards = [...document.querySelectorAll(".sample")].map((el) => [el, el.textContent.toLowerCase()]);
  const filter = () => {
    const words = find.value.toLowerCase().split(/\s+/).filter(Boolean);
    let n = 0;
    for (const [el, text] of cards) {
      const fits = (!verdict.value || el.dataset.verdict === verdict.value) && words.every((w) => text.includes(w));
      el.hidden = !fits;
      n += fits;
    }
    shown.textContent = n + " of " + cards.length;
  };
  find.addEventListener("input", filter);
  verdict.addEventListener("change", filter);
  filter();
})();
