(function () {
  'use strict';
  var form = document.getElementById('board-filters');
  var status = document.getElementById('board-status');
  var nothing = document.getElementById('board-nothing');
  var list = function (where, what) { return Array.prototype.slice.call(where.querySelectorAll(what)); };
  var rankings = list(document, '#rankings section.ranking');
  var overall = list(document, '#overall section.ranking');
  form.hidden = false;

  function fits(element, names, wanted) {
    return names.every(function (name) {
      var value = element.getAttribute('data-' + name);
      return !wanted[name] || value === null || value === wanted[name];
    });
  }

  function filter() {
    var wanted = {};
    list(form, 'select').forEach(function (s) { wanted[s.name] = s.value; });
    var rows = 0, tables = 0;
    rankings.forEach(function (section) {
      var here = 0;
      list(section, 'tbody tr').forEach(function (row) {
        row.hidden = !fits(row, ['family', 'origin'], wanted);
        if (!row.hidden) { here += 1; }
      });
      section.hidden = !here || !fits(section, ['dataset', 'protocol', 'data', 'metric'], wanted);
      if (!section.hidden) { tables += 1; rows += here; }
    });
    overall.forEach(function (section) { section.hidden = !fits(section, ['data'], wanted); });
    nothing.hidden = tables > 0;
    status.textContent = rows + (rows === 1 ? ' row' : ' rows') + ' in ' + tables +
      (tables === 1 ? ' ranking' : ' rankings') + '; ranks are those among all strategies';
  }

  function reveal() {
    var target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (target && target.closest('section.ranking[hidden]')) { form.reset(); show(target); }
    for (var node = target; node; node = node.parentElement) {
      if (node.tagName === 'DETAILS') { node.open = true; }
    }
    if (target) { target.scrollIntoView(); }
  }

  function show(target) {
    var metric = target.closest('section.ranking').getAttribute('data-metric');
    if (metric) { form.querySelector('select[name=metric]').value = metric; }
    filter();
  }

  form.addEventListener('change', filter);
  form.addEventListener('reset', function () { setTimeout(filter, 0); });
  form.addEventListener('submit', function (event) { event.preventDefault(); });
  window.addEventListener('hashchange', reveal);
  filter();
  reveal();
}());
