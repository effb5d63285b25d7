"use strict";
// Before anything is drawn: the mode that was chosen here before, where the browser lets a file keep one.
try {
  const kept = localStorage.getItem("icltool-theme");
  if (kept === "dark" || kept === "light") document.documentElement.dataset.theme = kept;
} catch { /* nothing is kept */ }
