// Before anything is painted: dark or light, as it was chosen here.
const chosen = localStorage.getItem("theme");
if (chosen) document.documentElement.dataset.theme = chosen;
if (localStorage.getItem("dense")) document.documentElement.dataset.dense = "yes";
