// Sets theme and language before the first paint, so that nothing flashes. A file of its own: the content policy forbids
// inline scripts.
(function () {
  var root = document.documentElement;
  try {
    var prefs = JSON.parse(localStorage.getItem('flota.prefs') || '{}');
    if (prefs.theme === 'dark' || prefs.theme === 'light') root.dataset.theme = prefs.theme;
    root.lang = prefs.locale || ((navigator.language || 'en').slice(0, 2) === 'es' ? 'es' : 'en');
  } catch (_) {
    root.lang = 'en';
  }
})();
