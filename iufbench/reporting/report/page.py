"""The page around the report: style and script are inline, so that one file needs no network."""

from __future__ import annotations

import html

STYLE = """
:root { --ink: #1b1b1b; --soft: #5a5a5a; --line: #d5d5d5; --back: #ffffff; --shade: #f4f5f7; --link: #00558c;
  --warn: #9c3d00; }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 0 1rem 4rem; max-width: 84rem; color: var(--ink); background: var(--back);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; }
h1 { margin: 1.2rem 0 .2rem; font-size: 1.7rem; } h2 { margin: 2.4rem 0 .6rem; font-size: 1.3rem; }
h3 { margin: 1.6rem 0 .4rem; font-size: 1.05rem; } [id] { scroll-margin-top: .5rem; }
a { color: var(--link); } :focus-visible { outline: 3px solid #e69f00; outline-offset: 2px; }
nav ul { display: flex; flex-wrap: wrap; gap: .2rem 1.2rem; padding: 0; list-style: none; }
.skip { position: absolute; left: -999rem; } .skip:focus { left: 1rem; top: .5rem; background: var(--back); }
.soft, caption, .footnote, dl.definitions { color: var(--soft); font-size: .875rem; }
.footnote { margin: .2rem 0; overflow-wrap: anywhere; }
.warnings { border-left: .3rem solid var(--warn); padding: .2rem 1rem; background: #fff6ef;
  overflow-wrap: anywhere; }
.badge { display: inline-block; padding: 0 .45em; border: 1px solid var(--warn); border-radius: .3em;
  color: var(--warn); font-size: .78rem; font-weight: 600; white-space: nowrap; }
.scroll { overflow-x: auto; max-width: 100%; margin: .4rem 0; }
table { border-collapse: collapse; font-size: .875rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; padding: .3rem 0; }
caption div { position: sticky; left: 0; width: max-content; max-width: min(60rem, calc(100vw - 4rem)); }
td.source { min-width: 12rem; } td.source a { white-space: nowrap; }
th, td { padding: .25rem .6rem; text-align: left; border-bottom: 1px solid var(--line);
  vertical-align: baseline; }
thead th { border-bottom: 2px solid var(--ink); white-space: nowrap; } th[colspan] { text-align: center; }
td.number { text-align: right; white-space: nowrap; }
tbody th { font-weight: 600; } tr.published, tr.difference { color: var(--soft); }
tbody tr:hover { background: var(--shade); }
th button { all: unset; cursor: pointer; font-weight: 600; }
th button:focus-visible { outline: 3px solid #e69f00; }
th button::after { content: " \\21C5"; color: var(--soft); }
th[aria-sort=ascending] button::after { content: " \\25B2"; }
th[aria-sort=descending] button::after { content: " \\25BC"; }
.filters { display: flex; flex-wrap: wrap; gap: .6rem 1rem; align-items: end; margin: .6rem 0; padding: .8rem;
  background: var(--shade); border-radius: .4rem; }
.filters label { display: grid; gap: .15rem; font-size: .85rem; }
.filters label.check { display: flex; gap: .4rem; }
select, button.plain { font: inherit; padding: .3rem .5rem; border: 1px solid #8a8a8a; border-radius: .3rem;
  background: var(--back); max-width: 100%; }
details { border: 1px solid var(--line); border-radius: .4rem; margin: .5rem 0; padding: .3rem .8rem; }
summary { cursor: pointer; font-weight: 600; overflow-wrap: anywhere; }
img { max-width: 100%; height: auto; }
table.matrix td { text-align: center; min-width: 3.1rem; border: 1px solid var(--back);
  padding: .2rem .3rem; }
table.matrix td.unseen { font-style: italic; border: 1px dashed #666; }
table.matrix td.missing { background: var(--shade); }
table.matrix td.mean { border-left: .6rem solid var(--back); }
dl.facts { display: grid; grid-template-columns: max-content 1fr; gap: .1rem 1rem; font-size: .9rem; }
dl.facts dd { margin: 0; overflow-wrap: anywhere; } dt { font-weight: 600; } dd { margin-left: 1rem; }
pre { overflow: auto; max-height: 26rem; padding: .6rem; background: var(--shade); font-size: .8rem; }
@media (max-width: 40rem) { body { padding: 0 .7rem 3rem; } h1 { font-size: 1.35rem; }
  dl.facts { grid-template-columns: 1fr; } dl.facts dd { margin-left: .8rem; } }
@page { size: landscape; margin: 10mm; }
@media print { .filters, nav, .skip, th button, th a { display: none; }
  th[data-title]::before { content: attr(data-title); }  /* buttons are not repeated on later pages */
  body { max-width: none; font-size: 10pt; } h2, h3, summary { break-after: avoid; }
  thead th { white-space: normal; }
  .scroll { overflow: visible; } details, img, table.matrix { break-inside: avoid; } a { color: inherit; }
  table { font-size: 7pt; } th, td { padding: .1rem .2rem; } td.source { min-width: 0; }
  .badge { font-size: 6pt; } .soft, caption, .footnote, dl.definitions { font-size: 8pt; }
  pre { max-height: none; white-space: pre-wrap; }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; } }
"""

SCRIPT = """
(function () {
  'use strict';
  var table = document.getElementById('overview-table');
  var form = document.getElementById('overview-filters');
  var body = table.tBodies[0];
  var status = document.getElementById('overview-status');
  var heads = Array.prototype.slice.call(table.querySelectorAll('thead th'));
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

  function key(row, column) {
    var cell = row.cells[column];
    var number = cell.getAttribute('data-value');
    return number === null ? cell.textContent.trim().toLowerCase() : (number === '' ? null : Number(number));
  }

  function sort(column) {
    var head = heads[column];
    var up = head.getAttribute('aria-sort') === 'descending' ||
      (head.getAttribute('aria-sort') === null && head.getAttribute('data-first') !== 'descending');
    heads.forEach(function (h) { h.removeAttribute('aria-sort'); });
    head.setAttribute('aria-sort', up ? 'ascending' : 'descending');
    rows = rows.map(function (row, index) { return { row: row, key: key(row, column), index: index }; })
      .sort(function (a, b) {
        if (a.key === null || b.key === null) {  // what was not measured comes last either way
          return (a.key === null) - (b.key === null) || a.index - b.index;
        }
        var order = a.key < b.key ? -1 : (a.key > b.key ? 1 : 0);
        return (up ? order : -order) || a.index - b.index;
      }).map(function (item) { return item.row; });
    rows.forEach(function (row) { body.appendChild(row); });
  }

  heads.forEach(function (head, column) {
    head.querySelector('button').addEventListener('click', function () { sort(column); });
  });
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
"""

POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"


def page(title: str, body: str) -> str:
    """A whole HTML document; ``body`` is HTML, ``title`` is text."""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n{body}\n"
        f"<script>{SCRIPT}</script>\n</body>\n</html>\n"
    )
