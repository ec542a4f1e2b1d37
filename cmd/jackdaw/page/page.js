"use strict";
// Puts what is new in the place of what was there, and asks again when somebody searches. The page works without it.
(() => {
	const every = 10000; // milliseconds
	const form = document.querySelector("form[role=search]");
	const search = form.elements.q;
	let asked = 0, typed = 0;

	async function update() {
		const turn = ++asked;
		let fresh = null;
		try {
			const answer = await fetch(location.pathname + location.search, { cache: "no-store" });
			if (answer.ok) fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
		} catch { /* it is said below */ }
		if (turn !== asked) return; // a later question has been asked meanwhile
		document.getElementById("stale").hidden = fresh !== null;
		for (const old of document.querySelectorAll("[data-live]")) {
			const now = fresh && fresh.getElementById(old.id);
			if (now) old.replaceChildren(...now.childNodes);
		}
	}

	function look() {
		clearTimeout(typed);
		const query = search.value === "" ? "" : "?" + new URLSearchParams({ q: search.value });
		history.replaceState(null, "", location.pathname + query);
		return update();
	}

	form.addEventListener("submit", (event) => { event.preventDefault(); look(); });
	search.addEventListener("input", () => { clearTimeout(typed); typed = setTimeout(look, 300); });
	document.addEventListener("visibilitychange", () => { if (!document.hidden) update(); });
	setInterval(() => { if (!document.hidden) update(); }, every);
})();
