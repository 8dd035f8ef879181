(function () {
  'use strict';
  var table = document.getElementById('overview-table');
  var form = document.getElementById('overview-filters');
  var body = table.tBodies[0];
  var status = document.getElementById('overview-status');
  var rows = Array.prototype.slice.call(body.rows);
  form.hidden = false;

  function filter() {
    var wanted = Array.prototype.slice.call(form.querySelectorAll('select'));
    var published = form.querySelector('input').checked;
    var shown = 0;
    rows.forEach(function (row) {
      var keep = wanted.every(function (s) {
        return !s.value || row.getAttribute('data-' + s.name) === s.value;
      }) && (published || row.getAttribute('data-kind') !== 'published');
      row.hidden = !keep;
      if (keep) { shown += 1; }
    });
    status.textContent = shown + ' of ' + rows.length + ' rows';
  }

  form.addEventListener('change', filter);
  form.addEventListener('reset', function () { setTimeout(filter, 0); });
  form.addEventListener('submit', function (event) { event.preventDefault(); });
  window.addEventListener('beforeprint', function () {
    document.querySelectorAll('details').forEach(function (d) { d.open = true; });
  });
  function reveal() {
    var id = decodeURIComponent(location.hash.slice(1));
    var target = id && document.getElementById(id);
    for (var node = target; node; node = node.parentElement) {
      if (node.tagName === 'DETAILS') { node.open = true; }
    }
    if (target) { target.scrollIntoView(); }
  }
  window.addEventListener('hashchange', reveal);
  reveal();
  filter();
}());
