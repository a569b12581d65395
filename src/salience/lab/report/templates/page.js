(() => {
  // Sorting: a click on a column's name; a second click turns it round. What was not measured stays last.
  for (const table of document.querySelectorAll("table.sortable")) {
    const body = table.tBodies[0], heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      const button = document.createElement("button");
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const up = head.getAttribute("aria-sort") !== "ascending";
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", up ? "ascending" : "descending");
        const key = (row) => row.cells[column].dataset.v;
        const rows = [...body.rows].sort((a, b) => {
          const x = key(a), y = key(b);
          if (x === "" || y === "") return (x === "") - (y === "");
          const order = isNaN(x) || isNaN(y) ? x.localeCompare(y) : x - y;
          return up ? order : -order;
        });
        body.append(...rows);
      });
    });
  }
  // Pointing at a method's line or name brings it out.
  for (const svg of document.querySelectorAll(".plot svg")) {
    for (const part of svg.querySelectorAll("[data-m]")) {
      part.addEventListener("pointerenter", () => {
        svg.classList.add("focus");
        for (const other of svg.querySelectorAll("[data-m]")) other.classList.toggle("on", other.dataset.m === part.dataset.m);
      });
      part.addEventListener("pointerleave", () => svg.classList.remove("focus"));
    }
  }
  // Light or dark, whichever the system did not choose.
  const button = document.createElement("button"), root = document.documentElement;
  const dark = () => root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  const name = () => { button.textContent = dark() ? "Light" : "Dark"; button.setAttribute("aria-label", `Switch to the ${dark() ? "light" : "dark"} theme`); };
  button.className = "theme";
  button.type = "button";
  button.addEventListener("click", () => { root.dataset.theme = dark() ? "light" : "dark"; name(); });
  name();
  document.body.prepend(button);
})();
