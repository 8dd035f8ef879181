(function () {
  'use strict';
  function key(row, column) {
    var cell = row.cells[column];
    var number = cell.getAttribute('data-value');
    return number === null ? cell.textContent.trim().toLowerCase() : (number === '' ? null : Number(number));
  }

  function sortable(table) {
    var heads = Array.prototype.slice.call(table.tHead.rows[table.tHead.rows.length - 1].cells);
    var body = table.tBodies[0];

    function sort(column) {
      var head = heads[column];
      var up = head.getAttribute('aria-sort') === 'descending' ||
        (head.getAttribute('aria-sort') === null && !head.hasAttribute('data-first'));
      heads.forEach(function (h) { h.removeAttribute('aria-sort'); });
      head.setAttribute('aria-sort', up ? 'ascending' : 'descending');
      Array.prototype.slice.call(body.rows).map(function (row, index) {
        return { row: row, key: key(row, column), index: index };
      }).sort(function (a, b) {
        if (a.key === null || b.key === null) {  // what was not measured comes last either way
          return (a.key === null) - (b.key === null) || a.index - b.index;
        }
        var order = a.key < b.key ? -1 : (a.key > b.key ? 1 : 0);
        return (up ? order : -order) || a.index - b.index;
      }).forEach(function (item) { body.appendChild(item.row); });
    }

    heads.forEach(function (head, column) {
      head.querySelector('button').addEventListener('click', function () { sort(column); });
    });
  }

  document.querySelectorAll('table.sortable').forEach(sortable);
}());
